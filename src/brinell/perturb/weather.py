"""Weather and daylight."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from brinell.core.draws import Draws
from brinell.perturb.severity import Graded, Ladder


class Brightness(Graded, name="brightness"):
    """Brighter daylight: c is added to the value V of the HSV colour, hue and saturation stay.

        V = max over channels,   V' = min(V + c, 1),   z = x V' / V   (black, V = 0, becomes grey of value V')

    which is the round trip through HSV without the trip. A grey image is its own V: z = min(x + c, 1). The formula serves
    any number of channels.

    References: `Graded`; Smith (1978), "Color Gamut Transform Pairs", SIGGRAPH (HSV).

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.tensor([0.2, 0.1, 0.0]).reshape(1, 3, 1, 1)
        >>> z = Brightness(severity=5, preset="imagenet", quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> z.flatten()
        tensor([0.7000, 0.3500, 0.0000])
    """

    family = "weather"
    ladder: ClassVar[Ladder] = {
        "cifar": ((0.05,), (0.10,), (0.15,), (0.20,), (0.30,)),
        "tiny_imagenet": ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
        "imagenet": ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        (more,) = parameters
        return brighten(x, more)


def brighten(x: Tensor, more: float) -> Tensor:
    """x with `more` added to its HSV value, at most 1: (n, c, h, w) in, the same out."""
    value = x.amax(1, keepdim=True)
    new = (value + more).clamp_(max=1)
    return torch.where(value > 0, x / value * new, new)
