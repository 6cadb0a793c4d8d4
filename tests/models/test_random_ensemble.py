"""Ensembles of random networks: the same as one network at a time, exact at finite width, bounded in memory."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from brinell.core.draws import derive
from brinell.core.errors import NetworkError, SpecError
from brinell.core.line import value_and_gradient
from brinell.models.loading import load_network
from brinell.models.random_ensemble import Ensemble, bytes_each, chunks, gaussian, inputs, two_layer
from brinell.models.random_relu import RandomReLU, dead_probability, kurtosis, output_law, second_moment


def sampled(widths, n, path, variance="paper", dtype=torch.float64):
    f, squares = [], []
    for draws in chunks(widths, n, seed=0, path=path, dtype=dtype):
        value, gradient = value_and_gradient(gaussian(widths, draws, variance=variance, dtype=dtype), inputs(widths[0], draws, dtype=dtype))
        f.append(value)
        squares.append(gradient.square().sum(1))
    return torch.cat(f).numpy(), torch.cat(squares).numpy()


def near(values, expected, errors=4.0):
    """Is the mean within some standard errors of what is expected?"""
    return abs(np.mean(values) - expected) < errors * np.std(values) / math.sqrt(len(values))


@pytest.mark.parametrize("widths", [(7,), (7, 5), (6, 1, 4), (16, 32, 8, 3)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sin", "softplus", "abs", torch.erf])
def test_an_ensemble_is_its_networks_one_by_one(widths, activation):
    draws = derive(3, "test", ids=[4, 9, 11])
    nets, x = gaussian(widths, draws, activation=activation, dtype=torch.float64), inputs(widths[0], draws, dtype=torch.float64)
    f, g = value_and_gradient(nets, x)
    psi = {"relu": nn.functional.relu, "softplus": nn.functional.softplus}.get(activation) or (
        activation if callable(activation) else getattr(torch, activation)
    )
    for i in range(3):
        z = x[i].clone().requires_grad_()
        h = z
        for w in nets.weights[:-1]:
            h = psi(w[i] @ h)
        value = (nets.weights[-1][i] @ h).squeeze()
        value.backward()
        assert f[i] == pytest.approx(value.item(), abs=1e-12) and torch.allclose(g[i], z.grad, atol=1e-12)
    assert torch.allclose(nets(torch.stack((x, 2 * x, -x), 1))[:, 0], f)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_is_the_same_in_any_chunk(dtype):
    whole = gaussian((12, 8, 5), derive(1, "chunks", ids=range(9)), dtype=dtype)
    small = bytes_each((12, 8, 5), 1, dtype) * 2
    pieces = [gaussian((12, 8, 5), d, dtype=dtype) for d in chunks((12, 8, 5), 9, seed=1, path="chunks", budget=small, dtype=dtype)]
    assert [len(piece) for piece in pieces] == [2, 2, 2, 2, 1]
    for layer, w in enumerate(whole.weights):
        assert w.dtype == dtype and torch.equal(torch.cat([piece.weights[layer] for piece in pieces]), w)
    later = list(chunks((12, 8, 5), 9, seed=1, path="chunks", start=6, dtype=dtype))
    assert torch.equal(gaussian((12, 8, 5), later[0], dtype=dtype).weights[0], whole.weights[0][6:])


def test_the_budget_bounds_what_is_held():
    for points in (1, 64):
        each = bytes_each((64, 128, 128), points)
        weights = 4 * (64 * 128 + 128 * 128 + 128)
        assert each > 2 * weights
        assert all(len(d) * each <= 10_000_000 for d in chunks((64, 128, 128), 300, seed=0, path="b", points=points, budget=10_000_000))
    with pytest.raises(NetworkError, match="more than the budget"):
        next(chunks((64, 128), 1, seed=0, path="b", budget=1000))


@pytest.mark.slow
def test_the_peak_of_a_long_stream_stays_within_the_budget():
    import subprocess
    import sys

    code = """
import resource, torch
from brinell.core.line import value_and_gradient
from brinell.models.random_ensemble import chunks, gaussian, inputs
torch.set_num_threads(1)
def run(n, budget):
    for d in chunks((64, 512, 512), n, seed=0, path="p", budget=budget):
        value_and_gradient(gaussian((64, 512, 512), d), inputs(64, d))
run(2, 1 << 30)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(400, 100 << 20)  # 470 MB of weights
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    grown = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown < 130, f"{grown} MB for a budget of 100"


@pytest.mark.parametrize("widths", [(), (0,), (4, -1), (4.0, 2)])
def test_impossible_widths(widths):
    with pytest.raises(NetworkError, match="widths"):
        gaussian(widths, derive(0, "w", ids=[0]))


def test_bad_requests_say_what_is_wrong():
    draws = derive(0, "w", ids=[0])
    with pytest.raises(NetworkError, match="relu, tanh"):
        gaussian((4, 3), draws, activation="cube")
    with pytest.raises(NetworkError, match="neither 'he'"):
        gaussian((4, 3), draws, variance="xavier")
    with pytest.raises(NetworkError, match="layer after layer"):
        Ensemble([torch.zeros(1, 3, 4), torch.zeros(1, 1, 5)])
    with pytest.raises(NetworkError, match="layer after layer"):
        Ensemble([torch.zeros(1, 3, 4), torch.zeros(1, 2, 3)])
    with pytest.raises(SpecError):
        RandomReLU(widths=(0,))


@pytest.mark.parametrize("widths", [(32,), (32, 64), (32, 64, 16, 48, 64)])
def test_euler(widths):
    draws = derive(0, "euler", ids=range(50))
    x = inputs(32, draws, dtype=torch.float64)
    f, g = value_and_gradient(gaussian(widths, draws, dtype=torch.float64), x)
    assert float(((x * g).sum(1) - f).abs().max()) < 1e-12


@pytest.mark.parametrize("factor", [0.01, 7.0])
def test_scales_change_no_relative_number(factor):
    from brinell.core.line import downhill, first_crossing, line_lengths, relative_step

    draws = derive(0, "scale", ids=range(40))
    nets, x = gaussian((16, 32, 32), draws, dtype=torch.float64), inputs(16, draws, dtype=torch.float64)

    def numbers(nets, x):
        f, g = value_and_gradient(nets, x)
        lin, size, u = relative_step(f, g, x), x.norm(dim=1), downhill(f, g)
        eps = first_crossing(nets, x, f, u, line_lengths(lin, size, 0.5))[1] / size
        return torch.stack((lin, eps, nets((x + u * (lin * size)[:, None])[:, None])[:, 0] / f))

    here = numbers(nets, x)
    for layer in range(3):
        weights = list(nets.weights)
        weights[layer] = factor * weights[layer]
        assert torch.allclose(numbers(Ensemble(weights), x), here, rtol=1e-6)
    assert torch.allclose(numbers(nets, factor * x), here, rtol=1e-6)


@pytest.mark.slow
def test_moments_at_finite_width():
    widths = (10, 10, 20, 15)
    f, squares = sampled(widths, 200_000, "moments")
    assert near(f**2 * 8, 1) and near(squares * 8, 1)
    assert second_moment(3) == 1 / 8 and second_moment(3, "he") == 1
    ratio = np.mean(f**4) / np.mean(f**2) ** 2
    influence = (f**4 - np.mean(f**4)) / np.mean(f**2) ** 2 - 2 * ratio * (f**2 - np.mean(f**2)) / np.mean(f**2)
    expected = 3 * (1 + 5 / 10) * (1 + 5 / 20) * (1 + 5 / 15)
    assert kurtosis(widths) == pytest.approx(expected)
    assert abs(ratio - expected) < 4 * influence.std() / math.sqrt(len(f))
    he, squares = sampled((10, 10, 20), 50_000, "he", "he")
    assert near(he**2, 1) and near(squares, 1)


def test_variance_is_over_the_fan_in():
    """The factor d that a wrong variance would bring."""
    nets = gaussian((50, 80, 20), derive(0, "variance", ids=range(200)), dtype=torch.float64)
    for w, expected in zip(nets.weights, (2 / 50, 2 / 80, 1 / 20), strict=True):
        assert float(w.var()) == pytest.approx(expected, rel=0.05) and abs(float(w.mean())) < 4 * float(w.std()) / w.numel() ** 0.5
    paper = gaussian((50, 80), derive(0, "variance", ids=range(200)), variance="paper")
    assert float(paper.weights[0].var()) == pytest.approx(1 / 50, rel=0.05)
    two = two_layer(50, 80, derive(0, "variance", ids=range(200)))
    assert float(two.weights[0].var()) == pytest.approx(1 / 50, rel=0.05)
    assert torch.allclose(two.weights[1].abs(), torch.tensor(80**-0.5)) and abs(float(two.weights[1].mean())) < 4 * 80**-0.5 / 16000**0.5


def test_dead_networks_are_as_many_as_predicted():
    widths = (8, 6, 12, 5)
    _, squares = sampled(widths, 40_000, "dead")
    expected = 1 - (1 - 2**-6) * (1 - 2**-12) * (1 - 2**-5)
    assert dead_probability(widths) == pytest.approx(expected)
    assert near((squares == 0).astype(float), expected)


def test_the_law_of_the_output():
    widths = (9, 6, 20, 7)
    f, _ = sampled(widths, 8000, "law")
    law = output_law(widths, derive(5, "law", ids=range(8000))).numpy()
    assert stats.ks_2samp(f, law).pvalue > 1e-3
    assert stats.ks_2samp(f * 1.15, law).pvalue < 1e-3, "the test can fail"
    he = output_law(widths, derive(5, "law", ids=range(8000)), "he").numpy()
    assert np.allclose(he, law * 2**1.5)


def test_jacobians():
    draws = derive(0, "jacobian", ids=range(3))
    nets, x = gaussian((6, 5, 9), draws, dtype=torch.float64), inputs(6, draws, dtype=torch.float64)
    for layer, jacobian in enumerate(nets.jacobians(x)):
        for i in range(3):

            def one(z, i=i, layer=layer):
                h = z
                for w in nets.weights[: layer + 1]:
                    h = torch.relu(w[i] @ h)
                return h

            assert torch.allclose(torch.autograd.functional.jacobian(one, x[i]), jacobian[i])


def test_the_architecture_has_its_variance():
    for variance, scale in (("he", 2.0), ("paper", 1.0)):
        net = load_network(f"random_relu(widths=(400, 300), variance={variance})", shape=(1, 10, 10), classes=30)
        weights = [w.detach() for w in net.module.parameters()]
        assert [tuple(w.shape) for w in weights] == [(400, 100), (300, 400), (30, 300)]
        for w, expected in zip(weights, (scale / 100, scale / 400, 1 / 300), strict=True):
            assert float(w.var()) == pytest.approx(expected, rel=0.08)
        x = torch.rand(4, 1, 10, 10)
        assert torch.allclose(net(3 * x), 3 * net(x), atol=1e-4), "no biases: positively homogeneous"
    assert len(list(load_network("random_relu(widths=())", shape=(5,), classes=2).module.parameters())) == 1
