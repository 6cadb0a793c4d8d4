"""Judging claims: planted effects hold, planted opposites fail, too little evidence stays open."""

import json

import numpy as np
import pytest
from scipy import stats

from brinell.core.component import get, items, parse
from brinell.core.errors import SpecError
from brinell.core.probe import Probe
from brinell.core.study import Claim, Judgement, Outcome, Reference, Scale, Study, judge_correlation, judge_difference

CLAIM = Claim("gain", "It gains.")


def test_differences():
    assert judge_difference(CLAIM, [0.1, 0.2, 0.15], "points").judgement is Judgement.HOLDS
    assert judge_difference(CLAIM, [-0.1, -0.2, -0.15], "points").judgement is Judgement.FAILS
    assert judge_difference(CLAIM, [0.1, -0.2, 0.15], "points").judgement is Judgement.INCONCLUSIVE
    assert judge_difference(CLAIM, [0.1, 0.2, 0.15], "points", least=0.12).judgement is Judgement.INCONCLUSIVE
    found = judge_difference(CLAIM, [0.1, 0.2, 0.15, np.nan], "points")
    assert (found.n, found.effect) == (3, pytest.approx(0.15)) and 0.1 <= found.low < 0.15 < found.high <= 0.2 + 1e-9
    for few in ([], [0.3], [0.3, 0.31]):
        assert judge_difference(CLAIM, few, "points").judgement is Judgement.INCONCLUSIVE


def test_correlations():
    lot = np.random.default_rng(0)
    x = np.arange(7.0)
    rising = {seed: (x, x**3 + lot.normal(size=7)) for seed in range(4)}
    found = judge_correlation(CLAIM, rising, "rho")
    expected = np.mean([stats.spearmanr(a, b).statistic for a, b in rising.values()])
    assert found.judgement is Judgement.HOLDS and found.effect == pytest.approx(expected)
    assert judge_correlation(CLAIM, rising, "rho", sign=-1).judgement is Judgement.FAILS
    falling = judge_correlation(CLAIM, {k: (a, -b) for k, (a, b) in rising.items()}, "rho", sign=-1)
    assert (
        falling.judgement is Judgement.HOLDS
        and falling.effect == pytest.approx(-expected)
        and falling.low <= falling.effect <= falling.high
    )
    noise = {seed: (x, lot.normal(size=7)) for seed in range(4)}
    assert judge_correlation(CLAIM, noise, "rho").judgement is Judgement.INCONCLUSIVE
    flat = judge_correlation(CLAIM, {seed: (x, np.ones(7)) for seed in range(4)}, "rho")
    assert flat.judgement is Judgement.INCONCLUSIVE and flat.n == 0


def test_outcomes_become_json():
    verdict = judge_difference(CLAIM, [0.1, 0.2, 0.15], "points")
    outcome = Outcome("s", Scale.SMOKE, Reference("A", 2020, "T", "L"), (verdict,), [{"a": float("nan"), "b": 1.0}])
    plain = json.loads(json.dumps(outcome.to_json(), allow_nan=False))
    assert plain["rows"] == [{"a": None, "b": 1.0}] and plain["verdicts"][0]["judgement"] == "holds" and plain["scale"] == "smoke"
    assert outcome.verdict("gain") is verdict


def test_studies_have_names_of_their_own():
    study, probe = parse("class_selectivity(seeds=2)", Study), parse("class_selectivity", Probe)
    assert isinstance(study, Study) and isinstance(probe, Probe)
    assert parse(study.spec(), Study) == study
    assert get("class_selectivity") is type(probe) and get("class_selectivity", Study) is type(study)
    assert "class_selectivity" in items(Study) and "clean" not in items(Study)
    with pytest.raises(SpecError, match="no component is called 'absent'"):
        parse("absent", Study)
