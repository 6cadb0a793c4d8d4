"""Projected gradient descent: exact on linear networks, and its rules for steps, restarts and the point returned."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.norms import sparse_step
from brinell.core.perturbation import points
from brinell.core.threat import Ball
from brinell.models.reference import exact_margin, linear_network
from brinell.perturb.pgd import PGD
from watched import Watch, free

NORMS = (1, 2, math.inf)
WEIGHT, BIAS = derive(0, "weight", ids=[0, 1]).normal(25), torch.tensor([0.3, -0.2])
X = derive(0, "x", ids=range(12)).uniform(1, 5, 5, low=0.3, high=0.7)
NET = linear_network(WEIGHT, BIAS)
with torch.no_grad():
    Y = NET(X).argmax(1)


def ask(attack, net=NET, x=X, y=Y, seed=0):
    return points(attack(net, x, y, draws=derive(seed, ids=range(len(x)))))


def never(z):
    """Always class 0 by far, more so for larger inputs: no attack on class 0 succeeds."""
    s = z.flatten(1).sum(1, keepdim=True)
    return torch.cat((s + 1000, -s), 1)


# ---------------------------------------------------------------- linear networks


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
@pytest.mark.parametrize("random_start", [True, False])
def test_flips_just_beyond_the_exact_margin_and_never_below(norm, loss, random_start):
    margins = exact_margin(WEIGHT, BIAS, X, Y, norm)
    for factor, flips in ((1.02, True), (0.999, False)):
        for row in range(4):
            ball, at = free(norm, float(margins[row]) * factor), slice(row, row + 1)
            z = ask(PGD(threat=ball, loss=loss, random_start=random_start), x=X[at], y=Y[at])
            assert ball.contains(X[at], z).all()
            assert bool(NET(z).argmax(1) != Y[row]) == flips


@pytest.mark.parametrize("norm", NORMS)
def test_three_classes_are_never_flipped_below_the_margin(norm):
    weight = derive(5, ids=range(3)).normal(25)
    net = linear_network(weight)
    with torch.no_grad():
        y = net(X).argmax(1)
    margins = exact_margin(weight, None, X, y, norm)
    for factor, flips in ((1.05, True), (0.999, False)):
        for row in range(3):
            at = slice(row, row + 1)
            z = ask(PGD(threat=free(norm, float(margins[row]) * factor), loss="margin", restarts=2), net, X[at], y[at])
            assert bool(net(z).argmax(1) != y[row]) == flips


def best_in_the_box(g: np.ndarray, x: np.ndarray, norm: float, eps: float) -> float:
    """max <g, v> with |v| <= eps and 0 <= x + v <= 1: corners for inf; the steepest entries filled first for 1."""
    room = np.where(g > 0, 1 - x, x)
    if norm == math.inf:
        return float((np.abs(g) * np.minimum(room, eps)).sum())
    total, left = 0.0, eps
    for k in np.argsort(-np.abs(g)):
        used = min(room[k], left)
        total, left = total + abs(g[k]) * used, left - used
    return total


@pytest.mark.parametrize(("norm", "eps"), [(1, 0.4), (1, 3.0), (math.inf, 0.1), (math.inf, 0.6)])
def test_the_largest_loss_within_ball_and_box(norm, eps):
    """Entries at 0 and 1 cannot go further; the optimum of a linear loss is known."""
    x = torch.where(X > 0.62, 1.0, torch.where(X < 0.38, 0.0, X))
    ball = Ball(norm=norm, eps=eps)
    z = ask(PGD(threat=ball, goal=parse("maximise(margin)"), steps=60), x=x)
    assert ball.contains(x, z).all()
    for row, label in enumerate(Y.tolist()):
        g = (WEIGHT[1 - label] - WEIGHT[label]).double().numpy()
        gained = float(g @ (z[row] - x[row]).flatten().double().numpy())
        best = best_in_the_box(g, x[row].flatten().double().numpy(), norm, eps)
        assert 0.97 * best <= gained <= best + 1e-4


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("attack", "size"),
    [
        (PGD(steps=4, rate=2.0, threat=Ball(eps=0.2), random_start=False), 0.1),
        (PGD(steps=4, threat=Ball(eps=0.16), random_start=False), 0.1),
        (PGD(steps=4, step_size=0.03, threat=Ball(eps=0.2), random_start=False), 0.03),
        (PGD(steps=4, step_size=0.03, rate=9.0, threat=Ball(norm=2, eps=0.2), random_start=False), 0.03),
    ],
)
def test_the_step_rule(attack, size):
    net = Watch(never)
    ask(attack, net, y=torch.zeros(12, dtype=torch.int64))
    path = [z for z, _ in net.asked[1:]]
    assert torch.equal(path[0], X) and len(path) == 5
    norm = attack.threat.norm
    for k, z in enumerate(path):
        moved = torch.linalg.vector_norm((z - X).flatten(1), norm, dim=1)
        assert torch.allclose(moved, torch.full((12,), min(k * size, attack.threat.eps)), atol=1e-6)


def test_momentum_adds_up_normalised_gradients():
    """Against equation 6 of Dong et al., by hand, on a curved landscape."""
    watch = Watch(lambda z: torch.stack((z.flatten(1).square().sum(1) + 50, (3 * z).flatten(1).sin().sum(1)), 1))
    attack = PGD(steps=6, momentum=0.9, loss="margin", threat=free(2, 0.5), random_start=False)
    ask(attack, watch, X[:1].double(), torch.zeros(1, dtype=torch.int64))
    path = [z[0].flatten().numpy() for z, _ in watch.asked[1:]]
    z, velocity, x, size = path[0], 0.0, path[0], 2.5 * 0.5 / 6
    for found in path[1:]:
        g = 3 * np.cos(3 * z) - 2 * z
        velocity = 0.9 * velocity + g / np.abs(g).sum()
        z = z + size * velocity / np.linalg.norm(velocity)
        z = x + (z - x) * min(1, 0.5 / np.linalg.norm(z - x))
        assert np.allclose(z, found, atol=1e-7)


def test_l1_steps_move_many_entries_early_and_one_late():
    net = Watch(never)
    ask(PGD(steps=10, threat=free(1, 0.5), sparsity=0.4, random_start=False), net, y=torch.zeros(12, dtype=torch.int64))
    moved = [(b - a).flatten(1).ne(0).sum(1).max().item() for (a, _), (b, _) in zip(net.asked[1:5], net.asked[2:6], strict=True)]
    assert moved == [10, 8, 6, 4]  # ceil((1 - 2 k / 10) * 0.4 * 25)


@pytest.mark.parametrize("count", [1, 3, 10])
def test_a_sparse_step_gains_most_of_all_that_are_allowed(count):
    """Against a linear programme: max <g, v> with |v|_1 <= size, |v_i| <= size / count, and z + v in the box."""
    from scipy.optimize import linprog

    rng = np.random.default_rng(count)
    g, z, size = rng.normal(size=(6, 15)), rng.choice([0.0, 0.05, 0.5, 0.97, 1.0], (6, 15)), 0.6
    g[0, :5] = 0
    step = sparse_step(torch.from_numpy(g), torch.from_numpy(z), size, count, 0.0, 1.0).numpy()
    assert (np.abs(step).sum(1) <= size + 1e-12).all() and (z + step >= -1e-12).all() and (z + step <= 1 + 1e-12).all()
    for row in range(6):
        up, down = np.minimum(1 - z[row], size / count), np.minimum(z[row], size / count)
        bounds = [(0, most) for most in (*up, *down)]
        best = linprog(-np.concatenate((g[row], -g[row])), A_ub=np.ones((1, 30)), b_ub=[size], bounds=bounds)
        assert g[row] @ step[row] == pytest.approx(-best.fun)
    free = sparse_step(torch.from_numpy(g), torch.from_numpy(z), size, count, -math.inf, math.inf)
    assert (free != 0).sum(1).tolist() == [count] * 6 and torch.allclose(free.abs().sum(1), torch.full((6,), size, dtype=torch.float64))


def test_random_starts_are_those_of_the_draws_and_differ_between_restarts():
    net = Watch(never)
    y = torch.zeros(12, dtype=torch.int64)
    attack = PGD(steps=2, restarts=3, threat=Ball(eps=0.1))
    ask(attack, net, y=y, seed=5)
    starts = [net.asked[k][0] for k in (1, 4, 7)]
    for restart, start in enumerate(starts):
        assert torch.equal(start, attack.threat.sample(X, derive(5, ids=range(12)).at(restart)))
    assert not torch.equal(starts[0], starts[1]) and not torch.equal(starts[1], starts[2])
    assert torch.equal(ask(attack, seed=5), ask(attack, seed=5)) and not torch.equal(
        ask(attack, never, y=y, seed=5), ask(attack, never, y=y, seed=6)
    )


def test_only_survivors_are_tried_again():
    margins = exact_margin(WEIGHT, BIAS, X, Y, math.inf)
    eps = float(margins.median()) * 1.2
    flipped = int((margins < eps / 1.05).sum())
    assert 3 < flipped < 10 and not ((margins > eps / 1.05) & (margins < eps)).any()
    net = Watch(NET)
    ask(PGD(threat=free(math.inf, eps), steps=20, restarts=2), net)
    clean, first, second = [k for k, (_, grad) in enumerate(net.asked) if not grad]  # the looks after the last steps
    assert clean == 0 and net.rows[1] == 12 and second == len(net.rows) - 1
    assert net.rows[first:] == [12 - flipped] * (1 + 20 + 1)


def test_passes_on_a_network_that_never_yields():
    net = Watch(never)
    attack = PGD(steps=7, restarts=2, threat=Ball(eps=0.1))
    ask(attack, net, y=torch.zeros(12, dtype=torch.int64))
    assert net.rows == [12] * 17 and [grad for _, grad in net.asked].count(True) == 14
    assert attack.cost == (16, 14)


def test_samples_that_are_wrong_already_stay_where_they_are():
    net = Watch(NET)
    z = ask(PGD(threat=Ball(eps=0.1)), net, y=1 - Y)
    assert torch.equal(z, X) and net.rows == [12]
    half = torch.where(torch.arange(12) % 2 == 0, Y, 1 - Y)
    z = ask(PGD(threat=Ball(eps=0.1)), y=half)
    assert ((z != X).flatten(1).any(1) == (half == Y)).all()


def test_the_best_point_of_all_starts_is_returned():
    """The loss is a narrow peak that every step leaps over."""

    def peak(z):
        height = 1 - 8 * (z.flatten(1).mean(1) - 0.5).abs()
        return torch.stack((torch.full_like(height, 5.0), height), 1)

    net = Watch(peak)
    y = torch.zeros(12, dtype=torch.int64)
    z = ask(PGD(threat=Ball(eps=0.3), steps=6, restarts=4, loss="margin"), net, y=y)
    seen = torch.stack([peak(point)[:, 1] for point, _ in net.asked[1:]])
    assert len(seen) == 4 * 7
    assert torch.equal(peak(z)[:, 1], seen.amax(0)) and len(set(seen.argmax(0).tolist())) > 3


def test_the_domain_need_not_be_the_unit_interval():
    x = X * 6 - 3
    ball = Ball(eps=0.5, low=-3.0, high=1.0)
    with torch.no_grad():
        x, y = x.clamp(-3, 1), NET(x.clamp(-3, 1)).argmax(1)
    z = ask(PGD(threat=ball, goal=parse("maximise(margin)")), x=x, y=y)
    assert ball.contains(x, z).all() and float(z.min()) < 0
    want = torch.stack([(x[i] + 0.5 * (WEIGHT[1 - y[i]] - WEIGHT[y[i]]).sign().reshape(1, 5, 5)).clamp(-3, 1) for i in range(12)])
    assert torch.allclose(z, want, atol=1e-6)


def test_functions_and_modules_in_training_mode():
    attack = PGD(threat=Ball(eps=0.05), steps=5)
    want = ask(attack)
    assert torch.equal(ask(attack, net=lambda z: z.flatten(1) @ WEIGHT.T + BIAS), want)
    net = nn.Sequential(nn.Dropout(0.5), *NET)
    net[1].requires_grad_(False)
    assert torch.equal(ask(attack, net=net), want) and net.training and net[0].training and net[2].weight.requires_grad
    with torch.no_grad():
        assert torch.equal(ask(attack, net=net), want)


def test_rows_do_not_depend_on_their_batch_mates():
    attack = PGD(threat=Ball(eps=float(exact_margin(WEIGHT, BIAS, X, Y, math.inf).median())), steps=10, restarts=2)
    together = ask(attack)
    for row in range(12):
        alone = points(attack(NET, X[row : row + 1], Y[row : row + 1], draws=derive(0, ids=[row])))
        assert torch.allclose(alone[0], together[row], atol=1e-6)


# ---------------------------------------------------------------- goals


@pytest.mark.parametrize("label", ["runner_up", "least_likely", "2"])
def test_targets_are_reached(label):
    weight = derive(5, ids=range(4)).normal(25)
    net = linear_network(weight)
    with torch.no_grad():
        clean = net(X)
    y = clean.argmax(1)
    attack = parse(f"pgd(goal=target({label}), threat=ball(norm=2, eps=4))")
    reached = net(ask(attack, net, y=y)).argmax(1)
    assert torch.equal(reached, attack.goal.targets(y, clean))


@pytest.mark.parametrize("quantity", ["kl", "reverse_kl", "js"])
def test_divergences_grow(quantity):
    attack = parse(f"pgd(goal=maximise({quantity}), threat=ball(eps=0.1), steps=20)")
    with torch.no_grad():
        clean = NET(X)
        start, end = (attack.goal.loss(NET(z), Y, clean) for z in (attack.threat.sample(X, derive(0, ids=range(12)).at(0)), ask(attack)))
    assert (end > start).all()
    away = torch.stack([NET(X + s * 0.1 * (WEIGHT[1] - WEIGHT[0]).sign().reshape(1, 5, 5)) for s in (-1, 1)])
    best = torch.stack([attack.goal.loss(logits.detach(), Y, clean) for logits in away])
    assert (end <= best.amax(0) + 1e-5).all() and (end >= best.amin(0) - 1e-5).all()  # one of the two ends of the ball


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("steps=0", "greater than or equal to 1"),
        ("restarts=0", "greater than or equal to 1"),
        ("rate=0", "greater than 0"),
        ("step_size=-1", "greater than 0"),
        ("step_size=inf", "finite"),
        ("sparsity=0", "greater than 0"),
        ("sparsity=2", "less than or equal to 1"),
        ("loss=hinge", "cross_entropy"),
        ("threat=misclassify", "[Bb]all"),
        ("goal=maximise(kl), random_start=False", "needs random_start=True"),
    ],
)
def test_fields_out_of_range(fields, words):
    with pytest.raises(SpecError, match=words):
        parse(f"pgd({fields})")
