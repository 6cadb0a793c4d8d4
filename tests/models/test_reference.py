"""Nets with known answers: the formulas against brute force."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from brinell.core.errors import NetworkError
from brinell.models.reference import Linear, OneHotUnits, RankFeatures, exact_margin, linear_network, one_hot_samples

NORMS = [1, 2, math.inf]


def brute_force(w: np.ndarray, b: np.ndarray, x: np.ndarray, y: int, norm: float) -> float:
    """The shortest step that brings another class level with y, by an optimiser that knows nothing of dual norms."""
    d, best = len(x), math.inf
    for k in range(len(w)):
        slope, gap = w[y] - w[k], (w[y] - w[k]) @ x + b[y] - b[k]
        if k == y:
            continue
        if gap <= 0:
            return 0.0
        if norm == 2:
            found = minimize(lambda v: v @ v, -slope * gap / (slope @ slope) * 1.5,
                             constraints={"type": "ineq", "fun": lambda v, s=slope, g=gap: -(s @ v) - g})  # fmt: skip
            best = min(best, math.sqrt(found.fun))
        else:  # v = p - m, p, m >= 0; minimise sum(p + m), or t with p + m <= t
            cost = np.ones(2 * d) if norm == 1 else np.r_[np.zeros(2 * d), 1.0]
            rows = [np.r_[slope, -slope, [] if norm == 1 else [0.0]]]
            limits = [-gap]
            if norm == math.inf:
                rows += [np.r_[np.eye(d)[i], np.eye(d)[i], -1.0] for i in range(d)]
                limits += [0.0] * d
            best = min(best, linprog(cost, A_ub=np.array(rows), b_ub=limits).fun)
    return best


@pytest.mark.parametrize("norm", NORMS)
def test_exact_margin_equals_brute_force(norm):
    rng = np.random.default_rng(3)
    w, b, x = rng.normal(size=(4, 5)), rng.normal(size=4), rng.normal(size=(6, 5))
    y = (x @ w.T + b).argmax(1)
    y[0] = (x @ w.T + b).argmin(1)[0]
    found = exact_margin(*map(torch.from_numpy, (w, b, x, y)), norm)
    expected = [brute_force(w, b, x[i], int(y[i]), norm) for i in range(6)]
    assert found[0] == 0 and bool((found[1:] > 0).all())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)


def steepest(slope: np.ndarray, norm: float) -> np.ndarray:
    """The unit step along which a linear function grows fastest."""
    if norm == 1:
        return np.where(np.arange(len(slope)) == np.abs(slope).argmax(), np.sign(slope), 0.0)
    return np.sign(slope) if norm == math.inf else slope / np.linalg.norm(slope)


@pytest.mark.parametrize("norm", NORMS)
def test_a_sample_flips_just_beyond_its_margin_and_not_before(norm):
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(3, 6)), rng.normal(size=(5, 6))
    net = linear_network(torch.from_numpy(weight))
    y = net(torch.from_numpy(x)).argmax(1)
    reach = exact_margin(torch.from_numpy(weight), None, torch.from_numpy(x), y, norm).numpy()
    for i in range(5):
        steps = np.stack([steepest(weight[k] - weight[y[i]], norm) for k in range(3) if k != y[i]])
        before, beyond = (net(torch.from_numpy(x[i] + scale * reach[i] * steps)).argmax(1) for scale in (0.999, 1.001))
        assert bool((before == y[i]).all())
        assert bool((beyond != y[i]).any())


def test_exact_margin_edge_cases():
    same = torch.ones(2, 3)
    x = torch.zeros(1, 3)
    y = torch.tensor([0])
    assert exact_margin(same, torch.tensor([1.0, 0.0]), x, y, 2).item() == math.inf  # nothing can ever flip it
    assert exact_margin(same, None, x, y, 2).item() == 0  # tied everywhere
    assert exact_margin(same, None, x[:0], y[:0], 2).shape == (0,)
    images = torch.rand(2, 1, 2, 2)
    assert exact_margin(torch.randn(3, 4), None, images, torch.tensor([0, 1]), math.inf).dtype == torch.float64


@pytest.mark.parametrize(
    ("weight", "bias", "x", "y", "norm"),
    [
        (torch.ones(2, 3), None, torch.ones(1, 3), torch.tensor([0]), 3),
        (torch.ones(2, 3), None, torch.ones(1, 4), torch.tensor([0]), 2),
        (torch.ones(1, 3), None, torch.ones(1, 3), torch.tensor([0]), 2),
        (torch.ones(2, 3), torch.ones(3), torch.ones(1, 3), torch.tensor([0]), 2),
        (torch.ones(2, 3), None, torch.ones(1, 3), torch.tensor([2]), 2),
        (torch.ones(2, 3), None, torch.ones(1, 3), torch.tensor([0, 1]), 2),
    ],
)
def test_exact_margin_refuses(weight, bias, x, y, norm):
    with pytest.raises(NetworkError, match="exact_margin"):
        exact_margin(weight, bias, x, y, norm)


def test_linear_networks():
    weight, bias = torch.randn(3, 8), torch.randn(3)
    net = linear_network(weight, bias)
    weight_before = weight.clone()
    x = torch.rand(4, 2, 2, 2)
    np.testing.assert_allclose(net(x).detach(), x.flatten(1).numpy() @ weight.numpy().T + bias.numpy(), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        net[1].weight.zero_()
    assert torch.equal(weight, weight_before)
    assert [tuple(p.shape) for p in Linear(bias=False).build((2, 2, 2), 3).parameters()] == [(3, 8)]
    with pytest.raises(NetworkError, match="needs weight"):
        linear_network(torch.ones(3))


def test_one_hot_units_answer_to_one_class_each():
    y = torch.arange(40) % 10
    net = OneHotUnits().build((1, 8, 8), 10)
    x = one_hot_samples(y, (1, 8, 8))
    hidden = net[:3](x).detach().numpy()
    means = np.stack([hidden[y.numpy() == k].mean(0) for k in range(10)])
    np.testing.assert_array_equal(means, 0.5 * np.eye(10))
    assert torch.equal(net(x).argmax(1), y)
    assert float(x.min()) == 0 and float(x.max()) == 1


def test_one_hot_units_need_room():
    with pytest.raises(NetworkError, match="less than 10"):
        OneHotUnits().build((1, 3, 3), 10)
    with pytest.raises(NetworkError, match=r"labels must lie in 0\.\.8"):
        one_hot_samples(torch.tensor([9]), (1, 3, 3))


@pytest.mark.parametrize(("rank", "width"), [(1, 1), (3, 12), (4, 10)])
def test_rank_features(rank, width):
    x = torch.rand(60, 1, 4, 4)
    hidden = RankFeatures(rank=rank, width=width).build((1, 4, 4), 10)[:3](x).detach().double().numpy()
    assert hidden.shape == (60, width)
    singular = np.linalg.svd(hidden - hidden.mean(0), compute_uv=False)
    assert (singular > 1e-6 * singular[0]).sum() == rank
    if width % rank == 0:
        inputs = np.linalg.eigvalsh(np.cov(x.flatten(1)[:, :rank].double().numpy(), rowvar=False).reshape(rank, rank))
        features = np.linalg.eigvalsh(np.cov(hidden, rowvar=False).reshape(width, width))[-rank:]
        np.testing.assert_allclose(features, width / rank * inputs, rtol=1e-6)


def test_rank_features_need_room():
    with pytest.raises(NetworkError, match="less than 4 numbers"):
        RankFeatures().build((3,), 2)
