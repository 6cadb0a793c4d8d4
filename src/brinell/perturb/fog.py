"""Fog."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from brinell.core.draws import Draws
from brinell.perturb.severity import Graded, Ladder


class Fog(Graded, name="fog"):
    """Fog: a cloudy veil over all channels, with the brightest point of the image kept.

        z = (x + a P) m / (m + a),   m = max x over the image,   P = `plasma` of decay w, in [0, 1], cut to the image

    The plasma has sides of the next power of two from the larger side of the image. A row of the ladder is (a, w).

    References: `Graded`.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.rand(1, 3, 32, 32)
        >>> z = Fog(severity=5, quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> bool(z.max() <= x.max() + 1e-6), bool(z.std() < x.std())
        (True, True)
    """

    family = "weather"
    ladder: ClassVar[Ladder] = {
        "cifar": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        "tiny_imagenet": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        "imagenet": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        amount, decay = parameters
        height, width = x.shape[2:]
        side = 1 << (max(height, width) - 1).bit_length()
        veil = plasma(draws, side, decay)[:, None, :height, :width].to(x.dtype)
        most = x.amax((1, 2, 3), keepdim=True)
        return (veil * amount).add(x).mul_(most / (most + amount))


def plasma(draws: Draws, side: int, decay: float) -> Tensor:
    """Fractal clouds by the diamond-square method, (n, side, side) in [0, 1], continuing from right to left, bottom to top.

    Level by level, from one corner at 0, the middle of each square is the mean of its four corners and the middle of each edge the
    mean of the four points around it, each plus A u with u uniform in (-A, A): the amplitude A enters twice, as the authors wrote
    it. A starts at 100 and is divided by `decay` after each level. At last the least value becomes 0 and the greatest 1.

    Arguments:
        side: a power of two.

    Example:
        >>> from brinell.core.draws import derive
        >>> clouds = plasma(derive(0, ids=[0, 1]), 64, 3)
        >>> clouds.shape, clouds.amin((1, 2)).tolist(), clouds.amax((1, 2)).tolist()
        (torch.Size([2, 64, 64]), [0.0, 0.0], [1.0, 1.0])
    """
    noise = draws.uniform(side * side, low=-1, high=1)
    clouds, amplitude = noise.new_zeros(len(noise), 1, 1), 100.0
    for level in range(side.bit_length() - 1):
        size, count = 1 << level, 1 << (2 * level)
        middle, top, left = (noise[:, k * count : (k + 1) * count].reshape(-1, size, size) * amplitude**2 for k in (1, 2, 3))
        across, down = clouds + clouds.roll(-1, 2), clouds + clouds.roll(-1, 1)
        middle.add_(across.add(across.roll(-1, 1)), alpha=0.25)
        top.add_(across.add_(middle).add_(middle.roll(1, 1)), alpha=0.25)
        left.add_(down.add_(middle).add_(middle.roll(1, 2)), alpha=0.25)
        rows = torch.stack((torch.stack((clouds, top), 3), torch.stack((left, middle), 3)), 2)
        clouds, amplitude = rows.reshape(-1, 2 * size, 2 * size), amplitude / decay
    low, high = clouds.amin((1, 2), keepdim=True), clouds.amax((1, 2), keepdim=True)
    return clouds.sub_(low).div_((high - low).clamp_(min=1e-30))
