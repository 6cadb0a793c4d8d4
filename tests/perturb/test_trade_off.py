"""Distance plus weighted hinge: the weight that is searched for, entries at the walls, and sparse changes."""

import math

import pytest
import torch

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.models.reference import exact_margin, linear_network

WEIGHT = derive(0, "weight", ids=[0, 1]).normal(16)
X = derive(0, "x", ids=range(6)).uniform(1, 4, 4, low=0.3, high=0.7)
NET = linear_network(WEIGHT)
with torch.no_grad():
    Y = NET(X).argmax(1)


def far(text, norm, x=X):
    attack = parse(text)
    attempt = attack(NET, x, Y, draws=derive(0, ids=range(len(x))))
    assert ((attempt.z >= attack.threat.low) & (attempt.z <= attack.threat.high)).all()
    distance = attack.threat.distance(x, attempt.z)
    return torch.where(attempt.status == 0, distance, math.inf)


@pytest.mark.parametrize("weight", [1e-4, 1e4])
def test_a_poor_first_weight_is_mended(weight):
    """Too small it finds nothing in one round, too large it overshoots; rounds of ten times more or less put it right."""
    exact = exact_margin(WEIGHT, None, X, Y, 2)
    common = f"steps=60, weight={weight}, bisections=0, threat=ball(norm=2, eps=inf, low=-inf, high=inf)"
    once, often = (far(f"carlini_wagner(searches={k}, {common})", 2) for k in (1, 9))
    if weight < 1:
        assert torch.isinf(once).sum() >= 4
    assert (often <= exact * 1.1 + 0.003).all()  # steps of 0.01 cannot settle nearer


def test_points_at_the_walls_can_still_move():
    """As they could not under a change of variables by tanh."""
    x = torch.where(X > 0.5, 1.0, 0.0)
    with torch.no_grad():
        y = NET(x).argmax(1)
    attack = parse("carlini_wagner(steps=100, searches=5)")
    attempt = attack(NET, x, y, draws=derive(0, ids=range(len(x))))
    assert (NET(attempt.z).argmax(1) != y).all()


def test_the_elastic_net_is_sparse():
    l1 = parse("ead(steps=80, searches=5)")(NET, X, Y, draws=derive(0, ids=range(6))).z - X
    l2 = parse("carlini_wagner(steps=80, searches=5)")(NET, X, Y, draws=derive(0, ids=range(6))).z - X
    assert (l1.abs() > 1e-4).flatten(1).sum(1).double().mean() < 0.6 * (l2.abs() > 1e-4).flatten(1).sum(1).double().mean()
    assert (l1.abs().flatten(1).sum(1) < l2.abs().flatten(1).sum(1)).all()


def test_each_has_one_norm():
    with pytest.raises(SpecError, match="has the norms 2"):
        parse("carlini_wagner(threat=ball(norm=1, eps=1.0))")
    with pytest.raises(SpecError, match="has the norms 1"):
        parse("ead(threat=ball(norm=2, eps=1.0))")
