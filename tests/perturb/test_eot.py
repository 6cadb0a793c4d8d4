"""Expectation over transformation: the mean it climbs, on networks whose randomness is known."""

import math

import pytest
import torch
from torch import nn

from brinell.core.ascent import goal_gradient
from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.goal import Misclassify
from brinell.core.perturbation import points
from brinell.perturb.eot import EOT, _Mean


class Jumping(nn.Module):
    """Two members, one drawn per pass: margins of class 0 are 1 + d and 1 - d at x = 1/2 + d, so that one of them is always right
    while |d| <= 2: on the mean network (margin 1) nothing can be reached; near |d| = 2 one member breaks."""

    def forward(self, x):
        d = x.flatten(1).sum(1) - 0.5
        lead = 1 + d * (1 if torch.rand(()) < 0.5 else -1)
        return torch.stack((lead, torch.zeros_like(lead)), 1)


class Noisy(nn.Module):
    """A linear network whose input gradient is buried in noise of its own weights; the mean over passes is the linear network."""

    def __init__(self, width: int, noise: float) -> None:
        super().__init__()
        self.weight, self.noise = torch.ones(width), noise

    def forward(self, x):
        weight = self.weight + self.noise * torch.randn_like(self.weight)
        lead = (x.flatten(1) - 0.4) @ weight
        return torch.stack((lead, torch.zeros_like(lead)), 1)


X = torch.full((6, 64), 0.5)
Y = torch.zeros(6, dtype=torch.int64)


def ask(text, net, x=X, y=Y):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return points(parse(text)(net, x, y, draws=derive(0, ids=range(len(x)))))


def test_the_mean_is_that_of_fresh_passes():
    net = Noisy(64, 1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        alone = torch.stack([net(X) for _ in range(7)])
        torch.manual_seed(1)
        together = _Mean(net, 7, soft=False)(X)
        torch.manual_seed(1)
        soft = _Mean(net, 7, soft=True)(X)
    assert torch.allclose(together, alone.mean(0))
    assert torch.allclose(soft.softmax(1), alone.softmax(2).mean(0), atol=1e-6)


def test_more_passes_give_a_better_direction():
    """The gradient of the mean of m passes is 1 + noise / sqrt(m) per weight; its cosine with the true one follows."""
    cosines = []
    for samples in (1, 64):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            g, _, _ = goal_gradient(_Mean(Noisy(64, 4.0), samples, False), X[:1], Y[:1], torch.zeros(1, 2), Misclassify(), "margin")
        cosines.append(float(-g.sum() / g.norm() / math.sqrt(64)))
    expected = [1 / math.sqrt(1 + 16 / m) for m in (1, 64)]
    assert cosines == pytest.approx(expected, abs=0.15)


def test_it_breaks_a_random_network_that_one_draw_hides():
    """At eps 0.13 the mean network is beaten (margin 6.4 - 64 * 0.13 < 0); the point found must beat most draws."""
    net = Noisy(64, 2.0)
    z = ask("eot(attack=pgd(steps=5, threat=ball(eps=0.13)), samples=32)", net)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        wrong = torch.stack([net(z).argmax(1) != Y for _ in range(200)]).double().mean()
        single = torch.stack([net(ask("pgd(steps=5, threat=ball(eps=0.13))", net)).argmax(1) != Y for _ in range(20)]).double().mean()
    assert wrong > 0.8
    assert wrong > single


def test_no_point_beats_the_mean_of_two_disjoint_members():
    """The mean of many passes has margin 1 + d * (share of heads - share of tails): it stays positive for small |d|."""
    z = ask(
        "eot(attack=pgd(steps=5, threat=ball(eps=0.4)), samples=64)", Jumping(), torch.full((4, 1), 0.5), torch.zeros(4, dtype=torch.int64)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean = _Mean(Jumping(), 400, soft=False)(z)
    assert (mean.argmax(1) == 0).all()


def test_the_loss_matters_for_two_disjoint_members():
    """Margins 1 + d and 1 - d, |d| <= 2: no point breaks both, and half the draws is the least that can be left. The mean logit is the same
    everywhere and shows no way; the mean probability falls towards both ends, where one member breaks."""
    x, y = torch.full((4, 1), 0.5), torch.zeros(4, dtype=torch.int64)
    right = {}
    for mean in ("logits", "probabilities"):
        ball = "threat=ball(eps=2.0, low=-inf, high=inf)"
        z = ask(f"eot(attack=pgd(steps=10, goal=maximise(cross_entropy), {ball}), samples=64, mean={mean})", Jumping(), x, y)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            right[mean] = torch.stack([Jumping()(z).argmax(1) == 0 for _ in range(400)]).double().mean(0)
    assert right["probabilities"].tolist() == pytest.approx([0.5] * 4, abs=0.08)
    assert right["logits"].min() > 0.4


def test_a_deterministic_network_is_attacked_as_without():
    net = Noisy(64, 0.0)
    plain, many = "pgd(steps=5, threat=ball(eps=0.13))", "eot(attack=pgd(steps=5, threat=ball(eps=0.13)), samples=3)"
    assert torch.allclose(ask(plain, net), ask(many, net), atol=1e-6)


def test_threat_goal_and_cost_are_those_of_the_attack():
    attack = parse("eot(attack=pgd(steps=5, goal=target(1), threat=ball(norm=2, eps=0.5)), samples=4)")
    assert attack.threat == parse("ball(norm=2, eps=0.5)") and attack.goal == parse("target(1)")
    assert attack.cost == (4 * 6, 4 * 5)
    assert parse(attack.spec()) == attack and "threat" not in attack.spec().replace("threat=ball(eps=0.5, norm=2)", "", 1)
    assert attack.within(parse("ball(eps=0.1)")).threat.eps == 0.1
    with pytest.raises(SpecError, match="to the inner attack"):
        EOT(threat=parse("ball(eps=0.1)"))
