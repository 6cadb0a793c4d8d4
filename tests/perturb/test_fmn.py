"""FMN: its radius by hand, and that it beats a fixed ball; exactness is in test_minimum_norm."""

import math

import pytest
import torch

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.network import Counted
from brinell.models.reference import linear_network
from watched import Watch


def test_the_radius_by_hand():
    """Lead of class 0 is 2 at distance 2/5. The first ball touches the boundary and a shrink more, the second is a shrink smaller."""
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    net, x = Watch(lambda z: z.flatten(1) @ weight.T), torch.tensor([[0.4, 0.2]])
    parse("fmn(steps=3, threat=ball(norm=2, eps=inf, low=-inf, high=inf))")(net, x, torch.tensor([0]), draws=derive(0, ids=[0]))
    first = 0.4 * 1.05
    assert (net.climbed[1] - x).norm().item() == pytest.approx(first, rel=1e-5)
    fall = (1 + math.cos(math.pi / 3)) / 2
    shrink = 0.05 * (0.01 + 0.99 * fall)
    assert (net.climbed[2] - x).norm().item() == pytest.approx(first * (1 - shrink), rel=1e-5)


def test_it_takes_one_pass_each_way_per_step():
    weight = derive(0, "weight", ids=[0, 1]).normal(16)
    x = derive(0, "x", ids=range(5)).uniform(1, 4, 4, low=0.3, high=0.7)
    net = linear_network(weight)
    with torch.no_grad():
        y = net(x).argmax(1)
    counted, attack = Counted(net), parse("fmn(steps=12)")
    attack(counted, x, y, draws=derive(0, ids=range(5)))
    assert counted.backwards == 12 * 5 and counted.forwards == 5 * (1 + 12 + 1 + 10 + 1)
    assert attack.cost == (12 + 10 + 1, 12)
