"""The fast minimum-norm attack: gradient steps in a ball that shrinks while the goal is reached and grows while it is not."""

from __future__ import annotations

import math

import torch
from pydantic import Field

from brinell.core import norms
from brinell.core.ascent import goal_gradient
from brinell.perturb.minimum_norm import Hunt, MinimumNorm


class FMN(MinimumNorm, name="fmn"):
    """Gradient steps inside a ball whose radius adapts to the boundary, all at once: how far is it to another answer?

        z_{k+1} = project(z_k + a_k grad / |grad|_2) into the ball of radius e_k around x and the domain
        e_{k+1} = min((1 - c_k) e_k, nearest distance found)   where z_k reaches the goal
                = (1 + c_k) e_k                                where it does not, but some point before did
                = |z_k - x| + (1 + c_k) |margin| / |grad|_dual   where none did yet (the factor is ours: to cross, not to touch)

    grad is that of the margin, without the entries that a wall of the domain holds back; a_k and c_k fall like a cosine from `rate` and
    `shrink` to a hundredth. Norms 1, 2, inf.

    Arguments:
        rate: a_0, an L2 length in the units of x. shrink: c_0. goal, threat, bisections: see `MinimumNorm`.

    References: Pintor, Roli, Brendel & Biggio (2021), "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints",
        NeurIPS, arXiv 2102.12827, algorithm 1 (shrink 0.05; 100 to 1000 steps; a_0 = 1, for Linf up to 10, by data set).

    Example:
        >>> import brinell as br
        >>> net, x, y = (lambda x: x * torch.tensor([2.0, 1.0])), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        >>> z = br.parse("fmn(threat=ball(norm=inf, eps=inf))")(net, x, y, draws=br.derive(0, ids=[0])).z
        >>> [round(value, 3) for value in z[0].tolist()]
        [0.333, 0.667]
    """

    telling = ("steps", "threat")
    steps: int = Field(default=100, ge=1)
    rate: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    shrink: float = Field(default=0.05, gt=0, lt=1)

    @property
    def budget(self) -> tuple[int, int]:
        return self.steps, self.steps

    def search(self, hunt: Hunt) -> None:
        ball, rows = self.threat, hunt.open()
        z, radius = hunt.x[rows].clone(), torch.full((len(rows),), torch.inf, dtype=torch.float64, device=hunt.x.device)
        for step in range(self.steps):
            left = hunt.open(rows)
            if len(left) < len(rows):
                kept = torch.isin(rows, left)
                rows, z, radius = left, z[kept], radius[kept]
            if not len(rows):
                return
            x = hunt.x[rows]
            g, losses, logits = goal_gradient(hunt.net, z, hunt.y[rows], hunt.clean[rows], hunt.goal, "margin")
            arrived, g = hunt.offer(rows, z, logits), g * ball.free(g, z)
            fall = (1 + math.cos(math.pi * step / self.steps)) / 2
            pace, shrink = (0.01 + 0.99 * fall) * self.rate, self.shrink * (0.01 + 0.99 * fall)
            found, steep = hunt.distance[rows], norms.length(g.double(), norms.dual(ball.norm))
            guess = ball.distance(x, z) + torch.where(steep > 0, (1 + shrink) * losses.abs() / steep.clamp(min=1e-300), torch.inf)
            radius = torch.where(arrived, (radius * (1 - shrink)).minimum(found),
                                 torch.where(found.isfinite(), radius * (1 + shrink), guess))  # fmt: skip
            z = ball.project(x, z + pace * norms.steepest(g, 2), radius)
        hunt.check(rows, z)
