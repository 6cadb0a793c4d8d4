"""Flipping distances: medians, order-statistic intervals, and the curve from one run."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import brinell as br
from brinell.core.component import parse
from brinell.core.errors import SpecError
from brinell.core.measurement import Bound, Status
from brinell.models.reference import exact_margin, linear_network
from brinell.summary.flipping_distance import FlippingDistance, quantile_interval

RNG = np.random.default_rng(0)


def read(table, **fields):
    return {(item.name, item.layer): item for _, item in FlippingDistance(**fields)(table)}


def cells(distances, *, correct=None):
    """A clean cell, all right, and the points of two attacks."""
    n = len(distances[0])
    found = {"clean": {"correct": [True] * n}}
    for attack, far in zip(("fmn", "fab"), distances, strict=False):
        found[attack] = {"correct": [math.isinf(d) for d in far], "l2": [0.0 if math.isinf(d) else d for d in far], "linf": [0.01] * n}
    if correct is not None:
        found["clean"]["correct"] = correct
    return found


def test_the_nearest_wrong_point_of_all_counts(make_table):
    table = make_table(cells([[1.0, 3.0, math.inf, 2.0, 5.0], [2.0, 2.5, 4.0, math.inf, 9.0]], correct=[True, True, True, True, False]))
    found = read(table)
    assert found["flipping_distance", "L2"].array.tolist() == [1.0, 2.5, 4.0, 2.0, 0.0]
    assert found["flipping_distance", "L2"].value == 2.0
    assert {layer for _, layer in found if layer.startswith("L2 eps")} and not any(layer.startswith("Linf") for _, layer in found)
    assert all(item.bound is Bound.UPPER for item in found.values())


def test_quantiles_and_curve_are_those_of_numpy(make_table):
    far = RNG.exponential(size=101)
    found = read(make_table(cells([far])), quantiles=(0.1, 0.9), eps=(0.5, 1.0))
    ordered = np.sort(far)
    assert found["flipping_distance", "L2"].value == np.median(far) == ordered[50]
    assert (
        found["flipping_distance_quantile", "L2 10%"].value == ordered[10]
        and found["flipping_distance_quantile", "L2 90%"].value == ordered[90]
    )
    for eps in (0.5, 1.0):
        assert found["flipping_accuracy", f"L2 eps={eps:g}"].value == pytest.approx((far > eps).mean())
    curve = [found["flipping_accuracy", f"L2 eps={eps:g}"].value for eps in (0.5, 1.0)]
    assert curve == sorted(curve, reverse=True)


@pytest.mark.parametrize(("n", "share"), [(20, 0.5), (50, 0.25), (200, 0.9)])
def test_the_interval_has_the_coverage_it_claims(n, share):
    """Of many samples of known distribution, at least 95 % of the intervals hold the true quantile, and not nearly all."""
    true = stats.expon.ppf(share)
    hits = [low <= true <= high for _, low, high in (quantile_interval(RNG.exponential(size=n), share, 0.95) for _ in range(1500))]
    assert 0.945 <= np.mean(hits) <= 0.99


def test_the_ranks_are_those_of_the_binomial():
    values = np.arange(1.0, 101.0)
    value, low, high = quantile_interval(values, 0.5, 0.95)
    assert (value, low, high) == (50, 40, 61)  # the classical table for n = 100
    below = stats.binom.cdf([39, 60], 100, 0.5)
    assert below[1] - below[0] >= 0.95
    assert quantile_interval(values[:5], 0.5, 0.95) == (3.0, 0.0, math.inf)  # five samples bound nothing at 95 %


def test_what_is_not_found_has_no_answer(make_table):
    found = read(make_table(cells([[1.0, math.inf, math.inf, math.inf]])), quantiles=(0.25,))
    median = found["flipping_distance", "L2"]
    assert median.status is Status.UNDEFINED and "75.0% of the samples" in median.reason
    assert found["flipping_distance_quantile", "L2 25%"].value == 1.0
    assert found["flipping_accuracy", "L2 eps=1"].value == 0.75 or found["flipping_accuracy", "L2 eps=1"].value == pytest.approx(0.75)
    assert (
        read(make_table({"clean": "failed", "fmn": "failed", "fab": {"correct": [True]}}))["flipping_distance", "L2"].status
        is Status.UNDEFINED
    )


@pytest.mark.parametrize("text", ["flipping_distance(norms=(3,))", "flipping_distance(quantiles=(1.5,))"])
def test_what_cannot_be_asked(text):
    with pytest.raises(SpecError):
        parse(text)


def test_one_run_gives_the_exact_curve_of_a_linear_network():
    """Every norm has its attack; the curve at any eps is the share of exact margins above it."""
    weight = torch.tensor(RNG.normal(size=(2, 16)), dtype=torch.float32)
    bias = -weight.sum(1) / 2  # the boundary runs through the middle of the samples
    net, x = linear_network(weight, bias), torch.tensor(RNG.uniform(0.45, 0.55, (60, 16)), dtype=torch.float32)
    with torch.no_grad():
        y = net(x).argmax(1)
    data = br.Dataset.from_arrays(x, y, classes=2)
    attacks = [f"fab(steps=10, threat=ball(norm={norm}, eps=inf))" for norm in ("2", "inf")]
    table = br.Lab(device="cpu").measure({"net": net}, data, attacks, summaries=["flipping_distance", "bound"])
    for norm, label in ((2, "L2"), (math.inf, "Linf")):
        exact = exact_margin(weight, bias, x, y, norm).numpy()
        assert exact.max() < 0.4  # the walls of [0, 1] do not count
        row = table.row("flipping_distance", perturbation="", layer=label)
        assert table.array(row) == pytest.approx(exact, rel=5e-3)
        assert row["low"] <= np.median(exact) <= row["high"]
    assert not table.select(name="robust_accuracy")  # a ball without end asks for no bound
