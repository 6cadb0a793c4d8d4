"""A time limit becomes a budget of passes when a run is planned, and stays what it was when the run goes on."""

import pytest

import brinell as br
from brinell.core.errors import SpecError

ATTACKS = ["strongest(threat=ball(eps=0.1))", "strongest(passes=200, threat=ball(eps=0.2))", "fgsm(threat=ball(eps=0.1))"]


def passes(plan):
    return [p.passes for p in plan.perturbations if p.name == "strongest"]


def test_more_time_is_more_passes(data, make_net):
    lab = br.Lab()
    short, long = (lab.plan(make_net(), data, ATTACKS, minutes=minutes) for minutes in (1e-9, 1e9))
    assert passes(short) == [50, 50] and passes(long) == [3000, 200]
    assert [p.name for p in short.perturbations] == [p.name for p in lab.plan(make_net(), data, ATTACKS).perturbations]
    assert passes(lab.plan(make_net(), data, ATTACKS)) == [3000, 200]


def test_a_run_that_goes_on_keeps_its_budgets(data, make_net, tmp_path, monkeypatch):
    first = br.Lab(tmp_path).plan(make_net(), data, ATTACKS, minutes=1e-9)
    table = br.Lab(tmp_path).run(first)
    monkeypatch.setattr("brinell.engine.expectation._passes", lambda net, x: (0.0, 1e-12))
    again = br.Lab(tmp_path).plan(make_net(), data, ATTACKS, minutes=1e-9)
    assert passes(again) == passes(first) and again.to_json()["minutes"] == 1e-9
    assert len(br.Lab(tmp_path).run(again)) == len(table)
    partial = table.select(name="proposed")
    assert all("partial" in row["reason"] for row in partial)


@pytest.mark.parametrize("minutes", [0, -1, float("inf"), float("nan")])
def test_times_that_are_none(data, make_net, minutes):
    with pytest.raises(SpecError, match="positive"):
        br.Lab().plan(make_net(), data, ATTACKS, minutes=minutes)
