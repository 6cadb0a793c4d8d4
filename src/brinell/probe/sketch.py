"""A sketch of wide points: the spectrum of thousands of entries from a few hundred signed sums of them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from brinell.core.draws import derive
from brinell.probe.moments import Moments

_AT_ONCE = 1 << 18  # numbers


def sketched(points: Tensor, size: int, layer: str = "") -> tuple[Moments, Moments]:
    """The moments of folded points, and of every entry for itself, by one way through the points.

    Entry i, times a random sign of its own, is added to sum i mod size, so that squared norms keep their expectation. The signs depend
    on the layer's name and the entry alone: all samples, shards and clouds of a layer are folded alike. What is added up is the distance
    to the first point, in the points' own precision for a few rows, in float64 over all.

    Arguments:
        points: (n, d), d > size; half precision is widened to float32. size: k >= 2.

    Returns:
        Moments of the (n, k) sums, and of the (n, d) entries, variances alone.

    References: Charikar, Chen & Farach-Colton (2004), "Finding frequent items in data streams", section 3.

    Example:
        >>> sums, entries = sketched(torch.eye(6, 64), 8)
        >>> tuple(sums["scatter"].shape), tuple(entries["scatter"].shape)
        ((8, 8), (64,))
        >>> round(float(entries["scatter"][0]), 6)                  # of 1, 0, 0, 0, 0, 0: 1 - 1/6
        0.833333
    """
    points = points if points.dtype in (torch.float32, torch.float64) else points.float()
    n, d = points.shape
    signs = _signs(d, layer, points.dtype, points.device)
    origin = points[0] if n else points.new_zeros(d)
    short = origin * -signs
    sums = points.new_empty(n, size)
    total, squares = torch.zeros(2, d, dtype=torch.float64, device=points.device)
    rows = max(_AT_ONCE // d, 1)
    room = points.new_zeros(rows, -(-d // size) * size)  # what lies behind d stays 0
    for start in range(0, n, rows):
        block = points[start : start + rows]
        away = room[: len(block), :d]
        torch.addcmul(short, block, signs, out=away)
        torch.sum(room[: len(block)].unflatten(1, (-1, size)), 1, out=sums[start : start + rows])
        total += away.sum(0)
        squares += away.square_().sum(0)
    apart = total / max(n, 1)
    entries = Moments.of(
        count=torch.tensor(n), mean=origin.double() + apart * signs, scatter=(squares - total * apart).clamp(min=0)
    )  # fmt: skip
    start = torch.nn.functional.pad(origin.double() * signs, (0, -d % size)).unflatten(0, (-1, size)).sum(0)
    folded = Moments.about(sums)
    return Moments({**folded.values, "mean": folded["mean"] + start.cpu()}), entries


@lru_cache(maxsize=256)
def _signs(d: int, layer: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    words = derive(0, "dimensionality.signs", layer, ids=np.arange(-(-d // 64)), device=device).words(1)  # 64 signs each
    bits = (words >> torch.arange(64, device=device)) & 1
    return (2 * bits - 1).flatten()[:d].to(dtype)


def unfolded_ratio(sketch: Tensor, variances: Tensor) -> tuple[float, float]:
    """The participation ratio of what was folded, and its relative error; `Dimensionality` has the formula.

    Arguments:
        sketch: (k, k) covariance of the folded entries. variances: (d,) of the entries themselves.
    """
    trace = float(variances.sum())
    if not trace > 0:
        return 0.0, 0.0
    diagonal = float(variances.square().sum())

    def ratio(rows: Tensor) -> float:
        part, size = sketch[rows][:, rows], len(rows)
        seen = float(part.trace())
        if not seen > 0:
            return trace**2 / diagonal
        off = float(part.square().sum() - part.diagonal().square().sum()) * size / (size - 1)
        return trace**2 / (diagonal + off * (trace / seen) ** 2)

    even, odd = (ratio(torch.arange(start, len(sketch), 2)) for start in (0, 1))
    whole = ratio(torch.arange(len(sketch)))
    return whole, abs(even - odd) / (2 * whole)
