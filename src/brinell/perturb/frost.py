"""Frost on the lens."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from brinell.core.draws import Draws, derive
from brinell.core.errors import DataError
from brinell.core.place import place_of
from brinell.data.contents import body_of
from brinell.data.images import decode
from brinell.perturb.colour import painted
from brinell.perturb.fog import plasma
from brinell.perturb.severity import Graded, Ladder

_SHRINK = {"cifar": 0.2, "tiny_imagenet": 0.3, "imagenet": 1.0}
_PICTURES = 5


class Frost(Graded, name="frost"):
    """Frost on the lens; unless you give the authors' photographs, with frost_like textures made by a formula.

        z = a x + b F,   F a crop at a random place of one of five pictures of frost, which were shrunk for smaller images

    The pictures are shrunk to 0.2 of their size under `cifar` (times side / 32 below 32 pixels), 0.3 under `tiny_imagenet`, and
    not under `imagenet`. A row of the ladder is (a, b). Images of other than three channels: `colour.painted`.

    Departures: the photographs of the authors are not shipped, their licence is not stated. `textures="procedural"` gives
    `frost_like` pictures instead, so results are comparable with one another, not with published ones. Kept from the authors: of
    their six photographs only the first five are used.

    Arguments:
        textures: `procedural`, or the path of a folder with the photographs (frost1.png ... frost6.jpg in the authors'
            repository); the first five images by name are used.

    Raises:
        DataError: the folder holds no images, or one that after shrinking is not larger than the images to corrupt.

    References: `Graded`.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.zeros(1, 3, 32, 32)
        >>> z = Frost(severity=5, quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> bool((z <= 0.45).all()), 0.1 < z.mean().item() < 0.35
        (True, True)
    """

    family = "weather"
    uneven = "from severity 3 on the image is dimmed as well (a < 1), which offsets the light of the frost"
    telling = ("severity", "textures")
    textures: str = "procedural"
    ladder: ClassVar[Ladder] = {
        "cifar": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        "tiny_imagenet": ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        "imagenet": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    }

    def departures(self, side: int) -> tuple[str, ...]:
        made_up = ("procedural textures",) if self.textures == "procedural" else ()
        scale = self.scale_at(side)
        return (*made_up, f"lengths x {scale:g}") if scale < 1 else made_up

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        keep, more = parameters
        (height, width), side = x.shape[2:], min(x.shape[2:])
        shrink = _SHRINK[self.preset_at(side)] * self.scale_at(side)
        if self.textures == "procedural":
            pictures = frost_like(shrink, str(x.device))
            times = max(height, width) // pictures[0].shape[1] + 1  # they go on from edge to edge
            pictures = tuple(picture.repeat(1, times, times) for picture in pictures) if times > 1 else pictures
        else:
            pictures = photographs(self.textures, shrink, str(x.device))
        chance = draws.uniform(3)
        which = (chance[:, 0] * _PICTURES).long().clamp_(max=len(pictures) - 1)
        frost = x.new_empty(len(x), 3, height, width)
        for at, picture in enumerate(pictures):
            rows = (which == at).nonzero()[:, 0]
            if len(rows):
                frost[rows] = _crops(picture, height, width, chance[rows, 1], chance[rows, 2], self.textures).to(x.dtype)
        return painted(x, keep, frost.mul_(more / 255))


def _crops(picture: Tensor, height: int, width: int, down: Tensor, right: Tensor, place: str) -> Tensor:
    """Windows of a picture, (3, H, W) uint8, at shares `down` and `right` of the possible places: (n, 3, height, width)."""
    tall, wide = picture.shape[1:]
    if tall <= height or wide <= width:
        raise DataError(
            f"frost(textures={place!r}) needs pictures larger than the {height}x{width} images; one has {tall}x{wide} pixels "
            f"after shrinking. Give larger pictures, or a preset that shrinks them less"
        )
    top, left = (down * (tall - height)).long(), (right * (wide - width)).long()
    windows = picture.as_strided((picture.numel() - 2 * tall * wide - (height - 1) * wide - width + 1, 3, height, width),
                                 (1, tall * wide, wide, 1))  # fmt: skip
    return windows.index_select(0, top * wide + left)


@lru_cache(maxsize=4)
def frost_like(shrink: float, device: str = "cpu") -> tuple[Tensor, ...]:
    """Five pictures that look like ice on glass, (3, 1024 shrink, 1024 shrink) uint8 each: bluish ridges on a cloudy ground.

        Q = 0.55 (1 - |sin(6 pi P)|)^2 + 0.45 P',   stretched to [0, 1],   colour (0.87, 0.95, 1) Q

    with P, P' two plasmas (`fog.plasma`, decay 2). They do not depend on any seed, and go on from right to left and bottom to top.

    Example:
        >>> pictures = frost_like(0.1)
        >>> len(pictures), pictures[0].shape
        (5, torch.Size([3, 102, 102]))
    """
    draws = derive(0, "frost_like", ids=range(_PICTURES))
    ridged, ground = plasma(draws, 1024, 2.0), plasma(draws, 1024, 2.0)
    ice = ridged.mul_(6 * torch.pi).sin_().abs_().neg_().add_(1).square_().mul_(0.55).add_(ground.mul_(0.45))
    ice = _shrunk(ice[:, None], shrink)
    low, high = ice.amin((1, 2, 3), keepdim=True), ice.amax((1, 2, 3), keepdim=True)
    colour = torch.tensor([0.87, 0.95, 1.0]).reshape(1, 3, 1, 1)
    levels = ((ice - low) / (high - low).clamp_(min=1e-30) * colour * 255).round_().to(torch.uint8)
    return tuple(picture.contiguous().to(device) for picture in levels)


@lru_cache(maxsize=4)
def photographs(folder: str, shrink: float, device: str = "cpu") -> tuple[Tensor, ...]:
    """The first five images of a folder by name, (3, h, w) uint8 each, shrunk by linear interpolation."""
    place = place_of(folder, DataError)
    files = sorted(file for file in place.glob("*") if file.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".webp"))
    if not files:
        raise DataError(f"frost(textures={folder!r}) found no images there; name the folder that holds frost1.png ... frost6.jpg")
    pictures = []
    for file in files[:_PICTURES]:
        levels = torch.from_numpy(decode(body_of(file), str(file), mode="rgb")).permute(2, 0, 1)[None].float()
        pictures.append(_shrunk(levels, shrink)[0].round_().to(torch.uint8).contiguous().to(device))
    return tuple(pictures)


def _shrunk(pictures: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return pictures
    size = [max(1, round(side * factor)) for side in pictures.shape[2:]]
    return F.interpolate(pictures, size=size, mode="bilinear", align_corners=False)
