"""FAB: its step by hand, its targeted runs, and what it costs; exactness is in test_minimum_norm."""

import math

import pytest
import torch

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.network import Counted
from brinell.models.reference import exact_margin, linear_network

WEIGHT = derive(1, "weight", ids=range(5)).normal(16)
X = derive(0, "x", ids=range(8)).uniform(1, 4, 4, low=0.3, high=0.7)
NET = linear_network(WEIGHT)
with torch.no_grad():
    Y = NET(X).argmax(1)


def ask(text, net=NET, y=Y):
    return parse(text)(net, X, y, draws=derive(0, ids=range(len(X))))


class Watch:
    """Remembers the points that were asked with a gradient."""

    def __init__(self, net):
        self.net, self.asked = net, []

    def __call__(self, z):
        if z.requires_grad:
            self.asked.append(z.detach().clone())
        return self.net(z)


def test_one_step_by_hand():
    """From x the step is onto the plane, eta beyond it, and a tenth of the way back after success (both steps coincide at x)."""
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    net = Watch(lambda z: z.flatten(1) @ weight.T)
    x = torch.tensor([[0.4, 0.2]])  # lead of class 0: 2, distance 2 / 5
    parse("fab(steps=2, threat=ball(norm=2, eps=inf, low=-inf, high=inf))")(net, x, torch.tensor([0]), draws=derive(0, ids=[0]))
    assert torch.equal(net.asked[0], x)
    step = 1.05 * 0.4 * torch.tensor([[-0.6, -0.8]])
    assert torch.allclose(net.asked[1], x + 0.9 * step, atol=1e-6)


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_towards_one_class_at_a_time_finds_the_nearest_of_them(norm):
    ball = f"threat=ball(norm={norm:g}, eps=inf, low=-inf, high=inf)"
    exact = exact_margin(WEIGHT, None, X, Y, norm)
    far = [parse(f"fab(steps=10, {ball})").threat.distance(X, ask(f"fab(steps=10, targets={k}, {ball})").z) for k in (1, 2, 4)]
    assert (far[1] <= far[0] * (1 + 1e-6)).all() and (far[2] <= far[1] * (1 + 1e-6)).all()
    assert torch.allclose(far[2], exact, rtol=5e-4)


def test_restarts_begin_within_half_and_then_all_of_the_distance_found():
    net = Watch(NET)
    attack = parse("fab(steps=6, restarts=3, threat=ball(norm=2, eps=inf))")
    z = attack(net, X, Y, draws=derive(0, ids=range(len(X)))).z
    starts = [net.asked[6 * k] for k in range(3)]
    assert torch.equal(starts[0], X) and not torch.equal(starts[1], starts[2])
    found = attack.threat.distance(X, z)
    for start, share in zip(starts[1:], (0.5, 1.0), strict=True):
        far = attack.threat.distance(X, start)
        assert (far > 0).all() and (far <= (share + 0.01) * found).all()
    assert (far > 0.5 * found).any()


def test_the_passes_it_takes_are_those_it_announces():
    counted, attack = Counted(NET), parse("fab(steps=7, targets=2, threat=ball(norm=2, eps=inf))")
    attack(counted, X, Y, draws=derive(0, ids=range(len(X))))
    assert counted.backwards == len(X) * attack.cost[1]
    assert counted.forwards == len(X) * (1 + 2 * 14 + 10 + 1) and attack.cost[0] == 2 * 14 + 10 + 1


def test_a_network_of_two_classes_has_one_target():
    net = linear_network(WEIGHT[:2])
    with torch.no_grad():
        y = net(X).argmax(1)
    attempt = ask("fab(steps=5, targets=9)", net, y)
    assert (net(attempt.z).argmax(1) != y).all()
