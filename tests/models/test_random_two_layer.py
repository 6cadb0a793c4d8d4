"""Two-layer networks: moments of activations, the exact sampler against real networks, and the success curve."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from brinell.core.draws import derive
from brinell.core.errors import NetworkError
from brinell.core.line import value_and_gradient
from brinell.models.random_ensemble import inputs, two_layer
from brinell.models.random_relu import chi_squared
from brinell.models.random_two_layer import moments, reduced_step, value_and_slope

ACTIVATIONS = ("relu", "tanh", "sin", "softplus", "abs", "identity")


def direct(d, k, n, path, activation="relu"):
    draws = derive(0, path, ids=range(n))
    nets, x = two_layer(d, k, draws, activation=activation, dtype=torch.float64), inputs(d, draws, dtype=torch.float64)
    f, g = value_and_gradient(nets, x)
    return nets, x, f, g


def near(values, expected, errors=4.0):
    values = np.asarray(values, dtype=float)
    return abs(values.mean() - expected) < errors * values.std() / math.sqrt(len(values)) + 1e-12


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu", (0.5, 0.5, 0.5)),
        ("abs", (1, 1, 1)),
        ("identity", (1, 1, 1)),
        ("tanh", (0.39429, 0.46440, 0.10781)),
        ("sin", (0.43233, 0.56767, 0.29700)),
        ("softplus", (0.92125, 0.29338, 0.35578)),
    ],
)
def test_moments(name, expected):
    found = moments(name)
    assert pytest.approx(expected, abs=1e-5) == (found.A, found.D, found.D2)


def test_moments_by_quadrature_of_another_kind():
    def expected(term):
        return integrate.quad(lambda t: term(t) * stats.norm.pdf(t), -10, 10, limit=200)[0]

    tanh, sine = moments("tanh"), moments(lambda t: torch.sin(2 * t))
    assert pytest.approx(expected(lambda t: (1 - np.tanh(t) ** 2) ** 2), abs=1e-7) == tanh.D
    assert pytest.approx(expected(lambda t: np.sin(2 * t) ** 2), abs=1e-7) == sine.A
    assert pytest.approx(expected(lambda t: (2 * np.cos(2 * t) * t) ** 2), abs=1e-7) == sine.D2


def test_the_success_curve():
    relu = moments("relu")
    assert [relu.flip_rate(c) for c in (1, 2, 3, 4)] == pytest.approx([0.5205, 0.8427, 0.9661, 0.9953], abs=1e-4)
    assert moments("abs").flip_rate(1.5) == pytest.approx(math.erf(1.5 / math.sqrt(2)))  # what a weight variance of 2 / d would look like
    assert relu.flip_rate(0) == 0 and moments(lambda t: 0 * t).flip_rate(2) == 0
    assert relu.squared_gradient(64) == pytest.approx(0.5)


def test_second_moments_at_any_width():
    for activation in ("relu", "tanh", "sin"):
        for d, k in ((16, 3), (32, 100)):
            _, _, f, g = direct(d, k, 1000, "second", activation)
            of = moments(activation)
            assert near(f**2, of.A) and near(g.square().sum(1), of.squared_gradient(d)), (activation, d, k)


def test_the_gradient_norm_of_relu_given_its_active_units():
    """|grad f|^2 = f^2 / d + B / (k d) chi2_{d-1}, the parts independent."""
    d, k = 12, 30
    nets, x, f, g = direct(d, k, 4000, "pattern")
    active = (torch.bmm(x[:, None], nets.weights[0].mT)[:, 0] > 0).sum(1)
    rest = (g.square().sum(1) - f**2 / d) * k * d / active
    assert stats.kstest(rest.numpy(), stats.chi2(d - 1).cdf).pvalue > 1e-3
    assert abs(stats.spearmanr(rest.numpy(), np.abs(f.numpy())).statistic) < 4 / math.sqrt(4000)


def test_a_linear_activation_is_linear():
    nets, x, f, g = direct(9, 5, 200, "linear", "identity")
    square = g.square().sum(1)
    for eta in (0.1, 0.7):
        moved = nets((x - eta * f.sign()[:, None] * g)[:, None])[:, 0]
        assert torch.allclose(moved, f - eta * f.sign() * square, atol=1e-12)
        assert torch.equal(moved * f < 0, eta > f.abs() / square)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("k", [7, 60])
def test_the_reduced_sampler_has_the_law_of_real_networks(activation, k):
    d, n = 11, 4000
    nets, x, f, g = direct(d, k, n, "direct", activation)
    moved = nets((x - 2 * f.sign()[:, None] * g)[:, None])[:, 0]
    reduced = reduced_step(d, k, derive(0, "reduced", ids=range(n)), (2.0,), activation=activation)
    for real, drawn in (
        (f, reduced.value),
        (g.square().sum(1), reduced.squared_gradient),
        (moved * f.sign(), reduced.moved[:, 0] * reduced.value.sign()),
    ):
        assert stats.ks_2samp(real.numpy(), drawn.numpy()).pvalue > 1e-3
    wrong = reduced_step(d + 4, k, derive(0, "reduced", ids=range(n)), (2.0,), activation=activation)
    assert (
        activation in ("sin", "softplus") or stats.ks_2samp(g.square().sum(1).numpy(), 1.3 * wrong.squared_gradient.numpy()).pvalue < 1e-3
    )


def test_blocks_newton_steps_and_extreme_sizes():
    small = reduced_step(20, 50, derive(0, "b", ids=range(3)), (1.0, 2.0), block=30)  # ten units of each network at a time
    again = reduced_step(20, 50, derive(0, "b", ids=range(3)), (2.0,), block=30)
    assert torch.equal(small.moved[:, 1], again.moved[:, 0]) and torch.equal(small.value, again.value)
    newton = reduced_step(500, 400, derive(0, "b", ids=range(200)), (0.0, 2.0), newton=True)
    assert not newton.flipped[:, 0].any() and float(newton.flipped[:, 1].double().mean()) > 0.95
    tiny = reduced_step(1, 1, derive(0, "b", ids=range(50)), (0.5,))
    assert bool(torch.isfinite(tiny.moved).all())
    with pytest.raises(NetworkError):
        reduced_step(0, 4, derive(0, "b", ids=[0]), (1.0,))


@pytest.mark.slow
def test_a_million_dimensions():
    found = reduced_step(10**6, 10**5, derive(0, "huge", ids=range(400)), (1.0, 2.0, 3.0))
    expected = [moments("relu").flip_rate(c) for c in (1, 2, 3)]
    for column, rate in enumerate(expected):
        assert abs(float(found.flipped[:, column].double().mean()) - rate) < 4 * math.sqrt(rate * (1 - rate) / 400)


def test_chi_squared():
    found = chi_squared(torch.full((4000,), 9), derive(0, "chi", ids=range(4000)))
    assert stats.kstest(found.numpy(), stats.chi2(9).cdf).pvalue > 1e-3
    assert not chi_squared(torch.zeros(5), derive(0, "chi", ids=range(5))).any()


def test_activations_must_be_functions_of_one_number():
    with pytest.raises(NetworkError, match="as many"):
        value_and_slope(lambda t: t.sum(), torch.ones(3))
