"""SPSA: gradient ascent whose gradient is estimated from scores at random points nearby."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.perturbation import Attack
from brinell.core.threat import Ball

_AT_ONCE = 16  # pairs of directions per forward pass


class SPSA(Attack, name="spsa"):
    """Projected ascent along a gradient estimated from scores alone: does a network fall that hides its gradients?

        g = (1/m) sum_j (L(z + d v_j) - L(z - d v_j)) / (2 d) v_j,     v_j random signs, m = pairs
        h <- momentum h + g;     z <- project(z + a steepest(h)),      a = rate * eps / steps

    L is the margin. Norms 2 and inf. A sample leaves when it reaches the goal; the point of the largest loss is returned otherwise.
    2 m + 1 forward passes per step, none backwards.

    On the linear specimen the noise of the estimates leaves it short of the exact margin; its `reach` is 1.15.

    Arguments:
        pairs: m. distance: d, in the units of x. steps, momentum, rate: see above.

    References: Uesato, O'Donoghue, van den Oord & Kohli (2018), "Adversarial Risk and the Dangers of Evaluating Against Weak Attacks",
        ICML, arXiv 1802.05666, algorithm 1 (d 0.01); Ilyas, Engstrom, Athalye & Lin (2018), "Black-box Adversarial Attacks with Limited
        Queries and Information", ICML, arXiv 1804.08598 (signed steps with momentum, here in place of Adam).

    Example:
        >>> import brinell as br
        >>> net, x, y = (lambda x: x * torch.tensor([2.0, 1.0])), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        >>> z = br.parse("spsa(steps=10, threat=ball(eps=0.25))")(net, x, y, draws=br.derive(0, ids=[0]))
        >>> int(net(z).argmax())
        1
    """

    reach: ClassVar[float] = 1.15
    telling = ("steps", "threat")
    threat: Ball = Ball()
    steps: int = Field(default=40, ge=1)
    has_norms: ClassVar[tuple[float, ...]] = (2, math.inf)
    pairs: int = Field(default=64, ge=1)
    distance: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    rate: float = Field(default=2.5, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check(self) -> SPSA:
        if self.threat.norm not in self.has_norms:
            raise ValueError("spsa has the norms 2 and inf, not 1")
        return self

    @property
    def cost(self) -> tuple[int, int]:
        return self.steps * (2 * self.pairs + 1) + 1, 0

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        with torch.no_grad():
            return self._search(net, x, y, net(x), draws)

    def _search(self, net: Any, x: Tensor, y: Tensor, clean: Tensor, draws: Draws) -> Tensor:
        best, loss = x.clone(), self.goal.loss(clean.double(), y, clean.double(), "margin")
        rows = (~self.goal.reached(clean, y, clean)).nonzero().squeeze(1)
        z, drift, size = x[rows].clone(), torch.zeros_like(x[rows]), self.rate * self.threat.eps / self.steps
        for step in range(self.steps):
            if not len(rows):
                break
            g = self._estimate(net, z, y[rows], clean[rows], draws[rows].at(step))
            drift = self.momentum * drift + g
            z = self.threat.project(x[rows], z + size * self.threat.steepest(drift, z))
            logits = net(z)
            value = torch.nan_to_num(self.goal.loss(logits.double(), y[rows], clean[rows].double(), "margin"), nan=-torch.inf)
            arrived = self.goal.reached(logits, y[rows], clean[rows])
            better = arrived | (value > loss[rows])
            best[rows[better]], loss[rows[better]] = z[better], value[better]
            rows, z, drift = rows[~arrived], z[~arrived], drift[~arrived]
        return best

    def _estimate(self, net: Any, z: Tensor, y: Tensor, clean: Tensor, draws: Draws) -> Tensor:
        """(m, *d) the mean of the estimates of all pairs, a few pairs per forward pass."""
        g, inner = torch.zeros_like(z), z.shape[1:]
        for first in range(0, self.pairs, _AT_ONCE):
            count = min(_AT_ONCE, self.pairs - first)
            v = draws.signs(count, *inner, dtype=z.dtype)
            both = torch.stack((z[:, None] + self.distance * v, z[:, None] - self.distance * v), 1)  # (m, 2, count, *d)
            logits = net(both.clamp(self.threat.low, self.threat.high).reshape(-1, *inner)).double()
            each = 2 * count
            loss = self.goal.loss(logits, y.repeat_interleave(each), clean.double().repeat_interleave(each, 0), "margin")
            ahead, behind = torch.nan_to_num(loss, nan=0.0, posinf=0.0, neginf=0.0).reshape(len(z), 2, count).unbind(1)
            weight = ((ahead - behind) / (2 * self.distance * self.pairs)).to(z.dtype)
            g += (v * weight.reshape(len(z), count, *(1,) * len(inner))).sum(1)
        return g
