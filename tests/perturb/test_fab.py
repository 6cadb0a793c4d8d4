"""FAB: its step by hand, its targeted runs, and what it costs; exactness is in test_minimum_norm."""

import math

import pytest
import torch

from brinell.core import ascent
from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.network import Counted
from brinell.models.reference import exact_margin, linear_network
from watched import Watch

WEIGHT = derive(1, "weight", ids=range(5)).normal(16)
X = derive(0, "x", ids=range(8)).uniform(1, 4, 4, low=0.3, high=0.7)
NET = linear_network(WEIGHT)
with torch.no_grad():
    Y = NET(X).argmax(1)


def ask(text, net=NET, y=Y):
    return parse(text)(net, X, y, draws=derive(0, ids=range(len(X))))


def test_one_step_by_hand():
    """From x the step is onto the plane, eta beyond it, and a tenth of the way back after success (both steps coincide at x)."""
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    net = Watch(lambda z: z.flatten(1) @ weight.T)
    x = torch.tensor([[0.4, 0.2]])  # lead of class 0: 2, distance 2 / 5
    parse("fab(steps=2, threat=ball(norm=2, eps=inf, low=-inf, high=inf))")(net, x, torch.tensor([0]), draws=derive(0, ids=[0]))
    assert torch.equal(net.climbed[0], x)
    step = 1.05 * 0.4 * torch.tensor([[-0.6, -0.8]])
    assert torch.allclose(net.climbed[1], x + 0.9 * step, atol=1e-6)


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
    starts = [net.climbed[6 * k] for k in range(3)]
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


def bent(z):
    """Scores that are not linear, so that runs take many steps and differ by class."""
    return NET(z) + torch.sin(9 * NET(z.flip(1)))


@pytest.mark.parametrize("goal", ["nearest(misclassify)", "misclassify"])
def test_runs_side_by_side_find_what_they_find_in_turn(goal, monkeypatch):
    n, counted, found = 48, Counted(bent), []
    x = derive(0, "bent", ids=range(n)).uniform(1, 4, 4, low=0.3, high=0.7)
    with torch.no_grad():
        y = bent(x).argmax(1)
    attack = parse(f"fab(steps=4, targets=4, restarts=2, bisections=0, goal={goal}, threat=ball(norm=2, eps=0.4))")
    for together in (0, 2**18):  # one class after the other; all but the first at once
        monkeypatch.setattr(ascent, "TOGETHER", together)
        attempt = attack(counted, x, y, draws=derive(0, ids=range(n)))
        found.append((attempt.z, attempt.status, counted.reset()))
    (z, gave_up, passes), (shared, gave_up_shared, passes_shared) = found
    assert torch.equal(gave_up, gave_up_shared) and 0 < gave_up.sum() < n
    assert torch.allclose(z, shared, atol=1e-5)
    assert passes_shared == passes if goal != "misclassify" else passes_shared[0] < 1.05 * passes[0]  # a success stops the later classes


def test_a_pass_holds_no_more_points_than_allowed(monkeypatch):
    sizes = []

    def net(z):
        sizes.append(len(z))
        return NET(z)

    monkeypatch.setattr(ascent, "TOGETHER", 2 * X.numel() + 1)
    parse("fab(steps=3, targets=4, bisections=0, threat=ball(norm=2, eps=inf))")(net, X, Y, draws=derive(0, ids=range(len(X))))
    assert sizes == [8] + [8] * 6 + [16] * 6 + [8] * 6


def test_a_network_of_two_classes_has_one_target():
    net = linear_network(WEIGHT[:2])
    with torch.no_grad():
        y = net(X).argmax(1)
    attempt = ask("fab(steps=5, targets=9)", net, y)
    assert (net(attempt.z).argmax(1) != y).all()
