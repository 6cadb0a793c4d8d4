"""Smoothness of the margin around a sample: local Lipschitz constant, distance to the boundary by the tangent, curvature."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from brinell.core.ascent import goal_gradient
from brinell.core.confidence import quantile_interval
from brinell.core.draws import Draws
from brinell.core.goal import Misclassify
from brinell.core.measurement import Bound, Reading
from brinell.core.network import frozen
from brinell.core.norms import dual, length, steepest
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Rows, Tally
from brinell.core.threat import Ball

_BOUNDS = {"lipschitz": Bound.ESTIMATE, "linear_distance": Bound.ESTIMATE, "curvature": Bound.ESTIMATE}


class Smoothness(Probe, name="smoothness"):
    """Three cheap stand-ins for robustness that are read off gradients: how steep, how far, how bent is the margin near a sample?

    With S(z) = f_y(z) - max_{k != y} f_k(z) the margin of the label, p the norm of the ball and q its dual:

    - `lipschitz`: the largest | grad S |_q at `points` random points of the ball and at the sample. The local Lipschitz constant of S
      is at least that, and may be more: an ESTIMATE, and never a certificate;
    - `linear_distance`: S / | grad S |_q at the sample, the distance to the boundary if S were affine; negative where the label is not
      predicted;
    - `curvature`: | grad S(x + h u) - grad S(x) |_2 / h with u = grad S / | grad S |_2, the change of the gradient along itself.

    Each is the median over samples, with an interval of order statistics; array: of each sample, in the order of ids. A sample without a
    gradient has 0, 0 and an infinite distance with the sign of S. UNDEFINED where a gradient or logit is NaN or infinite, and the
    distance where its median is infinite.

    Arguments:
        threat: the ball, in the units of the data. points: in it. step: h. confidence: of the intervals.

    References: Weng et al. (2018), "Evaluating the Robustness of Neural Networks: An Extreme Value Theory Approach", ICLR, arXiv
        1801.10578 (gradient norms at random points; without its extreme value fit, which is known to over-state robustness);
        Moosavi-Dezfooli et al. (2016), arXiv 1511.04599 (linear distance); Moosavi-Dezfooli et al. (2019), "Robustness via curvature
        regularization, and vice versa", CVPR, arXiv 1811.09716 (of the loss; departure: of the margin, which does not saturate).

    Example:
        >>> Smoothness(points=5).spec()
        'smoothness(points=5, threat=ball(eps=0.1, norm=inf))'
    """

    telling = ("threat",)
    threat: Ball = Ball(eps=0.1)
    points: int = Field(default=10, ge=0)
    step: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    confidence: float = Field(default=0.95, gt=0, lt=1)

    @field_validator("threat")
    @classmethod
    def _finite(cls, threat: Ball) -> Ball:
        if not threat.eps < np.inf:
            raise ValueError(f"{threat.spec()} has no end; give a finite eps")
        return threat

    @property
    def needs(self) -> Needs:
        return Needs(net=True)

    @property
    def cost(self) -> tuple[int, int]:
        return self.points + 2, self.points + 2

    def observe(self, view: View, *, draws: Draws) -> Tally:
        net, x, y, clean, q = view.net, view.z, view.y, view.logits.detach(), dual(self.threat.norm)
        if net is None:
            raise TypeError("the smoothness probe needs the network in its view")

        def slope(z: Tensor) -> tuple[Tensor, Tensor]:
            gradient, losses, _ = goal_gradient(net, z, y, clean, Misclassify(), "margin")
            return gradient.double(), -losses  # the loss is -S; only the size of its gradient is read

        with frozen(net):
            gradient, margin = slope(x)
            steep = size = length(gradient, q)
            for k in range(self.points):
                z = self.threat.sample(x.double(), draws.at("point", k)).to(x.dtype)
                steep = torch.maximum(steep, length(slope(z)[0], q))
            beyond, _ = slope((x.double() - self.step * steepest(gradient, 2)).to(x.dtype))
            bend = length(beyond - gradient, 2) / self.step
        distance = torch.where(size > 0, margin / size.clamp(min=1e-300), torch.where(margin == 0, 0.0, margin.sign() * torch.inf))
        fine = clean.isfinite().all(1) & steep.isfinite() & bend.isfinite()
        return Rows.of(id=view.ids, lipschitz=steep, linear_distance=distance, curvature=bend, fine=fine)

    def read(self, tally: Tally) -> list[Reading]:
        rows = {name: value.numpy() for name, value in Rows(tally.values).sorted().values.items()}
        if not len(rows.get("id", ())):
            return [Reading.undefined(name, "there is no sample to measure") for name in _BOUNDS]
        n, mute = len(rows["id"]), ~rows["fine"]
        if mute.any():
            why = f"{mute.sum()} of {n} samples have NaN or inf among their logits or gradients (first id {rows['id'][mute][0]})"
            return [Reading.undefined(name, why, n=n) for name in _BOUNDS]
        return [self._median(name, rows[name], bound) for name, bound in _BOUNDS.items()]

    def _median(self, name: str, values: np.ndarray, bound: Bound) -> Reading:
        least = min(float(values.min(initial=0)), 0.0) if np.isfinite(values).all() else 0.0
        value, low, high = quantile_interval(values - least, 0.5, self.confidence)  # which takes numbers that are not negative
        if not np.isfinite(value):
            return Reading.undefined(name, f"{np.isinf(values).sum()} of {len(values)} samples have gradient 0", n=len(values))
        ends = {"low": low + least, "high": high + least if np.isfinite(high) else None}
        return Reading(name, value + least, bound=bound, confidence=self.confidence, n=len(values), array=values, axis="sample", **ends)
