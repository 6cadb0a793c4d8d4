"""Blurs of lenses: soft, and out of focus."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from brinell.core.draws import Draws
from brinell.perturb.row_sums import RowSums, columns
from brinell.perturb.severity import Graded, Ladder


class GaussianBlur(Graded, name="gaussian_blur"):
    """A Gaussian blur of each channel (a validation type of the benchmark: not one of the 15 that enter mCE).

        z = G_c * x,   G_c normalised weights exp(-i^2 / (2 c^2)) for |i| <= floor(4 c + 1/2), rows and columns alike

    c is a length in pixels. Beyond the border the image goes on with its border pixels.

    References: `Graded`; the cut-off of 4 c and the border are the defaults of `skimage.filters.gaussian`, which the
        authors call.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.zeros(1, 1, 64, 64)
        >>> x[..., 32, 32] = 1
        >>> z = GaussianBlur(severity=3, quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> round(z.sum().item(), 3), round(z[..., 32, 32].item(), 3)       # sigma 1: 1 / (2 pi)
        (1.0, 0.159)
    """

    family, main = "blur", False
    lengths = (0,)
    ladder: ClassVar[Ladder] = {
        "cifar": ((0.4,), (0.6,), (0.7,), (0.8,), (1.0,)),
        "tiny_imagenet": ((0.5,), (0.75,), (1.0,), (1.25,), (1.5,)),
        "imagenet": ((1.0,), (2.0,), (3.0,), (4.0,), (6.0,)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        (sigma,) = parameters
        return gaussian_blur(x, sigma)


class DefocusBlur(Graded, name="defocus_blur"):
    """Out of focus: every point of light becomes a disk.

        z = K * x,   K = `defocus_kernel(radius, alias)`, a disk whose edge is softened by a small Gaussian of sigma alias

    Lengths in pixels. Beyond the border the image is mirrored about its border pixels. Below radius 1 the disk is one pixel, so
    severities 1 to 3 for CIFAR are Gaussian blurs of 3x3 pixels.

    Departures kept from the authors: where the disk fills its grid (radius 8 and 10: ImageNet, severities 4 and 5) softening
    mirrors it at the edge of the grid, and the kernel adds up to 1.013 and 1.011: such images become slightly brighter.

    References: `Graded`.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.zeros(1, 1, 32, 32)
        >>> x[..., 16, 16] = 1
        >>> z = DefocusBlur(severity=4, quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))    # 5 pixels
        >>> z[0, 0, 15:18, 15:18].mul(1000).round().div(1000)
        tensor([[0.0000, 0.2000, 0.0000],
                [0.2000, 0.2000, 0.2000],
                [0.0000, 0.2000, 0.0000]])
    """

    family = "blur"
    lengths = (0, 1)
    ladder: ClassVar[Ladder] = {
        "cifar": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        "tiny_imagenet": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        "imagenet": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        radius, alias = parameters
        return correlate(x, defocus_kernel(radius, alias))


def defocus_kernel(radius: float, alias: float) -> np.ndarray:
    """The published disk: an odd square of float64 weights.

        D = 1 where X^2 + Y^2 <= radius^2, over its sum, on the grid -8..8 (-radius..radius above 8)
        K = D smoothed by 3 Gaussian weights of sigma alias (5 above radius 8) each way, mirrored at the grid's edge

    Example:
        >>> defocus_kernel(0.5, 0.6)[8, 7:10].round(3)              # one pixel smoothed: products of (.166, .667, .166)
        array([0.111, 0.445, 0.111])
    """
    half, reach = (8, 1) if radius <= 8 else (math.ceil(radius), 2)
    grid = np.arange(-half, half + 1)
    disk = (grid[:, None] ** 2 + grid**2 <= radius**2).astype(float)
    tap = np.exp(-0.5 * (np.arange(-reach, reach + 1) / alias) ** 2)
    wide = np.pad(disk / disk.sum(), reach, mode="reflect")
    softened = np.zeros_like(disk)
    for i, j in np.ndindex(len(tap), len(tap)):
        softened += tap[i] * tap[j] / tap.sum() ** 2 * wide[i : i + len(grid), j : j + len(grid)]
    return softened


def correlate(x: Tensor, kernel: np.ndarray) -> Tensor:
    """Images under a kernel that is even in both directions, (n, c, h, w), mirrored about their border pixels.

    A row of the kernel is a sum of boxes, k_0, ..., k_m = sum_j (k_j - k_(j+1)) box_j, one for each step in its profile: a disk
    has one or few. Box j is box j - 1 and two shifted images; the rows of all boxes are then added up by `RowSums`.
    """
    height, width, planes = *x.shape[2:], x.flatten(0, 1)
    reach, sums = _boxes(kernel.tobytes(), len(kernel), height, str(x.device))
    rows, places = (torch.from_numpy(_mirrored(size, reach)).to(x.device) for size in (height, width))
    out = torch.empty_like(planes)
    few = max(1, _VALUES // (len(rows) * len(places)))
    for part, image in zip(out.split(few), planes.split(few), strict=True):
        wide = columns(image.index_select(1, rows), places)
        boxes = wide.new_empty(len(image), reach + 1, len(rows), width)
        boxes[:, 0] = wide.narrow(2, reach, width)
        for j in range(1, reach + 1):
            both = torch.add(wide.narrow(2, reach - j, width), wide.narrow(2, reach + j, width))
            torch.add(both, boxes[:, j - 1], out=boxes[:, j])
        part.copy_(sums.planes(boxes.flatten(1, 2)))
    return out.reshape(x.shape)


_VALUES = 1 << 18  # of all planes worked on at a time


@lru_cache(maxsize=64)
def _boxes(data: bytes, side: int, height: int, device: str) -> tuple[int, RowSums]:
    """The farthest weight of a kernel, and the sums of the rows of its boxes: box j begins at row j (height + 2 reach)."""
    kernel = np.frombuffer(data).reshape(side, side)
    middle = side // 2
    kept = np.abs(kernel) > 1e-9 * np.abs(kernel).max()
    reach = int(np.abs(np.argwhere(kept) - middle).max())
    half = np.where(kept, kernel, 0)[middle - reach : middle + reach + 1, middle : middle + reach + 1]
    steps = half - np.pad(half[:, 1:], ((0, 0), (0, 1)))
    down, box = np.nonzero(np.abs(steps) > 1e-12 * np.abs(kernel).max())
    index = torch.from_numpy(np.arange(height)[:, None] + box * (height + 2 * reach) + down).int().flatten()
    weight = torch.from_numpy(steps[down, box]).repeat(height)
    return reach, RowSums(index.to(device), torch.arange(0, len(index), len(box)).int().to(device), weight.to(device))


def _mirrored(size: int, reach: int) -> np.ndarray:
    return np.pad(np.arange(size), reach, mode="reflect") if size > 1 else np.zeros(2 * reach + 1, np.int64)


def gaussian_blur(x: Tensor, sigma: float, cut: float = 4.0) -> Tensor:
    """x blurred along its last two axes, (n, c, h, w); weights stop at floor(cut sigma + 1/2) pixels, borders repeat.

    Every value is a sum in a fixed order, so it does not depend on what else is in the batch. In float64 the order and the bits are
    those of `scipy.ndimage.gaussian_filter`.
    """
    reach = math.floor(cut * sigma + 0.5)
    weights = np.exp(-0.5 / (sigma * sigma) * np.arange(-reach, reach + 1) ** 2) if reach else np.ones(1)
    weights = (weights / weights.sum()).tolist()[reach:]
    for axis, margin in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        wide = F.pad(x, margin, mode="replicate")
        size, pair = x.shape[axis], torch.empty_like(x)
        x = wide.narrow(axis, reach, size) * weights[0]
        for i in range(reach, 0, -1):
            torch.add(wide.narrow(axis, reach - i, size), wide.narrow(axis, reach + i, size), out=pair)
            x.add_(pair.mul_(weights[i]))
    return x
