"""Surfaces on a grid: evaluated where the decision boundary may be, interpolated elsewhere, with the largest error of doing so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from brinell.core.goal import DLR_CLASSES, divergence, dlr, margin

HEIGHTS = ("margin", "cross_entropy", "dlr", "kl")
"""What stands over a plane; the first one decides where the boundary is."""

BLOCKS = 10
"""The fewest blocks along a side that a refinement begins with."""

CARE, WITHIN = 0.5, 0.75
"""The boundary may cross a block where S at a corner is below `CARE` times the error seen there; the block is refined if that error
could shift the boundary by more than `WITHIN` cells of the grid. Both were chosen by trial on three networks."""

SAFETY = 3.0
"""How many times as large as the errors seen at the middles of blocks the error inside is said to be. One kink that crosses a block
errs at most twice as much at its place as in the middle; several may err more."""

Evaluate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""evaluate(image, column, row): (p, c) values at grid points (p,) of some images; the first c - 1 are logits."""


@dataclass(frozen=True)
class Relief:
    """Surfaces of m images on a g x g grid.

    Arguments:
        values: (m, c, g, g) float64 what was evaluated; the last dimension runs along the first direction of the plane.
        heights: (m, 4, g, g) float64, the order of `HEIGHTS`. known: (m, g, g) bool, the points that were evaluated.
        error: (m, 4) the largest error of each height at the other points, an estimate; 0 where all were evaluated.
    """

    values: Tensor
    heights: Tensor
    known: Tensor
    error: Tensor


def heights(logits: Tensor, y: Tensor, clean: Tensor) -> Tensor:
    """(n, 4) float64 heights over a plane, in the order of `HEIGHTS`.

    With logits z, label y, and P, Q the softmax of the clean logits and of z:

    - margin S = z_y - max over the others: positive where the answer is right, 0 on the boundary;
    - cross_entropy -log Q_y, in nats; dlr the difference of logits ratio (`core.goal.dlr`): -S over the spread of the leading
      logits, positive where the answer is wrong; kl KL(P | Q), in nats.

    Arguments:
        logits, clean: (n, K). y: (n,).

    Example:
        >>> heights(torch.tensor([[2.0, 0.0]]), torch.tensor([0]), torch.tensor([[2.0, 0.0]]))[0, [0, 3]]
        tensor([2., 0.], dtype=torch.float64)
    """
    z, before = logits.double(), clean.double()
    entropy = torch.nn.functional.cross_entropy(z, y, reduction="none")
    return torch.stack([0 - margin(z, y), entropy, dlr(z, y), divergence("kl", before, z)], 1)


def refine(evaluate: Evaluate, y: Tensor, clean: Tensor, grid: int, *, marked: Sequence[int] = (), adaptive: bool = True) -> Relief:
    """The surfaces of m images on a grid, by as few evaluations as the boundary needs.

    The grid is first seen at every s-th point, s the largest power of 2 that leaves `BLOCKS` blocks along a side. Then, as long as
    s > 1, the points half way are evaluated in those blocks which the boundary S = 0 may cross somewhere else than it seems to, judged by
    the error that interpolating has just made around them, and by how far S at their corners lies off the line between the corners'
    neighbours (`CARE`, `WITHIN`). Logits elsewhere are interpolated, bilinearly, and
    heights are computed from them, so that an affine network has no error at all.

    The error that is stated for each height is `SAFETY` times the largest one seen at the middles and edges of the blocks that were left,
    when they were interpolated from points twice as far apart: an estimate, as what happens between points is not known. DLR has poles
    where three classes tie; its error is at least (e_S + |DLR| e_spread) / spread at each point, from the errors of its two parts.

    Arguments:
        evaluate: see `Evaluate`. y: (m,) labels. clean: (m, K) logits that KL is taken from. grid: points along a side.
        marked: places along a side at whose crossings the surface is always evaluated. adaptive: False evaluates all grid^2 points.

    Example:
        >>> def plane(image, column, row):  # the logits of an affine network, and a column that is no logit
        ...     return torch.stack([column - 25.0, row - 10.0, 0.0 * row], 1)
        >>> relief = refine(plane, torch.tensor([0]), torch.zeros(1, 2), 41)
        >>> bool((relief.heights[0, 0, 7] == torch.arange(41) - 25.0 - (7 - 10.0)).all()), float(relief.error.max())
        (True, 0.0)
        >>> int(relief.known.sum()) < 41 * 41 // 5
        True
    """
    seen = _Seen(evaluate, grid, len(y))
    seen.look(torch.tensor(marked, dtype=torch.int64), torch.ones(len(y), len(marked), len(marked), dtype=torch.bool))

    def over(values: Tensor) -> Tensor:
        """(m, 5, h, w): the heights of (m, c, h, w) values, and the spread that DLR divides by."""
        m, c, h, w = values.shape
        flat = values[:, :-1].permute(0, 2, 3, 1).reshape(-1, c - 1)
        found = heights(flat, y.repeat_interleave(h * w), clean.repeat_interleave(h * w, 0))
        return torch.cat((found, _spread(flat)[:, None]), 1).reshape(m, h, w, -1).permute(0, 3, 1, 2)

    step = 1
    while adaptive and 2 * step * BLOCKS <= grid - 1:
        step *= 2
    ticks = seen.ticks(step)
    values = seen.look(ticks, ~_grid(seen.known, ticks))
    wide = seen.ticks(2 * step)
    guess = interpolate(seen.at(wide), wide, ticks)
    off = _corners((over(values) - over(guess)).abs()).amax(2)  # by how much interpolating over twice the distance errs around a block
    while step > 1:
        margins = over(values)[:, 0]
        crossed = _crossed(margins, off[:, 0].maximum(_bends(margins, ticks)), step)
        step //= 2
        finer = seen.ticks(step)
        parent = torch.searchsorted(ticks, finer[:-1], right=True) - 1
        inside = crossed[:, parent][:, :, parent]
        guess = interpolate(values, ticks, finer)
        new = _around(inside) & ~_grid(seen.known, finer)
        true = seen.look(finer, new)
        values = torch.where(_grid(seen.known, finer)[:, None], true, guess)
        gap = torch.where(new[:, None], (over(values) - over(guess)).abs(), 0.0)
        off = torch.where(inside[:, None], _corners(gap).amax(2), _grid(off, parent))
        ticks = finer
    left = SAFETY * torch.where(seen.known[:, None], 0.0, _corners(torch.nn.functional.pad(off, (1, 1, 1, 1))).amax(2))
    *found, spread = over(values).unbind(1)
    left[:, 2] = left[:, 2].maximum((left[:, 0] + found[2].abs() * left[:, 4]) / spread)
    return Relief(values, torch.stack(found, 1), seen.known, left[:, :-1].flatten(2).amax(2))


def _spread(logits: Tensor) -> Tensor:
    """(n,) what DLR divides the margin by: 1 where it does not."""
    if logits.shape[1] < DLR_CLASSES:
        return torch.ones_like(logits[:, 0])
    top = logits.topk(3, 1).values
    return top[:, 0] - top[:, 2] + 1e-12


class _Seen:
    """What has been evaluated of m images so far."""

    def __init__(self, evaluate: Evaluate, grid: int, images: int) -> None:
        self.evaluate, self.grid = evaluate, grid
        self.values = torch.empty(0)
        self.known = torch.zeros(images, grid, grid, dtype=torch.bool)

    def ticks(self, step: int) -> Tensor:
        """Every step-th place along a side, and the last one."""
        ticks = torch.arange(0, self.grid, step)
        return ticks if int(ticks[-1]) == self.grid - 1 else torch.cat((ticks, torch.tensor([self.grid - 1])))

    def look(self, ticks: Tensor, wanted: Tensor) -> Tensor:
        """Evaluate the points of `wanted` (m, t, t); then what is known at all (t, t)."""
        image, row, column = wanted.cpu().nonzero(as_tuple=True)
        row, column = ticks[row], ticks[column]
        if len(image):
            found = self.evaluate(image, column, row).double()
            if not self.values.numel():
                self.values = found.new_zeros(len(wanted), self.grid, self.grid, found.shape[1])
                self.known = self.known.to(found.device)
            place = tuple(index.to(found.device) for index in (image, row, column))
            self.values[place], self.known[place] = found, True
        return self.at(ticks) if self.values.numel() else self.values

    def at(self, ticks: Tensor) -> Tensor:
        return self.values[:, ticks][:, :, ticks].permute(0, 3, 1, 2)


def interpolate(values: Tensor, ticks: Tensor, finer: Tensor) -> Tensor:
    """Bilinear interpolation of (..., t, t) values at rising places `ticks` to the places `finer` (f,) between them, (..., f, f).

    Example:
        >>> corners = torch.tensor([[0.0, 2.0], [4.0, 6.0]], dtype=torch.float64)
        >>> interpolate(corners, torch.tensor([0, 2]), torch.tensor([0, 1, 2]))[1]
        tensor([2., 3., 4.], dtype=torch.float64)
    """
    left = (torch.searchsorted(ticks, finer, right=True) - 1).clamp(max=len(ticks) - 2)
    share = (finer - ticks[left]).double() / (ticks[left + 1] - ticks[left])
    weights = torch.zeros(len(finer), len(ticks), dtype=torch.float64)
    rows = torch.arange(len(finer))
    weights[rows, left], weights[rows, left + 1] = 1 - share, share
    weights = weights.to(values.device)
    return weights @ values @ weights.T


def _grid(values: Tensor, ticks: Tensor) -> Tensor:
    """The rows and columns `ticks` of (..., g, g) values."""
    return values[..., ticks, :][..., ticks]


def _corners(values: Tensor) -> Tensor:
    """(m, c, 4, h - 1, w - 1): the values at the corners of every block of (m, c, h, w) points."""
    return torch.stack([values[..., :-1, :-1], values[..., :-1, 1:], values[..., 1:, :-1], values[..., 1:, 1:]], 2)


def _bends(margins: Tensor, ticks: Tensor) -> Tensor:
    """(m, h - 1, w - 1): by how much (m, h, w) margins at a corner of each block, at most, lie off the straight line between the
    neighbours of that corner, along either side: what interpolating over twice the distance would have been wrong by there."""
    share = ((ticks[1:-1] - ticks[:-2]).double() / (ticks[2:] - ticks[:-2])).to(margins.device)
    found = []
    for turned in (margins, margins.mT):
        off = (turned[..., 1:-1] - turned[..., :-2] * (1 - share) - turned[..., 2:] * share).abs()
        found.append(torch.nn.functional.pad(off, (1, 1)))
    return _corners(found[0].maximum(found[1].mT)[:, None])[:, 0].amax(1)


def _crossed(margins: Tensor, off: Tensor, step: int) -> Tensor:
    """(m, h - 1, w - 1) bool: may the boundary cross a block, and elsewhere than it seems to, if S is off by as much as `off`?"""
    corner = _corners(margins[:, None])[:, 0]
    near = (corner.amin(1) <= CARE * off) & (corner.amax(1) >= -CARE * off)
    across, along = corner[:, 1] + corner[:, 3] - corner[:, 0] - corner[:, 2], corner[:, 2] + corner[:, 3] - corner[:, 0] - corner[:, 1]
    return near & (off > WITHIN * torch.hypot(across, along) / (2 * step))


def _around(blocks: Tensor) -> Tensor:
    """(m, h + 1, w + 1) bool: the corners of the blocks (m, h, w) that are True."""
    wide = torch.nn.functional.pad(blocks, (1, 1, 1, 1))
    return _corners(wide[:, None])[:, 0].any(1)
