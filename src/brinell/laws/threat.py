"""Laws of threats."""

from __future__ import annotations

import torch

from brinell.core import norms
from brinell.core.threat import Ball, Threat
from brinell.laws.law import close, require
from brinell.laws.specimen import draws_of, images


def samples_inside(threat: Threat) -> None:
    """Random points of the threat lie in it, and so does the sample itself."""
    x, _, ids = images()
    require(threat.contains(x, threat.sample(x, draws_of(ids))).all(), "a random point lies outside")
    require(threat.contains(x, x).all(), "the sample itself lies outside")


def projection(threat: Threat) -> None:
    """Projecting lands inside, changes nothing inside, and twice is once."""
    if not isinstance(threat, Ball):
        return
    x, _, ids = images()
    inside = threat.sample(x, draws_of(ids))
    require(close(threat.project(x, inside), inside, 1e-6), "projection moves points that are inside")
    far = x + draws_of(ids).normal(*x.shape[1:])
    once = threat.project(x, far)
    require(threat.contains(x, once).all(), "projection lands outside")
    require(close(threat.project(x, once), once, 1e-6), "projecting twice differs from once")


def steepest_is_dual(threat: Threat) -> None:
    """The steepest direction has length 1 and gains the dual norm of the gradient; a zero gradient gives no direction."""
    if not isinstance(threat, Ball):
        return
    g = draws_of(torch.arange(5)).normal(40, dtype=torch.float64)
    u = threat.steepest(g)
    require(close(norms.length(u, threat.norm), torch.ones(5, dtype=g.dtype), 1e-9), "its length is not 1")
    require(close((g * u).sum(1), norms.length(g, norms.dual(threat.norm)), 1e-9), "it does not gain the dual norm")
    require((threat.steepest(torch.zeros_like(g)) == 0).all(), "a zero gradient gives a direction")
