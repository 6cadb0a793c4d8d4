"""Elastic deformation."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from brinell.core.draws import Draws
from brinell.perturb.row_sums import RowSums, row_sums
from brinell.perturb.severity import Graded, Ladder


class ElasticTransform(Graded, name="elastic_transform"):
    """An elastic deformation: the image is first tilted and stretched as a whole, then pulled about in small regions.

        y = the affine map that takes three anchor points to p_k + U(-aff, aff)^2, mirrored about the border pixels
        z(p) = y(p + alpha G_sigma * U(-1, 1)),   one field for rows, one for columns, mirrored at the border

    The anchors are the centre + s (1, 1), s (1, -1), s (-1, -1) with s = side // 3; G_sigma is a Gaussian filter cut at
    3 sigma, mirrored at the border. Both steps interpolate linearly. A row of the ladder is (alpha, sigma, aff) in pixels.
    All channels move together.

    Departures: the affine step of OpenCV, which the authors call, rounds positions to 1/32 pixel; this one does not. Kept from
    the authors: the ImageNet lengths are shares of 244, not of 224.

    References: `Graded`; Simard, Steinkraus & Platt (2003), "Best Practices for Convolutional Neural Networks Applied to
        Visual Document Analysis", ICDAR, https://doi.org/10.1109/ICDAR.2003.1227801.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.arange(64.0).expand(1, 1, 64, 64) / 63              # each pixel shows the column it was
        >>> z = ElasticTransform(severity=3, quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> 0.5 < ((z - x) * 63)[..., 10:-10, 10:-10].abs().mean().item() < 4      # pixels
        True
    """

    family = "digital"
    uneven = "severities 1 and 2 move the whole image by more than the later ones, which deform small regions"
    lengths = (0, 1, 2)
    ladder: ClassVar[Ladder] = {
        "cifar": ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
        "tiny_imagenet": ((0, 0, 5.12), (3.2, 19.2, 3.84), (6.4, 5.12, 3.84), (6.4, 1.92, 1.92), (10.24, 1.92, 1.28)),
        "imagenet": ((488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        alpha, sigma, aff = parameters
        z = affine(x, draws.uniform(3, 2, low=-aff, high=aff).to(x.dtype))
        if alpha == 0:
            return z
        (n, _, height, width), device = x.shape, str(x.device)
        force = draws.uniform(2, height, width, low=-1, high=1).to(x.dtype).flatten(0, 1)
        force = _smoothing(height, sigma, device).planes(force).transpose(1, 2)
        force = _smoothing(width, sigma, device).planes(force).mul_(alpha).reshape(n, 2, width, height).transpose(2, 3)
        rows, columns = (torch.arange(size, dtype=x.dtype, device=x.device) for size in (height, width))
        place = torch.stack((_unit(columns + force[:, 0], width), _unit(rows[:, None] + force[:, 1], height)), 3)
        return F.grid_sample(z, place, mode="bilinear", padding_mode="reflection", align_corners=False)


def affine(x: Tensor, shift: Tensor) -> Tensor:
    """Images under the affine map that moves three anchor points (`ElasticTransform`) by `shift`.

    Arguments:
        x: (n, c, h, w). shift: (n, 3, 2), right and down, in pixels. Three points moved onto a line give one flat image.
    """
    height, width = x.shape[2:]
    middle, s = x.new_tensor([width // 2, height // 2]), min(height, width) // 3
    corners = middle + x.new_tensor([[s, s], [s, -s], [-s, -s]])
    origin, up, left = (corners + shift).unbind(1)
    (a, c), (b, d) = (up - origin).unbind(1), (left - origin).unbind(1)  # columns of the moved frame
    area = a * d - b * c
    scale = torch.where(area == 0, 0.0, 2 * s / area)  # the frame itself has the columns (0, -2s), (-2s, -2s)
    rows, columns = (torch.arange(size, dtype=x.dtype, device=x.device) for size in (height, width))

    def along(right: Tensor, down: Tensor) -> Tensor:
        """right * (column - origin) + down * (row - origin)."""
        across = right[:, None] * (columns - origin[:, :1])
        return across[:, None, :] + (down[:, None] * (rows - origin[:, 1:]))[:, :, None]

    place = torch.stack(
        (
            (along(c * scale, -a * scale) + corners[0, 0]).mul_(2 / max(width - 1, 1)).sub_(1),
            (along((c - d) * scale, (b - a) * scale) + corners[0, 1]).mul_(2 / max(height - 1, 1)).sub_(1),
        ),
        3,
    )
    return F.grid_sample(x, place, mode="bilinear", padding_mode="reflection", align_corners=True)


def _unit(place: Tensor, size: int) -> Tensor:
    """Pixel positions as `grid_sample` takes them: -1 and 1 are the outer edges of the border pixels."""
    return (place + 0.5).mul_(2 / size).sub_(1)


@lru_cache(maxsize=16)
def _smoothing(size: int, sigma: float, device: str) -> RowSums:
    """A Gaussian filter along an axis, cut at 3 sigma; beyond the border the axis is mirrored, border pixel first."""
    from scipy import sparse

    reach = math.floor(3 * sigma + 0.5)
    weight = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    source = np.lib.stride_tricks.sliding_window_view(np.pad(np.arange(size), reach, mode="symmetric"), len(weight))
    rows = np.repeat(np.arange(size), len(weight))
    return row_sums(sparse.coo_array((np.tile(weight / weight.sum(), size), (rows, source.reshape(-1))), (size, size)), device)
