"""The worst of several attacks: who meets which, what counts, and which point is returned."""

import math
from typing import ClassVar

import pytest
import torch

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.network import Counted
from brinell.core.perturbation import Attack, points
from brinell.core.threat import Ball
from brinell.models.reference import exact_margin, linear_network
from brinell.perturb.ensemble import WorstOf, worst
from brinell.perturb.fgsm import FGSM
from brinell.perturb.pgd import PGD
from brinell.perturb.square import Square

N = 8
X = torch.full((N, 2), 0.5)
Y = torch.zeros(N, dtype=torch.int64)
IDS = torch.arange(N)


class Step(Attack, name="test_step"):
    """Moves every sample by `by` along the first axis; notes whom it met."""

    threat: Ball = Ball(eps=0.3)
    by: float = 0.1
    met: ClassVar[list[tuple[float, int]]] = []

    def __call__(self, net, x, y, *, draws):
        self.met.append((self.by, len(x)))
        return x + torch.tensor([self.by, 0.0])


class Walls:
    """Class 1 wherever the first number exceeds the sample's own wall, which is kept in the second."""

    def __call__(self, z):
        return torch.stack((z[:, 1], z[:, 0]), 1)


def with_walls(*at: float) -> torch.Tensor:
    return torch.stack((torch.full((len(at),), 0.5), torch.tensor(at)), 1)


def test_each_attack_meets_the_survivors_of_those_before():
    Step.met.clear()
    x = with_walls(0.4, 0.55, 0.65, 0.75, 0.9)  # wrong already; falls to the first; the second; the third; none
    y = torch.zeros(5, dtype=torch.int64)
    attack = WorstOf(attacks=(Step(by=0.1), Step(by=0.2), Step(by=0.3)))
    z = points(attack(Walls(), x, y, draws=derive(0, ids=range(5))))
    assert Step.met == [(0.1, 4), (0.2, 3), (0.3, 2)]
    assert z[:, 0].tolist() == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.8])
    found = worst(Walls(), x, y, attack.goal, attack.threat, attack.attacks, draws=derive(0, ids=range(5)))
    assert found.by.tolist() == [-1, 0, 1, 2, -1] and found.reached.tolist() == [True] * 4 + [False] and found.tried == 3


def test_points_outside_the_threat_do_not_count():
    x, y = with_walls(0.55, 0.55), torch.zeros(2, dtype=torch.int64)
    found = worst(Walls(), x, y, Step().goal, Ball(eps=0.2), (Step(by=0.4), Step(by=0.02)), draws=derive(0, ids=[0, 1]))
    assert not found.reached.any() and found.z[:, 0].tolist() == pytest.approx([0.52, 0.52])


def test_the_largest_margin_is_returned_of_those_that_survive():
    x, y = with_walls(0.95, 0.95), torch.zeros(2, dtype=torch.int64)
    z = points(WorstOf(attacks=(Step(by=0.1), Step(by=0.3), Step(by=-0.2)))(Walls(), x, y, draws=derive(0, ids=[0, 1])))
    assert z[:, 0].tolist() == pytest.approx([0.8, 0.8])


def test_nobody_is_asked_when_all_have_fallen():
    Step.met.clear()
    x, y = with_walls(0.55, 0.4), torch.zeros(2, dtype=torch.int64)
    net = Counted(Walls())
    WorstOf(attacks=(Step(by=0.1), Step(by=0.2)))(net, x, y, draws=derive(0, ids=[0, 1]))
    assert Step.met == [(0.1, 1)] and net.reset() == (2 + 1, 0)


def test_not_weaker_than_any_part_and_independent_of_the_batch():
    weight = derive(5, ids=range(4)).normal(25)
    net = linear_network(weight)
    x = derive(0, "x", ids=range(10)).uniform(1, 5, 5, low=0.3, high=0.7)
    y = net(x).argmax(1).detach()
    ball = Ball(eps=float(exact_margin(weight, None, x, y, math.inf).median()) * 1.02)
    parts = (FGSM(threat=ball), PGD(threat=ball, steps=5), Square(threat=ball, queries=50))
    draws = derive(0, ids=range(10))
    whole = points(WorstOf(attacks=parts)(net, x, y, draws=draws))
    broken = net(whole).argmax(1) != y
    for part in parts:
        assert (broken >= (net(points(part(net, x, y, draws=draws))).argmax(1) != y)).sum() >= 9  # draws differ by place
    assert ball.contains(x, whole).all()
    for row in (0, 4, 9):
        alone = points(WorstOf(attacks=parts)(net, x[row : row + 1], y[row : row + 1], draws=derive(0, ids=[row])))
        assert torch.allclose(alone[0], whole[row], atol=1e-5)


def test_threat_and_goal_are_those_of_the_parts():
    attack = parse("worst_of(attacks=(fgsm(threat=ball(eps=0.1)), fab(goal=misclassify, threat=ball(eps=0.1))))")
    assert attack.threat == Ball(eps=0.1) and attack.goal.name == "misclassify" and parse(attack.spec()) == attack
    moved = attack.within(Ball(norm=2, eps=0.5))
    assert moved.threat == Ball(norm=2, eps=0.5) and all(part.threat == moved.threat for part in moved.attacks)
    assert attack.cost[0] == sum(part.cost[0] + 2 for part in attack.attacks)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("attacks=()", "1"),
        ("attacks=(fgsm, pgd(threat=ball(eps=0.1)))", "share one threat"),
        ("attacks=(fgsm, pgd(goal=target(1)))", "share one goal"),
        ("threat=ball(eps=0.1)", "give threat to the attacks"),
    ],
)
def test_parts_that_do_not_fit(fields, words):
    with pytest.raises(SpecError, match=words):
        parse(f"worst_of({fields})")
