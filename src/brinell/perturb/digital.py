"""Faults of digital processing."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from brinell.core.draws import Draws
from brinell.perturb.jpeg import recompress
from brinell.perturb.row_sums import columns
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

    family = "digital"
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

    family, whole = "digital", True
    ladder: ClassVar[Ladder] = {
        "cifar": ((80,), (65,), (58,), (50,), (40,)),
        "tiny_imagenet": ((65,), (58,), (50,), (40,), (25,)),
        "imagenet": ((25,), (18,), (15,), (10,), (7,)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        (quality,) = parameters
        return recompress(x, int(quality))


class Pixelate(Graded, name="pixelate"):
    """Too few pixels: shrunk to the share c of its size and enlarged again.

        z = box(box(x, floor(c side)), side)

    Shrinking takes the mean of the pixels whose centres lie in the window of the new pixel, columns first; enlarging repeats the
    nearest. This is the BOX filter of Pillow, bit for bit on square images (on others Pillow 13 may take rows first, which can
    change the rounding by a level): sums of the input and both means are rounded to whole levels, not cut off.
    `quantize=False` leaves all three out.

    References: `Graded`.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.arange(8.0).expand(1, 1, 8, 8) / 255
        >>> z = Pixelate(severity=5, preset="tiny_imagenet", quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> z[0, 0, 0].mul(255)
        tensor([0.5000, 0.5000, 2.5000, 2.5000, 4.5000, 4.5000, 6.5000, 6.5000])
    """

    family, whole = "digital", True
    ladder: ClassVar[Ladder] = {
        "cifar": ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
        "tiny_imagenet": ((0.9,), (0.8,), (0.7,), (0.6,), (0.5,)),
        "imagenet": ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        (share,) = parameters
        z = x
        for axis in (3, 2):
            z = _box_mean(z, axis, max(1, int(x.shape[axis] * share)), whole=self.quantize)
        for axis in (3, 2):
            z = _picked(z, axis, _windows(z.shape[axis], x.shape[axis])[0].to(x.device))
        return z if self.quantize else z.clamp_(0, 1)


def _box_mean(x: Tensor, axis: int, size: int, *, whole: bool) -> Tensor:
    """x shrunk to `size` along an axis by means over windows; if whole, of grey levels, and rounded to one (half up)."""
    first, count, (least, most) = _windows(x.shape[axis], size)
    first, count = first.to(x.device), count.to(x.device).reshape([-1 if at == axis else 1 for at in range(x.ndim)])
    paired = least > 1
    if paired:  # one addition is quicker than picking twice
        length = x.shape[axis] - 1
        total = _picked(x.narrow(axis, 0, length) + x.narrow(axis, 1, length), axis, first)
    else:
        total = _picked(x, axis, first)
    for at in range(1 + paired, most):
        more = _picked(x, axis, (first + at).clamp_(max=x.shape[axis] - 1))
        total += more if at < least else more.mul_(count > at)
    if whole:
        total.mul_(255).round_()
        return total.mul_(1 / count.to(x.dtype)).add_(0.5 + 2.0**-13).floor_().div_(255)
    return total.mul_(1 / count.to(x.dtype))


def _picked(x: Tensor, axis: int, index: Tensor) -> Tensor:
    return columns(x, index) if axis == 3 else x.index_select(axis, index)


@lru_cache(maxsize=64)
def _windows(old: int, new: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """The first pixel and the number of pixels of the window of each new pixel, and the least and largest of these numbers: centres
    within (-1/2, 1/2] of a new pixel, rounded as in Pillow where one lies on the edge."""
    scale, wide = old / new, max(old / new, 1.0)
    pixel, centre = np.arange(old), (np.arange(new)[:, None] + 0.5) * scale
    place = (pixel - centre + 0.5) * (1 / wide)
    inside = (place > -0.5) & (place <= 0.5) & (pixel >= np.trunc(centre - wide / 2 + 0.5)) & (pixel < np.trunc(centre + wide / 2 + 0.5))
    count = inside.sum(1)
    return torch.from_numpy(inside.argmax(1)), torch.from_numpy(count), (int(count.min()), int(count.max()))


class Saturate(Graded, name="saturate"):
    """Paler or gaudier colours (a validation type of the benchmark: not one of the 15 that enter mCE).

        S = (V - min) / V,   S' = clip(S m + a),   z = V - (V - x) S' / S,   V = max, min over channels

    which is a change of the HSV saturation with hue and value kept; a row of the ladder is (m, a). The formula serves any
    number of channels; an image of one channel has no colour and stays as it is.

    Departures kept from the authors: in RGB images a grey pixel has hue 0, which is red, so it turns reddish where a > 0
    (severities 4 and 5): z = V (1, 1 - S', 1 - S'). With other numbers of channels grey pixels stay grey.

    References: `Graded`; Smith (1978), "Color Gamut Transform Pairs", SIGGRAPH (HSV).

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.tensor([0.8, 0.6, 0.4]).reshape(1, 3, 1, 1)                     # saturation 0.5
        >>> z = Saturate(severity=3, preset="cifar", quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> z.flatten()                                                             # saturation 0.75
        tensor([0.8000, 0.5000, 0.2000])
    """

    family, main = "digital", False
    uneven = "severities 1 and 2 take colour away, 3 to 5 add some"
    ladder: ClassVar[Ladder] = {
        "cifar": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        "tiny_imagenet": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
        "imagenet": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        times, more = parameters
        value = x.amax(1, keepdim=True)
        spread = value - x.amin(1, keepdim=True)
        saturation = (spread / value * times + more).clamp_(0, 1)  # NaN where black
        z = value - (value - x) * (saturation * value / spread)
        grey = value.expand_as(x)
        if x.shape[1] == 3:
            grey = torch.cat((value, *((1 - min(more, 1.0)) * value,) * 2), 1)
        return torch.where(spread > 0, z, grey)
