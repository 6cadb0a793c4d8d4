"""Graded corruptions: published ladders of five severities, one ladder for each size of image."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.errors import DataError
from brinell.core.perturbation import Corruption

Preset = Literal["auto", "cifar", "tiny_imagenet", "imagenet"]
Family = Literal["noise", "blur", "weather", "digital"]
Ladder = Mapping[str, tuple[tuple[float, ...], ...]]
"""The parameters of severities 1 to 5 under each preset but `auto`."""

_GUARD = 2.0**-13  # of a grey level: float32 rounding alone never turns level k into k - 1
_CHUNK = 1 << 19  # values corrupted at a time: temporaries stay near the cache; on other devices 64 times as many


class Graded(Corruption):
    """A corruption with five published severities: how much accuracy does an everyday fault of images cost, on average?

    The faults and their parameters are those of CIFAR-10-C, Tiny ImageNet-C and ImageNet-C; each class holds its own
    ladder. A subclass writes `corrupt`, which sees images in [0, 1] and the parameters of the chosen severity; it declares `whole`
    if that stays in [0, 1], sees to `quantize` itself, and needs little memory for many images at once.

    What a class is can be read from it: `family` is noise, blur, weather or digital; `main` tells the 15 types that enter the
    mean corruption error (mCE) from the 4 validation types; `uneven` says why a ladder need not grow in distance, where it
    need not.

    Arguments:
        severity: 1 (mild) to 5 (strong).
        preset: whose parameters are used. `auto` goes by the smaller side of the image: below 48 pixels `cifar`, below 128
            `tiny_imagenet`, else `imagenet`. Under `cifar` a side below 32 multiplies the parameters that are lengths in
            pixels by side / 32: a nonstandard extension, not part of the published sets.
        quantize: give an 8-bit image, as published: clip to [0, 1], times 255, fraction cut off (not rounded), over 255.
            (2^-13 of a level is added before the cut, so that a value that is level k but for float32 rounding stays k.)
            False only clips.

    Summaries call a corruption that departs from the published sets in such a way nonstandard, with the reason (`departures`).

    Images are (n, channels, height, width) in [0, 1] with any number of channels and any sides. Three channels are
    red, green and blue; what has a colour of its own says what it does with other numbers of channels.

    Raises:
        SpecError: severity is not one of 1..5, or the preset is unknown.
        DataError: the inputs are not a batch of images, or leave [0, 1].

    References: Hendrycks & Dietterich (2019), "Benchmarking Neural Network Robustness to Common Corruptions and
        Perturbations", ICLR, https://arxiv.org/abs/1903.12261; parameters from the authors' three generator scripts
        (make_cifar_c.py, make_tinyimagenet_c.py, make_imagenet_c.py of github.com/hendrycks/robustness).
    """

    telling = ("severity",)
    severity: int = Field(default=3, ge=1, le=5)
    preset: Preset = "auto"
    quantize: bool = True
    ladder: ClassVar[Ladder] = {}
    lengths: ClassVar[tuple[int, ...]] = ()
    family: ClassVar[Family | Literal[""]] = ""
    main: ClassVar[bool] = True
    uneven: ClassVar[str] = ""
    whole: ClassVar[bool] = False

    def parameters(self, side: int) -> tuple[float, ...]:
        """The numbers of the chosen severity for images whose smaller side has this many pixels."""
        values, scale = self.ladder[self.preset_at(side)][self.severity - 1], self.scale_at(side)
        return tuple(value * scale if at in self.lengths and scale < 1 else value for at, value in enumerate(values))

    def preset_at(self, side: int) -> str:
        """The preset whose parameters such images get."""
        return preset_of(side) if self.preset == "auto" else self.preset

    def scale_at(self, side: int) -> float:
        """What the lengths of the ladder are multiplied by: side / 32 for images smaller than those of CIFAR, else 1."""
        return min(1.0, side / 32) if self.preset_at(side) == "cifar" else 1.0

    def departures(self, side: int) -> tuple[str, ...]:
        """What keeps such images from being as published, in words; results of theirs are called nonstandard."""
        scale = self.scale_at(side)
        return (f"lengths x {scale:g}",) if self.lengths and scale < 1 else ()

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        """The corrupted images, (n, c, h, w), before clipping; x is float32 or float64 and must not be changed."""
        raise TypeError(f"{type(self).__name__} does not say how it corrupts")

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        check_images(x, self.spec())
        _keep_memory()
        parameters, single = self.parameters(min(x.shape[2:])), x.dtype not in (torch.float32, torch.float64)
        dtype = torch.float32 if single else x.dtype
        if self.whole:
            return self.corrupt(x.to(dtype).contiguous(), parameters, draws)
        out = torch.empty(x.shape, dtype=dtype, device=x.device)
        few = max(1, _CHUNK * (1 if x.device.type == "cpu" else 64) // x[0].numel())
        for at in range(0, len(x), few):
            part = x[at : at + few].to(dtype).contiguous()
            z = torch.clamp(self.corrupt(part, parameters, draws[at : at + few]), 0, 1, out=out[at : at + few])
            if self.quantize:
                _cut(z)
        return out


@cache
def _keep_memory() -> None:
    """Let the C library keep what it allocates: temporaries that went back to the system would come back page by page, which can cost
    more than the work on them. glibc keeps blocks up to the largest one freed so far (32 MB at most); this one is never touched."""
    torch.empty((32 << 20) - (1 << 16), dtype=torch.uint8)


def preset_of(side: int) -> str:
    """The preset `auto` chooses for images whose smaller side has this many pixels.

    Example:
        >>> preset_of(32), preset_of(64), preset_of(224)
        ('cifar', 'tiny_imagenet', 'imagenet')
    """
    return "cifar" if side < 48 else "tiny_imagenet" if side < 128 else "imagenet"


def check_images(x: Tensor, who: str) -> None:
    """Refuse what is not a batch of images in [0, 1].

    Raises:
        DataError: x is not (n, c, h, w), has an empty side, or holds NaN or a value outside [0, 1].
    """
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise DataError(f"{who} needs images of shape (n, channels, height, width); got {tuple(x.shape)}")
    low, high = torch.aminmax(x)
    if not bool((low >= 0) & (high <= 1)):
        wrong = ~((x >= 0) & (x <= 1)).flatten(1)
        row = int(wrong.any(1).nonzero()[0, 0])
        value = float(x.flatten(1)[row][wrong[row]][0])
        raise DataError(
            f"{who} needs images in [0, 1]; row {row} holds {value:g}. Give raw images over 255; normalisation belongs inside the network"
        )


def truncate(z: Tensor) -> Tensor:
    """The published 8-bit form: clip to [0, 1], cut to whole grey levels, back to [0, 1].

    Example:
        >>> truncate(torch.tensor([-1.0, 0.5, 100 / 255, 2.0])).mul(255).round().tolist()
        [0.0, 127.0, 100.0, 255.0]
    """
    return _cut(z.clamp(0, 1))


def _cut(z: Tensor) -> Tensor:
    return z.mul_(255).add_(_GUARD).floor_().div_(255)
