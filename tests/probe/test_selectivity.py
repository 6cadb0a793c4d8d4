"""Class selectivity: closed forms, a numpy twin, and the null level of shuffled labels."""

import math
import re

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from brinell.core.errors import SpecError, UndefinedReading
from brinell.core.measurement import Bound, Status
from brinell.core.probe import Needs
from brinell.probe.selectivity import Selectivity, class_selectivity, selectivity_index

EPS = 1e-6


def index_of(means):
    """The index of one unit with the given class means, one sample per class, in float64."""
    return float(class_selectivity(torch.tensor(means, dtype=torch.float64)[:, None], torch.arange(len(means)))[0])


def twin(responses, labels, eps=EPS):
    """Slow: one unit at a time, class by class."""
    found = []
    for unit in responses.T:
        means = [unit[labels == k].mean() for k in sorted(set(labels.tolist()))]
        best = max(range(len(means)), key=means.__getitem__)
        rest = [value for place, value in enumerate(means) if place != best]
        high, low = means[best], sum(rest) / len(rest)
        found.append((high - low) / (high + low + eps))
    return np.array(found)


@pytest.mark.parametrize(
    "means, expected",
    [
        ([1.0, 0, 0, 0, 0], 1 / (1 + EPS)),  # one class only
        ([0.25] * 7, 0.0),  # all alike
        ([2.0, 1, 1], 1 / (3 + EPS)),
        ([3.0, 1], 2 / (4 + EPS)),
        ([0.0, 0, 0], 0.0),  # dead
    ],
)
def test_known_class_means(means, expected):
    assert index_of(means) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("classes, m, expected", [(10, 2, 0.8), (200, 10, 190 / 208), (10, 5, 5 / 13), (3, 3, 0.0)])
def test_responding_equally_to_m_of_k_classes(classes, m, expected):
    assert expected == pytest.approx((classes - m) / (classes + m - 2))
    assert index_of([1.0] * m + [0.0] * (classes - m)) == pytest.approx(expected, abs=2e-6)


def test_scaling_changes_nothing_and_a_constant_lowers_the_index():
    lot = np.random.default_rng(0)
    responses, labels = torch.tensor(lot.gamma(2.0, size=(60, 4))), torch.tensor(lot.integers(0, 5, 60))
    plain = class_selectivity(responses, labels)
    assert torch.allclose(class_selectivity(7 * responses, labels), plain, atol=1e-6, rtol=0)
    best, rest, b = 2.0, 1.0, 0.5
    assert index_of([best + b, rest + b, rest + b]) == pytest.approx((best - rest) / (best + rest + 2 * b), abs=1e-6)


def test_class_sizes_do_not_matter():
    balanced = class_selectivity(torch.tensor([[3.0], [1.0]]), torch.tensor([0, 1]))
    unequal = class_selectivity(torch.tensor([[3.0]] + [[1.0]] * 99), torch.tensor([0] + [1] * 99))
    reversed_sizes = class_selectivity(torch.tensor([[3.0]] * 99 + [[1.0]]), torch.tensor([0] * 99 + [1]))
    assert balanced.item() == pytest.approx(0.5, abs=1e-6)
    assert unequal.item() == reversed_sizes.item() == pytest.approx(balanced.item(), abs=1e-6)


def test_classes_that_do_not_occur_are_left_out():
    responses, labels = torch.tensor([[2.0], [1.0], [1.0]]), torch.tensor([0, 4, 9])
    assert class_selectivity(responses, labels).item() == pytest.approx(1 / 3, abs=1e-6)
    assert selectivity_index(torch.tensor([[0.0], [6.0], [0.0], [1.0]]), torch.tensor([0, 2, 0, 1])).item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_numpy_twin(seed):
    lot = np.random.default_rng(seed)
    responses = lot.gamma(1.0, size=(40, 6)) * (lot.random((40, 6)) < 0.5)
    labels = lot.integers(0, 8, 40)
    found = class_selectivity(torch.tensor(responses), torch.tensor(labels), eps=1e-3)
    assert found.numpy() == pytest.approx(twin(responses, labels, 1e-3), abs=1e-12)
    assert bool(((found >= 0) & (found < 1)).all())


def test_order_of_samples_and_units_and_names_of_classes_do_not_matter():
    lot = np.random.default_rng(3)
    responses, labels = torch.tensor(lot.gamma(1.0, size=(50, 8))), torch.tensor(lot.integers(0, 4, 50))
    plain = class_selectivity(responses, labels)
    rows, units, names = (torch.tensor(lot.permutation(size)) for size in (50, 8, 4))
    assert torch.allclose(class_selectivity(responses[rows], labels[rows]), plain, atol=1e-14, rtol=0)
    assert torch.equal(class_selectivity(responses[:, units], labels), plain[units])
    assert torch.allclose(class_selectivity(responses, names[labels]), plain, atol=1e-14, rtol=0)
    assert torch.allclose(class_selectivity(responses.float(), labels).double(), plain, atol=1e-6, rtol=0)


def test_the_gradient_is_the_closed_form():
    means = torch.tensor([[2.0], [1.0]], dtype=torch.float64, requires_grad=True)
    class_selectivity(means, torch.tensor([0, 1])).backward()
    total = 3 + EPS
    assert means.grad is not None
    assert means.grad[0, 0].item() == pytest.approx((2 * 1 + EPS) / total**2, rel=1e-12)
    assert means.grad[1, 0].item() == pytest.approx(-(2 * 2 + EPS) / total**2, rel=1e-12)
    assert means.grad.flatten().tolist() == pytest.approx([0.222222, -0.444444], abs=1e-6)


def test_the_gradient_of_a_dead_unit_is_finite():
    responses = torch.zeros(4, 2, requires_grad=True)
    class_selectivity(responses, torch.tensor([0, 0, 1, 1])).sum().backward()
    assert responses.grad is not None and bool(torch.isfinite(responses.grad).all())


@pytest.mark.parametrize(
    "responses, labels, eps, fact",
    [
        ([[1.0], [-0.1]], [0, 1], EPS, "1 of 2 responses are negative.*ReLU"),
        ([[1.0], [math.nan]], [0, 1], EPS, "NaN or inf"),
        ([[1.0], [math.inf]], [0, 1], EPS, "NaN or inf"),
        ([[1.0], [2.0]], [3, 3], EPS, "at least 2"),
        ([[1.0], [2.0]], [0, 1], 0.0, "eps=0.0"),
        ([[[1.0]], [[2.0]]], [0, 1], EPS, r"\(2, 1, 1\)"),
        ([[1.0], [2.0]], [0, 1, 1], EPS, r"\(3,\)"),
    ],
)
def test_what_has_no_selectivity_is_refused(responses, labels, eps, fact):
    with pytest.raises(UndefinedReading, match=fact):
        class_selectivity(torch.tensor(responses), torch.tensor(labels), eps)


@pytest.mark.parametrize("cv", [0.2, 0.5])
@pytest.mark.parametrize("per_class", [100, 400])
def test_shuffled_labels_give_the_documented_null_level(cv, per_class):
    classes, units = 10, 400
    shape = 1 / cv**2
    lot = np.random.default_rng(int(100 * cv) + per_class)
    responses = torch.tensor(lot.gamma(shape, size=(classes * per_class, units)))
    labels = torch.tensor(lot.permutation(np.arange(classes * per_class) % classes))
    largest = integrate.quad(lambda z: z * classes * stats.norm.pdf(z) * stats.norm.cdf(z) ** (classes - 1), -8, 8)[0]
    assert largest == pytest.approx(1.5388, abs=1e-4)
    expected = 0.5 * classes / (classes - 1) * largest * cv / math.sqrt(per_class)
    assert class_selectivity(responses, labels).mean().item() == pytest.approx(expected, rel=0.1)


def layer_view(make_view, **layers):
    """Four samples, two of class 0 and two of class 2 of three classes, with the given activations."""
    activations = {name.replace("_", ":"): torch.tensor(value) for name, value in layers.items()}
    return make_view(torch.zeros(4, 3), [0, 0, 2, 2], activations=activations, classes=("a", "b", "c"))


def test_readings_of_one_layer(make_view, find):
    view = layer_view(make_view, relu_0=[[4.0, 0, 0, 1], [2.0, 0, 0, 1], [1.0, 5, 0, 1], [1.0, 5, 0, 1]])
    units = [2 / (4 + EPS), 5 / (5 + EPS), 0.0, 0.0]
    reading = find(Selectivity(), view, "selectivity", "relu:0")
    assert reading.array == pytest.approx(units, abs=1e-12) and reading.axis == "unit"
    assert reading.value == pytest.approx(np.mean(units)) and (reading.n, reading.bound) == (4, Bound.EXACT)
    preferred = find(Selectivity(), view, "preferred_classes", "relu:0")
    assert preferred.array.tolist() == [0, 2, -1, 0] and preferred.value == 2
    assert find(Selectivity(), view, "dead_units", "relu:0").value == 0.25
    level = find(Selectivity(), view, "response_level", "relu:0")
    assert level.value == 2.0 and level.array.tolist() == [4, 5, 0, 2]


def test_wide_layers_do_not_dominate_the_network(make_view, find):
    one_hot, flat = np.zeros((4, 1)), np.ones((4, 99))
    one_hot[:2] = 1
    reading = find(Selectivity(), layer_view(make_view, narrow_0=one_hot, wide_0=flat), "selectivity")
    assert reading.value == pytest.approx(0.5, abs=1e-6) and reading.value != pytest.approx(0.01, abs=0.1)
    assert reading.array == pytest.approx([1, 0], abs=1e-6) and reading.axis == "layer"


def test_layers_come_in_the_order_of_the_forward_pass(make_view, measure):
    view = layer_view(make_view, z_0=np.ones((4, 1)), a_0=np.ones((4, 1)), m_0=np.ones((4, 1)))
    assert [r.layer for r in measure(Selectivity(), view) if r.name == "selectivity"] == ["z:0", "a:0", "m:0", ""]


def test_the_probe_equals_the_pure_function(make_view, find):
    lot = np.random.default_rng(1)
    responses, labels = torch.tensor(lot.gamma(1.0, size=(70, 9))), torch.tensor(lot.integers(0, 6, 70))
    view = make_view(torch.zeros(70, 6), labels, activations={"x": responses})
    expected = class_selectivity(responses, labels, 0.01).numpy()
    assert find(Selectivity(eps=0.01), view, "selectivity", "x").array == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "responses, fact",
    [
        ([[1.0], [-1.0], [1.0], [1.0]], "1 of 4 responses are negative.*ReLU"),
        ([[1.0], [math.nan], [1.0], [1.0]], "NaN or inf"),
        ([[1.0], [math.inf], [-math.inf], [1.0]], "NaN or inf"),
    ],
)
def test_a_layer_without_selectivity_says_why(make_view, find, measure, responses, fact):
    view = layer_view(make_view, good_0=np.ones((4, 1)), bad_0=responses)
    for name in ("selectivity", "preferred_classes", "dead_units", "response_level"):
        reading = find(Selectivity(), view, name, "bad:0")
        assert reading.status is Status.UNDEFINED
        assert re.search(fact, reading.reason)
        assert find(Selectivity(), view, name, "good:0").status is Status.OK
    network = find(Selectivity(), view, "selectivity")
    assert network.status is Status.UNDEFINED and "bad:0" in network.reason


def test_one_class_has_no_selectivity(make_view, find):
    view = make_view(torch.zeros(3, 2), [1, 1, 1], activations={"a": torch.ones(3, 2)})
    assert "at least 2" in find(Selectivity(), view, "selectivity", "a").reason
    assert find(Selectivity(), view, "selectivity").status is Status.UNDEFINED


def test_a_dead_layer_has_index_zero_and_no_response_level(make_view, find):
    view = layer_view(make_view, dead_0=np.zeros((4, 3)))
    assert find(Selectivity(), view, "selectivity", "dead:0").value == 0.0
    assert find(Selectivity(), view, "dead_units", "dead:0").value == 1.0
    assert find(Selectivity(), view, "preferred_classes", "dead:0").value == 0.0
    assert "dead" in find(Selectivity(), view, "response_level", "dead:0").reason


def test_a_network_without_recorded_layers_has_no_selectivity(make_view, find):
    reading = find(Selectivity(), make_view(torch.zeros(2, 2), [0, 1]), "selectivity")
    assert reading.status is Status.UNDEFINED and "no ReLU" in reading.reason


def test_needs_name_the_layers():
    assert Selectivity().needs == Needs(layers=(), pooled=True)
    assert Selectivity(layers=("layer1.*", "fc:0")).needs.layers == ("layer1.*", "fc:0")


@pytest.mark.parametrize("eps", [0.0, -1e-6])
def test_eps_must_be_positive(eps):
    with pytest.raises(SpecError, match="eps"):
        Selectivity(eps=eps)
