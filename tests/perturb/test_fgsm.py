"""The fast gradient method: exact on linear networks."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import DataError
from brinell.core.perturbation import points
from brinell.core.threat import Ball
from brinell.models.reference import exact_margin, linear_network
from brinell.perturb.fgsm import FGSM

NORMS = (1, 2, math.inf)
IDS = range(40)
WEIGHT, BIAS = derive(0, "weight", ids=[0, 1]).normal(9), torch.tensor([0.3, -0.2])
X = derive(0, "x", ids=IDS).uniform(1, 3, 3, low=0.3, high=0.7)
NET = linear_network(WEIGHT, BIAS)
with torch.no_grad():
    Y = NET(X).argmax(1)


def ask(attack, net=NET, x=X, y=Y):
    return points(attack(net, x, y, draws=derive(0, ids=range(len(x)))))


def free(norm, eps) -> Ball:
    return Ball(norm=norm, eps=eps, low=-math.inf, high=math.inf)


def closed_form(norm: float, eps: float) -> np.ndarray:
    """x moved by eps along the direction that lowers the lead of class y fastest."""
    w = WEIGHT.numpy()
    moved = X.flatten(1).numpy().copy()
    for row, label in enumerate(Y.tolist()):
        g = w[1 - label] - w[label]
        if norm == math.inf:
            moved[row] += eps * np.sign(g)
        elif norm == 2:
            moved[row] += eps * g / np.sqrt((g.astype(np.float64) ** 2).sum())
        else:
            k = np.abs(g).argmax()
            moved[row, k] += eps * np.sign(g[k])
    return moved


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_the_closed_form(norm, loss):
    z = ask(FGSM(threat=free(norm, 0.2), loss=loss))
    assert z.flatten(1).numpy() == pytest.approx(closed_form(norm, 0.2), abs=2e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_it_is_the_exact_worst_case_of_two_classes(norm):
    margins = exact_margin(WEIGHT, BIAS, X, Y, norm)
    for factor, flips in ((1.001, True), (0.999, False)):
        for row in range(len(X)):
            z = ask(FGSM(threat=free(norm, float(margins[row]) * factor)), x=X[row : row + 1], y=Y[row : row + 1])
            assert bool(NET(z).argmax(1) != Y[row]) == flips


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.25, 0.75)])
def test_walls_hold(norm, low, high):
    ball = Ball(norm=norm, eps=1.5, low=low, high=high)
    z = ask(FGSM(threat=ball))
    assert ball.contains(X, z).all() and float(z.min()) >= low and float(z.max()) <= high
    if norm == math.inf:
        assert torch.allclose(z, torch.from_numpy(closed_form(norm, 1.5)).reshape(X.shape).clamp(low, high), atol=1e-6)


def test_everyone_is_moved_those_who_are_wrong_already_too():
    z = ask(FGSM(threat=free(math.inf, 0.1)), y=1 - Y)
    assert ((z - X).abs().flatten(1).amax(1) > 0.09).all()


def test_a_target_is_approached():
    target = parse("fgsm(goal=target(1), threat=ball(eps=0.1))")
    z = ask(target)
    with torch.no_grad():
        gain = NET(z)[:, 1] - NET(z)[:, 0] - (NET(X)[:, 1] - NET(X)[:, 0])
    assert (gain > 0).all()


def test_confident_networks_are_attacked_as_well():
    """Logits times 1000: a float32 cross-entropy has no gradient there."""
    sure = linear_network(WEIGHT * 1000, BIAS * 1000)
    assert torch.equal(ask(FGSM(threat=free(math.inf, 0.2)), net=sure), ask(FGSM(threat=free(math.inf, 0.2))))


def test_functions_and_modules_in_training_mode():
    want = ask(FGSM())
    assert torch.equal(ask(FGSM(), net=lambda z: z.flatten(1) @ WEIGHT.T + BIAS), want)
    net = nn.Sequential(nn.Dropout(0.5), *NET)
    assert torch.equal(ask(FGSM(), net=net), want) and net.training and net[0].training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_cost_and_text():
    calls = []
    ask(FGSM(), net=lambda z: calls.append((len(z), z.requires_grad)) or z.flatten(1) @ WEIGHT.T)
    assert calls == [(40, False), (40, True)] and FGSM().cost == (1, 1)
    assert FGSM().spec() == "fgsm(threat=ball(eps=8/255, norm=inf))" and parse(FGSM(loss="margin").spec()) == FGSM(loss="margin")
    with pytest.raises(DataError, match="fgsm needs floating-point inputs"):
        ask(FGSM(), x=X.long())


def test_a_random_start_changes_the_point_the_step_begins_at():
    """On a linear network the direction is the same everywhere: the point is the start plus the longer step, projected."""
    attack = FGSM(threat=free(math.inf, 0.2), random_start=True, rate=1.25)
    z, draws = ask(attack), derive(0, ids=range(len(X)))
    start = attack.threat.sample(X, draws).flatten(1).numpy()
    x = X.flatten(1).numpy()
    gain = np.sign(WEIGHT.numpy()[1 - Y.numpy()] - WEIGHT.numpy()[Y.numpy()])
    assert z.flatten(1).numpy() == pytest.approx(np.clip(start + 0.25 * gain, x - 0.2, x + 0.2), abs=2e-7)
    assert np.abs(z.flatten(1).numpy() - closed_form(math.inf, 0.2)).max() > 0.01
