"""Snow."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from brinell.core.draws import Draws
from brinell.perturb.colour import luma
from brinell.perturb.motion import motion_blur
from brinell.perturb.severity import Graded, Ladder, truncate
from brinell.perturb.zoom import enlarged


class Snow(Graded, name="snow"):
    """Falling snow, in streaks, before a paler scene.

        L = normal(mean, std) for each pixel, its centre enlarged `zoom` times, 0 below `threshold`, clipped to [0, 1],
            smeared by `motion_blur(radius, sigma)` at an angle uniform in (-135, -45) degrees
        z = mix x + (1 - mix) max(x, 1.5 grey(x) + 0.5) + L + L turned by 180 degrees

    A row of the ladder is (mean, std, zoom, threshold, radius, sigma, mix). grey = 0.299 R + 0.587 G + 0.114 B for three
    channels, the image itself for one, the mean of any other number; L is the same in all channels.

    Departures: kept from the authors, the layer is cut to 8 bits before it is smeared (not with `quantize=False`). They smear with
    ImageMagick; see `MotionBlur`.

    References: `Graded`.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.full((1, 3, 64, 64), 0.2)
        >>> z = Snow(severity=5)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> bool((z > x).all()), bool((z[:, 0] == z[:, 2]).all())
        (True, True)
    """

    family = "weather"
    uneven = "flakes differ in size and number from one severity to the next, and 3 may hide less than 2"
    lengths = (4, 5)
    ladder: ClassVar[Ladder] = {
        "cifar": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        "tiny_imagenet": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.8), (0.1, 0.2, 1, 0.5, 10, 4, 0.8), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
        ),
        "imagenet": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    }  # fmt: skip

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        mean, std, zoom, threshold, radius, sigma, mix = parameters
        height, width = x.shape[2:]
        centre = draws.normal(math.ceil(height / zoom), math.ceil(width / zoom), std=std).add_(mean)
        layer = enlarged(centre.to(x.dtype), zoom, height, width)[:, None]
        layer = layer.mul_(layer >= threshold).clamp_(0, 1)
        if self.quantize:
            layer = truncate(layer)
        layer = motion_blur(layer, radius, sigma, draws.uniform(low=-135, high=-45))
        pale = luma(x).mul_(1.5).add_(0.5)
        return x.maximum(pale).mul_(1 - mix).add_(x * mix).add_(layer).add_(layer.flip(2, 3))
