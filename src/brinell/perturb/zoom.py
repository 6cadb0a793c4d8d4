"""Zooming: what moving towards the scene does."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from brinell.core.draws import Draws
from brinell.perturb.row_sums import RowSums, columns, row_sums
from brinell.perturb.severity import Graded, Ladder

_PIXELS = 1 << 16  # of which a map is made at a time


class ZoomBlur(Graded, name="zoom_blur"):
    """Zoom blur: the camera moves towards the scene while the shutter is open.

        z = (x + sum_k zoom(x, f_k)) / (K + 1),   f_1 = 1, f_2, ..., f_K

    where zoom(x, f) is the centre ceil(side / f) of x, enlarged f times (`enlargement`) and trimmed to the size of x.

    Departures kept from the authors: the factors start at 1, so the image itself is counted twice; they are
    `arange(1, stop, step)`, and rounding gives the first CIFAR list 7 factors (up to 1.06) but the second 12 (up to 1.11).
    A row of the ladder is (stop, step).

    References: `Graded`.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.zeros(1, 1, 64, 64)
        >>> x[..., 31:33, 31:33] = 1                                  # the centre stays, its light spreads
        >>> z = ZoomBlur(severity=5, quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> [round(z[0, 0, 31, at].item(), 2) for at in (32, 33, 34)]
        [0.59, 0.23, 0.01]
    """

    family = "blur"
    ladder: ClassVar[Ladder] = {
        "cifar": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        "tiny_imagenet": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        "imagenet": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        height, width = x.shape[2:]
        tall = max(1, _PIXELS // width)
        pixels, out = x.flatten(0, 1).flatten(1).t().contiguous(), x.new_empty(height * width, len(x) * x.shape[1])
        for top in range(0, height, tall):
            bottom = min(top + tall, height)
            out[top * width : bottom * width] = _mean_zoom(height, width, top, bottom, *parameters, str(x.device))(pixels)
        return out.t().reshape(x.shape)


@lru_cache(maxsize=8)
def _mean_zoom(height: int, width: int, top: int, bottom: int, stop: float, step: float, device: str) -> RowSums:
    """Rows `top` to `bottom` of the mean of an image and its enlargements, from all its pixels."""
    from scipy import sparse

    factors = np.arange(1, stop, step).tolist()
    total: Any = 0
    for factor in [1.0, *factors]:
        total = total + sparse.kron(_axis(height, factor).tocsr()[top:bottom], _axis(width, factor), "csr")
    return row_sums(total / (len(factors) + 1), device)


def _axis(size: int, factor: float) -> Any:
    from scipy import sparse

    first, share = enlargement(size, factor)
    rows, kept = np.arange(size), math.ceil(size / factor)
    both = np.concatenate((first, np.minimum(first + 1, kept - 1))) + (size - kept) // 2
    return sparse.coo_array((np.concatenate((1 - share, share)), (np.tile(rows, 2), both)), (size, size))


def enlargement(size: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the points of an axis lie among its centre ceil(size / factor) points after these were enlarged `factor` times.

        out(i) = (1 - share[i]) centre(first[i]) + share[i] centre(first[i] + 1)

    The centre becomes round(factor * ceil(size / factor)) points, first on first and last on last, of which the middle `size`
    stay: linear interpolation as in `scipy.ndimage.zoom(order=1)`.

    Example:
        >>> first, share = enlargement(4, 2)
        >>> first + share
        array([0.        , 0.33333333, 0.66666667, 1.        ])
    """
    kept = math.ceil(size / factor)
    grown = round(kept * factor)
    place = (np.arange(size) + (grown - size) // 2) * ((kept - 1) / max(grown - 1, 1))
    first = np.minimum(place.astype(np.int64), max(kept - 2, 0))
    return first, place - first


def enlarged(centre: Tensor, factor: float, height: int, width: int) -> Tensor:
    """Planes of height by width pixels from their centres, enlarged `factor` times: (n, ceil(h / factor), ceil(w / factor)) in."""
    index, after, share = _places(height, factor, centre)
    rows = centre.index_select(1, after).mul_(share[:, None]).add_(centre.index_select(1, index).mul_(1 - share[:, None]))
    index, after, share = _places(width, factor, centre)
    return columns(rows, after).mul_(share).add_(columns(rows, index).mul_(1 - share))


def _places(size: int, factor: float, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    first, share = enlargement(size, factor)
    after = np.minimum(first + 1, math.ceil(size / factor) - 1)
    return torch.from_numpy(first).to(like.device), torch.from_numpy(after).to(like.device), torch.from_numpy(share).to(like)
