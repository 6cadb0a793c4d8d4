"""Where a surface changes its sign: the contour as line segments, and how far along an axis it lies."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_CORNERS = ((0, 0), (0, 1), (1, 1), (1, 0))
"""Row and column of the corners of a cell, around it; edge k runs from corner k to corner k + 1."""


def contour(values: np.ndarray, x: np.ndarray, y: np.ndarray, level: float = 0.0) -> np.ndarray:
    """The line on which a surface has a given height, by marching squares: (k, 4) segments x0, y0, x1, y1.

    On the edge between two grid points on different sides of the level the line is put where the straight line between their
    heights has it; a point at the level itself counts as above it. Where two opposite corners of a cell lie above and the others
    below, the mean of the four says which of them the line cuts off. Exact for a plane; a surface that never crosses has no segment.

    Arguments:
        values: (h, w) heights; cells with NaN have no line. x: (w,), y: (h,) coordinates, rising.

    Example:
        >>> contour(np.array([[-1.0, 3.0], [-1.0, 3.0]]), np.array([0.0, 4.0]), np.array([0.0, 1.0])).tolist()
        [[1.0, 0.0, 1.0, 1.0]]
    """
    v = np.asarray(values, np.float64) - level
    height, width = v.shape
    corner = np.stack([v[r : height - 1 + r, c : width - 1 + c] for r, c in _CORNERS])
    above = corner >= 0
    after = np.roll(above, -1, 0)
    cut = (above != after) & np.isfinite(corner).all(0)
    row, column = np.mgrid[: height - 1, : width - 1]
    points = np.empty((4, height - 1, width - 1, 2))
    for edge, ((r0, c0), (r1, c1)) in enumerate(zip(_CORNERS, (*_CORNERS[1:], _CORNERS[0]), strict=True)):
        a, b = corner[edge], corner[(edge + 1) % 4]
        with np.errstate(invalid="ignore"):
            t = np.where(cut[edge], a / np.where(cut[edge], a - b, 1.0), 0.0)
        points[edge, ..., 0] = x[column + c0] * (1 - t) + x[column + c1] * t
        points[edge, ..., 1] = y[row + r0] * (1 - t) + y[row + r1] * t
    return _joined(cut, points, above[0] == (corner.mean(0) >= 0))


def _joined(cut: np.ndarray, points: np.ndarray, with_first: np.ndarray) -> np.ndarray:
    """The segments of all cells: between the two edges that are cut, or around opposite corners where all four are.

    Arguments:
        cut: (4, h, w) bool. points: (4, h, w, 2). with_first: (h, w) bool, the middle lies on the side of the first corner, so that
            the line cuts off the second and the fourth one.
    """
    count = cut.sum(0)
    found = []
    for i in range(4):
        for j in range(i + 1, 4):
            here = (count == 2) & cut[i] & cut[j]
            if (i, j) in ((0, 1), (2, 3)):
                here |= (count == 4) & with_first
            elif (i, j) in ((0, 3), (1, 2)):
                here |= (count == 4) & ~with_first
            found.append(np.concatenate((points[i][here], points[j][here]), 1))
    return np.concatenate(found)


def first_below(heights: Tensor, places: Tensor) -> Tensor:
    """How far along an axis a height first falls below 0, with a straight line between grid points: (m,), NaN where it does not.

    Arguments:
        heights: (m, k) from the origin on. places: (k,) rising distances, the first one 0.

    Example:
        >>> first_below(torch.tensor([[3.0, 1.0, -1.0], [-1.0, 2.0, 2.0], [1.0, 1.0, 1.0]]), torch.tensor([0.0, 1.0, 2.0]))
        tensor([1.5000, 0.0000,    nan])
    """
    below = heights < 0
    at = below.long().argmax(1)
    rows = torch.arange(len(heights), device=heights.device)
    last, next_ = heights[rows, (at - 1).clamp(min=0)], heights[rows, at]
    start, end = places[(at - 1).clamp(min=0)], places[at]
    gap = torch.where(at > 0, last - next_, 1.0)
    found = torch.where(at > 0, start + (end - start) * last / gap, 0.0)
    return torch.where(below.any(1), found, torch.nan)
