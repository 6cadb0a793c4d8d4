"""Blurs: what lenses and motion do."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from brinell.core.draws import Draws
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

    lengths = (0,)
    ladder: ClassVar[Ladder] = {
        "cifar": ((0.4,), (0.6,), (0.7,), (0.8,), (1.0,)),
        "tiny_imagenet": ((0.5,), (0.75,), (1.0,), (1.25,), (1.5,)),
        "imagenet": ((1.0,), (2.0,), (3.0,), (4.0,), (6.0,)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        (sigma,) = parameters
        return gaussian_blur(x, sigma)


def gaussian_blur(x: Tensor, sigma: float, cut: float = 4.0) -> Tensor:
    """x blurred along its last two axes, (n, c, h, w); weights stop at floor(cut sigma + 1/2) pixels, borders repeat.

    Every value is a sum in a fixed order, so it does not depend on what else is in the batch.
    """
    reach = math.floor(cut * sigma + 0.5)
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(reach + 1)] if reach else [1.0]
    total = weights[0] + 2 * sum(weights[1:])
    weights = [weight / total for weight in weights]
    for axis, margin in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        wide = F.pad(x, margin, mode="replicate")
        size, pair = x.shape[axis], torch.empty_like(x)
        x = wide.narrow(axis, reach, size) * weights[0]
        for i in range(1, reach + 1):
            torch.add(wide.narrow(axis, reach - i, size), wide.narrow(axis, reach + i, size), out=pair)
            x.add_(pair.mul_(weights[i]))
    return x
