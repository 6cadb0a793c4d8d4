"""The language of requirements: what it means, and that nothing in it is ever run."""

import math

import pytest

from brinell.core.component import parse
from brinell.core.errors import SpecError
from brinell.core.measurement import Bound
from brinell.engine.requirement import requirement

PGD = "pgd(steps=40, threat=ball(norm=inf, eps=8/255))"


def test_all_parts():
    wanted = requirement(f" low( accuracy[{PGD}, net='mine.py:build', layer=\"class 3\", bound=upper] ) >= 2/5 ")
    assert (wanted.name, wanted.end, wanted.operator, wanted.threshold) == ("accuracy", "low", ">=", 0.4)
    assert wanted.perturbation == parse(PGD) and wanted.threat is None
    assert (wanted.net, wanted.layer, wanted.bound) == ("mine.py:build", "class 3", Bound.UPPER)


@pytest.mark.parametrize(
    ("text", "compared"),
    [
        ("accuracy >= 0.9", "low"),
        ("accuracy > 0.9", "low"),
        ("ece <= 0.1", "high"),
        ("ece < 0.1", "high"),
        ("value(accuracy) >= 0.9", "value"),
        ("high(accuracy) >= 0.9", "high"),
        ("low(ece) <= 0.1", "low"),
    ],
)
def test_a_bare_reading_is_compared_by_the_end_that_is_harder_to_meet(text, compared):
    assert requirement(text).compared == compared


@pytest.mark.parametrize(
    ("operator", "met"),
    [(">=", (False, True, True)), (">", (False, False, True)), ("<=", (True, True, False)), ("<", (True, False, False))],
)
def test_operators_at_their_edge(operator, met):
    wanted = requirement(f"accuracy {operator} 0.5")
    assert tuple(wanted.met_by(number) for number in (math.nextafter(0.5, 0), 0.5, math.nextafter(0.5, 1))) == met


def test_specs_are_components():
    written = ("accuracy[pgd(threat=ball(eps=8/255))] > 0", "accuracy[pgd( threat=ball(norm=inf,eps=8/255) )] > 0", "accuracy[pgd] > 0")
    assert len({requirement(text).perturbation for text in written}) == 1
    assert requirement("robust_accuracy[ball(norm=2, eps=0.5)] >= 0").threat == parse("ball(eps=0.5, norm=2)")
    assert requirement("accuracy[net=a] >= -1").net == "a" and requirement("accuracy[net=a] >= -1").threshold == -1
    assert requirement("robust_accuracy[layer=ball(eps=0.1)] >= 0").layer == "ball(eps=0.1)"
    assert requirement("accuracy[\nfgsm,\nnet='a]b']\n>= 0").net == "a]b"


@pytest.mark.parametrize(
    "text",
    [
        "", "accuracy", "accuracy >=", ">= 0.5", "accuracy == 0.5", "accuracy = 0.5", "0.5 <= accuracy", "0.1 <= accuracy <= 0.5",
        "accuracy >= x", "accuracy >= True", "accuracy >= 1e999", "accuracy >= 1/0", "accuracy >= nan", "accuracy >= 40%",
        "accuracy[fgsm >= 0.4", "accuracy[fgsm]] >= 0.4", "accuracy[fgsm, clean] >= 0.4", "accuracy[fgsm][clean] >= 0.4",
        "accuracy[fgsm, color=a] >= 0", "accuracy[net=a, net=b] >= 0", "accuracy[bound=sideways] >= 0", "accuracy[net=3] >= 0",
        "accuracy[misclassify] >= 0", "accuracy[fgms] >= 0", "accuracy[fgsm(step=3)] >= 0", "accuracy[**x] >= 0", "low(low(accuracy)) >= 0",
        "min(accuracy, ece) >= 0", "low(accuracy, ece) >= 0", "accuracy >= 0 and ece <= 1", "accuracy; ece >= 0", "a.b >= 0", "'x' >= 0",
        "__import__('os').system('false') >= 0", "accuracy[__import__('os')] >= 0", "accuracy[lambda: 0] >= 0", "(x := accuracy) >= 0",
        "[accuracy for accuracy in ()] >= 0", "accuracy[" * 3000, "(" * 5000, "accuracy\0 >= 0", "'''",
    ],
)  # fmt: skip
def test_what_is_no_requirement_is_refused_in_words(text):
    with pytest.raises(SpecError) as caught:
        requirement(text)
    assert len(str(caught.value)) > 20


def test_the_message_shows_the_form():
    with pytest.raises(SpecError, match=r"cannot read the requirement 'accuracy\[a b\] >= 0': .*looks like \"low\(accuracy\["):
        requirement("accuracy[a b] >= 0")
    with pytest.raises(SpecError, match="a requirement is a text, not float"):
        requirement(0.4)  # pyright: ignore[reportArgumentType]
