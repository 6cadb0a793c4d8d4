"""Planes in input space: an origin and two directions for each image, and the points they span."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brinell.core import norms
from brinell.core.draws import Draws
from brinell.core.norms import steepest
from brinell.core.samples import Mask, PerSample, X
from brinell.core.tally import Sample

_PARALLEL = 0.999999


@dataclass(frozen=True)
class Plane:
    """The points o + a u + b v, one plane for each of m images.

    Arguments:
        origin, first, second: (m, *d), o, u and v. stand_ins: (m,) int64, how many of the two directions are random ones that stand in
            for a direction that does not exist. low, high: the domain.
    """

    origin: Tensor
    first: Tensor
    second: Tensor
    stand_ins: Tensor
    low: float = 0.0
    high: float = 1.0

    def point(self, rows: Tensor, a: Tensor, b: Tensor) -> X:
        """(p, *d) points at coordinates a and b (p,) of the planes in `rows` (p,), inside the domain or not.

        Example:
            >>> plane = Plane(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.zeros(1))
            >>> plane.point(torch.tensor([0]), torch.tensor([0.5]), torch.tensor([-2.0]))
            tensor([[ 0.5000, -2.0000]])
        """
        u, v = norms.scaled(self.first[rows], a.to(self.first)), norms.scaled(self.second[rows], b.to(self.second))
        return self.origin[rows] + u + v

    def room(self, z: X) -> PerSample:
        """(p,) float64: the smallest distance of an entry to a wall of the domain, negative outside; 0 where there is no wall."""
        low, high = norms.extremes(z.double())
        walls = [far for far, wall in ((low - self.low, self.low), (self.high - high, self.high)) if math.isfinite(wall)]
        return torch.stack(walls).amin(0) if walls else torch.zeros_like(low)

    def lengths(self, norm: float) -> Tensor:
        """(m, 2) float64: the lengths of u and v."""
        return torch.stack([norms.length(part.double(), norm) for part in (self.first, self.second)], 1)


def random_direction(shape: torch.Size, norm: float, draws: Draws, dtype: torch.dtype) -> X:
    """One random direction of unit length per sample: signs in Linf, uniform on the sphere in L2. The same in float32 and float64."""
    if norm == 2:
        return steepest(draws.normal(*shape[1:], dtype=torch.float64), 2).to(dtype)
    return draws.signs(*shape[1:], dtype=dtype)


def of_unit_length(v: X, norm: float) -> X:
    """Each direction over its length; 0 where it is 0.

    Example:
        >>> of_unit_length(torch.tensor([[3.0, -4.0], [0.0, 0.0]]), 2)
        tensor([[ 0.6000, -0.8000],
                [ 0.0000,  0.0000]])
    """
    size = norms.length(v.double(), norm)
    return norms.scaled(v, torch.where(size > 0, 1 / size.clamp(min=1e-300), 0.0).to(v.dtype))


def random_beside(u: X, norm: float, draws: Draws) -> X:
    """A random direction of unit length that is not parallel to u: in L2 orthogonal to it, in Linf signs.

    Example:
        >>> from brinell.core.draws import derive
        >>> u = torch.tensor([[0.0, 1.0]])
        >>> random_beside(u, 2, derive(0, ids=[0])).abs()
        tensor([[1., 0.]])
    """
    v = random_direction(u.shape, norm, draws, torch.float64).flatten(1)
    along = steepest(u.flatten(1).double(), 2)
    if norm == 2:
        return steepest(v - (v * along).sum(1, keepdim=True) * along, 2).reshape(u.shape).to(u.dtype)
    v[:, 0] = torch.where(parallel(u, v), -v[:, 0], v[:, 0])  # of few entries, two lists of signs are often the same
    return v.reshape(u.shape).to(u.dtype)


def parallel(u: X, v: X) -> Mask:
    """(m,) bool: does v point along u, or against it?"""
    a, b = (steepest(part.flatten(1).double(), 2) for part in (u, v))
    return (a * b).sum(1).abs() > _PARALLEL


def standing_in(first: X, second: X, norm: float, draws: Draws) -> tuple[X, X, Tensor]:
    """The two directions with a random one in the place of any that is 0 or, of the second, parallel to the first.

    Returns:
        first, second, and (m,) int64: how many were replaced.
    """
    spread = (-1, *(1,) * (first.ndim - 1))
    no_first = ~first.flatten(1).any(1)
    first = torch.where(no_first.reshape(spread), random_direction(first.shape, norm, draws.at("first"), first.dtype), first)
    no_second = ~second.flatten(1).any(1) | parallel(first, second)
    second = torch.where(no_second.reshape(spread), random_beside(first, norm, draws.at("second")), second)
    return first, second, no_first.long() + no_second.long()


def axis(grid: int, low: float, high: float) -> Tensor:
    """(grid,) float64 coordinates from low to high, whose middle is exact."""
    steps = torch.arange(grid, dtype=torch.float64)
    return (low * (grid - 1 - steps) + high * steps) / (grid - 1)


def first_by_hash(ids: np.ndarray) -> np.ndarray:
    """Positions of samples in the order of the hash of their ids: an order that nothing measured can influence."""
    return np.asarray(Sample.pick(len(ids), torch.from_numpy(np.asarray(ids, np.int64)), {"row": torch.arange(len(ids))})["row"])


def triples(order: Sequence[int], labels: Sequence[int], count: int) -> list[tuple[int, int, int]]:
    """Up to `count` triples of positions: each begins with the next one that is free, and goes on with the next ones of other labels.

    Where no other label is free the next one of any is taken; each position is in one triple at most.

    Example:
        >>> triples([0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 0, 0], 2)
        [(0, 2, 3), (1, 4, 5)]
    """
    free, found = list(order), []
    while len(found) < count and len(free) >= 3:
        chosen = [free.pop(0)]
        while len(chosen) < 3:
            taken = {labels[at] for at in chosen}
            chosen.append(free.pop(next((place for place, at in enumerate(free) if labels[at] not in taken), 0)))
        found.append((chosen[0], chosen[1], chosen[2]))
    return found
