"""Accuracy: counted by hand, with intervals from scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from brinell.core.errors import SpecError
from brinell.core.measurement import Bound, Status
from brinell.probe.accuracy import Accuracy


def logits_for(predicted, classes=3):
    return np.eye(classes)[np.asarray(predicted)] * 5.0


def exact(k, n, confidence=0.95):
    ends = stats.binomtest(k, n).proportion_ci(confidence)
    return pytest.approx((ends.low, ends.high), abs=1e-9)


def test_overall_accuracy_is_the_counted_share_with_the_exact_interval(make_view, find):
    y, predicted = [0, 0, 1, 1, 2, 2, 2, 0], [0, 1, 1, 1, 2, 0, 2, 0]
    reading = find(Accuracy(), make_view(logits_for(predicted), y), "accuracy")
    assert (reading.value, reading.n, reading.bound, reading.confidence) == (6 / 8, 8, Bound.EXACT, 0.95)
    assert (reading.low, reading.high) == exact(6, 8)
    reading = find(Accuracy(confidence=0.6), make_view(logits_for(predicted), y), "accuracy")
    assert (reading.low, reading.high) == exact(6, 8, 0.6) and reading.confidence == 0.6


def test_the_flags_lie_in_the_order_of_ids(make_view, find):
    reading = find(Accuracy(), make_view(logits_for([0, 1, 1]), [0, 0, 1], ids=[30, 10, 20]), "accuracy")
    assert reading.axis == "sample" and reading.array.tolist() == [0, 1, 1]


def test_classes_and_the_worst_of_them(make_view, find):
    y = [0] * 10 + [1] * 4 + [2] * 50
    predicted = [0] * 9 + [1] + [1] * 3 + [0] + [2] * 50
    view = make_view(logits_for(predicted), y, classes=("cat", "dog", "emu"))
    shares = {name: find(Accuracy(), view, "class_accuracy", f"class {name}") for name in ("cat", "dog", "emu")}
    assert {name: (share.value, share.n) for name, share in shares.items()} == {"cat": (0.9, 10), "dog": (0.75, 4), "emu": (1.0, 50)}
    level = 1 - 0.05 / 3
    for name, k, n in [("cat", 9, 10), ("dog", 3, 4), ("emu", 50, 50)]:
        assert (shares[name].low, shares[name].high) == exact(k, n, level)
    worst = find(Accuracy(), view, "worst_class_accuracy", "class dog")
    assert (worst.value, worst.n) == (0.75, 4)
    assert worst.low == min(share.low for share in shares.values())
    assert worst.high == min(share.high for share in shares.values())


def test_the_worst_interval_is_that_of_the_smallest_class_mean_not_of_the_cell(make_view, find):
    """Class 1 has one sample, which is right: its true accuracy may be lower than anything the rest allows."""
    view = make_view(logits_for([0] * 90 + [1] * 10 + [1], 2), [0] * 100 + [1])
    worst = find(Accuracy(), view, "worst_class_accuracy", "class 0")
    lonely = find(Accuracy(), view, "class_accuracy", "class 1")
    assert worst.value == 0.9 and worst.low == lonely.low < 0.1


def test_the_first_of_equally_bad_classes_is_named(make_view, measure):
    readings = measure(Accuracy(), make_view(logits_for([1, 2, 0]), [0, 1, 2]))
    assert [r.layer for r in readings if r.name == "worst_class_accuracy"] == ["class 0"]


def test_absent_classes_are_undefined_and_count_for_nothing(make_view, find):
    view = make_view(logits_for([0, 0, 2]), [0, 0, 2])
    absent = find(Accuracy(), view, "class_accuracy", "class 1")
    assert absent.status is Status.UNDEFINED and "no sample" in absent.reason and absent.n == 0
    present = find(Accuracy(), view, "class_accuracy", "class 0")
    assert (present.low, present.high) == exact(2, 2, 1 - 0.05 / 2)
    assert find(Accuracy(), view, "worst_class_accuracy", "class 0").value == 1.0


def test_classes_of_one_name_are_told_apart(make_view, measure):
    readings = measure(Accuracy(), make_view(logits_for([0, 1, 2]), [0, 1, 2], classes=("crane", "fly", "crane")))
    assert [r.layer for r in readings if r.name == "class_accuracy"] == ["class crane #0", "class fly", "class crane #2"]


@pytest.mark.parametrize("values", [["left", "right"], [7, 11], [None, "ü"], [True, False]])
def test_groups_of_any_kind(make_view, measure, values):
    column = np.array([values[0]] * 4 + [values[1]] * 6, dtype=object)
    view = make_view(logits_for([0] * 5 + [1] * 5), [0] * 10, group=column)
    readings = {(r.name, r.layer): r for r in measure(Accuracy(), view)}
    first, second = (readings["group_accuracy", f"group {value}"] for value in values)
    assert (first.value, first.n, second.value, second.n) == (1.0, 4, 1 / 6, 6)
    assert (second.low, second.high) == exact(1, 6, 1 - 0.05 / 2)
    assert readings["worst_group_accuracy", f"group {values[1]}"].value == 1 / 6


def test_no_group_readings_without_groups(make_view, measure):
    names = {reading.name for reading in measure(Accuracy(), make_view(logits_for([0, 1]), [0, 1]))}
    assert names == {"accuracy", "class_accuracy", "worst_class_accuracy"}


def test_clusters_widen_the_interval(make_view, find):
    right = np.repeat(np.arange(40) % 4 > 0, 10)  # 40 patients of 10 images each, all right or all wrong
    plain = make_view(logits_for(np.where(right, 0, 1)), [0] * 400)
    clustered = make_view(logits_for(np.where(right, 0, 1)), [0] * 400, cluster=np.repeat([f"patient {k}" for k in range(40)], 10))
    narrow, wide = find(Accuracy(), plain, "accuracy"), find(Accuracy(), clustered, "accuracy")
    assert wide.value == narrow.value == 0.75
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(math.sqrt(10), rel=0.15)
    assert wide.low < 0.75 < wide.high


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_network_without_an_answer_has_no_accuracy(make_view, measure, bad):
    logits = torch.tensor(logits_for([0, 0, 1, 1]))
    logits[1, 0] = bad  # argmax would call it right
    readings = {(r.name, r.layer): r for r in measure(Accuracy(), make_view(logits, [0, 0, 1, 1], ids=[4, 5, 6, 7]))}
    for name, layer in [("accuracy", ""), ("class_accuracy", "class 0"), ("worst_class_accuracy", "")]:
        reading = readings[name, layer]
        assert reading.status is Status.UNDEFINED and "id 5" in reading.reason
    assert readings["class_accuracy", "class 1"].value == 1.0


def test_minus_infinity_is_a_legal_logit(make_view, find):
    assert find(Accuracy(), make_view([[0.0, -math.inf], [-math.inf, 0.0]], [0, 0]), "accuracy").value == 0.5


def test_equal_logits_go_to_the_first_class(make_view, find):
    assert find(Accuracy(), make_view(torch.zeros(4, 2), [0, 0, 0, 1]), "accuracy").value == 0.75


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_an_impossible_confidence_is_refused(confidence):
    with pytest.raises(SpecError, match="confidence"):
        Accuracy(confidence=confidence)
