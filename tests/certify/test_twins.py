"""Bounds of small fully connected networks against slow twins in numpy, and against the exact minimum by brute force."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from brinell.certify.interval import interval_bounds
from brinell.certify.linear_relaxation import linear_bounds
from brinell.core.threat import Ball

ROW = np.array([1.0, -1.0])


def network(widths, seed):
    """Weights and biases of a fully connected ReLU network with 2 outputs, and the same as a module in float64."""
    lot = np.random.default_rng(seed)
    layers = [(lot.normal(size=(b, a)) * 1.5 / math.sqrt(a), lot.normal(size=b) * 0.3) for a, b in itertools.pairwise(widths)]
    parts = []
    for w, b in layers:
        part = nn.Linear(w.shape[1], w.shape[0], dtype=torch.float64)
        part.weight.data, part.bias.data = torch.tensor(w), torch.tensor(b)
        parts += [part, nn.ReLU()]
    return layers, nn.Sequential(*parts[:-1]).requires_grad_(False)


def box_twin(layers, low, high):
    """Intervals before every ReLU, entry by entry, and the least value of ROW times the outputs."""
    found = []
    for w, b in layers[:-1]:
        below = [sum(w[i, j] * (low[j] if w[i, j] > 0 else high[j]) for j in range(len(low))) + b[i] for i in range(len(b))]
        above = [sum(w[i, j] * (high[j] if w[i, j] > 0 else low[j]) for j in range(len(low))) + b[i] for i in range(len(b))]
        found.append((np.array(below), np.array(above)))
        low, high = np.maximum(below, 0), np.maximum(above, 0)
    w, b = ROW @ layers[-1][0], ROW @ layers[-1][1]
    return found, sum(w[j] * (low[j] if w[j] > 0 else high[j]) for j in range(len(low))) + b


def line_twin(layers, low, high, row, depth, known):
    """The least value of `row` times the outputs of layer `depth`, by the paper's recursion, unit by unit."""
    a, constant = row @ layers[depth][0], row @ layers[depth][1]
    for level in range(depth - 1, -1, -1):
        below, above = known[level]
        slope = np.zeros_like(a)
        for j in range(len(a)):
            if below[j] >= 0:
                slope[j] = a[j]
            elif above[j] > 0:
                chord = above[j] / (above[j] - below[j])
                if a[j] < 0:
                    slope[j], constant = a[j] * chord, constant - a[j] * chord * below[j]
                else:
                    slope[j] = a[j] if above[j] > -below[j] else 0.0
        a, constant = slope @ layers[level][0], constant + slope @ layers[level][1]
    return constant + sum(a[j] * (low[j] if a[j] > 0 else high[j]) for j in range(len(a)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("widths", [(3, 6, 2), (4, 5, 5, 2), (2, 4, 3, 4, 2)], ids=str)
def test_both_methods_equal_their_twins(widths, seed):
    layers, net = network(widths, seed)
    x = np.random.default_rng(seed + 99).uniform(0.1, 0.9, widths[0])
    low, high = np.maximum(x - 0.25, 0), np.minimum(x + 0.25, 1)
    given = torch.tensor(x)[None], Ball(eps=0.25), torch.tensor(ROW)[None]
    _, least = box_twin(layers, low, high)
    assert interval_bounds(net, *given, rounding=False)[0].item() == pytest.approx(least, abs=1e-12)
    known = []
    for depth in range(len(layers) - 1):
        inner = [*layers[: depth + 1], layers[-1]]
        (below, above) = _boxes_of(inner, low, high, known)
        units = np.eye(len(below))
        for unit in np.flatnonzero((below < 0) & (above > 0)):
            one = units[unit]
            least, most = line_twin(layers, low, high, one, depth, known), -line_twin(layers, low, high, -one, depth, known)
            below[unit], above[unit] = max(below[unit], least), min(above[unit], most)
        known.append((below, above))
    expected = max(line_twin(layers, low, high, ROW, len(layers) - 1, known), _folded(layers, known))
    assert linear_bounds(net, *given, rounding=False)[0].item() == pytest.approx(expected, abs=1e-12)


def _boxes_of(layers, low, high, known):
    """The box before the ReLU after the layers known so far."""
    if known:
        low, high = (np.maximum(end, 0) for end in known[-1])
    w, b = layers[len(known)]
    return np.minimum(w * low, w * high).sum(1) + b, np.maximum(w * low, w * high).sum(1) + b


def _folded(layers, known):
    w, b = ROW @ layers[-1][0], ROW @ layers[-1][1]
    low, high = (np.maximum(end, 0) for end in known[-1])
    return np.minimum(w * low, w * high).sum() + b


def exact_least(layers, low, high):
    """The least value of ROW times the outputs over the box: a linear programme for each pattern of ReLUs on and off."""
    (w, b), (v, c) = layers
    best = math.inf
    for pattern in itertools.product((0.0, 1.0), repeat=len(b)):
        on = np.array(pattern)
        sides = np.where(on[:, None] > 0, -w, w)
        goal = (ROW @ v * on) @ w
        solved = linprog(goal, A_ub=sides, b_ub=np.where(on > 0, b, -b), bounds=list(zip(low, high, strict=True)))
        if solved.status == 0:
            best = min(best, solved.fun + (ROW @ v * on) @ b + ROW @ c)
    return best


@pytest.mark.parametrize("norm, eps", [(math.inf, 0.05), (math.inf, 0.2), (2, 0.2), (1, 0.3)])
@pytest.mark.parametrize("hidden, seed", [(4, 0), (6, 1), pytest.param(10, 2, marks=pytest.mark.slow)])
def test_brute_force_over_activation_patterns(hidden, seed, norm, eps):
    """In Linf the exact minimum lies above the floor; a round ball lies in its box, so its floor must not pass the ball's samples."""
    layers, net = network((3, hidden, 2), seed)
    x = torch.tensor(np.random.default_rng(seed).uniform(0.2, 0.8, 3))[None]
    ball, row = Ball(norm=norm, eps=eps), torch.tensor(ROW)[None]
    low, high = (end[0].numpy() for end in ball.box(x))
    box, line = (bounds(net, x, ball, row)[0].item() for bounds in (interval_bounds, linear_bounds))
    least = exact_least(layers, low, high)
    if norm == math.inf:
        assert box - 1e-9 <= line <= least + 1e-9
        known, _ = box_twin(layers, low, high)
        if all(((below >= 0) | (above <= 0)).all() for below, above in known):
            assert line == pytest.approx(least, abs=1e-7)
    else:
        assert line >= min(least, box) - 1e-9
        lot = torch.Generator().manual_seed(seed)
        z = ball.project(x.expand(20000, -1), x + torch.randn(20000, 3, generator=lot, dtype=torch.float64) * eps)
        assert line <= (net(z) @ row[0]).min()


def test_a_network_whose_signs_are_settled_is_bounded_exactly():
    layers, net = network((3, 5, 2), 0)
    net[0].bias += 10.0
    layers[0] = (layers[0][0], layers[0][1] + 10.0)
    x, ball = torch.full((1, 3), 0.5, dtype=torch.float64), Ball(eps=0.3)
    low, high = (end[0].numpy() for end in ball.box(x))
    assert linear_bounds(net, x, ball, torch.tensor(ROW)[None])[0].item() == pytest.approx(exact_least(layers, low, high), abs=1e-9)
