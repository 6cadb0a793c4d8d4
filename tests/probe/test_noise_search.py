"""Noise search: exact chances of random points, and who is asked."""

import pytest
import torch
from torch import nn

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.measurement import Status
from brinell.core.network import Counted
from brinell.core.probe import View
from brinell.core.threat import Ball
from brinell.probe.noise_search import NoiseSearch
from brinell.probe.trial import random_points, survives_noise


class Pocket(nn.Module):
    """Class 1 where the first entry exceeds a height, without any gradient."""

    def __init__(self, height):
        super().__init__()
        self.height = height

    def forward(self, x):
        far = (x.flatten(1)[:, 0] > self.height).to(x.dtype)
        return torch.stack((1 - far, far), 1)


def read(text, net, x, y=None):
    net = Counted(net)
    y = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    view = View(x, x, y, torch.arange(len(x)), net(x), net=net)
    net.reset()
    probe = parse(text)
    found = {reading.name: reading for reading in probe.read(probe.observe(view, draws=derive(0, ids=range(len(x)))))}
    return found, net.reset()[0]


HIDDEN = "noise_search(attack=pgd(steps=2, random_start=False, exact=True, threat=ball(eps=0.1)), share=1, tries={})"


def test_a_pocket_without_gradient_is_found_by_chance_alone():
    """A uniform entry lands in the last 1 % of [0.4, 0.6] once in 100 tries, and every second try lands on its edge in half of them."""
    x = torch.full((30, 3), 0.5)
    found, _ = read(HIDDEN.format(64), Pocket(0.599), x)
    assert found["survived_attack"].value == found["chance_alone"].value == 1.0
    assert (found["chance_alone"].n, found["chance_alone"].layer) == (30, parse(HIDDEN.format(1)).attack.spec())


def test_a_sample_found_wrong_is_asked_no_more_and_others_are_to_the_end():
    x = torch.full((2, 4), 0.5)
    x[1] = 0.2
    _, found_early = read(HIDDEN.format(10_000), Pocket(0.599), x[:1])
    found, passes = read(HIDDEN.format(10_000), Pocket(0.599), x[1:])
    assert found["chance_alone"].value == 0.0 and 10_000 <= passes <= 10_010
    assert found_early < 10_000


def test_what_the_attack_breaks_or_is_wrong_at_first_gets_no_noise():
    x = torch.tensor([[0.7, 0.0]])
    found, passes = read(HIDDEN.format(1000), Pocket(0.6), x)
    assert (found["survived_attack"].value, found["chance_alone"].value) == (0.0, 0.0) and passes < 10


@pytest.mark.parametrize("norm", [1, 2, float("inf")])
def test_random_points_lie_in_the_ball_and_corners_on_its_edge(norm):
    ball, x = Ball(norm=norm, eps=0.05), torch.full((50, 2, 3), 0.5)
    z = random_points(x, ball, torch.arange(4), derive(0, ids=range(50))).unflatten(0, (4, 50))
    for number in range(4):
        far = (z[number] - x).double().flatten(1).norm(float(norm), dim=1)
        assert bool(ball.contains(x, z[number]).all())
        assert bool(((far - 0.05).abs() < 1e-6).all()) == (number % 2 == 1)
    kinds = [len(torch.unique(z[first::2].flatten(0, 1).flatten(1), dim=0)) for first in (0, 1)]
    assert kinds[0] == 100 and kinds[1] >= 12  # L1 has 12 corners


def test_points_do_not_depend_on_who_shares_the_pass():
    x, draws = derive(0, "x", ids=range(8)).uniform(5, low=0.3, high=0.7), derive(0, ids=range(8))
    ball = Ball(eps=0.1)
    together = random_points(x, ball, torch.arange(12), draws).unflatten(0, (12, 8))
    for rows, numbers in ((slice(2, 5), torch.arange(12)), (slice(0, 8), torch.arange(7, 9)), (slice(7, 8), torch.arange(3, 4))):
        found = random_points(x[rows], ball, numbers, draws[rows]).unflatten(0, (len(numbers), -1))
        assert torch.equal(found, together[numbers][:, rows])
    y, net = torch.zeros(8, dtype=torch.int64), Pocket(0.6)
    right = survives_noise(net, x, y, ball, 12, draws)
    with torch.no_grad():
        slowly = (net(together.flatten(0, 1)).argmax(1) == 0).reshape(12, 8).all(0)
    assert torch.equal(right, slowly) and 0 < int(right.sum()) < 8


def test_cost_and_the_empty_share():
    assert NoiseSearch(attack=parse("pgd(steps=9)"), share=0.01).cost == (101, 1)  # (10 + 1 + 10,000) / 100 and 9 / 100, rounded up
    found, _ = read("noise_search(attack=fgsm, share=1e-9)", Pocket(0.6), torch.full((3, 4), 0.5))
    assert {reading.status for reading in found.values()} == {Status.UNDEFINED}
