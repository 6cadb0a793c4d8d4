"""Carlini and Wagner's L2 attack: distance plus a weighted hinge on the margin, by Adam."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from brinell.core import norms
from brinell.core.ascent import goal_gradient
from brinell.core.threat import Ball
from brinell.perturb.minimum_norm import Hunt
from brinell.perturb.trade_off import TradeOff


class CarliniWagner(TradeOff, name="carlini_wagner"):
    """The L2-nearest point, by Adam on distance plus hinge: how far is it to another answer?

        minimise  |z - x|_2^2 + c max(0, confidence - lead(z))     inside the domain

    lead is the margin of the goal. c is searched per sample (`TradeOff`); Adam's step falls like a cosine, so that late points
    settle on the boundary.

    Arguments:
        steps: of Adam for each of `searches` values of c. step_size: at first. weight: the first c; None begins where the
            linearised network is fooled, 4 |gap| / |grad|^2. confidence: how far beyond the boundary the hinge pulls. goal, threat,
            bisections: see `MinimumNorm`.

    References: Carlini & Wagner (2017), "Towards Evaluating the Robustness of Neural Networks", IEEE S&P, arXiv 1608.04644, section VI.A
        (step 0.01; c from 1e-3 by binary search in 9 rounds of 10,000 steps in the authors' code). Departures: the start of c,
        the falling step, fewer rounds and steps by default; the domain is kept by clipping, as tanh in its place is flat at the walls and
        holds the entries that stand there for thousands of steps.

    Example:
        >>> import brinell as br
        >>> net, x, y = (lambda x: x * torch.tensor([2.0, 1.0])), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        >>> made = br.parse("carlini_wagner")(net, x, y, draws=br.derive(0, ids=[0]))
        >>> bool((made.z - x).norm() < 0.23)                        # the boundary is 0.2236 away
        True
    """

    has_norms: ClassVar[tuple[float, ...]] = (2,)
    threat: Ball = Ball(norm=2, eps=math.inf)
    confidence: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    def first_weight(self, x: Tensor, g: Tensor, gap: Tensor) -> Tensor:
        steep = norms.length(g, 2)
        return torch.where(steep > 0, 4 * gap / steep.square().clamp(min=1e-30), 1.0).clamp(1e-6, 1e6)

    def descend(self, hunt: Hunt, rows: Tensor, weight: Tensor) -> Tensor:
        ball, x, pull = self.threat, hunt.x[rows], weight.to(hunt.x.dtype)
        z, first, second = x.clone(), torch.zeros_like(x), torch.zeros_like(x)
        arrived = torch.zeros_like(rows, dtype=torch.bool)
        for step in range(1, self.steps + 1):
            g, lead, logits = goal_gradient(hunt.net, z, hunt.y[rows], hunt.clean[rows], hunt.goal, "margin")
            arrived = hunt.offer(rows, z, logits) | arrived
            slope = 2 * (z - x) - norms.scaled(g, torch.where(lead < self.confidence, pull, 0.0).to(x.dtype))
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope.square()
            size = self.step_size * (1 + math.cos(math.pi * (step - 1) / self.steps)) / 2
            z = z - size * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            z = z.clamp(ball.low, ball.high)
        return hunt.check(rows, z) | arrived
