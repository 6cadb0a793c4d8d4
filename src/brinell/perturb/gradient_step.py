"""Steps along the input gradient: how little does it take to change the sign of the output, or the class?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from brinell.core import norms
from brinell.core.line import Output, along, downhill, first_crossing, line_lengths, relative_step, value_and_gradient
from brinell.core.threat import Ball
from brinell.perturb.minimum_norm import Hunt, MinimumNorm

_NEAR, _FAR = 200, 50
_FURTHER = 1.001  # a point just beyond the boundary may be just before it in a batch of another size


def fixed_step(x: Tensor, value: Tensor, gradient: Tensor, eta: float) -> Tensor:
    """x - |eta| sign(f) grad f, for one eta for all samples: the step of the theorems. x, gradient (n, *d), value (n,).

    Example:
        >>> fixed_step(torch.zeros(1, 2), torch.tensor([5.0]), torch.tensor([[1.0, -2.0]]), 3.0)
        tensor([[-3.,  6.]])
    """
    wide = (-1, *(1,) * (x.ndim - 1))
    return x - abs(eta) * value.sign().reshape(wide).to(x.dtype) * gradient


def newton_step(x: Tensor, value: Tensor, gradient: Tensor, margin: float = 2.0) -> Tensor:
    """x - m f grad f / |grad f|^2: m times the way to the sign change, if f were linear; x itself where the gradient is 0.

    Example:
        >>> newton_step(torch.zeros(1, 2), torch.tensor([5.0]), torch.tensor([[1.0, -2.0]]), 1.0)
        tensor([[-1.,  2.]])
    """
    length = margin * value.double().abs() / norms.length(gradient.double(), 2).clamp(min=1e-300)
    return along(x, downhill(value, gradient), length[:, None])[:, 0]


@dataclass(frozen=True)
class Walk:
    """Where many small steps led.

    Arguments:
        z: (n, *d) first points of the other sign, else the last ones. flipped: (n,) bool. steps: (n,) steps taken.
        distance: (n,) float64 |z - x|. path: (n,) float64 length of the way.
    """

    z: Tensor
    flipped: Tensor
    steps: Tensor
    distance: Tensor
    path: Tensor


def small_steps(
    output: Output, x: Tensor, step: float = 0.02, limit: int = 1000, *, select: Callable[[Tensor], Output] | None = None
) -> Walk:
    """Normalised gradient descent on |f| until its sign at the *new* point is the other one: gradient flow, nearly, for small steps.

        x_{t+1} = x_t - step sign(f(x_0)) grad f(x_t) / |grad f(x_t)|

    Arguments:
        step: in the unit of x; 0.02 for |x| = sqrt(d). Distances cannot be told below it. limit: of steps; where the gradient
            vanishes a walk ends at once.
        select: the output of some samples alone, given their positions; those that have arrived are then passed no more.

    References: Daniely & Schacham (2020), "Most ReLU networks suffer from l2 adversarial perturbations", NeurIPS, arXiv 2010.14927
        (gradient descent with small steps). Departures from the authors' code: steps are normalised, and the new point is tested,
        not the one before.

    Example:
        >>> walk = small_steps(lambda z: z.sum(-1) - 1, torch.full((1, 4), 0.5), step=0.15)
        >>> walk.flipped.item(), walk.steps.item(), round(walk.distance.item(), 4)
        (True, 4, 0.6)
    """
    z, everyone = x.clone(), torch.arange(len(x), device=x.device)
    flipped, ended = (torch.zeros(len(x), dtype=torch.bool, device=x.device) for _ in range(2))
    steps, start = torch.zeros_like(everyone), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    wide = (-1, *(1,) * (x.ndim - 1))
    for taken in range(limit + 1):
        rows = everyone if select is None else everyone[~ended]
        if bool(ended.all()) or not len(rows):
            break
        value, gradient = value_and_gradient(output if select is None else select(rows), z[rows])
        start = value.double() if not taken else start
        flipped[rows] |= ~ended[rows] & (value * start[rows] < 0)
        u = downhill(start[rows], gradient)
        ended[rows] |= flipped[rows] | (norms.length(u, 2) == 0) | (taken == limit)
        moving = ~ended[rows]
        z[rows] += torch.where(moving.reshape(wide), step * u, 0.0)
        steps[rows] += moving
    return Walk(z, flipped, steps, norms.length((z - x).double(), 2), steps.double() * step)


class GradientStep(MinimumNorm, name="gradient_step"):
    """Walks straight down the gradient of the lead, in L2: does one step suffice to change the class, and how long must it be?

    With f the lead of the predicted class over the best other one (for goal `target`, over the target) and u = -grad f / |grad f| at x:

    - rule `fixed`: z = x - eta grad f, one eta for all samples (the step of the theorems on random networks);
    - rule `newton`: z = x + factor (f / |grad f|) u, the way to the boundary if f were linear, times a factor;
    - rule `line`: the first of 250 points x + t u that has another class, 200 of them up to four times the linear step and 50 on to
      `most` |x|; sign changes closer together may be missed;
    - rule `small`: up to `steps` steps of length `step` along -grad f / |grad f| at each new point.

    Points are moved into the domain entry by entry, entries at a wall that the step pushes against take no part in it, and no step is
    longer than eps. A sample whose class does not change gives up. On a linear network `newton`, `line` and `small` find the way to
    the boundary; `fixed` does if eta |grad f|^2 > f.

    Arguments:
        rule, eta, factor, most, step, steps: as above; those of other rules play no part. threat: an L2 ball, without end by default.
        goal: see `MinimumNorm`. bisections: 0 returns the point as the rule found it; more draw it in towards x.

    References: Bubeck, Cherapanamjeri, Gidel & Tachet des Combes (2021), "A single gradient step finds adversarial examples on random
        two-layers neural networks", NeurIPS, arXiv 2104.03863 (`fixed`; its constants were not found, eta = 3 flips 97 % of wide
        ReLU networks at |x| = sqrt(d)). Bartlett, Bubeck & Cherapanamjeri (2021), arXiv 2106.12611 (`newton`, `line`). Daniely &
        Schacham (2020), arXiv 2010.14927 (`small`; their code has a step of 0.1, its description 0.05, neither normalised).

    Example:
        >>> import brinell as br
        >>> net, x, y = (lambda x: x * torch.tensor([2.0, 1.0])), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        >>> br.parse("gradient_step(factor=1.5)")(net, x, y, draws=br.derive(0, ids=[0])).z
        tensor([[0.2000, 0.6500]])
    """

    has_norms: ClassVar[tuple[float, ...]] = (2,)
    threat: Ball = Ball(norm=2, eps=math.inf)
    bisections: int = Field(default=0, ge=0, le=60)
    rule: Literal["fixed", "newton", "line", "small"] = "newton"
    eta: float = Field(default=3.0, gt=0, allow_inf_nan=False)
    factor: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    most: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    step: float = Field(default=0.02, gt=0, allow_inf_nan=False)
    steps: int = Field(default=1000, ge=1)

    @property
    def budget(self) -> tuple[int, int]:
        if self.rule == "small":
            return self.steps + 2, self.steps + 1
        return (2 + _NEAR + _FAR if self.rule == "line" else 2), 1

    def search(self, hunt: Hunt) -> None:
        rows = hunt.open()
        x, ball = hunt.x[rows], self.threat
        if self.rule == "small":
            walk = small_steps(_lead(hunt, rows), x, self.step, self.steps, select=lambda part: _lead(hunt, rows[part]))
            hunt.check(rows, walk.z.clamp(ball.low, ball.high))
            return
        f, g = value_and_gradient(_lead(hunt, rows), x)
        g = torch.where(ball.free(-g, x), g, 0.0)
        u, steep = downhill(f, g), norms.length(g.double(), 2)
        if self.rule == "line":
            size = norms.length(x.double(), 2)
            lengths = line_lengths(relative_step(f, g, x), size, self.most, _NEAR, _FAR)
            _, length = first_crossing(_lead(hunt, rows), x, f, u, lengths.clamp(max=ball.eps), rounds=0)
            length = torch.where(length.isfinite(), length * _FURTHER, 0.0)
        else:
            length = self.eta * steep if self.rule == "fixed" else self.factor * f.double() / steep.clamp(min=1e-300)
        z = along(x, u, length.clamp(max=ball.eps)[:, None])[:, 0]
        hunt.check(rows, z.clamp(ball.low, ball.high))


def _lead(hunt: Hunt, rows: Tensor) -> Output:
    """How far the samples are from their goal, at points moved into the domain: positive until it is surely reached."""

    def lead(z: Tensor) -> Tensor:
        flat = z.flatten(0, 1).clamp(hunt.threat.low, hunt.threat.high)
        return -hunt.lead(hunt.net(flat), rows.repeat_interleave(z.shape[1])).reshape(z.shape[:2])

    return lead
