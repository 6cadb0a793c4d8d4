"""Threats: the sets of inputs around a sample within which robustness is asked about."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from brinell.core import norms
from brinell.core.component import Component
from brinell.core.draws import Draws
from brinell.core.errors import UndefinedReading
from brinell.core.samples import Mask, PerSample, X, XMask


class Threat(Component):
    """A set T(x) of inputs around each sample x: the question "robust against what?"."""

    def contains(self, x: X, z: X) -> Mask:
        """(n,) bool: is z[i] in T(x[i]), up to rounding?"""
        raise TypeError(f"{type(self).__name__} does not say which points it contains")

    def sample(self, x: X, draws: Draws) -> X:
        """One random point of T(x[i]) per sample."""
        raise TypeError(f"{type(self).__name__} cannot be sampled")


def _norm(value: Any) -> Any:
    return math.inf if value in ("inf", "Linf") else value


class Ball(Threat, name="ball"):
    """All inputs of the domain within distance eps of the sample, in the L1, L2 or Linf norm.

        T(x) = { z : |z - x|_norm <= eps and low <= z <= high (entry by entry) }

    eps is in the data's own units: for images in [0, 1], `eps=8/255` is eight grey levels. With eps = inf the ball is the whole
    domain; that is for attacks which look for the nearest point themselves.

    Raises:
        SpecError: norm is none of 1, 2, inf; eps is negative; low >= high.
        UndefinedReading: a point is to be drawn from a ball without end.

    Example:
        >>> x = torch.full((1, 4), 0.5)
        >>> Ball(norm=2, eps=0.2).project(x, x + 1).sub(x).norm().item()  # doctest: +ELLIPSIS
        0.2...
    """

    telling = ("eps", "norm")
    norm: Annotated[float, BeforeValidator(_norm)] = math.inf
    eps: float = Field(default=8 / 255, ge=0)
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def _check(self) -> Ball:
        if self.norm not in (1, 2, math.inf):
            raise ValueError(f"norm={self.norm:g} is not one of 1, 2, inf")
        if not self.low < self.high:
            raise ValueError(f"low={self.low:g} must lie below high={self.high:g}")
        return self

    def distance(self, x: X, z: X) -> PerSample:
        """(n,) float64: |z - x| in the ball's norm."""
        return norms.length(z.double() - x.double(), self.norm)

    def slack(self, x: Tensor) -> float:
        """What `contains` forgives: the rounding of float32 inputs, a few ulp per entry."""
        finite = [abs(bound) for bound in (self.low, self.high) if math.isfinite(bound)]
        if math.isinf(self.eps):
            return 0.0
        scale = max([1.0, *finite]) if len(finite) == 2 else max(1.0, float(x.abs().amax()) if x.numel() else 1.0)
        dtype = x.dtype if x.dtype == torch.float64 else torch.float32
        return norms.slack(self.norm, math.prod(x.shape[1:]), scale + self.eps, dtype)

    def contains(self, x: X, z: X) -> Mask:
        """(n,) bool: inside the domain exactly and within eps up to the rounding of the input type; NaN is never inside."""
        low, high = norms.extremes(z)
        return (low >= self.low) & (high <= self.high) & (self.distance(x, z) <= self.eps + self.slack(x))

    def project(self, x: X, z: X, eps: PerSample | None = None) -> X:
        """The point of T(x) nearest to z; z itself where it lies inside. x must lie in the domain.

        eps: (n,) other radii than the ball's own, one per sample.
        """
        moved = norms.project(z - x, self.eps if eps is None else eps, self.norm, *self._room(x))
        inside = (z - x == moved) & (z >= self.low) & (z <= self.high)
        return torch.where(inside, z, (x + moved).clamp(self.low, self.high))

    def across(self, z: X, g: X, gap: PerSample) -> X:
        """The shortest step v from z, in this norm, with <g, v> = gap (n,) that stays in the domain: onto a plane. Where no step
        of the domain reaches it, the one that comes closest. eps plays no part."""
        return norms.to_plane(g, gap, self.norm, *self._room(z))

    def steepest(self, g: Tensor, z: Tensor | None = None) -> Tensor:
        """The unit step that gains most along g; entries of z already at the wall in g's direction stay (if z is given)."""
        return norms.steepest(g, self.norm, None if z is None else self.free(g, z))

    def free(self, g: X, z: X) -> XMask:
        """(n, *d) bool: the entries of z that no wall keeps from moving along g."""
        return ~(((z >= self.high) & (g > 0)) | ((z <= self.low) & (g < 0)))

    def box(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Entry-wise bounds of T(x): max(x - eps, low) and min(x + eps, high)."""
        return (x - self.eps).clamp(min=self.low), (x + self.eps).clamp(max=self.high)

    def sample(self, x: X, draws: Draws) -> X:
        """Uniform in the ball, then moved into the domain entry by entry (which never leaves the ball)."""
        if math.isinf(self.eps):
            raise UndefinedReading(f"{self.spec()} has no uniform distribution; give a finite eps to draw from it")
        v = norms.uniform_in_ball(x.shape, self.norm, draws, x.dtype) * self.eps
        return self.project(x, (x + v).clamp(self.low, self.high))

    def _room(self, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        low = self.low - x if math.isfinite(self.low) else -math.inf
        high = self.high - x if math.isfinite(self.high) else math.inf
        return (low, high) if isinstance(low, Tensor) == isinstance(high, Tensor) else (
            torch.as_tensor(low).expand_as(x), torch.as_tensor(high).expand_as(x))  # fmt: skip
