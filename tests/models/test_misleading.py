"""Networks that mislead: their exact answers, and who is misled."""

import math

import numpy as np
import pytest
import torch

from brinell.core.draws import derive
from brinell.core.errors import NetworkError
from brinell.core.perturbation import points
from brinell.core.threat import Ball
from brinell.models.misleading import Decoy, Quantised, misleading_margin
from brinell.perturb.autoattack import AutoAttack
from brinell.perturb.pgd import PGD
from brinell.perturb.strongest import Strongest

N, SHAPE = 40, (3, 8, 8)


def case(architecture, classes=4):
    """Samples of class 0 with t spread over [-0.2, 0.2], and the network."""
    x = derive(0, "x", ids=range(N)).uniform(*SHAPE, low=0.3, high=0.7)
    t = torch.linspace(-0.2, 0.2, N)
    x = x + (0.5 + t * architecture.width - x.flatten(1).mean(1)).reshape(N, 1, 1, 1)
    return architecture.build(SHAPE, classes), x, torch.zeros(N, dtype=torch.int64)


def robust(attack, net, x, y):
    z = points(attack(net, x, y, draws=derive(3, ids=range(len(x)))))
    assert attack.threat.contains(x, z).all()
    return (net(z).argmax(1) == y).float().mean().item()


@pytest.mark.parametrize("architecture", [Decoy(), Quantised(), Quantised(levels=3, width=0.2)])
@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_the_margin_is_where_the_answer_changes(architecture, norm):
    net, x, y = case(architecture)
    net, x = net.double(), x.double()
    assert torch.equal(net(x).argmax(1), y)
    sign = -1.0 if isinstance(architecture, Decoy) else 1.0
    ones = torch.ones(192).double()
    unit = {1: torch.nn.functional.one_hot(torch.tensor(0), 192).double(), 2: ones / ones.norm(), math.inf: ones}[norm]
    margin = misleading_margin(architecture, x, norm)
    for factor, same in ((0.999, True), (1.001, False)):
        moved = x + (sign * factor * margin[:, None] * unit).reshape(N, *SHAPE)
        assert ((net(moved).argmax(1) == 0) == same).all()
        away = x - (sign * factor * margin[:, None] * unit).reshape(N, *SHAPE)
        assert (net(away).argmax(1) == 0).all()


def test_the_decoy_s_profile_is_the_drawn_one():
    net = Decoy(width=1.0).build((2,), 5)
    t = torch.linspace(-1.5, 1.5, 61).double()
    logits = net.double()(t[:, None].repeat(1, 2) + 0.5)
    want = [np.zeros(61), np.interp(t, [-1, -0.5, 0, 0.3, 1], [-9, -9, -1, -0.2, -0.2]), np.interp(t, [-1, -0.5, 0], [0.5, -2, -3])]
    assert np.allclose(logits[:, :3].numpy().T, want, atol=1e-6) and (logits[:, 3:] == -20).all()


def test_quantised_logits_have_no_gradient():
    net, x, _ = case(Quantised())
    (g,) = torch.autograd.grad(net(x.requires_grad_()).sum(), x)
    assert (g == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [Decoy(), Quantised()], ids=["decoy", "quantised"])
def test_cross_entropy_is_misled_and_the_strongest_is_not(architecture):
    net, x, y = case(architecture)
    ball = Ball(eps=architecture.width * (0.9 if isinstance(architecture, Decoy) else 0.6))
    margin = misleading_margin(architecture, x, math.inf)
    exact = (margin >= ball.eps).double().mean().item()
    assert 0.3 < exact < 0.7
    near = (margin < 0.8 * ball.eps) | (margin >= ball.eps)  # without gradients the last corner of a box is not found
    want = (margin[near] >= ball.eps).double().mean().item()
    assert robust(PGD(threat=ball, steps=20), net, x[near], y[near]) >= want + 0.03
    assert robust(Strongest(threat=ball), net, x[near], y[near]) == pytest.approx(want)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [Decoy(), Quantised()], ids=["decoy", "quantised"])
def test_autoattack_is_not_misled(architecture):
    net, x, y = case(architecture)
    ball = Ball(eps=architecture.width * (0.9 if isinstance(architecture, Decoy) else 0.6))
    margin = misleading_margin(architecture, x, math.inf)
    near = ((margin < 0.8 * ball.eps) | (margin >= ball.eps)) & (torch.arange(N) % 4 == 0)
    found = robust(AutoAttack(threat=ball), net, x[near], y[near])
    assert found == pytest.approx((margin[near] >= ball.eps).double().mean().item())


def test_a_decoy_needs_three_classes():
    with pytest.raises(NetworkError, match="three classes"):
        Decoy().build(SHAPE, 2)
