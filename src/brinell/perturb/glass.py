"""Frosted glass."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from brinell.core.draws import Draws
from brinell.perturb.blur import gaussian_blur
from brinell.perturb.severity import Graded, Ladder


class GlassBlur(Graded, name="glass_blur"):
    """Frosted glass: blurred, then pixels change places with near ones, then blurred again.

        n passes over the pixels (h, w), rows and columns downwards from side - d to d + 1:
            dx, dy uniform in {-d, ..., d - 1};   x(h, w) <- x(h + dy, w + dx)

    between two Gaussian blurs of sigma (`gaussian_blur`); all channels of a pixel move together. A row of the ladder is
    (sigma, d, n), lengths in pixels; below 32 pixels only sigma shrinks, since d = 1 is the least.

    Departures kept from the authors: their exchange of two pixels is written with views of one array, which copies the other
    pixel and leaves it where it was. `swap="true"` exchanges. The image is cut to 8 bits before the passes and at the end, in their
    float64 arithmetic, rounding errors included: an even area may lose a level or two. (`quantize=False` cuts nowhere.)

    Arguments:
        swap: `published` (copies) or `true` (exchanges).

    References: `Graded`.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.arange(1024.0).reshape(1, 1, 32, 32) / 1023
        >>> z = GlassBlur(severity=1, quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))   # no blur at sigma 0.05
        >>> moved = x - z
        >>> moved.mul(1023).round().unique().tolist()                # from here, the left, above, or both
        [0.0, 1.0, 32.0, 33.0]
    """

    family, whole = "blur", True
    uneven = "severity 4 of CIFAR-10-C blurs less than 3 (it makes two passes instead), so it may move images less"
    lengths = (0,)
    swap: Literal["published", "true"] = "published"
    ladder: ClassVar[Ladder] = {
        "cifar": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        "tiny_imagenet": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        "imagenet": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        sigma, reach, passes = parameters[0], int(parameters[1]), int(parameters[2])
        (n, c, height, width), resolve = x.shape, copied if self.swap == "published" else exchanged
        blurred, source = gaussian_blur(self._sharp(x), sigma), None
        if self.quantize:
            blurred.mul_(255).floor_()
        for _ in range(passes):
            inner = max(0, height - 2 * reach), max(0, width - 2 * reach)
            step = (draws.uniform(*inner) * (2 * reach) ** 2).long().clamp_(max=(2 * reach) ** 2 - 1)  # rounding may reach the end
            down, right = step.div(2 * reach, rounding_mode="floor") - reach, step % (2 * reach) - reach
            made = resolve(down, right, reach, height, width)
            source = made if source is None else source.gather(1, made)
        if source is not None:
            blurred = blurred.flatten(2).gather(2, source[:, None].expand(n, c, -1)).reshape(x.shape)
        if not self.quantize:
            return gaussian_blur(blurred, sigma)
        return gaussian_blur(blurred.div_(255), sigma).clamp_(0, 1).mul_(255).floor_().to(x.dtype).div_(255)

    def _sharp(self, x: Tensor) -> Tensor:
        """x in float64 if it will be cut to levels; k / 255 means just that, whatever it became in float32."""
        if not self.quantize:
            return x
        level = (x.double() * 255).round_()
        return torch.where((x * 255 - level).abs() < 1e-3, level / 255, x.double())


def copied(down: Tensor, right: Tensor, reach: int, height: int, width: int) -> Tensor:
    """Which pixel each one shows after a pass in which pixel (h, w), last row and column first, copies (h + down, w + right).

    A pixel that copies a later one (in reading order) copies what that one already shows: a chain of reads, followed here for
    all pixels at once by pointer doubling (each round, every unfinished pointer takes the place its target points to).

    Arguments:
        down, right: (n, height - 2 reach, width - 2 reach) int64 in {-reach, ..., reach - 1}, for rows and columns reach + 1
        to side - reach.

    Returns: (n, height * width) int64.
    """
    place = torch.arange(height * width, device=down.device).reshape(height, width)
    inner = slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1)
    source = place.repeat(len(down), 1, 1)
    source[:, *inner] += down * width + right
    if reach == 1:  # down and right are -1 or 0: nobody copies a later pixel
        return source.flatten(1)
    active = torch.zeros_like(place, dtype=torch.bool)
    active[inner] = True
    place, active, source = place.flatten(), active.flatten(), source.flatten(1)
    chained = (source > place) & active[source]
    target = torch.where(chained, source, ~source)  # finished pointers are marked by their sign
    while bool((target >= 0).any()):
        target = torch.where(target >= 0, target.gather(1, target.clamp(min=0)), target)
    return ~target


def exchanged(down: Tensor, right: Tensor, reach: int, height: int, width: int) -> Tensor:
    """Which pixel each one shows after a pass in which pixel (h, w), last row and column first, changes places with
    (h + down, w + right). Arguments and result as in `copied`.

    Exchanges farther than 2 reach apart do not meet. So those with the same (2 reach + 1) row + column are made at once.
    """
    shown = torch.arange(height * width, device=down.device).repeat(len(down), 1)
    rows, columns = down.shape[1:]
    other = (down * width + right).flatten(1)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    wave = ((2 * reach + 1) * row + column).flatten()
    order = wave.argsort(descending=True, stable=True)
    for group in order.split(wave.bincount().flip(0).tolist()):
        if len(group):
            at = group.to(down.device)
            here = (at.div(columns, rounding_mode="floor") + reach + 1) * width + at % columns + reach + 1
            there = here + other[:, at]
            here = here.expand_as(there)
            a, b = shown.gather(1, here), shown.gather(1, there)
            shown.scatter_(1, here, b).scatter_(1, there, a)
    return shown
