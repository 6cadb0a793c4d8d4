"""Calibration finds what is broken: an item, an entry point that cannot be imported, and a device that computes wrongly."""

import pytest
import torch

import brinell.laws.calibration as module
from brinell.core.errors import SpecError
from brinell.laws.calibration import calibrate
from brinell.laws.known import KNOWN, device_agrees, linear_margin, one_hot_selectivity, rank_of_features
from brinell.laws.law import Broken


@pytest.mark.parametrize("answer", KNOWN, ids=lambda answer: answer.__name__)
def test_the_known_answers_are_found(answer):
    answer("cpu")


@pytest.mark.parametrize(
    ("answer", "place", "wrong"),
    [
        (linear_margin, "brinell.laws.known.exact_margin", lambda w, b, x, y, norm: torch.linspace(1, 9, len(x))),
        (one_hot_selectivity, "brinell.laws.known.one_hot_samples", lambda y, shape: torch.full((len(y), *shape), 0.9)),
        (rank_of_features, "brinell.laws.known.RankFeatures.build", lambda self, shape, classes: torch.nn.Sequential(torch.nn.ReLU())),
    ],
)
def test_a_wrong_answer_is_seen(monkeypatch, answer, place, wrong):
    monkeypatch.setattr(place, wrong)
    with pytest.raises((Broken, AssertionError)):
        answer("cpu")


def test_a_device_with_other_noise_is_seen(monkeypatch):
    from brinell.perturb.noise import UniformNoise

    calls = []
    plain = UniformNoise.__call__

    def drifting(self, net, x, y, *, draws):
        calls.append(1)
        return plain(self, net, x, y, draws=draws) if len(calls) == 1 else x.clone()

    monkeypatch.setattr(UniformNoise, "__call__", drifting)
    with pytest.raises(Broken, match="noise differs"):
        device_agrees("cpu")


def test_items_that_cannot_be_imported_fail_and_others_are_tried(monkeypatch):
    def get(name):
        if name == "theirs":
            raise SpecError("component 'theirs' was announced in theirs:X, which cannot be imported: no module")
        return real(name)

    real = module.get
    monkeypatch.setattr(module, "get", get)
    monkeypatch.setattr(module, "index", lambda: {"theirs": ("theirs", "X"), "misclassify": ("", "")})
    monkeypatch.setattr(module, "KNOWN", ())
    said = []
    calibration, outcomes = calibrate("cpu", say=lambda name, found: said.append((name, len(found))))
    assert calibration.failed == ("imports: theirs",) and "no module" in outcomes[0].detail
    assert said == [("theirs", 1), ("misclassify", 1)] and calibration.passed == 1


@pytest.mark.slow
def test_everything_holds():
    calibration, outcomes = calibrate("cpu")
    assert not calibration.failed, [outcome for outcome in outcomes if not outcome.holds]
    assert calibration.passed > 200


def test_one_specimen_of_an_item_is_tried_or_every(monkeypatch):
    monkeypatch.setattr(module, "index", lambda: {"ball": ("", "")})
    monkeypatch.setattr(module, "KNOWN", ())
    few, every = ({outcome.spec for outcome in calibrate("cpu", every=every)[1]} for every in (False, True))
    assert len(few) == 1 and len(every) == 5 and few < every
