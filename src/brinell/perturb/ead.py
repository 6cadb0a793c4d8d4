"""The elastic-net attack: a sparse change, by iterative shrinkage."""

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


class EAD(TradeOff, name="ead"):
    """The L1-nearest point, by shrinkage on an elastic net: how few and small changes are enough?

        minimise  beta |z - x|_1 + |z - x|_2^2 + c max(0, -lead(z))     inside the domain
        z_{k+1} = S(y_k - a_k grad(|y_k - x|_2^2 + c max(0, -lead(y_k)))),   y_{k+1} = z_{k+1} + k / (k + 3) (z_{k+1} - z_k)

    S draws every entry of z - x towards 0 by beta, and clips to the domain; a_k = step_size sqrt(1 - k / steps). Of all points that
    reach the goal the one nearest in L1 is kept. Norm 1. c is searched per sample (`TradeOff`).

    The L2 term spreads the change over more entries than L1 alone would, so that on the linear specimen it needs more than the exact
    margin; its `reach` is 1.5.

    Arguments:
        steps: for each of `searches` values of c. beta: see above. weight: the first c; None begins where the steepest entry just
            outgrows the shrinkage, 2 beta / (step_size |grad|_inf). goal, threat, bisections: see `MinimumNorm`.

    References: Chen, Sharma, Zhang, Yi & Hsieh (2018), "EAD: Elastic-Net Attacks to Deep Neural Networks via Adversarial Examples", AAAI,
        arXiv 1709.04114, equations 4 to 7 and its L1 decision rule (beta 0.001, 9 rounds of 1,000 steps of 0.01, c from 0.001).
        Departures: the start of c, beta 0.01, fewer rounds and steps by default.

    Example:
        >>> import brinell as br
        >>> net, x, y = (lambda x: x * torch.tensor([2.0, 1.0])), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        >>> made = br.parse("ead")(net, x, y, draws=br.derive(0, ids=[0]))
        >>> bool((made.z - x).abs().sum() < 0.34)                  # the boundary is 1/4 away, by moving the first entry alone
        True
    """

    reach: ClassVar[float] = 1.5
    has_norms: ClassVar[tuple[float, ...]] = (1,)
    threat: Ball = Ball(norm=1, eps=math.inf)
    beta: float = Field(default=0.01, ge=0, allow_inf_nan=False)

    def first_weight(self, x: Tensor, g: Tensor, gap: Tensor) -> Tensor:
        steep = norms.length(g, math.inf)
        return torch.where(steep > 0, 2 * max(self.beta, 1e-3) / (self.step_size * steep.clamp(min=1e-30)), 1.0).clamp(1e-6, 1e6)

    def descend(self, hunt: Hunt, rows: Tensor, weight: Tensor) -> Tensor:
        ball, x, pull = self.threat, hunt.x[rows], weight.to(hunt.x.dtype)
        z, ahead = x.clone(), x.clone()
        arrived = torch.zeros_like(rows, dtype=torch.bool)
        for step in range(self.steps):
            g, lead, logits = goal_gradient(hunt.net, ahead, hunt.y[rows], hunt.clean[rows], hunt.goal, "margin")
            arrived = hunt.offer(rows, ahead, logits) | arrived
            size = self.step_size * math.sqrt(1 - step / self.steps)
            slope = 2 * (ahead - x) - norms.scaled(g, torch.where(lead < 0, pull, 0.0).to(x.dtype))
            v = ahead - size * slope - x
            before, z = z, (x + v.sign() * (v.abs() - self.beta).clamp(min=0)).clamp(ball.low, ball.high)
            ahead = (z + step / (step + 3) * (z - before)).clamp(ball.low, ball.high)
        return hunt.check(rows, z) | arrived
