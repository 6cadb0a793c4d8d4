"""Every registered item meets the laws of its kind."""

import math

import pytest

from brinell import laws
from brinell.core.component import Component, items
from brinell.core.perturbation import Corruption

OWN = {name: cls for name, cls in items().items() if cls.__module__.startswith("brinell.")}

NO_SPECIMENS = {  # the required field that no general value can be given for, and where the item is tried instead
    "path": "reads files; its tests in tests/data write some",
    "label": "names a network of a lab; tests/core/test_network.py",
    "module": "names a part of a network; tests/perturb/test_backward_as.py",
    "source": "names another network; tests/perturb/test_transfer.py",
    "attack": "a probe of one attack; tests/probe/test_binarisation.py and test_escalation.py",
    "net": "wraps another architecture; tests/models/test_normalize.py",
}


def cases():
    for cls in OWN.values():
        for item in laws.specimens(cls):
            severity = getattr(item, "severity", None) if isinstance(item, Corruption) else None
            for law in laws.laws_of(item):
                if law is laws.ladder_grows and severity not in (None, 1):
                    continue  # it looks at all severities whichever it is asked about
                dear = item.name in COSTLY or (item.name in DEAR and item.threat.norm != math.inf)
                marks = [pytest.mark.slow] if severity in (2, 3, 4) or (law, item.name) in SLOW or dear else []
                yield pytest.param(law, item, id=f"{law.__name__}-{item.spec()}", marks=marks)


COSTLY = {"carlini_wagner", "ead", "fab", "hop_skip_jump", "spsa"}  # attacks of many hundred passes
DEAR = {"apgd", "autoattack", "fmn", "square", "strongest"}  # among the fast tests in one norm only
SLOW = {(laws.builds, "resnet18"), (laws.builds, "resnet56"), (laws.builds, "resnet44"), (laws.hardening_keeps_its_argument, "adversarial")}


@pytest.mark.parametrize(("law", "item"), list(cases()))
def test_the_law_holds(law, item):
    law(item)


@pytest.mark.parametrize("name", OWN)
def test_every_item_has_specimens_or_a_reason(name):
    required = {field for field, info in OWN[name].model_fields.items() if info.is_required()}
    assert laws.specimens(OWN[name]) or required & set(NO_SPECIMENS), f"{name} cannot be tried: give its fields {required} defaults"
    assert not (laws.specimens(OWN[name]) and required)


def test_every_is_all_specimens():
    found = [item for item in laws.every() if type(item).__module__.startswith("brinell.")]
    assert found == [item for cls in OWN.values() for item in laws.specimens(cls)]
    assert {item.name for item in found} >= {"ball", "pgd", "fgsm", "accuracy", "digits", "resnet20", "clean", "fit", "target", "bound"}
    assert len({item.spec(full=True) for item in found}) == len(found)


def test_specimens_cover_norms_severities_and_defaults():
    assert [item.threat.norm for item in laws.specimens(OWN["pgd"])] == [1, 2, float("inf")]
    assert [item.severity for item in laws.specimens(OWN["contrast"])] == [1, 2, 3, 4, 5]

    class Own(OWN["ball"], name="laws_own_ball"):
        """A third party's ball is tried itself."""

    assert {type(ball) for ball in laws.specimens(Own)} == {Own} and len(laws.specimens(OWN["ball"])) == 5
    assert laws.specimens(OWN["accuracy"]) == [OWN["accuracy"]()]
    assert laws.specimens(OWN["npz"]) == []


@pytest.mark.parametrize("item", ["ball", "fgsm", "accuracy", "digits", "mlp", "fit", "misclassify"])
def test_every_kind_has_its_laws(item):
    names = {law.__name__ for law in laws.laws_of(laws.specimens(OWN[item])[0])}
    telling = {
        "ball": "projection", "fgsm": "flips_where_it_must", "accuracy": "tally_is_a_monoid", "digits": "samples_are_stable",
        "mlp": "builds", "fit": "hardening_keeps_its_argument", "misclassify": "text_round_trip",
    }  # fmt: skip
    assert {"text_round_trip", telling[item]} <= names
    assert all(outcome.holds and outcome.detail == "" for outcome in laws.check(laws.specimens(OWN[item])[0]))


def test_components_are_what_laws_are_about():
    assert all(issubclass(cls, Component) for cls in OWN.values()) and len(OWN) > 30
