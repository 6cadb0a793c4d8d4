"""Count, mean and scatter of points that arrive in shards: what a covariance needs, without loss by large offsets."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from brinell.core.tally import Tally

_AT_ONCE = 1 << 17  # numbers


class Moments(Tally, kind="moments"):
    """n, the mean m and the scatter S = sum_i (x_i - m)(x_i - m)' of all points seen; covariance is S / n.

    Sums of raw products lose the covariance of points whose mean is large beside their spread. Here every shard is centred at its own
    mean, and two of them are added by

        S = S_a + S_b + n_a n_b / n (m_b - m_a)(m_b - m_a)'

    A scatter may also be (d,), the diagonal alone. Made by `Moments.about` and `Moments.diagonal`.

    References: Chan, Golub & LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample variances", Stanford
        STAN-CS-79-773.

    Example:
        >>> a, b = (Moments.about(1e9 + torch.tensor(x, dtype=torch.float64)) for x in ([[0.0], [1.0]], [[2.0]]))
        >>> (a + b)["scatter"].item()                               # of 0, 1, 2: 1 + 0 + 1
        2.0
    """

    @classmethod
    def about(cls, points: Tensor) -> Self:
        """Of (n, d) points."""
        wide = points.double()
        mean = wide.sum(0) / max(len(wide), 1)
        centred = wide - mean
        return cls.of(count=torch.tensor(len(points)), mean=mean, scatter=centred.T @ centred)

    @classmethod
    def diagonal(cls, points: Tensor) -> Self:
        """Of (n, d) points, variances alone.

        A few rows at a time, so that wide points stay in the cache: what these add up to about the first point, in the points' own
        precision, is added to sums in float64.
        """
        origin = points[:1]
        total, squares = torch.zeros(2, points.shape[1], dtype=torch.float64, device=points.device)
        for rows in points.split(max(_AT_ONCE // max(points.shape[1], 1), 1)):
            away = rows - origin
            total += away.sum(0)
            squares += away.square_().sum(0)
        apart = total / max(len(points), 1)
        mean = origin.double().sum(0) + apart
        return cls.of(count=torch.tensor(len(points)), mean=mean, scatter=(squares - total * apart).clamp(min=0))

    def _joined(self, other: Tally) -> Self:
        if not self.values or not other.values:
            return type(self)(self.values or other.values)
        if self["scatter"].shape != other["scatter"].shape:
            raise TypeError(f"moments of shapes {tuple(self['scatter'].shape)} and {tuple(other['scatter'].shape)} have no sum")
        n = self["count"] + other["count"]
        share = other["count"].double() / n.clamp(min=1)
        apart = other["mean"] - self["mean"]
        outer = torch.outer(apart, apart) if self["scatter"].ndim == 2 else apart.square()
        return type(self)({
            "count": n, "mean": self["mean"] + share * apart,
            "scatter": self["scatter"] + other["scatter"] + self["count"] * share * outer,
        })  # fmt: skip


def covariance_of(moments: Tally) -> Tensor:
    """(d, d), or (d,) of a diagonal: the scatter over n."""
    return moments["scatter"] / moments["count"].clamp(min=1)
