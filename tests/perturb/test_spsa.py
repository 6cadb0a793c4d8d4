"""SPSA: its estimate of a linear gradient, and networks that hide theirs."""

import pytest
import torch
from torch import nn

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.network import Counted
from brinell.core.perturbation import points
from brinell.models.reference import linear_network
from brinell.perturb.spsa import SPSA

WEIGHT = derive(0, "weight", ids=[0, 1]).normal(16)
X = derive(0, "x", ids=range(6)).uniform(1, 4, 4, low=0.3, high=0.7)
NET = linear_network(WEIGHT)
with torch.no_grad():
    Y = NET(X).argmax(1)


def test_the_estimate_has_the_right_mean_and_variance():
    """For a linear loss g.z each pair gives (g.v) v: mean g, and variance |g|^2 - g_i^2 of entry i, divided by the pairs."""
    pairs = 4096
    attack = SPSA(pairs=pairs, threat=parse("ball(eps=0.1, low=-inf, high=inf)"))
    with torch.no_grad():
        clean = NET(X)
        got = attack._estimate(NET, X, Y, clean, derive(3, ids=range(6)))
    sign = torch.where(Y == 0, 1.0, -1.0)[:, None]
    g = (sign * (WEIGHT[1] - WEIGHT[0])).reshape(-1, 1, 4, 4)
    spread = ((g.square().sum((1, 2, 3), keepdim=True) - g.square()) / pairs).sqrt()
    z = (got - g) / spread
    assert z.abs().max() < 4.5 and 0.7 < z.std() < 1.3


def test_without_gradients_it_breaks_what_pgd_cannot():
    class Silent(nn.Module):
        def forward(self, x):
            with torch.no_grad():
                return NET(x)

    threat = "threat=ball(eps=0.3)"
    plain, blind = (points(parse(text)(Silent(), X, Y, draws=derive(0, ids=range(6)))) for text in (f"spsa({threat})", f"pgd({threat})"))
    assert (NET(plain).argmax(1) != Y).all()
    assert (NET(blind).argmax(1) != Y).sum() < 6


def test_it_costs_what_it_says_and_no_backward_pass():
    never = linear_network(torch.zeros(2, 16), torch.tensor([1.0, 0.0]))
    counted, attack = Counted(never), SPSA(steps=3, pairs=20)
    attack(counted, X, torch.zeros_like(Y), draws=derive(0, ids=range(6)))
    assert (counted.forwards, counted.backwards) == (6 * attack.cost[0], 0)


def test_there_is_no_l1_form():
    with pytest.raises(SpecError, match="2 and inf"):
        parse("spsa(threat=ball(norm=1, eps=1.0))")
