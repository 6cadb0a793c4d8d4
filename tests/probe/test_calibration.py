"""Calibration: closed forms, a numpy twin, and networks whose true calibration error is known."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from brinell.core.errors import SpecError
from brinell.core.measurement import Bound, Status
from brinell.probe.calibration import Calibration, calibration_error, equal_mass_bins, scores


def two_class_logits(p):
    """Logits whose softmax gives the first class probability p."""
    p = np.asarray(p, dtype=np.float64)
    return np.stack((np.log(p), np.log1p(-p)), 1)


def twin_ece(confidence, correct, bins):
    """Slow: walk through the sorted samples; close a bin at the ideal boundary, but never inside a run of equal values."""
    pairs = sorted(zip(confidence.tolist(), correct.tolist(), strict=True))
    n, total, current = len(pairs), 0.0, []
    cuts = {j * n // bins for j in range(1, bins)} - {0}
    pending = False
    for place, (c, k) in enumerate(pairs, start=1):
        current.append((c, k))
        pending = pending or place in cuts
        last = place == n
        if last or (pending and pairs[place][0] != c):
            total += abs(sum(a for a, _ in current) - sum(b for _, b in current)) / n
            current, pending = [], False
    return total


def test_scores_in_closed_form():
    logits, y = torch.tensor(two_class_logits([0.8, 0.8, 0.3])), torch.tensor([0, 1, 0])
    found = {name: value.numpy() for name, value in scores(logits, y).items()}
    assert found["confidence"] == pytest.approx([0.8, 0.8, 0.7])
    assert found["correct"].tolist() == [1, 0, 0]
    assert found["brier"] == pytest.approx([0.08, 1.28, 0.98])
    assert found["nll"] == pytest.approx([-math.log(0.8), -math.log(0.2), -math.log(0.3)])


def test_scores_equal_a_numpy_twin():
    lot = np.random.default_rng(0)
    logits, y = lot.normal(size=(50, 7)) * 4, lot.integers(0, 7, 50)
    found = scores(torch.tensor(logits), torch.tensor(y))
    log_p = logits - np.asarray(logsumexp(logits, axis=1, keepdims=True))
    brier = [sum((math.exp(log_p[i, k]) - (k == y[i])) ** 2 for k in range(7)) for i in range(50)]
    assert found["nll"].numpy() == pytest.approx(-log_p[np.arange(50), y], rel=1e-12)
    assert found["brier"].numpy() == pytest.approx(brier, rel=1e-12)


def test_extreme_logits_stay_finite(make_view, find):
    view = make_view(torch.tensor([[3e38, -3e38], [-1e5, 0.0]], dtype=torch.float32), [1, 0])
    assert find(Calibration(), view, "nll").value == pytest.approx((6e38 + 1e5) / 2, rel=1e-6)
    assert find(Calibration(), view, "brier").value == 2.0
    assert find(Calibration(), view, "overconfidence").value == 1.0


def test_a_true_class_of_probability_zero_has_no_log_loss(make_view, find):
    view = make_view([[0.0, -math.inf], [0.0, -math.inf]], [0, 1], ids=[8, 9])
    nll = find(Calibration(), view, "nll")
    assert nll.status is Status.UNDEFINED and "id 9" in nll.reason
    assert find(Calibration(), view, "brier").value == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_answer_has_no_calibration(make_view, measure, bad):
    readings = measure(Calibration(), make_view([[bad, 0.0], [0.0, 1.0]], [0, 1], ids=[3, 4]))
    assert [reading.name for reading in readings] == ["ece", "brier", "nll", "overconfidence"]
    assert all(reading.status is Status.UNDEFINED and "id 3" in reading.reason for reading in readings)


def test_a_constant_confidence_is_one_bin(make_view, find):
    view = make_view(two_class_logits([0.9] * 10), [0] * 6 + [1] * 4)
    ece = find(Calibration(), view, "ece")
    assert ece.value == pytest.approx(0.3) and ece.bound is Bound.ESTIMATE
    assert ece.array == pytest.approx(np.array([[0.9, 0.6, 1.0]])) and ece.axis == "bin"
    assert find(Calibration(), view, "overconfidence").value == pytest.approx(0.3)


def test_a_perfect_network_has_no_error(make_view, measure):
    readings = {r.name: r for r in measure(Calibration(), make_view([[1e4, 0.0], [0.0, 1e4]] * 5, [0, 1] * 5))}
    assert [readings[name].value for name in ("ece", "brier", "nll", "overconfidence")] == [0, 0, 0, 0]


@pytest.mark.parametrize("n, bins", [(1, 15), (4, 15), (15, 15), (16, 15), (100, 7), (101, 1), (60, 60)])
def test_bins_have_equal_mass(n, bins):
    confidence = np.random.default_rng(n).random(n)
    which = equal_mass_bins(confidence, bins)
    sizes = np.bincount(which)
    assert len(sizes) == min(n, bins) and sizes.max() - sizes.min() <= 1
    assert np.all(np.diff(which[np.argsort(confidence)]) >= 0)


@pytest.mark.parametrize("seed", range(8))
def test_the_error_equals_a_slow_twin_with_and_without_ties(seed):
    lot = np.random.default_rng(seed)
    confidence = lot.random(83) if seed % 2 else lot.choice([0.5, 0.6, 0.61, 0.9, 1.0], 83)
    correct = (lot.random(83) < 0.6).astype(float)
    bins = int(lot.integers(1, 30))
    error, curve = calibration_error(confidence, correct, bins)
    assert error == pytest.approx(twin_ece(confidence, correct, bins), abs=1e-12)
    assert curve[:, 2].sum() == pytest.approx(1) and curve[:, 0] @ curve[:, 2] == pytest.approx(confidence.mean())
    assert curve[:, 1] @ curve[:, 2] == pytest.approx(correct.mean())


def test_ties_do_not_depend_on_the_order_of_samples():
    confidence, correct = np.array([0.7] * 50 + [0.9] * 50), np.array([1] * 20 + [0] * 30 + [1] * 45 + [0] * 5)
    shuffle = np.random.default_rng(0).permutation(100)
    expected = 0.5 * 0.3 + 0.5 * 0.0
    for order in (np.arange(100), np.arange(100)[::-1], shuffle):
        assert calibration_error(confidence[order], correct[order], 15)[0] == pytest.approx(expected)


def test_a_calibrated_network_shows_the_documented_bias():
    lot = np.random.default_rng(0)
    n, bins, a = 1000, 15, 0.9
    found = []
    for _ in range(400):
        confidence = a + 1e-6 * lot.random(n)
        found.append(calibration_error(confidence, lot.random(n) < a, bins)[0])
    assert np.mean(found) == pytest.approx(math.sqrt(2 * bins * a * (1 - a) / (math.pi * n)), rel=0.04)


def test_one_sample_has_values_and_no_interval(make_view, measure):
    readings = {r.name: r for r in measure(Calibration(), make_view(two_class_logits([0.8]), [0]))}
    assert readings["ece"].value == pytest.approx(0.2) and readings["brier"].value == pytest.approx(0.08)
    assert all(r.low is r.high is r.confidence is None for r in readings.values())


def test_one_cluster_has_values_and_no_interval(make_view, measure):
    view = make_view(two_class_logits([0.8, 0.7, 0.6]), [0, 1, 0], cluster=["a"] * 3)
    assert all(r.value is not None and r.low is None for r in measure(Calibration(), view))


def test_the_interval_of_a_calibrated_network_reaches_zero(make_view, find):
    lot = np.random.default_rng(4)
    p = lot.uniform(0.55, 0.99, 800)
    ece = find(Calibration(), make_view(two_class_logits(p), (lot.random(800) >= p).astype(np.int64)), "ece")
    assert ece.low == 0.0 < ece.value < ece.high < 0.1


def test_clusters_widen_every_interval(make_view, measure):
    lot = np.random.default_rng(1)
    p, y = np.repeat(lot.uniform(0.55, 0.99, 60), 9), np.repeat(lot.integers(0, 2, 60), 9)
    plain = measure(Calibration(bins=3), make_view(two_class_logits(p), y))
    clustered = measure(Calibration(bins=3), make_view(two_class_logits(p), y, cluster=np.repeat(np.arange(60), 9)))
    for narrow, wide in zip(plain, clustered, strict=True):
        assert wide.value == narrow.value and wide.low <= wide.value <= wide.high
        if narrow.name != "ece":
            assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(3, rel=0.15)
        else:
            assert wide.high - wide.value > 2 * (narrow.high - narrow.value)


@pytest.mark.slow
@pytest.mark.parametrize("gap", [0.0, 0.03, 0.15])
@pytest.mark.parametrize("n", [150, 2000])
def test_the_interval_of_the_error_covers_the_true_one(make_view, find, gap, n):
    """Ten levels of confidence p, at each of which the network is right with probability p - gap: the true error is gap."""
    lot = np.random.default_rng(int(1000 * gap) + n)
    levels = np.linspace(0.55, 0.95, 10)
    covered = 0
    for _ in range(200):
        p = lot.choice(levels, n)
        y = (lot.random(n) >= p - gap).astype(np.int64)
        reading = find(Calibration(bins=30), make_view(two_class_logits(p), y), "ece")
        assert len(reading.array) <= 10 and reading.low <= reading.value <= reading.high
        covered += reading.low <= gap <= reading.high
    assert covered >= 0.93 * 200


def test_the_interval_of_the_error_equals_the_bootstrap_of_single_samples(make_view, find):
    """Clusters of one sample each are independent samples: the normal limit and the bootstrap must agree."""
    lot = np.random.default_rng(5)
    p = lot.uniform(0.55, 0.99, 900)
    y = (lot.random(900) > p - 0.05).astype(np.int64)
    ece = find(Calibration(), make_view(two_class_logits(p), y), "ece")
    resampled = find(Calibration(), make_view(two_class_logits(p), y, cluster=np.arange(900)), "ece")
    assert resampled.high - resampled.value == pytest.approx(ece.high - ece.value, rel=0.05)


@pytest.mark.parametrize("fields", [{"bins": 0}, {"confidence": 1.0}, {"bins": 2.5}])
def test_impossible_fields_are_refused(fields):
    with pytest.raises(SpecError, match=next(iter(fields))):
        Calibration(**fields)
