"""Laws of perturbations, corruptions and attacks."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from brinell.core import norms
from brinell.core.dataset import Dataset
from brinell.core.draws import derive
from brinell.core.network import Counted
from brinell.core.perturbation import Attack, Corruption, Perturbation, points
from brinell.core.threat import Ball
from brinell.laws.law import close, no_global_randomness, require
from brinell.laws.specimen import draws_of, images, linear, linear_specimen
from brinell.models.reference import exact_margin


def _ask(perturbation: Perturbation, x: Tensor, y: Tensor, ids: Tensor, net: Any = None) -> Tensor:
    net = net or linear_specimen(tuple(x.shape[1:]))
    return points(_fitted(perturbation, net, x, y)(net, x, y, draws=draws_of(ids)))


def _fitted(perturbation: Perturbation, net: Any, x: Tensor, y: Tensor) -> Any:
    """The perturbation with what its `prepare` fits on these samples; itself where it already holds it or has nothing to fit."""
    if perturbation.state is not None:
        return perturbation
    domain = (0.0, 1.0) if bool((x >= 0).all() and (x <= 1).all()) else (-math.inf, math.inf)
    data = Dataset.from_arrays(x, y, domain=domain)
    state = perturbation.prepare(Counted(net), data, draws=draws_of(torch.arange(len(x))))
    return perturbation if state is None else perturbation.prepared(state)


def input_untouched(perturbation: Perturbation) -> None:
    """The input keeps its values; the result has its shape and type and memory of its own."""
    x, y, ids = images()
    before = x.clone()
    z = _ask(perturbation, x, y, ids)
    require(torch.equal(x, before), "the input was changed")
    require(z.shape == x.shape and z.dtype == x.dtype, f"shape {tuple(z.shape)} and type {z.dtype} instead of the input's")
    require(torch.isfinite(z).all(), "the result is not finite")
    z.fill_(-1.0)
    require(torch.equal(x, before), "the result shares memory with the input")


def same_draws_same_result(perturbation: Perturbation) -> None:
    """The same draws give the same result, whether asked again, alone, or in another order; no global random state is used."""
    x, y, ids = images()
    draws = draws_of(ids)
    net = linear_specimen()
    perturbation = _fitted(perturbation, net, x, y)
    with no_global_randomness():
        first = points(perturbation(net, x, y, draws=draws))
        require(torch.equal(points(perturbation(net, x, y, draws=draws)), first), "a second call with the same draws differs")
    tolerance = 1e-5 if isinstance(perturbation, Attack) else 0.0
    alone = _ask(perturbation, x[2:3], y[2:3], ids[2:3])
    require(close(alone[0], first[2], tolerance), "a sample alone differs from the same sample in a batch")
    back = torch.arange(len(x) - 1, -1, -1)
    require(close(_ask(perturbation, x[back], y[back], ids[back]), first[back], tolerance), "the order of the batch matters")


def stays_in_threat(perturbation: Perturbation) -> None:
    """Every point lies in the threat, and in the domain [0, 1] of the images."""
    x, y, ids = images()
    z = _ask(perturbation, x, y, ids)
    require((z >= 0).all() and (z <= 1).all(), f"values from {z.min():.4g} to {z.max():.4g}")
    if perturbation.threat is not None:
        require(perturbation.threat.contains(x, z).all(), f"a point left {perturbation.threat.spec()}")


def takes_any_images(perturbation: Perturbation) -> None:
    """Sides from 8, non-square images, and 1, 3 and 4 channels give finite results of the same shape."""
    for shape in ((1, 8, 8), (3, 32, 48), (4, 16, 16)):
        x, y, ids = images(2, shape)
        z = _ask(perturbation, x, y, ids)
        require(z.shape == x.shape and torch.isfinite(z).all(), f"shape {shape} is not handled")


def ladder_grows(corruption: Corruption) -> None:
    """A stronger severity moves images further on average, except where the ladder is declared not to (`uneven`)."""
    if "severity" not in type(corruption).model_fields or getattr(corruption, "uneven", ""):
        return
    x, y, ids = images(16)
    moved = [float(norms.length(_ask(corruption.replace(severity=s), x, y, ids) - x, 2).mean()) for s in range(1, 6)]
    require(all(a <= b for a, b in pairwise(moved)), f"mean L2 distances by severity: {', '.join(f'{m:.3g}' for m in moved)}")


def flips_where_it_must(attack: Attack) -> None:
    """On a two-class linear network the attack flips a sample at 1.05 times its exact margin, and never at 0.95 times.

    A weaker attack declares a larger factor, `reach`, and says why in its docstring.
    """
    ball = attack.threat
    if not isinstance(ball, Ball) or attack.goal.aim.name != "misclassify":
        return
    draws = derive(0, "laws", "margin", ids=[0, 1])
    weight, bias = draws.normal(36), draws.normal(1).squeeze(1)
    net = linear(weight, bias)
    x, _, ids = images(4, (1, 6, 6))
    with torch.no_grad():
        y = net(x).argmax(1)
    margins = exact_margin(weight, bias, x, y, ball.norm)
    for factor, flips in ((getattr(attack, "reach", 1.05), True), (0.95, False)):
        for row in range(len(x)):
            at = slice(row, row + 1)
            threat = ball.replace(eps=float(margins[row]) * factor, low=-math.inf, high=math.inf)
            z = _ask(attack.within(threat), x[at], y[at], ids[at], net)
            require(threat.contains(x[at], z).all(), f"left its ball at {factor} x the margin")
            with torch.no_grad():
                flipped = bool(net(z).argmax(1) != y[at])
            require(flipped == flips, f"sample {row} at {factor} x its margin {float(margins[row]):.4g}: flipped={flipped}")
