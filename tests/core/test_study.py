"""Judging claims: planted effects hold, planted opposites fail, too little evidence stays open."""

import json

import numpy as np
import pytest
from scipy import stats

from brinell.core.component import get, items, parse
from brinell.core.errors import SpecError, UndefinedReading
from brinell.core.probe import Probe
from brinell.core.study import (
    Claim,
    Judgement,
    Outcome,
    Reference,
    Scale,
    Study,
    judge_all,
    judge_correlation,
    judge_difference,
    judge_prediction,
    judge_range,
    log_slope,
)

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


def test_ranges():
    def found(value, low, high, **ends):
        return judge_range(CLAIM, value, low, high, "rate", **ends).judgement

    assert found(0.5, 0.4, 0.6, least=0.4, most=0.6) is Judgement.HOLDS
    assert found(0.5, 0.39, 0.6, least=0.4) is Judgement.INCONCLUSIVE
    assert found(0.3, 0.2, 0.39, least=0.4) is Judgement.FAILS and found(0.7, 0.61, 0.8, most=0.6) is Judgement.FAILS
    assert found(None, 0.2, 0.4) is Judgement.INCONCLUSIVE and found(0.3, np.nan, 0.4) is Judgement.INCONCLUSIVE
    nothing = judge_range(CLAIM, np.nan, np.nan, np.inf, "rate")
    assert (nothing.effect, nothing.low, nothing.high) == (None, None, None)


def test_predictions():
    def found(predicted, **given):
        return judge_prediction(CLAIM, 0.5, 0.4, 0.6, predicted, "rate", **given).judgement

    assert found(0.6) is Judgement.HOLDS and found(0.61) is Judgement.FAILS and found(0.61, tolerance=0.02) is Judgement.HOLDS
    assert found(0.5, resolution=0.05) is Judgement.INCONCLUSIVE and found(np.inf) is Judgement.INCONCLUSIVE
    assert found(0.9, resolution=0.05) is Judgement.INCONCLUSIVE


def test_one_statement_about_several_cells():
    good = judge_range(CLAIM, 0.9, 0.8, 0.95, "rate", least=0.5, n=10)
    bad = judge_range(CLAIM, 0.3, 0.2, 0.4, "rate", least=0.5, n=5, why="low")
    open_ = judge_range(CLAIM, 0.5, 0.2, 0.7, "rate", least=0.5, n=1)
    assert judge_all(CLAIM, {}).judgement is Judgement.INCONCLUSIVE
    assert judge_all(CLAIM, {"a": good, "b": good}).judgement is Judgement.HOLDS
    assert judge_all(CLAIM, {"a": good, "b": open_}).judgement is Judgement.INCONCLUSIVE
    found = judge_all(CLAIM, {"a": good, "b": open_, "c": bad})
    assert (found.judgement, found.effect, found.n) == (Judgement.FAILS, 0.3, 16) and found.why.startswith("c (") and "low" in found.why


def test_log_slope():
    lot = np.random.default_rng(1)
    noisy = {x: x**-0.5 * np.exp(0.3 * lot.normal(size=400)) for x in (16.0, 64.0, 256.0)}
    found = log_slope(noisy)
    direct = stats.linregress(np.log(list(noisy)), np.log([np.median(y) for y in noisy.values()])).slope
    assert found.value == pytest.approx(direct) and abs(found.value + 0.5) < 4 * found.error and found.low < found.value < found.high
    # the median of 400 log-normal values has a standard error of 1.2533 * 0.3 / 20 in its logarithm
    x = np.log(list(noisy))
    assert found.error == pytest.approx(1.2533 * 0.3 / 20 / np.sqrt(np.square(x - x.mean()).sum()), rel=0.25)
    assert log_slope(noisy).low == found.low
    means = log_slope({1: [1.0, 3.0], 10: [20.0, 20.0]}, statistic=np.mean)
    assert means.value == pytest.approx(1.0)
    for poor in (
        {},
        {1.0: [1.0, 2.0]},
        {1.0: [1.0], 2.0: [1.0, 2.0]},
        {0.0: [1.0, 2.0], 1.0: [1.0, 2.0]},
        {1.0: [0.0, 0.0], 2.0: [1.0, 2.0]},
    ):
        with pytest.raises(UndefinedReading):
            log_slope(poor)
