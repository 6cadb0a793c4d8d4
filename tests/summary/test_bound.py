"""Bounds of R(T): small tables whose answer is seen at once, and a slow twin over random ones."""

import numpy as np
import pytest
from scipy.stats import binomtest

import brinell as br
from brinell.core.measurement import Bound, Finding, Status, Verdict
from brinell.core.threat import Ball
from brinell.summary.bound import RobustAccuracy

SMALL, LARGE = "fgsm(threat=ball(eps=0.1))", "fgsm(threat=ball(eps=0.2))"


def readings(table, bound, ball=None):
    found = [item[1] for item in RobustAccuracy()(table) if not isinstance(item, Finding)]
    return [reading for reading in found if reading.bound is bound and ball in (None, reading.layer)]


def findings(table):
    return [item for item in RobustAccuracy()(table) if isinstance(item, Finding)]


def test_the_minimum_is_taken_per_sample_and_over_everything_inside(make_table):
    table = make_table({
        "clean": {"correct": [1, 1, 1, 1, 0]},
        SMALL: {"correct": [0, 1, 1, 1, 1], "linf": [0.1] * 5},
        LARGE: {"correct": [1, 0, 1, 1, 1], "linf": [0.2, 0.2, 0.2, 0.05, 0.2]},
        "brightness": {"correct": [1, 1, 0, 0, 1], "linf": [0.15, 0.15, 0.15, 0.3, 0.15]},
    })  # fmt: skip
    small, large = readings(table, Bound.UPPER)
    assert (small.layer, large.layer) == (Ball(eps=0.1).spec(), Ball(eps=0.2).spec())
    assert small.array is not None and small.array.tolist() == [0, 1, 1, 1, 0] and small.value == 0.6
    assert large.array is not None and large.array.tolist() == [0, 0, 0, 1, 0] and large.value == 0.2
    assert (large.axis, large.n) == ("sample", 5)
    interval = binomtest(1, 5).proportion_ci(0.95, "exact")
    assert (large.low, large.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


@pytest.mark.parametrize("seed", range(5))
def test_the_upper_bound_equals_a_slow_twin(make_table, seed):
    lot = np.random.default_rng(seed)
    specs = ["clean", SMALL, LARGE, "pgd(threat=ball(norm=2, eps=0.3))", "contrast", "uniform_noise(threat=ball(norm=1, eps=0.5))"]
    columns = {}
    for spec in specs:
        v = np.zeros((20, 4)) if spec == "clean" else lot.normal(size=(20, 4)) * lot.uniform(0, 0.2, size=(20, 1))
        columns[spec] = {"correct": lot.random(20) < 0.8, "linf": abs(v).max(1), "l2": np.linalg.norm(v, axis=1), "l1": abs(v).sum(1)}
    table = make_table(columns)
    own = {SMALL: Ball(eps=0.1), LARGE: Ball(eps=0.2), specs[3]: Ball(norm=2, eps=0.3), specs[5]: Ball(norm=1, eps=0.5)}
    found = {reading.layer: reading for reading in readings(table, Bound.UPPER)}
    assert set(found) == {ball.spec() for ball in own.values()}
    for ball in own.values():
        flags = []
        for i in range(20):
            flag = True
            for spec in specs:
                mine = spec in own and own[spec].norm == ball.norm and own[spec].eps <= ball.eps
                if (columns[spec][f"l{ball.norm:g}"][i] <= ball.eps) or mine:
                    flag = flag and bool(columns[spec]["correct"][i])
            flags.append(flag)
        reached = found[ball.spec()].array
        assert reached is not None
        assert reached.tolist() == flags


def test_a_certificate_of_a_larger_ball_covers_the_smaller(make_table):
    cells = {"clean": {"correct": [1] * 4}, SMALL: {"correct": [1] * 4, "linf": [0.1] * 4}}
    table = make_table(cells, certificates={Ball(eps=0.2): [1, 1, 0, -1], Ball(eps=0.05): [1, 1, 1, 1]})
    assert {reading.layer: reading.value for reading in readings(table, Bound.LOWER)} == {
        Ball(eps=0.1).spec(): 0.5, Ball(eps=0.2).spec(): 0.5, Ball(eps=0.05).spec(): 1.0,
    }  # fmt: skip


def test_certificates_of_several_certifiers_add_up(make_table):
    """An L2 ball of the same radius lies in the Linf ball; the certificate of a larger L2 ball adds a sample."""
    cells = {"clean": {"correct": [1] * 4}, "fgsm(threat=ball(norm=2, eps=0.1))": {"correct": [1] * 4}}
    table = make_table(cells, certificates={Ball(eps=0.1): [1, 0, 0, 0], Ball(norm=2, eps=0.3): [0, 0, 1, 0]})
    (lower,) = readings(table, Bound.LOWER, Ball(norm=2, eps=0.1).spec())
    assert lower.array is not None and lower.array.tolist() == [1, 0, 1, 0]
    (other,) = readings(table, Bound.LOWER, Ball(eps=0.1).spec())  # 0.1 * sqrt(4 entries) = 0.2 <= 0.3
    assert other.array is not None and other.array.tolist() == [1, 0, 1, 0]


def test_without_a_certificate_the_lower_bound_is_zero_and_says_so(make_table):
    (lower,) = readings(make_table({"clean": {"correct": [1]}, SMALL: {"correct": [1]}}), Bound.LOWER)
    assert lower.value == 0 and "trivial" in lower.reason and lower.low is None and lower.n == 1


def test_a_certified_and_broken_sample_is_a_contradiction(make_table):
    cells = {
        "clean": {"correct": [1, 1, 1], "id": [4, 8, 15]},
        SMALL: {"correct": [1, 0, 0], "id": [4, 8, 15], "linf": [0.1] * 3},
        LARGE: {"correct": [0, 0, 0], "id": [4, 8, 15], "linf": [0.2] * 3},
    }
    (found,) = findings(make_table(cells, certificates={Ball(eps=0.1): [1, 0, 1]}))
    assert (found.verdict, found.value, found.net) == (Verdict.FAIL, 1.0, "net")
    assert found.perturbation == br.parse(SMALL).spec()
    assert "sample 15 " in found.message and "test_hand_made" in found.message


def test_agreement_passes(make_table):
    cells = {"clean": {"correct": [1, 1]}, SMALL: {"correct": [1, 0], "linf": [0.1] * 2}}
    (found,) = findings(make_table(cells, certificates={Ball(eps=0.1): [1, 0]}))
    assert (found.verdict, found.value) == (Verdict.PASS, 0.0)


def test_no_answer_is_not_a_correct_one(make_table):
    table = make_table({"clean": {"correct": [1, 1, 0], "finite": [True, True, False]}, SMALL: {"correct": [1, 1, 0], "linf": [0.1] * 3}})
    (upper,) = readings(table, Bound.UPPER)
    assert upper.value == pytest.approx(2 / 3) and "1 samples have NaN or inf" in upper.reason


def test_a_threat_without_any_point_has_no_upper_bound(make_table):
    table = make_table({"clean": {"correct": [1]}, "fgsm(threat=ball(eps=0.1, high=0.5))": "it raised"})
    (upper,) = readings(table, Bound.UPPER)
    assert upper.status is Status.UNDEFINED and "no measured point" in upper.reason


def test_a_run_without_a_ball_has_no_bounds(make_table):
    assert RobustAccuracy()(make_table({"clean": {"correct": [1]}})) == []


def test_the_lab_keeps_the_flags():
    data = br.load_dataset("digits(side=8)", limit=40)
    net = br.load_network("mlp(widths=(16,))", shape=data.shape, classes=10)
    table = br.Lab(device="cpu").measure(net, data, [SMALL], summaries=["bound"])
    row = table.row("robust_accuracy", perturbation="", layer=Ball(eps=0.1).spec(), bound="upper")
    flags = table.array(row)
    clean, attacked = (table.samples("net", spec)["correct"] for spec in ("clean", SMALL))
    assert flags is not None and flags.tolist() == (clean & attacked).astype(int).tolist()
