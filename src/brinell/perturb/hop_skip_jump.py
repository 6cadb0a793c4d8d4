"""HopSkipJump: walks along the decision boundary, asking the network for its answers alone."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from brinell.core import norms
from brinell.core.draws import Draws
from brinell.core.threat import Ball
from brinell.perturb.minimum_norm import Hunt, MinimumNorm

_AT_ONCE = 16  # directions per forward pass


class HopSkipJump(MinimumNorm, name="hop_skip_jump"):
    """Walks along the decision boundary by answers alone: how far is it to another answer, to somebody who sees nothing else?

        boundary: halve between x and a point that reaches the goal
        g = sum_b (s_b - mean s) v_b,     s_b = +1 where z + d v_b reaches the goal, else -1,    b = 1 .. B sqrt(k)
        z <- z + e steepest(g),           e = |z - x| / sqrt(k), halved until z reaches the goal;   back to the boundary

    for k = 1 .. steps; d = |z - x| / D, at first a tenth of the domain. Norms 2 and inf. It starts from uniform noise over the domain
    (around x with growing width where the domain has no end); samples that no such start fools give up.

    Its estimates are noisy, so that on the linear specimen it needs more than the exact margin; its `reach` is 1.5.

    Arguments:
        directions: B. starts: random starts tried. goal, threat: see `MinimumNorm`; `bisections` is 0, as these would look at scores.

    References: Chen, Jordan & Wainwright (2020), "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack", IEEE S&P,
        arXiv 1904.02144, algorithms 1 and 2 and its defaults (B 100, d, e). Departure: the number of halvings is fixed at the
        accuracy D^-1.5 (L2) or D^-2 (Linf), 24 at most.

    Example:
        >>> import brinell as br
        >>> net, x, y = (lambda x: x * torch.tensor([2.0, 1.0])), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        >>> made = br.parse("hop_skip_jump")(net, x, y, draws=br.derive(0, ids=[0]))
        >>> round(float((made.z - x).norm()), 2)
        0.22
    """

    reach: ClassVar[float] = 1.5
    has_norms: ClassVar[tuple[float, ...]] = (2, math.inf)
    threat: Ball = Ball(norm=2, eps=math.inf)
    steps: int = Field(default=20, ge=1)
    directions: int = Field(default=100, ge=1)
    starts: int = Field(default=50, ge=1)
    bisections: int = Field(default=0, ge=0, le=0)

    @property
    def budget(self) -> tuple[int, int]:
        around = sum(math.ceil(self.directions * math.sqrt(k)) for k in range(1, self.steps + 1))
        return self.starts + around + self.steps * (24 + 10), 0

    def search(self, hunt: Hunt) -> None:
        rows, z = self._start(hunt)
        z = self._to_boundary(hunt, rows, z)
        for k in range(1, self.steps + 1):
            left = hunt.open(rows)
            z, rows = z[torch.isin(rows, left)], left
            if not len(rows):
                return
            far = hunt.distance[rows]
            step = self.threat.steepest(self._estimate(hunt, rows, z, far, k))
            z = self._to_boundary(hunt, rows, self._jump(hunt, rows, z, step, far / math.sqrt(k)))

    def _start(self, hunt: Hunt) -> tuple[Tensor, Tensor]:
        ball, rows = self.threat, hunt.open()
        for number in range(self.starts):
            left = rows[~hunt.distance[rows].isfinite()]
            if not len(left):
                break
            x, draws = hunt.x[left], hunt.draws[left].at("start", number)
            if math.isfinite(ball.low) and math.isfinite(ball.high):
                z = draws.uniform(*x.shape[1:], low=ball.low, high=ball.high, dtype=x.dtype)
            else:
                z = x + draws.normal(*x.shape[1:], std=0.1 * 1.5**number, dtype=x.dtype)
            hunt.check(left, z.clamp(ball.low, ball.high))
        rows = rows[hunt.distance[rows].isfinite()]
        return rows, hunt.z[rows].clone()

    def _to_boundary(self, hunt: Hunt, rows: Tensor, z: Tensor) -> Tensor:
        """The points (m, *d), which reach the goal, moved towards x until they just do."""
        x, ball = hunt.x[rows], self.threat
        if not len(rows):
            return z
        power = 1.5 if ball.norm == 2 else 2.0
        halvings = min(24, math.ceil(power * math.log2(max(math.prod(x.shape[1:]), 2))) + 4)
        whole = ball.distance(x, z)
        low, high, best = torch.zeros_like(whole), torch.ones_like(whole), z
        for _ in range(halvings):
            middle = (low + high) / 2
            at = ball.project(x, z, middle * whole) if ball.norm == math.inf else x + norms.scaled(z - x, middle.to(x.dtype))
            arrived = hunt.check(rows, at)
            low, high = torch.where(arrived, low, middle), torch.where(arrived, middle, high)
            best = torch.where(arrived.reshape(-1, *(1,) * (x.ndim - 1)), at, best)
        return best

    def _estimate(self, hunt: Hunt, rows: Tensor, z: Tensor, far: Tensor, k: int) -> Tensor:
        """(m, *d) the direction in which the share of answers that reach the goal grows."""
        ball, inner, total = self.threat, z.shape[1:], math.ceil(self.directions * math.sqrt(k))
        draws: Draws = hunt.draws[rows].at("around", k)
        width = ball.high - ball.low if math.isfinite(ball.high - ball.low) else 1.0
        near = torch.full_like(far, 0.1 * width) if k == 1 else far / math.prod(inner)
        shape = (len(z), 1, *(1,) * len(inner))
        agreed, plain = torch.zeros_like(z), torch.zeros_like(z)
        signs = torch.zeros(len(z), dtype=torch.float64, device=z.device)
        for first in range(0, total, _AT_ONCE):
            count = min(_AT_ONCE, total - first)
            v = (
                draws.normal(count, *inner, dtype=z.dtype)
                if ball.norm == 2
                else draws.uniform(count, *inner, low=-1.0, high=1.0, dtype=z.dtype)
            )
            v = norms.steepest(v.flatten(0, 1), 2).reshape(v.shape)
            at = (z[:, None] + near.to(z.dtype).reshape(shape) * v).clamp(ball.low, ball.high)
            v = (at - z[:, None]) / near.to(z.dtype).reshape(shape)
            asked = rows.repeat_interleave(count)
            with torch.no_grad():
                arrived = hunt.lead(hunt.net(at.flatten(0, 1)), asked) > 0
            s = arrived.reshape(len(z), count).to(z.dtype) * 2 - 1
            agreed += (v * s.reshape(len(z), count, *(1,) * len(inner))).sum(1)
            plain += v.sum(1)
            signs += s.double().sum(1)
        mean = signs / total
        one_sided = (mean.abs() == 1).reshape(-1, *(1,) * len(inner))
        return torch.where(one_sided, agreed, agreed - norms.scaled(plain, mean.to(z.dtype)))

    def _jump(self, hunt: Hunt, rows: Tensor, z: Tensor, step: Tensor, size: Tensor) -> Tensor:
        """z + e step with the largest e = size / 2^j, j < 10, that reaches the goal; z where none does."""
        out, left = z.clone(), torch.arange(len(rows), device=z.device)
        for halving in range(10):
            far = (size[left] / 2**halving).to(z.dtype)
            at = (z[left] + norms.scaled(step[left], far)).clamp(self.threat.low, self.threat.high)
            arrived = hunt.check(rows[left], at)
            out[left[arrived]] = at[arrived]
            left = left[~arrived]
            if not len(left):
                break
        return out
