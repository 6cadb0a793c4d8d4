"""Flipping distances: how far is each sample from another answer, and what does that say at every budget at once?"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from pydantic import Field, field_validator

from brinell.core.confidence import clopper_pearson, quantile_interval
from brinell.core.lab import Table
from brinell.core.measurement import Bound, Finding, Reading
from brinell.core.summary import Summary
from brinell.core.threat import Ball
from brinell.summary.points import Cell, cells

BUDGETS: dict[float, tuple[float, ...]] = {
    1: (1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0),
    2: (0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0),
    math.inf: tuple(level / 255 for level in (0.5, 1, 2, 4, 8, 16, 32, 64)),
}
"""The eps at which the curve is read where none are given: those that publications use, and some around them."""


class FlippingDistance(Summary, name="flipping_distance"):
    """Median, quantiles and curve of the distance to another answer, of every network: how far is it, not only whether it is within eps?

        d_i = min |z - x_i|_norm over all measured points z of sample i that are wrong;   0 if x_i itself is

    over all points of the run, whatever made them; minimum-norm attacks (`fmn`, `fab`, ...) look for near ones. The nearest point
    found may not be the nearest there is: every d_i, and every number here, is an UPPER bound of the true one.

    - `flipping_distance`, layer e.g. `L2`: the median; its array (axis `sample`, in the order of ids) holds all d_i, inf where no
      wrong point was found;
    - `flipping_distance_quantile`, layer e.g. `L2 10%`: the smallest d that at least this share of samples does not exceed;
    - `flipping_accuracy`, layer e.g. `L2 eps=0.5`: the share of samples with d_i > eps: robust accuracy on a ball around them,
      all budgets from one run.

    Where so many samples have no wrong point that a quantile is not reached, it is UNDEFINED. Intervals of quantiles are free of any
    assumption on the distribution: order statistics with binomial ranks; where a rank lies beyond all samples the interval is open
    (left out above, 0 below). Those of shares are Clopper-Pearson's. Both treat samples as independent and hold for one number each.

    Arguments:
        norms: 1, 2, inf; () for those in which a minimum-norm attack of the plan has its ball. quantiles: of the distribution, in
            (0, 1). eps: budgets of the curve, for all norms; () for `BUDGETS`. confidence: of each interval.

    References: distances as a measure: Moosavi-Dezfooli et al. (2016), "DeepFool", CVPR, arXiv 1511.04599 (a mean); Brendel et al. (2019),
        "Accurate, reliable and fast robustness evaluation", NeurIPS, arXiv 1907.01003 (medians and whole curves). Intervals of
        quantiles: David & Nagaraja (2003), "Order Statistics", 3rd ed., section 7.1.

    Example:
        >>> import brinell as br
        >>> data = br.load_dataset("digits(side=8)", limit=60)
        >>> net = br.load_network("mlp(widths=(32,))", shape=data.shape, classes=10)
        >>> table = br.Lab().measure(net, data, ["fmn(steps=20)"], summaries=["flipping_distance"])
        >>> row = table.row("flipping_distance", perturbation="", layer="L2")
        >>> row["bound"], row["low"] <= row["value"] <= row["high"]
        ('upper', True)
    """

    norms: tuple[float, ...] = ()
    quantiles: tuple[float, ...] = (0.05, 0.1, 0.25, 0.75, 0.9, 0.95)
    eps: tuple[float, ...] = ()
    confidence: float = Field(default=0.95, gt=0, lt=1)

    @field_validator("norms")
    @classmethod
    def _known(cls, norms: tuple[float, ...]) -> tuple[float, ...]:
        if any(norm not in (1, 2, math.inf) for norm in norms):
            raise ValueError("norms are 1, 2 and inf")
        return norms

    @field_validator("quantiles")
    @classmethod
    def _between(cls, quantiles: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share < 1 for share in quantiles):
            raise ValueError("quantiles lie between 0 and 1")
        return quantiles

    def __call__(self, table: Table) -> list[tuple[str, Reading] | Finding]:
        asked = [item.threat.norm for item in table.perturbations() if item.unbounded and isinstance(item.threat, Ball)]
        found: list[tuple[str, Reading] | Finding] = []
        for net in table.networks:
            measured = cells(table, net)
            for norm in sorted(set(self.norms or asked or (1.0, 2.0, math.inf))):
                found += [(net, reading) for reading in self._of(norm, measured)]
        return found

    def _of(self, norm: float, measured: list[Cell]) -> list[Reading]:
        layer = f"L{norm:g}"
        if not measured:
            return [replace(Reading.undefined("flipping_distance", "no cell has points", layer=layer), bound=Bound.UPPER)]
        far = flipping_distances(measured, norm)
        median = self._quantile(far, 0.5, "flipping_distance", layer)
        readings = [replace(median, array=far, axis="sample")]
        readings += [self._quantile(far, share, "flipping_distance_quantile", f"{layer} {100 * share:g}%")
                     for share in self.quantiles]  # fmt: skip
        for eps in self.eps or BUDGETS[norm]:
            kept = far > eps
            low, high = clopper_pearson(int(kept.sum()), len(kept), self.confidence)
            readings.append(Reading("flipping_accuracy", float(kept.mean()), f"{layer} eps={eps:.6g}", bound=Bound.UPPER, low=low,
                                    high=high, confidence=self.confidence, n=len(kept)))  # fmt: skip
        return readings

    def _quantile(self, far: np.ndarray, share: float, name: str, layer: str) -> Reading:
        value, low, high = quantile_interval(far, share, self.confidence)
        if math.isinf(value):
            why = (
                f"no wrong point was found for {np.isinf(far).mean():.1%} of the samples; add a minimum-norm attack, or give it more steps"
            )
            return replace(Reading.undefined(name, why, layer=layer, n=len(far)), bound=Bound.UPPER)
        return Reading(name, value, layer, bound=Bound.UPPER, low=low, high=high if math.isfinite(high) else None,
                       confidence=self.confidence, n=len(far))  # fmt: skip


def flipping_distances(measured: list[Cell], norm: float) -> np.ndarray:
    """(n,) the distance of each sample to its nearest wrong point among all cells, inf where there is none."""
    points = [np.where(cell.correct, math.inf, cell.samples[f"l{norm:g}"]) for cell in measured]
    return np.minimum.reduce(points)
