"""Spatter: drops of water or mud on the lens."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from brinell.core.draws import Draws
from brinell.perturb.blur import gaussian_blur
from brinell.perturb.colour import painted
from brinell.perturb.severity import Graded, Ladder

_WATER, _MUD = (175 / 255, 238 / 255, 238 / 255), (63 / 255, 42 / 255, 20 / 255)


class Spatter(Graded, name="spatter"):
    """Drops of water (severities 1 to 3) or mud (4 and 5) on the lens (a validation type of the benchmark: not one of the 15 that
    enter mCE).

        L = `gaussian_blur` of normal(mean, std) for each pixel, sigma blur; 0 below threshold
        water:  M = o L D / max(L D),                         z = x + M (175, 238, 238) / 255
        mud:    M = gaussian_blur of [L > threshold], sigma o; 0 below 0.8,   z = x (1 - M) + M (63, 42, 20) / 255

    D, which gives drops an edge and a shade, is made of the 8-bit L: its edges (`edges`), the distance to the nearest one
    (`distance`, at most 20), 3x3 means, histogram equalisation, an embossing filter ((-2, -1, 0), (-1, 1, 1), (0, 1, 2)), 3x3 means.
    A row of the ladder is (mean, std, blur, threshold, o, mud), blur and the o of mud in pixels. Images of other than three channels:
    `colour.painted`.

    Departures: an image without a drop stays as it is (the authors divide 0 by 0).

    References: `Graded`; the steps are those of OpenCV (https://docs.opencv.org), in its integer arithmetic.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.full((1, 3, 64, 64), 0.5)
        >>> z = Spatter(severity=5, quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> touched = (z != x).any(1)
        >>> bool(touched.any()), bool(touched.all()), bool((z <= x).all())
        (True, False, True)
    """

    family, main = "weather", False
    uneven = "severities 1 to 3 add water, 4 and 5 cover with mud"
    lengths = (2,)
    ladder: ClassVar[Ladder] = {
        "cifar": (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0), (0.65, 0.1, 0.8, 0.7, 0.5, 0), (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1), (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
        "tiny_imagenet": (
            (0.62, 0.1, 0.7, 0.7, 0.6, 0), (0.65, 0.1, 0.8, 0.7, 0.6, 0), (0.65, 0.3, 1, 0.69, 0.6, 0),
            (0.65, 0.1, 0.7, 0.68, 0.6, 1), (0.65, 0.1, 0.5, 0.67, 0.6, 1),
        ),
        "imagenet": (
            (0.65, 0.3, 4, 0.69, 0.6, 0), (0.65, 0.3, 3, 0.68, 0.6, 0), (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1), (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
    }  # fmt: skip

    def parameters(self, side: int) -> tuple[float, ...]:
        *rest, strength, mud = super().parameters(side)
        return (*rest, strength * (self.scale_at(side) if mud else 1), mud)

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        mean, std, blur, threshold, strength, mud = parameters
        layer = gaussian_blur(draws.normal(1, *x.shape[2:], std=std).to(x.dtype).add_(mean), blur)
        layer = layer.mul_(layer >= threshold)
        colour = x.new_tensor(_MUD if mud else _WATER).reshape(1, 3, 1, 1)
        if mud:
            mask = gaussian_blur((layer > threshold).to(x.dtype), strength)
            mask = mask.mul_(mask >= 0.8)
            return painted(x, 1 - mask, mask * colour)
        level = layer.mul(255).floor_().clamp_(0, 255)
        mask = level * shading(level[:, 0])[:, None]
        most = mask.amax((1, 2, 3), keepdim=True)
        return painted(x, 1.0, mask.mul_(strength).div_(most.clamp(min=1)) * colour)


def shading(level: Tensor) -> Tensor:
    """D of `Spatter`, 0 to 255, from the 8-bit layer: (n, h, w) whole numbers in, the same out."""
    far = distance(edges(level), 20)
    near = _sum3(far, "reflect").div_(9 * _UNIT).floor_()
    flat = equalised(near)
    (a, b, _), (d, e, f), (_, h, i) = _around(flat, "reflect")
    relief = (-2 * a - b - d + e + f + h + 2 * i).clamp_(0, 255)
    return _sum3(relief, "reflect").div_(9).add_(0.5).floor_().to(level.dtype)


def edges(level: Tensor, low: float = 50, high: float = 150) -> Tensor:
    """Canny's edges of 8-bit images, (n, h, w) bool, as in OpenCV: Sobel gradients, |gx| + |gy|, thresholds low and high.

    An edge is a pixel above `low` that no neighbour along the gradient surpasses, and that is joined to one above `high` by others.

    References: Canny (1986), "A Computational Approach to Edge Detection", IEEE TPAMI 8(6),
        https://doi.org/10.1109/TPAMI.1986.4767851.
    """
    (a, b, c), (d, _, f), (g, h, i) = _around(level.double(), "replicate")
    right, down = c + 2 * f + i - a - 2 * d - g, g + 2 * h + i - a - 2 * b - c
    across, along = right.abs(), down.abs()
    size = across + along
    (nw, n, ne), (w, _, e), (sw, s, se) = _around(size, "constant")
    flat = along * 32768 < across * 13573  # the tangents of 22.5 and 67.5 degrees in 15 bits
    steep = along * 32768 > across * (13573 + 65536)
    rising = (right < 0) ^ (down < 0)
    diagonal = torch.where(rising, (size > ne) & (size > sw), (size > nw) & (size > se))
    peak = torch.where(flat, (size > w) & (size >= e), torch.where(steep, (size > n) & (size >= s), diagonal))
    weak = peak & (size > low)
    found, count = weak & (size > high), -1
    while (now := int(found.sum())) != count:
        count = now
        found = (F.max_pool2d(found[:, None].float(), 3, 1, 1)[:, 0] > 0) & weak
    return found


_UNIT = 10000
_STEPS = {1: 10000, 2: 14000, 5: 21969}  # by squared length


def distance(target: Tensor, most: int) -> Tensor:
    """The distance to the nearest True pixel, at most `most`, times 10000: (n, h, w) bool in, whole float64 out.

    Lengths of paths of steps to the 16 neighbours of a 5x5 square, that cost 1, 1.4 and 2.1969, as in OpenCV (Borgefors' chamfer
    distance); by steps that only ever shorten a path, until none does.

    References: Borgefors (1986), "Distance Transformations in Digital Images", Computer Vision, Graphics, and Image Processing
        34(3), https://doi.org/10.1016/S0734-189X(86)80047-0.
    """
    far = torch.where(target, 0.0, float(most * _UNIT)).double()
    height, width = far.shape[1:]
    moves = [(dy, dx, _STEPS[dy * dy + dx * dx]) for dy in range(-2, 3) for dx in range(-2, 3) if dy * dy + dx * dx in _STEPS]
    while True:
        wide, before = F.pad(far, (2, 2, 2, 2), value=math.inf), far
        for dy, dx, cost in moves:
            far = far.minimum(wide[:, 2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width] + cost)
        if torch.equal(far, before):
            return far


def equalised(level: Tensor) -> Tensor:
    """8-bit images with their histograms made even, as in OpenCV: (n, h, w) whole numbers in, the same out.

    With F the count of pixels up to a level and l the lowest level of an image, level v becomes round(255 (F(v) - F(l)) / (F(max) -
    F(l))); an image of one level stays.
    """
    n, pixels = len(level), level[0].numel()
    index = level.long() + 256 * torch.arange(n, device=level.device)[:, None, None]
    upto = torch.bincount(index.flatten(), minlength=256 * n).reshape(n, 256).cumsum(1)
    least = upto.masked_fill(upto == 0, pixels + 1).amin(1, keepdim=True)
    even = ((upto - least) * (255 / (pixels - least).clamp(min=1).double())).round_().clamp_(min=0)
    one = (least == pixels)[:, :, None]
    return torch.where(one, level.double(), even.flatten()[index])


def _around(x: Tensor, border: str) -> list[list[Tensor]]:
    """The 3x3 neighbourhood of every pixel, shifted images by row and column; `reflect` mirrors about the border pixels."""
    height, width = x.shape[1:]
    narrow = border == "reflect" and min(height, width) < 2
    wide = F.pad(x[:, None], (1, 1, 1, 1), mode="replicate" if narrow else border)[:, 0]
    return [[wide[:, dy : dy + height, dx : dx + width] for dx in range(3)] for dy in range(3)]


def _sum3(x: Tensor, border: str) -> Tensor:
    return torch.stack([part for row in _around(x, border) for part in row]).sum(0)
