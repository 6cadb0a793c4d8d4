"""Intervals: against scipy, against exactly summed coverage, and against known variances."""

import math

import numpy as np
import pytest
from scipy import stats

from brinell.core.confidence import (
    bonferroni,
    bootstrap_totals,
    clopper_pearson,
    cluster_bootstrap,
    mcnemar,
    mean_interval,
    proportion,
    simultaneous,
    wilson,
)
from brinell.core.errors import UndefinedReading

CASES = [(0, 1), (1, 1), (0, 20), (20, 20), (3, 20), (19, 20), (500, 1000), (999, 1000), (31415, 50_000)]


@pytest.mark.parametrize("method, ours", [("exact", clopper_pearson), ("wilson", wilson)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("k, n", CASES)
def test_proportion_intervals_equal_scipy(method, ours, confidence, k, n):
    theirs = stats.binomtest(k, n).proportion_ci(confidence, method=method)
    low, high = ours(k, n, confidence)
    assert low == pytest.approx(theirs.low, rel=1e-8, abs=1e-12)
    assert high == pytest.approx(theirs.high, rel=1e-8, abs=1e-12)
    assert isinstance(low, float) and isinstance(high, float)


@pytest.mark.parametrize("ours", [clopper_pearson, wilson])
def test_arrays_agree_with_scalars_and_broadcast(ours):
    k, n = np.arange(21), 20
    low, high = ours(k, n)
    assert low.shape == high.shape == (21,)
    assert [(a, b) for a, b in zip(low, high, strict=True)] == [ours(int(i), n) for i in k]
    assert low[0] == 0.0 and high[-1] == 1.0
    assert np.all(np.diff(low) > 0) and np.all(np.diff(high) > 0)
    assert np.allclose(low, 1 - high[::-1], atol=1e-12)


@pytest.mark.parametrize("ours", [clopper_pearson, wilson])
def test_no_trials_say_nothing(ours):
    assert ours(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("method, ours", [("exact", clopper_pearson), ("wilson", wilson)])
@pytest.mark.parametrize("side, alternative", [("low", "greater"), ("high", "less")])
@pytest.mark.parametrize("k, n", [(0, 5), (5, 5), (7, 30)])
def test_one_sided_intervals_equal_scipy(method, ours, side, alternative, k, n):
    theirs = stats.binomtest(k, n, alternative=alternative).proportion_ci(0.95, method=method)
    assert ours(k, n, 0.95, side) == pytest.approx((theirs.low, theirs.high), abs=1e-10)


def coverage(ours, n: int, p: float, confidence: float) -> float:
    k = np.arange(n + 1)
    low, high = ours(k, n, confidence)
    return float(stats.binom.pmf(k, n, p)[(low <= p) & (p <= high)].sum())


@pytest.mark.parametrize("n", [1, 2, 5, 20, 100])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_clopper_pearson_covers_every_p_exactly(n, confidence):
    assert min(coverage(clopper_pearson, n, p, confidence) for p in np.linspace(0, 1, 203)) >= confidence - 1e-12


def test_wilson_covers_on_average_and_is_shorter():
    covered = [coverage(wilson, 50, p, 0.95) for p in np.linspace(0.01, 0.99, 197)]
    assert 0.945 < np.mean(covered) < 0.96 and min(covered) < 0.95
    exact, score = clopper_pearson(np.arange(51), 50), wilson(np.arange(51), 50)
    assert np.mean(exact[1] - exact[0]) > np.mean(score[1] - score[0])


@pytest.mark.parametrize("ours", [clopper_pearson, wilson])
@pytest.mark.parametrize(
    "arguments, fact",
    [
        ((11, 10), "11 successes of 10"),
        ((-1, 10), "-1 successes"),
        ((0.5, 10), "0.5 successes"),
        ((math.nan, 10), "nan successes"),
        (([1, 2], [5, 1]), "2 successes of 1"),
        ((1, 10, 1.0), "1.0"),
        ((1, 10, 0.0), "0.0"),
        ((1, 10, math.nan), "nan"),
        ((1, 10, 95), "95"),
        ((1, 10, 0.95, "upper"), "'upper'"),
    ],
)
def test_impossible_counts_are_refused(ours, arguments, fact):
    with pytest.raises(UndefinedReading, match=fact):
        ours(*arguments)


def test_bonferroni_splits_the_error():
    assert bonferroni(0.95, 1) == 0.95
    assert 1 - bonferroni(0.9, 25) == pytest.approx(0.004)
    with pytest.raises(UndefinedReading, match="0 comparisons"):
        bonferroni(0.95, 0)


def test_simultaneous_intervals_all_hold_at_once():
    n, p = np.array([10, 30, 0, 200]), np.array([0.9, 0.5, 0.3, 0.02])
    joint = 1.0
    for trials, truth in zip(n, p, strict=True):
        k = np.arange(trials + 1)
        low, high = clopper_pearson(k, int(trials), bonferroni(0.95, 3))  # the empty cell is no comparison
        joint *= stats.binom.pmf(k, trials, truth)[(low <= truth) & (truth <= high)].sum()
    assert joint >= 0.95
    low, high = simultaneous(np.array([9, 15, 0, 4]), n)
    assert (low[2], high[2]) == (0.0, 1.0)
    assert (low[0], high[0]) == clopper_pearson(9, 10, bonferroni(0.95, 3))
    assert low[1] < clopper_pearson(15, 30)[0]


def test_resampled_totals_have_the_moments_of_the_bootstrap():
    totals = np.stack([np.arange(50.0), np.ones(50)], 1)
    drawn = bootstrap_totals(totals, resamples=4000)
    assert drawn.shape == (4000, 2) and np.all(drawn[:, 1] == 50)
    assert drawn[:, 0].mean() == pytest.approx(totals[:, 0].sum(), rel=0.01)
    assert drawn[:, 0].std() == pytest.approx(math.sqrt(50) * totals[:, 0].std(), rel=0.05)


def test_resamples_do_not_depend_on_the_batch(monkeypatch):
    totals = np.random.default_rng(0).normal(size=(37, 2))
    whole = bootstrap_totals(totals, seed=3, resamples=100)
    monkeypatch.setattr("brinell.core.confidence._BATCH", 37 * 7)
    assert np.allclose(bootstrap_totals(totals, seed=3, resamples=100), whole, rtol=0, atol=1e-12)
    assert not np.allclose(bootstrap_totals(totals, seed=4, resamples=100), whole)


def test_cluster_bootstrap_of_singletons_is_the_normal_interval():
    values = np.random.default_rng(1).normal(size=400)
    low, high = cluster_bootstrap(values, np.arange(400))
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.06 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.06 * half)


def test_cluster_bootstrap_is_wider_by_the_design_effect():
    means = np.random.default_rng(2).normal(size=100)
    values, clusters = np.repeat(means, 16), np.repeat(np.arange(100), 16)  # full agreement inside: the effect is sqrt(16)
    clustered = cluster_bootstrap(values, clusters)
    independent = cluster_bootstrap(values, np.arange(1600), resamples=2000)
    ratio = (clustered[1] - clustered[0]) / (independent[1] - independent[0])
    assert ratio == pytest.approx(4, rel=0.1)


def test_clusters_keep_their_size_and_any_names():
    values, names = [1.0, 1, 1, 0], np.array(["large"] * 3 + ["small"])
    assert cluster_bootstrap(values, names) == (0.0, 1.0)
    assert cluster_bootstrap(values, names, 0.4) == (0.75, 0.75)  # one of each, in half of the resamples: 3 of 4, not 1 of 2
    rows = np.random.default_rng(0).normal(size=60)
    groups = np.arange(60) // 5
    shuffled = np.random.default_rng(1).permutation(60)
    assert cluster_bootstrap(rows[shuffled], groups[shuffled]) == pytest.approx(cluster_bootstrap(rows, groups), abs=1e-12)


def test_too_few_clusters_or_bad_values_are_refused():
    with pytest.raises(UndefinedReading, match="at least 2"):
        cluster_bootstrap([0.0, 1.0], ["a", "a"])
    with pytest.raises(UndefinedReading, match="finite"):
        cluster_bootstrap([0.0, math.nan], [0, 1])
    with pytest.raises(UndefinedReading, match="one cluster per value"):
        cluster_bootstrap([0.0, 1.0], [0, 1, 2])
    with pytest.raises(UndefinedReading, match="2"):
        cluster_bootstrap([0.0, 1.0], [0, 1], confidence=2)


def test_proportion_without_clusters_is_exact():
    assert proportion([1, 1, 0], 0.9) == clopper_pearson(2, 3, 0.9)
    assert proportion([]) == (0.0, 1.0)


def test_proportion_with_clusters_never_claims_more_than_it_knows():
    clusters = np.repeat(np.arange(10), 10)
    assert proportion(np.ones(100), clusters=clusters) == clopper_pearson(10, 10)
    assert proportion(np.zeros(100), clusters=clusters) == clopper_pearson(0, 10)
    assert proportion([1, 0, 1], clusters=np.zeros(3)) == (0.0, 1.0)
    flags = np.random.default_rng(0).random(100) < 0.5
    low, high = proportion(flags, clusters=clusters)
    exact = clopper_pearson(int(flags.sum()), 100)
    assert low <= exact[0] and exact[1] <= high


def test_mean_interval_equals_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=25)
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    assert mean_interval(values, 0.9) == pytest.approx((theirs.low, theirs.high), rel=1e-12)


def test_mean_interval_edges():
    assert mean_interval([0.0, 2.0], within=(0.0, 2.0)) == (0.0, 2.0)
    assert mean_interval([3.0] * 5) == (3.0, 3.0)
    values, clusters = [1.0, 2, 3, 4], np.array([0, 0, 1, 1])
    assert mean_interval(values, clusters=clusters) == cluster_bootstrap(values, clusters)
    for few in ([], [1.0]):
        with pytest.raises(UndefinedReading, match="at least 2"):
            mean_interval(few)
    with pytest.raises(UndefinedReading, match="finite"):
        mean_interval([1.0, math.inf])


def pairs(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[int], list[int]]:
    return [1] * (both + only_a) + [0] * (only_b + neither), [1] * both + [0] * only_a + [1] * only_b + [0] * neither


@pytest.mark.parametrize("only_a, only_b", [(0, 0), (1, 0), (0, 9), (12, 5), (7, 7), (300, 250)])
def test_mcnemar_equals_the_binomial_test(only_a, only_b):
    test = mcnemar(*pairs(40, only_a, only_b, 11))
    total = only_a + only_b
    expected = stats.binomtest(only_a, total, 0.5).pvalue if total else 1.0
    assert test.p_value == pytest.approx(expected, rel=1e-9)
    assert (test.only_a, test.only_b, test.n) == (only_a, only_b, 51 + total)
    assert test.difference == pytest.approx((only_a - only_b) / test.n)
    assert test.low <= test.difference <= test.high


def test_the_interval_of_the_difference_equals_a_published_example():
    """The documented example of `ci.prop.ps(.05, 12, 4, 26, 6)` in the R package statpsych (by the method's author)."""
    test = mcnemar(*pairs(6, 26, 4, 12))
    assert (test.low, test.high) == pytest.approx((0.2548067, 0.6251933), abs=5e-8)


def test_mcnemar_at_the_ends_and_swapped():
    test = mcnemar([1] * 5, [0] * 5)
    assert test.difference == test.high == 1.0 and test.low > 0
    swapped = mcnemar([0] * 5, [1] * 5)
    assert (swapped.low, swapped.high, swapped.p_value) == (-test.high, -test.low, test.p_value)


@pytest.mark.parametrize("a, b", [([], []), ([1, 0], [1]), ([1, 2], [0, 1]), ([0.5], [1]), ([[1]], [[1]])])
def test_mcnemar_refuses_what_is_no_pair_of_flags(a, b):
    with pytest.raises(UndefinedReading):
        mcnemar(a, b)


@pytest.mark.parametrize("n", [20, 60])
def test_the_interval_of_the_difference_covers(n):
    """Coverage summed over every possible table, for a grid of true shares (only a right, only b right)."""
    counts = [(i, j) for i in range(n + 1) for j in range(n + 1 - i)]
    found = {pair: mcnemar(*pairs(0, *pair, n - sum(pair))) for pair in counts}
    covered = []
    for p, q in [(0.02, 0.02), (0.05, 0.2), (0.1, 0.1), (0.1, 0.4), (0.3, 0.3), (0.0, 0.3), (0.45, 0.5)]:
        weights = stats.multinomial.pmf([(i, j, n - i - j) for i, j in counts], n, (p, q, 1 - p - q))
        inside = [found[pair].low <= p - q <= found[pair].high for pair in counts]
        covered.append(float(weights[inside].sum()))
    assert min(covered) > 0.92 and 0.94 < np.mean(covered) < 0.985
