"""Count, mean and scatter of points that arrive in shards: what a covariance needs, without loss by large offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from brinell.core.tally import Tally


class Moments(Tally, kind="moments"):
    """n, the mean m and the scatter S = sum_i (x_i - m)(x_i - m)' of all points seen; covariance is S / n.

    Sums of raw products lose the covariance of points whose mean is large beside their spread. Here every shard is centred at its own
    mean, and two of them are added by

        S = S_a + S_b + n_a n_b / n (m_b - m_a)(m_b - m_a)'

    A scatter may also be (d,), the diagonal alone (`probe.sketch`).

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
        return cls.about_each([points])[0]

    @classmethod
    def about_each(cls, clouds: Sequence[Tensor]) -> list[Self]:
        """Of (n, d) points each, n the same for all: side by side, since many small sums take longer than a large one."""
        wide, widths = torch.cat(tuple(clouds), 1).double(), [points.shape[1] for points in clouds]
        count, mean = torch.tensor(len(wide)), wide.sum(0) / max(len(wide), 1)
        centred = (wide - mean).split(widths, 1)
        return [cls.of(count=count, mean=m, scatter=c.T @ c) for m, c in zip(mean.split(widths), centred, strict=True)]

    def _joined(self, other: Tally) -> Self:
        if not self.values or not other.values:
            return type(self)(self.values or other.values)
        if self["scatter"].shape != other["scatter"].shape:
            raise TypeError(f"moments of shapes {tuple(self['scatter'].shape)} and {tuple(other['scatter'].shape)} have no sum")
        n = self["count"] + other["count"]
        share = other["count"].double() / n.clamp(min=1)
        apart = other["mean"] - self["mean"]
        gained = self["count"] * share
        if self["scatter"].ndim == 2:
            between = torch.addr(self["scatter"], apart, apart, alpha=float(gained))
        else:
            between = torch.addcmul(self["scatter"], apart, apart, value=float(gained))
        mean = self["mean"] + share * apart
        return type(self)({"count": n, "mean": mean, "scatter": between.add_(other["scatter"])})


def covariance_of(moments: Tally) -> Tensor:
    """(d, d), or (d,) of a diagonal: the scatter over n."""
    return moments["scatter"] / moments["count"].clamp(min=1)
