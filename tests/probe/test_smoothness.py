"""Smoothness of the margin: affine networks have closed forms, a bent one does not stay unnoticed."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.measurement import Bound, Status
from brinell.core.threat import Ball
from brinell.models.reference import exact_margin
from brinell.probe.smoothness import Smoothness

WEIGHT = derive(0, "smooth", ids=range(2)).normal(7, dtype=torch.float64)
X = derive(1, "smooth", ids=range(9)).uniform(7, dtype=torch.float64)


def view_of(make_view, net, x=X, y=None):
    with torch.no_grad():
        logits = net(x)
    return replace(make_view(logits, logits.argmax(1) if y is None else y), x=x, z=x, net=net)


@pytest.mark.parametrize(("norm", "q"), [(1, math.inf), (2, 2), (math.inf, 1)])
def test_affine_networks_are_known(norm, q, make_view, measure):
    view = view_of(make_view, lambda z: z @ WEIGHT.T)
    slope = np.linalg.norm((WEIGHT[0] - WEIGHT[1]).numpy(), q)
    read = {r.name: r for r in measure(Smoothness(threat=Ball(norm=norm, eps=0.1)), view)}
    assert read["lipschitz"].array == pytest.approx(np.full(9, slope)) and read["lipschitz"].bound is Bound.ESTIMATE
    expected = exact_margin(WEIGHT, None, X, view.y, norm).numpy()
    assert read["linear_distance"].array == pytest.approx(expected)
    assert read["linear_distance"].value == pytest.approx(np.median(expected))
    assert read["linear_distance"].low <= np.median(expected) <= read["linear_distance"].high
    assert read["curvature"].array == pytest.approx(np.zeros(9), abs=1e-9)


def test_a_wrong_label_has_a_negative_distance(make_view, measure):
    net = lambda z: z @ WEIGHT.T  # noqa: E731
    right = {r.name: r for r in measure(Smoothness(), view_of(make_view, net))}
    wrong = {r.name: r for r in measure(Smoothness(), view_of(make_view, net, y=1 - view_of(make_view, net).y))}
    assert wrong["linear_distance"].array == pytest.approx(-right["linear_distance"].array)
    assert wrong["linear_distance"].low <= wrong["linear_distance"].value < 0


def test_curvature_of_a_paraboloid(make_view, measure):
    """S = a |z|^2 has gradient 2 a z, which along itself changes by 2 a."""
    net = lambda z: torch.stack((3 * z.square().sum(1), torch.zeros(len(z), dtype=z.dtype)), 1)  # noqa: E731
    read = {r.name: r for r in measure(Smoothness(step=0.05), view_of(make_view, net))}
    assert read["curvature"].array == pytest.approx(np.full(9, 6.0), rel=1e-9)
    assert (read["lipschitz"].array > 6 * X.abs().sum(1).numpy()).all(), "it is steeper elsewhere in the ball"


def test_no_gradient_no_points_no_numbers(make_view, measure):
    net = lambda z: torch.tensor([[1.0, 0.0]]).repeat(len(z), 1)  # noqa: E731
    read = {r.name: r for r in measure(Smoothness(points=0), view_of(make_view, net, X.float()))}
    assert read["lipschitz"].value == read["curvature"].value == 0
    assert read["linear_distance"].status is Status.UNDEFINED and "gradient 0" in read["linear_distance"].reason
    broken = replace(view_of(make_view, net, X.float()), logits=torch.full((9, 2), torch.nan))
    assert all(r.status is Status.UNDEFINED for r in measure(Smoothness(), broken))
    with pytest.raises(SpecError, match="finite eps"):
        parse("smoothness(threat=ball(eps=inf))")
