"""Attacks that trade the distance off against a loss, with a weight that is searched for per sample."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.ascent import goal_gradient
from brinell.perturb.minimum_norm import Hunt, MinimumNorm


class TradeOff(MinimumNorm):
    """Minimises distance + c * max(0, -lead) for a weight c that grows where the goal is missed and is halved between where it is not.

    c starts at a multiple of the weight at which the linearised network is just fooled, and is searched `searches` times, by factors
    of 10 until the goal is reached and missed once each, then by the middle.
    """

    trial: ClassVar[dict[str, Any]] = {"searches": 5}
    steps: int = Field(default=100, ge=1)
    searches: int = Field(default=6, ge=1)
    step_size: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    weight: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @property
    def budget(self) -> tuple[int, int]:
        runs = self.searches * self.steps
        return runs + self.searches, runs

    def first_weight(self, x: Tensor, g: Tensor, gap: Tensor) -> Tensor:
        """(n,) the weight to begin with, from the gradient of the lead at x and minus its value."""
        raise TypeError(f"{type(self).__name__} does not say where its search begins")

    def descend(self, hunt: Hunt, rows: Tensor, weight: Tensor) -> Tensor:
        """One run at weights (m,); `offer`s its points and returns (m,) bool: which reached the goal."""
        raise TypeError(f"{type(self).__name__} does not say how it descends")

    def search(self, hunt: Hunt) -> None:
        rows = hunt.open()
        if self.weight is None:
            g, lead, _ = goal_gradient(hunt.net, hunt.x[rows], hunt.y[rows], hunt.clean[rows], hunt.goal, "margin")
            weight = self.first_weight(hunt.x[rows], g.double(), -lead)
        else:
            weight = torch.full((len(rows),), self.weight, dtype=torch.float64, device=hunt.x.device)
        low, high = torch.zeros_like(weight), torch.full_like(weight, math.inf)
        for _ in range(self.searches):
            left = hunt.open(rows)
            kept = torch.isin(rows, left)
            rows, weight, low, high = left, weight[kept], low[kept], high[kept]
            if not len(rows):
                return
            arrived = self.descend(hunt, rows, weight)
            low, high = torch.where(arrived, low, weight), torch.where(arrived, weight, high)
            weight = torch.where(high.isfinite(), torch.where(low > 0, (low + high) / 2, high / 10), low * 10).clamp(max=1e10)
