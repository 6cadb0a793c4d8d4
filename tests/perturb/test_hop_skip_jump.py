"""HopSkipJump: it sees answers alone, and comes near the exact distance on linear and curved boundaries (test_minimum_norm)."""

import math

import pytest
import torch
from torch import nn

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.network import Counted
from brinell.models.reference import exact_margin, linear_network

WEIGHT = derive(0, "weight", ids=[0, 1]).normal(16)
X = derive(0, "x", ids=range(6)).uniform(1, 4, 4, low=0.3, high=0.7)


class Answers(nn.Module):
    """The answer alone: logits are 1 for the predicted class and 0 for the others."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        return nn.functional.one_hot(self.net(x).argmax(1), 2).to(x.dtype)


@pytest.mark.parametrize("norm", [2, math.inf])
def test_scores_change_nothing(norm):
    """The same points whether the network gives scores or its answer alone."""
    net = linear_network(WEIGHT)
    with torch.no_grad():
        y = net(X).argmax(1)
    attack = parse(f"hop_skip_jump(steps=4, threat=ball(norm={norm:g}, eps=inf))")
    plain, blind = (attack(net, X, y, draws=derive(0, ids=range(6))).z for net in (net, Answers(net)))
    ratio = exact_margin(WEIGHT, None, X, y, norm)
    assert torch.allclose(attack.threat.distance(X, plain), attack.threat.distance(X, blind), rtol=2e-2)
    assert (attack.threat.distance(X, blind) >= ratio * (1 - 1e-6)).all()


def test_more_steps_come_nearer_and_no_gradient_is_asked():
    net = linear_network(WEIGHT)
    with torch.no_grad():
        y = net(X).argmax(1)
    far = []
    for steps in (1, 15):
        counted = Counted(Answers(net))
        attack = parse(f"hop_skip_jump(steps={steps})")
        far.append(attack.threat.distance(X, attack(counted, X, y, draws=derive(0, ids=range(6))).z))
        assert counted.backwards == 0 and counted.forwards <= len(X) * (attack.cost[0] + 1)
    assert (far[1] <= far[0]).all() and far[1].median() < 0.9 * far[0].median()


def test_it_takes_no_bisections():
    with pytest.raises(SpecError, match="bisections"):
        parse("hop_skip_jump(bisections=5)")
