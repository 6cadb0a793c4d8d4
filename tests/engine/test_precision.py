"""The arithmetic of attacks is chosen once, stands in plan.json, and is kept by a run that goes on."""

import json

import pytest
import torch

import brinell as br
from brinell.core import precision
from brinell.core.errors import StoreError

ATTACK = "pgd(steps=8, threat=ball(eps=0.1))"


def plan_of(place):
    return json.loads((place / "plan.json").read_text())


def test_the_choice_stands_in_the_plan_and_is_kept(data, make_net, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "drafts", lambda net, x: True)
    monkeypatch.setattr(precision, "decide", lambda net, choice: kept.append(choice))
    kept: list[bool] = []
    br.Lab(tmp_path / "a").measure(make_net(), data, [ATTACK])
    assert plan_of(tmp_path / "a")["drafts"] == {"net": True} and kept == [True]
    monkeypatch.setattr(precision, "drafts", lambda net, x: False)  # a slower moment: the run goes on as it began
    br.Lab(tmp_path / "a").measure(make_net(), data, [ATTACK])
    assert kept == [True, True]
    br.Lab(tmp_path / "b").measure(make_net(), data, [ATTACK])
    assert plan_of(tmp_path / "b")["drafts"] == {"net": False}


def test_exact_runs_never_draft(data, make_net, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "drafts", lambda net, x: True)
    br.Lab(tmp_path / "a", exact=True).measure(make_net(), data, [ATTACK])
    assert plan_of(tmp_path / "a")["drafts"] == {"net": False}
    br.Lab(tmp_path / "b").measure(make_net(), data, [ATTACK])
    with pytest.raises(StoreError, match="another --out"):
        br.Lab(tmp_path / "b", exact=True).measure(make_net(), data, [ATTACK])


def test_runs_without_such_attacks_time_nothing(data, make_net, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "drafts", lambda net, x: pytest.fail("a pass was timed"))
    br.Lab(tmp_path / "a").measure(make_net(), data, ["contrast(severity=1)", ATTACK.replace("steps=8", "exact=True, steps=8")])
    assert plan_of(tmp_path / "a")["drafts"] == {"net": False}


@pytest.mark.slow
def test_both_arithmetics_agree_on_robust_accuracy():
    """Within half a point, on a network large enough to be drafted on."""
    data = br.load_dataset("digits(side=32)", limit=60)
    net = br.load_network("resnet20", shape=data.shape, classes=10)
    with torch.no_grad():
        data = br.Dataset.from_arrays(data.x(), net.frozen_copy()(data.x()).argmax(1), classes=10)
    found = {}
    for low in (False, True):
        frozen = net.frozen_copy()
        precision.decide(frozen, low)
        z = br.parse(ATTACK.replace("0.1", "0.02"))(frozen, data.x(), data.labels(), draws=br.derive(0, ids=data.ids))
        with torch.no_grad():
            found[low] = float((frozen(z).argmax(1) == data.labels()).float().mean())
    assert abs(found[True] - found[False]) <= 0.02
