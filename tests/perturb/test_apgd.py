"""Auto-PGD: its schedule against a slow twin, exact answers on linear and small ReLU networks, its rules of runs and targets."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from brinell.core import ascent
from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.network import Counted
from brinell.core.perturbation import points
from brinell.core.threat import Ball
from brinell.models.reference import exact_margin, linear_network
from brinell.perturb.apgd import APGD, checkpoints
from watched import Watch, free

X = derive(0, "x", ids=range(10)).uniform(1, 5, 5, low=0.3, high=0.7)
WEIGHT = derive(5, ids=range(4)).normal(25)
NET = linear_network(WEIGHT)
with torch.no_grad():
    Y = NET(X).argmax(1)


def ask(attack, net=NET, x=X, y=Y, seed=0):
    return points(attack(net, x, y, draws=derive(seed, ids=range(len(x)))))


# ---------------------------------------------------------------- the schedule


@pytest.mark.parametrize("steps", [1, 2, 7, 30, 100, 1000])
def test_checkpoints_are_those_of_the_paper(steps):
    """p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), in whole steps as in the authors' code."""
    period, least, less = (max(int(round(share * steps, 9)), 1) for share in (0.22, 0.06, 0.03))
    want, at = [], 0
    for _ in range(steps):
        at += period
        if at <= steps:
            want.append((at, period))
        period = max(period - less, least)
    assert list(checkpoints(steps).items()) == want
    if steps == 1000:
        p = [0, 0.22]
        while p[-1] < 1:
            p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
        assert [at / 1000 for at in checkpoints(1000)] == pytest.approx([share for share in p[1:] if share <= 1])


def slow_twin(start, x, eps, steps, loss, gradient):
    """One sample, Linf, no walls, written after algorithm 1 of the paper with plain numbers."""

    def project(z):
        return np.clip(z, x - eps, x + eps)

    size, z, old, path = 2 * eps, start.copy(), start.copy(), [start.copy()]
    values = [loss(z)]
    best, top, g_best = z.copy(), values[0], gradient(z)
    then, halved, since, period = top, True, 0, max(int(0.22 * steps), 1)
    g = g_best
    for k in range(steps):
        moved = z - old
        old = z.copy()
        u = project(z + size * np.sign(g))
        z = u if k == 0 else project(z + 0.75 * (u - z) + 0.25 * moved)
        path.append(z.copy())
        values.append(loss(z))
        g = gradient(z)
        if values[-1] > top:
            best, top, g_best = z.copy(), values[-1], g
        since += 1
        if since == period:
            rises = sum(values[i] > values[i - 1] for i in range(len(values) - period, len(values)))
            stalled = rises <= 0.75 * period or (not halved and then >= top)
            halved, then, since, period = stalled, top, 0, max(period - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
            if stalled:
                size /= 2
                z, g = best.copy(), g_best
    return path


@pytest.mark.parametrize("steps", [10, 40])
def test_every_point_is_that_of_a_slow_twin(steps):
    """A bumpy landscape of two numbers, never reached: points, halvings and returns to the best one."""
    eps, x = 0.5, torch.tensor([[0.3, -0.4]], dtype=torch.float64)

    def height(a, b, sin, cos):
        return sin(9 * a) * cos(7 * b) + 0.5 * a - 0.3 * b

    def net(z):
        value = height(z[:, 0], z[:, 1], torch.sin, torch.cos)
        return torch.stack((torch.full_like(value, 50.0), value), 1)

    def slope(z):
        da = 9 * math.cos(9 * z[0]) * math.cos(7 * z[1]) + 0.5
        return np.array([da, -7 * math.sin(9 * z[0]) * math.sin(7 * z[1]) - 0.3])

    watch = Watch(net)
    ask(APGD(steps=steps, loss="margin", threat=free(math.inf, eps)), watch, x, torch.zeros(1, dtype=torch.int64))
    path = [z[0].numpy() for z, _ in watch.asked[1:]]
    want = slow_twin(path[0], x[0].numpy(), eps, steps, lambda z: height(*z, math.sin, math.cos), slope)
    assert len(path) == steps + 1 and np.allclose(path, want, atol=1e-9)


# ---------------------------------------------------------------- exact answers


@pytest.mark.parametrize("norm", [1, 2, math.inf])
@pytest.mark.parametrize("fields", [{}, {"loss": "dlr"}, {"loss": "dlr", "targets": 9}, {"loss": "margin"}], ids=str)
def test_flips_just_beyond_the_exact_margin_and_never_below(norm, fields):
    margins = exact_margin(WEIGHT, None, X, Y, norm)
    for factor, flips in ((1.05, True), (0.999, False)):
        for row in range(2):
            at = slice(row, row + 1)
            ball = free(norm, float(margins[row]) * factor)
            z = ask(APGD(steps=60, threat=ball, **fields), x=X[at], y=Y[at])
            assert ball.contains(X[at], z).all()
            if flips and not fields.get("targets"):
                continue  # the runner-up at x need not be the nearest class; only aiming at each is sure to find it
            assert bool(NET(z).argmax(1) != Y[row]) == flips


def relu_network(seed: int, hidden: int = 5, inputs: int = 3, classes: int = 3) -> tuple[nn.Module, list[np.ndarray]]:
    draws = derive(seed, "relu", ids=range(hidden))
    w1, b1 = draws.normal(inputs), draws.normal(1).squeeze(1) / 2
    w2 = derive(seed, "out", ids=range(classes)).normal(hidden)
    net = nn.Sequential(*linear_network(w1, b1), nn.ReLU(), linear_network(w2)[1])
    return net, [part.double().numpy() for part in (w1, b1, w2)]


def worst_margin(parts: list[np.ndarray], x: np.ndarray, y: int, eps: float) -> float:
    """max over the box |z - x| <= eps of the largest lead of another class, by one linear programme per activation pattern."""
    from scipy.optimize import linprog

    w1, b1, w2 = parts
    best = -math.inf
    for pattern in itertools.product((0, 1), repeat=len(b1)):
        on = np.array(pattern)
        sign = 1 - 2 * on  # active units: w1 z + b1 >= 0
        rows, limits = sign[:, None] * w1, -sign * b1
        for k in set(range(len(w2))) - {y}:
            slope = ((w2[k] - w2[y]) * on) @ w1
            found = linprog(-slope, A_ub=rows, b_ub=limits, bounds=list(zip(x - eps, x + eps, strict=True)))
            if found.status == 0:
                best = max(best, -found.fun + ((w2[k] - w2[y]) * on) @ b1)
    return best


@pytest.mark.parametrize("seed", [0, 1])
def test_small_relu_networks_by_enumeration(seed):
    """Robust accuracy equals the exact one wherever the exact margin is not within a hair of 0, and never falls below it."""
    net, parts = relu_network(seed)
    x = derive(seed, "points", ids=range(8)).normal(3)
    y = net(x).argmax(1).detach()
    ball = free(math.inf, 0.25)
    exact = np.array([worst_margin(parts, x[i].double().numpy(), int(y[i]), 0.25) for i in range(8)])
    assert 0 < (exact > 0).sum() < 8
    z = ask(APGD(threat=ball, loss="margin", targets=2, restarts=3), net, x, y)
    flipped = (net(z).argmax(1) != y).numpy()
    assert not flipped[exact < -1e-6].any() and flipped[exact > 1e-2].all()


# ---------------------------------------------------------------- runs, targets, classes


@pytest.mark.parametrize("fields", [{"loss": "dlr"}, {"loss": "dlr", "targets": 9}, {"loss": "cross_entropy", "targets": 1}], ids=str)
@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(fields, classes):
    net = linear_network(WEIGHT[:classes])
    y = net(X).argmax(1).detach()
    margins = exact_margin(WEIGHT[:classes], None, X, y, math.inf)
    eps = float(margins.max()) * 1.01
    assert (net(ask(APGD(threat=free(math.inf, eps), **fields), net, y=y)).argmax(1) != y).all()


def test_passes_on_a_network_that_never_yields():
    def never(z):
        s = z.flatten(1).sum(1, keepdim=True)
        return torch.cat((s + 1000, -s, s - 3, 2 * s), 1)

    y = torch.zeros(10, dtype=torch.int64)
    for norm in (1, 2, math.inf):
        attack = APGD(steps=12, restarts=2, targets=9, threat=Ball(norm=norm, eps=0.1))
        net = Counted(never)
        assert ask(attack, net, y=y).shape == X.shape
        forwards, backwards = net.reset()
        # nine classes are asked for, three are there
        full = attack.replace(targets=3).cost
        assert (forwards / 10, backwards / 10) == (full[0] + 1, full[1])


def test_counts_are_per_sample_and_exact():
    margins = exact_margin(WEIGHT, None, X, Y, math.inf)
    attack = APGD(steps=15, restarts=2, threat=free(math.inf, float(margins.median())))
    net = Counted(NET)
    with torch.no_grad():
        clean = NET(X)
    climb = attack.climb(net, X, Y, clean, draws=derive(0, ids=range(10)))
    assert 0 < climb.reached.sum() < 10
    assert net.reset() == (int(climb.forwards.sum()), int(climb.backwards.sum()))
    assert (climb.forwards[~climb.reached] == 2 * 16).all() and (climb.backwards[~climb.reached] == 30).all()


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_rows_do_not_depend_on_their_batch_mates(norm):
    attack = APGD(steps=10, targets=2, threat=Ball(norm=norm, eps=float(exact_margin(WEIGHT, None, X, Y, norm).median())))
    together = ask(attack)
    for row in range(0, 10, 3):
        alone = points(attack(NET, X[row : row + 1], Y[row : row + 1], draws=derive(0, ids=[row])))
        assert torch.allclose(alone[0], together[row], atol=1e-3)  # on the top of the loss, rounding decides on halvings


@pytest.mark.parametrize("norm", [1, 2, math.inf])
@pytest.mark.parametrize("fields", [{"targets": 3, "loss": "dlr"}, {"restarts": 4}], ids=str)
def test_runs_side_by_side_find_what_they_find_in_turn(norm, fields, monkeypatch):
    n, found = 40, []
    x = derive(0, "bent", ids=range(n)).uniform(1, 5, 5, dtype=torch.float64)
    net = linear_network(WEIGHT.double())
    counted = Counted(lambda z: net(z) + torch.sin(9 * net(z.flip(2))))
    with torch.no_grad():
        y = counted(x).argmax(1)
    counted.reset()
    attack = APGD(steps=10, threat=Ball(norm=norm, eps={1: 0.5, 2: 0.2, math.inf: 0.05}[norm]), **fields)
    for together in (0, 2**16):
        monkeypatch.setattr(ascent, "TOGETHER", together)
        found.append((ask(attack, counted, x, y), counted.reset()))
    (z, passes), (shared, passes_shared) = found
    assert torch.allclose(z, shared, atol=1e-9)
    broken = int((counted(z).argmax(1) != y).sum())
    assert 0 < broken < n and passes_shared[0] >= passes[0]
    assert passes_shared[0] <= passes[0] + broken * attack.cost[0]


def test_targets_are_reached():
    attack = parse("apgd(goal=target(least_likely), loss=dlr, targets=3, threat=ball(norm=2, eps=4))")
    with torch.no_grad():
        assert torch.equal(NET(ask(attack)).argmax(1), attack.goal.targets(Y, NET(X)))


@pytest.mark.parametrize(("fields", "words"), [("rho=0", "greater than 0"), ("steps=0", "1"), ("targets=-1", "0"), ("loss=hinge", "dlr")])
def test_fields_out_of_range(fields, words):
    with pytest.raises(SpecError, match=words):
        parse(f"apgd({fields})")
