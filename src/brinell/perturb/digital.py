"""Faults of digital processing."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from brinell.core.draws import Draws
from brinell.perturb.jpeg import recompress
from brinell.perturb.severity import Graded, Ladder


class Contrast(Graded, name="contrast"):
    """Less contrast: every channel shrinks towards its own mean over the image.

        z = (x - m) c + m,   m = mean of the channel over all pixels

    References: `Graded`.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.tensor([[0.2, 0.6], [0.2, 0.6]]).reshape(1, 1, 2, 2)
        >>> z = Contrast(severity=2, preset="cifar", quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> z.flatten().tolist()
        [0.3..., 0.5..., 0.3..., 0.5...]
    """

    ladder: ClassVar[Ladder] = {
        "cifar": ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
        "tiny_imagenet": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
        "imagenet": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        (factor,) = parameters
        return contrast(x, factor)


def contrast(x: Tensor, factor: float) -> Tensor:
    """(x - m) factor + m with m the mean over the last two axes, (n, c, h, w) in, the same out."""
    mean = x.double().mean((2, 3), keepdim=True).to(x.dtype)  # float64 adds grey levels up exactly, in any order
    return (x - mean).mul_(factor).add_(mean)


class JpegCompression(Graded, name="jpeg_compression"):
    """The artefacts of JPEG at a low quality c (1 to 100): written and read again.

        z = decode(encode(x, quality=c))

    Colour images are coded as YCbCr with half the colour resolution each way (4:2:0); other numbers of channels are coded
    channel by channel as grey images, so a grey image gets what it would get as three equal channels. The result is that
    of libjpeg-turbo (as in Pillow), bit for bit. The input is read as 8-bit (rounded), the output is always 8-bit:
    `quantize` changes nothing.

    References: `Graded`; ITU-T Recommendation T.81 (1992), "Digital compression and coding of continuous-tone still
        images", https://www.w3.org/Graphics/JPEG/itu-t81.pdf.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.full((1, 3, 32, 32), 100 / 255)                 # flat stays flat, on a coarser scale
        >>> z = JpegCompression(severity=5)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> z.mul(255).round().unique().tolist()
        [101.0]
    """

    ladder: ClassVar[Ladder] = {
        "cifar": ((80,), (65,), (58,), (50,), (40,)),
        "tiny_imagenet": ((65,), (58,), (50,), (40,), (25,)),
        "imagenet": ((25,), (18,), (15,), (10,), (7,)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        (quality,) = parameters
        return recompress(x, int(quality))
