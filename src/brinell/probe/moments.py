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
        mean, centred = _centred(points)
        return cls.of(count=torch.tensor(len(points)), mean=mean, scatter=centred.T @ centred)

    def _joined(self, other: Tally) -> Self:
        if not self.values or not other.values:
            return type(self)(self.values or other.values)
        if self["scatter"].shape != other["scatter"].shape:
            raise TypeError(f"moments of shapes {tuple(self['scatter'].shape)} and {tuple(other['scatter'].shape)} have no sum")
        n = self["count"] + other["count"]
        share = other["count"].double() / n.clamp(min=1)
        apart = other["mean"] - self["mean"]
        scatter = self._spread(apart, float(self["count"] * share)).add_(other["scatter"])
        return type(self)({**self.values, "count": n, "mean": self["mean"] + share * apart, "scatter": scatter})

    def _spread(self, apart: Tensor, gained: float) -> Tensor:
        """A new scatter: this one, and gained * apart apart'."""
        if self["scatter"].ndim == 2:
            return torch.addr(self["scatter"], apart, apart, alpha=gained)
        return torch.addcmul(self["scatter"], apart, apart, value=gained)


class BlockMoments(Moments, kind="block_moments"):
    """Moments of several clouds of the same n points side by side, without what they have to do with each other.

    `widths` holds the d of each cloud, and `scatter` their (d, d) scatters one after the other, as one vector: a network has dozens of
    layers, and a handful of tensors is added and stored sooner than three of each.

    Example:
        >>> both = BlockMoments.about(torch.tensor([[0.0, 1.0, 5.0], [2.0, 1.0, 5.0]]), [1, 2])
        >>> [part["scatter"].tolist() for part in both.split()]
        [[[2.0]], [[0.0, 0.0], [0.0, 0.0]]]
    """

    @classmethod
    def about(cls, points: Tensor, widths: Sequence[int] = ()) -> Self:
        """Of (n, d) points, d the sum of the widths; () for one cloud alone."""
        widths = list(widths) or [points.shape[1]]
        mean, centred = _centred(points)
        scatter = mean.new_empty(sum(width**2 for width in widths))
        for block, cloud in zip(_blocks(scatter, widths), centred.split(widths, 1), strict=True):
            torch.mm(cloud.T, cloud, out=block)
        return cls.of(count=torch.tensor(len(points)), widths=torch.tensor(widths), mean=mean, scatter=scatter)

    def split(self) -> list[Moments]:
        """The moments of each cloud."""
        widths = self["widths"].tolist()
        parts = zip(self["mean"].split(widths), _blocks(self["scatter"], widths), strict=True)
        return [Moments({"count": self["count"], "mean": mean, "scatter": scatter}) for mean, scatter in parts]

    def _joined(self, other: Tally) -> Self:
        if self.values and other.values and not torch.equal(self["widths"], other["widths"]):
            raise TypeError(f"moments of clouds of widths {self['widths'].tolist()} and {other['widths'].tolist()} have no sum")
        return super()._joined(other)

    def _spread(self, apart: Tensor, gained: float) -> Tensor:
        scatter, widths = self["scatter"].clone(), self["widths"].tolist()
        for block, away in zip(_blocks(scatter, widths), apart.split(widths), strict=True):
            block.addr_(away, away, alpha=gained)
        return scatter


def _centred(points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and what is left without it, in float64."""
    wide = points.double()
    mean = wide.sum(0) / max(len(wide), 1)
    return mean, wide - mean


def _blocks(scatter: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """The (d, d) squares that lie one after the other in a vector."""
    return [block.view(width, width) for width, block in zip(widths, scatter.split([width**2 for width in widths]), strict=True)]


def covariance_of(moments: Tally) -> Tensor:
    """(d, d), or (d,) of a diagonal: the scatter over n."""
    return moments["scatter"] / moments["count"].clamp(min=1)
