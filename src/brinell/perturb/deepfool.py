"""DeepFool: steps onto the nearest linearised decision boundary until the class changes."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field

from brinell.core.threat import Ball
from brinell.perturb.minimum_norm import Hunt, MinimumNorm, nearest_plane, rivals_of


class DeepFool(MinimumNorm, name="deepfool"):
    """Steps onto the nearest linearised decision boundary until another class is predicted: a quick estimate of the distance to it.

        z_{k+1} = z_k + (1 + overshoot) v_k,    v_k the shortest step onto the nearest linearised boundary at z_k

    Norms 2 and inf. A sample leaves as soon as it has reached the goal; on a linear network after one step.

    Arguments:
        classes: how many wrong classes, the most likely at x first, are weighed at every step (a backward pass each).
        overshoot: beyond the plane, so that the class does change. goal, threat, bisections: see `MinimumNorm`.

    References: Moosavi-Dezfooli, Fawzi & Frossard (2016), "DeepFool: A Simple and Accurate Method to Fool Deep Neural Networks",
        CVPR, arXiv 1511.04599, algorithm 2 and section 3.3; overshoot 0.02, 50 steps and ten classes (the label and nine others)
        are those of the authors' code. Departures: the overshoot is added at every step instead of once at the end; steps know the
        walls of the domain; the result is drawn in along the line to x.

    Example:
        >>> import brinell as br
        >>> net, x, y = (lambda x: x * torch.tensor([2.0, 1.0])), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        >>> br.parse("deepfool")(net, x, y, draws=br.derive(0, ids=[0])).z
        tensor([[0.3000, 0.6000]])
    """

    has_norms: ClassVar[tuple[float, ...]] = (2, math.inf)
    threat: Ball = Ball(norm=2, eps=math.inf)
    steps: int = Field(default=50, ge=1)
    classes: int = Field(default=9, ge=1)
    overshoot: float = Field(default=0.02, ge=0, le=1)

    @property
    def budget(self) -> tuple[int, int]:
        return self.steps + 1, self.steps * self.classes

    def search(self, hunt: Hunt) -> None:
        ball, rows, rivals = self.threat, hunt.open(), rivals_of(hunt, self.classes)
        z = hunt.x[rows].clone()
        for step in range(self.steps):
            g, gap, logits = nearest_plane(hunt, rows, z, None if rivals is None else rivals[rows])
            stay = ~hunt.offer(rows, z, logits) if step else torch.ones_like(rows, dtype=torch.bool)
            rows, z, g, gap = rows[stay], z[stay], g[stay], gap[stay]
            if not len(rows):
                return
            z = (z + (1 + self.overshoot) * ball.across(z, g, gap)).clamp(ball.low, ball.high)
        hunt.check(rows, z)
