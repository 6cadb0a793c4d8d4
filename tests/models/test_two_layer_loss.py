"""Losses of two-layer learners: kernels by integration, the population by Monte Carlo, gradients by differences, symmetries."""

import math

import numpy as np
import pytest
import torch

from brinell.core.draws import derive
from brinell.core.errors import DataError
from brinell.models import two_layer_loss
from brinell.models.two_layer import ground_truth, initial_neurons, two_layer
from brinell.models.two_layer_loss import (
    abs_kernel,
    cross_kernel,
    population_gradient,
    population_loss,
    relu_kernel,
    sample_gradient,
    sample_loss,
)
from brinell.models.two_layer_target import Target, drawn_target, rotation, uniform_target

DOUBLE = torch.float64


def problem(d=6, m=9, members=2, seed=1):
    w = 2 * initial_neurons(m, d, draws=derive(seed, "w", ids=range(members)), dtype=DOUBLE)
    return w, drawn_target(d, draws=derive(seed, ids=[0]), kappa=2.0)


def relu(t):
    return np.maximum(t, 0)


@pytest.mark.parametrize(("kernel", "f", "g"), [(relu_kernel, relu, relu), (cross_kernel, relu, np.abs), (abs_kernel, np.abs, np.abs)])
def test_kernels_are_the_expectations_they_are_named_after(kernel, f, g):
    """E f(u.x) g(v.x) = E r^2 times a mean over the angle: r^2 has mean 2 in the plane of u and v."""
    angle = (np.arange(400_000) + 0.5) * 2 * np.pi / 400_000
    for rho in (-1.0, -0.7, 0.0, 0.3, 0.999, 1.0):
        expected = 2 * np.mean(f(np.cos(angle)) * g(np.cos(angle - np.arccos(rho))))
        assert float(kernel(torch.tensor(rho, dtype=DOUBLE))) == pytest.approx(expected, abs=1e-9)


def test_kernel_identities():
    rho = torch.linspace(-1, 1, 41, dtype=DOUBLE)
    torch.testing.assert_close(abs_kernel(rho), 2 * (relu_kernel(rho) + relu_kernel(-rho)))
    torch.testing.assert_close(cross_kernel(rho), abs_kernel(rho) / 2)
    ends = {relu_kernel: (0.0, 1 / (2 * math.pi), 0.5), cross_kernel: (0.5, 1 / math.pi, 0.5), abs_kernel: (1.0, 2 / math.pi, 1.0)}
    for kernel, values in ends.items():
        torch.testing.assert_close(kernel(torch.tensor([-1.0, 0.0, 1.0], dtype=DOUBLE)), torch.tensor(values, dtype=DOUBLE))
        assert torch.equal(kernel(torch.tensor([1.0 + 1e-7])), kernel(torch.tensor([1.0]))), "rounding beyond 1 is cut off"


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_zero_weights_and_ground_truth(activation):
    target = drawn_target(7, draws=derive(2, ids=[0]), kappa=2.0)
    nothing = 2 / math.pi + (1 - 2 / math.pi) * target.energy
    assert float(population_loss(torch.zeros(5, 7, dtype=DOUBLE), target, activation)) == pytest.approx(nothing, abs=1e-14)
    assert abs(float(population_loss(ground_truth(target, activation), target, activation))) < 1e-14
    assert float(population_gradient(ground_truth(target, activation), target, activation).abs().max()) < 1e-7  # arcsin near 1
    assert float(population_gradient(torch.zeros(5, 7, dtype=DOUBLE), target, activation).abs().max()) == 0


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_rotations_signs_and_permutations_change_nothing(activation):
    w, target = problem()
    loss = population_loss(w, target, activation)
    q = rotation(6, draws=derive(9, ids=[0]))
    turned = Target(target.directions @ q, target.weights)
    torch.testing.assert_close(population_loss(w @ q, turned, activation), loss)
    torch.testing.assert_close(population_gradient(w @ q, turned, activation), population_gradient(w, target, activation) @ q)
    signs = torch.tensor([1.0, -1, 1, -1, -1, 1], dtype=DOUBLE)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    mixed = Target((target.directions * signs[:, None])[order], target.weights[order])
    torch.testing.assert_close(population_loss(w.flip(-2), mixed, activation), loss)
    if activation == "abs":
        torch.testing.assert_close(population_loss(-w, target, activation), loss)


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_the_population_loss_by_monte_carlo(activation):
    w, target = problem()
    losses = population_loss(w, target, activation)
    x = derive(0, "x", ids=range(250_000)).normal(6, dtype=DOUBLE)
    squares = (two_layer(x, w, activation) - target(x)).square()
    assert bool(((squares.mean(1) - losses).abs() < 4 * squares.std(1) / 500).all())
    thin = Target(target.directions[:2], target.weights[:2])  # fewer directions than dimensions
    squares = (two_layer(x, w[0], activation) - thin(x)).square()
    assert abs(float(squares.mean() - population_loss(w[0], thin, activation))) < 4 * float(squares.std()) / 500


@pytest.mark.parametrize("activation", ["relu", "abs"])
@pytest.mark.parametrize(("d", "m"), [(6, 9), (1, 1), (3, 1), (2, 30)])
def test_the_population_gradient_by_differences(activation, d, m):
    w, target = problem(d, m)
    found, step = population_gradient(w, target, activation), 1e-5
    for i in range(m):
        for j in range(d):
            moved = torch.zeros_like(w)
            moved[:, i, j] = step
            slope = (population_loss(w + moved, target, activation) - population_loss(w - moved, target, activation)) / (2 * step)
            torch.testing.assert_close(found[:, i, j], m * slope, atol=1e-8, rtol=0)


def test_float32_follows_float64():
    w, target = problem(20, 60)
    torch.testing.assert_close(population_gradient(w.float(), target), population_gradient(w, target).float(), atol=2e-5, rtol=1e-4)
    near = ground_truth(target).repeat(2, 1)  # equal and opposite neurons: cosines of +-1, where arccos has no derivative
    assert float(population_gradient(near.float(), target).abs().max()) < 1e-6, "every neuron twice is still the target"
    torch.testing.assert_close(population_gradient(2 * near.float(), target), population_gradient(2 * near, target).float())


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_the_sample_gradient_by_automatic_differentiation(activation, monkeypatch):
    w, target = problem(5, 4, members=3)
    x = derive(1, "x", ids=range(37)).normal(5, dtype=DOUBLE)
    y = target(x)
    leaf = w.clone().requires_grad_()
    hidden = torch.einsum("nd,smd->snm", x, leaf)
    active = hidden.relu() if activation == "relu" else hidden.abs()
    loss = ((active * leaf.square().sum(-1).sqrt()[:, None]).mean(-1) - y).square().mean(-1)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    for block in (1 << 24, 60, 1):  # memory is bounded by blocks of rows, and the answer does not depend on them
        monkeypatch.setattr(two_layer_loss, "_BLOCK", block)
        torch.testing.assert_close(sample_loss(w, x, y, activation), loss.detach())
        torch.testing.assert_close(sample_gradient(w, x, y, activation), 4 * gradient)


def test_samples_of_their_own_for_each_member():
    w, target = problem(5, 4, members=3)
    x = derive(1, "x", ids=range(3)).normal(11, 5, dtype=DOUBLE)
    together = sample_gradient(w, x, target(x))
    torch.testing.assert_close(together, torch.stack([sample_gradient(w[k], x[k], target(x[k])) for k in range(3)]))


def test_the_sample_gradient_tends_to_that_of_the_population():
    w, target = problem(4, 3, members=1)
    parts = torch.stack([sample_gradient(w[0], x, target(x)) for x in derive(5, ids=range(200)).normal(2000, 4, dtype=DOUBLE)])
    off = (parts.mean(0) - population_gradient(w[0], target)).abs()
    assert bool((off < 4.5 * parts.std(0) / math.sqrt(200)).all())


def test_a_zero_neuron_stays_and_refusals():
    w, target = problem(5, 4, members=1)
    w[0, 2] = 0
    x = derive(1, "x", ids=range(9)).normal(5, dtype=DOUBLE)
    assert float(sample_gradient(w, x, target(x))[0, 2].abs().max()) == 0 == float(population_gradient(w, target)[0, 2].abs().max())
    for call in (population_loss, population_gradient):
        with pytest.raises(DataError, match="do not fit a target in 4 dimensions"):
            call(w, uniform_target(4))
    for bad in (torch.ones(0, 5), torch.ones(3, 5)):
        with pytest.raises(DataError, match="samples need x"):
            sample_loss(w, bad.double(), torch.ones(0 if len(bad) == 0 else 2, dtype=DOUBLE))
