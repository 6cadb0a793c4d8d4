"""Escalation: attacks with too few steps, and attacks that do not work at all."""

import math

import pytest
import torch
from torch import nn

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.measurement import Status
from brinell.core.network import Counted
from brinell.core.perturbation import Attack
from brinell.core.probe import View
from brinell.core.threat import Ball
from brinell.models.reference import exact_margin, linear_network

WEIGHT = derive(0, "weight", ids=[0, 1]).normal(25)
X = derive(0, "x", ids=range(40)).uniform(1, 5, 5, low=0.3, high=0.7)
NET = linear_network(WEIGHT)
with torch.no_grad():
    Y = NET(X).argmax(1)


def read(text, net=NET):
    with torch.no_grad():
        logits = net(X)
    probe = parse(text)
    view = View(X, X, Y, torch.arange(40), logits, net=Counted(net))
    return {reading.name: reading for reading in probe.read(probe.observe(view, draws=derive(0, ids=range(40))))}


def test_what_an_attack_of_short_steps_misses_is_counted():
    """k steps of 0.02 reach 0.02 k: the samples whose margin lies between 0.1 and 0.2 fall to ten of them and not to five."""
    margins = exact_margin(WEIGHT, None, X, Y, math.inf)
    size = float(margins.median()) / 7.5
    attack = f"pgd(steps=5, step_size={size!r}, random_start=False, threat=ball(eps=0.29))"
    found = read(f"escalation(attack={attack}, share=1)")
    plain, longer = ((margins > reach).double().mean().item() for reach in (5 * size, 10 * size))
    assert found["attacked_accuracy"].value == pytest.approx(plain)
    assert found["longer_gain"].value == pytest.approx(plain - longer) and plain - longer > 0.2


def test_without_bounds_everything_falls_unless_the_gradient_is_hidden():
    class Stepped(nn.Module):
        def forward(self, x):
            return NET((x * 4).round() / 4)

    attack = "pgd(steps=10, random_start=False, threat=ball(eps=0.01))"
    assert read(f"escalation(attack={attack}, share=1)")["unbounded_accuracy"].value == 0.0
    with torch.no_grad():
        right = (Stepped()(X).argmax(1) == Y).double().mean().item()
    found = read(f"escalation(attack={attack}, share=1)", Stepped())
    assert found["unbounded_accuracy"].value == pytest.approx(right) and right > 0.5


def test_what_chance_breaks_and_a_blinded_attack_does_not():
    """The detached network gives no gradient: of what noise of the same size breaks the attack finds next to nothing."""

    class Detached(nn.Module):
        def forward(self, x):
            return NET(x.detach())

    attack = "pgd(steps=3, random_start=False, threat=ball(eps=0.2))"
    assert read(f"escalation(attack={attack}, noise=20, share=1)")["noise_gain"].value == 0.0
    found = read(f"escalation(attack={attack}, noise=20, share=1)", Detached())
    assert found["noise_gain"].value > 0.1 and found["attacked_accuracy"].value == 1.0


@pytest.mark.parametrize(("norm", "eps"), [("inf", 1.0), ("2", 5.0), ("1", 25.0)])
def test_the_endless_ball_holds_the_domain(norm, eps):
    probe = parse(f"escalation(attack=pgd(threat=ball(norm={norm}, eps=0.1)))")
    assert probe.endless(25).threat.eps == pytest.approx(eps)
    assert parse("escalation(attack=pgd(threat=ball(eps=0.1, low=-inf, high=inf)))").endless(25).threat.eps == 100.0


def test_what_is_doubled():
    twice = {"pgd(steps=3)": "pgd(steps=6)", "square(queries=10)": "square(queries=20)", "strongest(passes=60)": "strongest(passes=120)"}
    for text, want in twice.items():
        assert parse(f"escalation(attack={text})").longer() == parse(want)
    found = read("escalation(attack=fgsm, share=1)")
    assert found["longer_gain"].status is Status.UNDEFINED and "steps, queries, passes, restarts" in found["longer_gain"].reason


def test_it_needs_a_ball_with_an_end():
    with pytest.raises(SpecError, match="must look for a wrong answer"):
        parse("escalation(attack=fmn)")


class Forgetful(Attack, name="test_forgetful"):
    """Asks about the corner of the ball that is wrong if any point is, and then about the sample; returns one of the two."""

    threat: Ball = Ball(eps=0.1)
    returns: bool = False

    def __call__(self, net, x, y, *, draws):
        uphill = (WEIGHT[1 - y] - WEIGHT[y]).reshape(x.shape)
        z = self.threat.project(x, x + self.threat.eps * uphill.sign())
        for point in (z, x.clone()):
            net(point)
        return z if self.returns else x.clone()


def test_a_wrong_point_that_was_seen_and_not_returned_is_counted():
    broken = (exact_margin(WEIGHT, None, X, Y, math.inf) < 0.1).double().mean().item()
    found = read("escalation(attack=test_forgetful, share=1)")
    assert found["silent_share"].value == pytest.approx(broken) and 0.2 < broken < 1
    assert found["attacked_accuracy"].value == 1.0
    for attack in ("test_forgetful(returns=True)", "pgd(steps=10, threat=ball(eps=0.1))", "fmn(steps=10, threat=ball(norm=inf, eps=0.1))"):
        assert read(f"escalation(attack={attack}, share=1)")["silent_share"].value == 0.0
