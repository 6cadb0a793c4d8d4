"""Motion: what a moving camera or a falling flake leaves on the film."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from brinell.core.draws import Draws
from brinell.perturb.severity import Graded, Ladder


class MotionBlur(Graded, name="motion_blur"):
    """Motion blur: the camera moves in a straight line, one direction for each image.

        z = sum_i w_i shift(x, i u),   w_i ~ exp(-i^2 / (2 sigma^2)), i = 0, ..., 2 radius, normalised
        u = (cos t, sin t),   t uniform in (-45, 45) degrees

    The kernel is one-sided, a comet's tail. Shifts are whole pixels; beyond the border the image goes on with its border
    pixels. All channels move together.

    Departures: the authors call the motion blur of ImageMagick; this is its equivalent of `imagecorruptions`, whose kernel
    and rounding of shifts are the same in substance.

    References: `Graded`; Michaelis et al. (2019), "Benchmarking Robustness in Object Detection",
        https://arxiv.org/abs/1907.07484 (imagecorruptions).

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.zeros(1, 1, 32, 32)
        >>> x[..., 16, 16] = 1
        >>> z = MotionBlur(severity=5, quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> round(z.sum().item(), 3), round(z[..., 16, 16].item(), 3), int((z > 0).sum(3).max()) <= 19
        (1.0, 0.275, True)
    """

    family = "blur"
    lengths = (0, 1)
    ladder: ClassVar[Ladder] = {
        "cifar": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        "tiny_imagenet": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        "imagenet": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        radius, sigma = parameters
        return motion_blur(x, radius, sigma, draws.uniform(low=-45, high=45))


def motion_blur(x: Tensor, radius: float, sigma: float, angle: Tensor) -> Tensor:
    """Images smeared along a direction each: tap i of 2 radius + 1, i pixels along the angle, weighs exp(-i^2 / (2 sigma^2)).

    Arguments:
        x: (n, c, h, w). radius, sigma: in pixels. angle: (n,) in degrees; 0 moves the image to the left, 90 up.

    Every value is a sum in a fixed order, so it does not depend on what else is in the batch.
    """
    (n, c, height, width), taps = x.shape, max(1, round(2 * radius)) + 1
    weight = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(taps)]
    steps = torch.arange(taps, dtype=torch.float64, device=x.device)
    turn = angle.double().deg2rad()
    down, right = ((steps[:, None] * part - 0.5).ceil().long() for part in (turn.sin(), turn.cos()))  # where tap i is read
    down, right = down.clamp(1 - height, height - 1), right.clamp(1 - width, width - 1)
    top, left, bottom, more = (max(0, int(part.max())) for part in (-down, -right, down, right))
    wide = F.pad(x, (left, more, top, bottom), mode="replicate")
    row, plane = wide.shape[3], wide.shape[2] * wide.shape[3]
    start = torch.arange(n, device=x.device) * (c * plane) + (down + top) * row + (right + left)
    count = wide.numel() - (c - 1) * plane - (height - 1) * row - width + 1
    windows = wide.as_strided((count, c, height, width), (1, plane, row, 1))  # the window that begins at each value
    out = windows.index_select(0, start[0]).mul_(weight[0] / sum(weight))
    for at in range(1, taps):
        out.add_(windows.index_select(0, start[at]).mul_(weight[at] / sum(weight)))
    return out
