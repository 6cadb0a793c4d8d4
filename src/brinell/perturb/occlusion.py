"""Occlusion: parts of the image are hidden."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.perturbation import Corruption
from brinell.perturb.severity import check_images


class Occlusion(Corruption, name="occlusion"):
    """Square patches at random places hide parts of the image: does the answer hang on one region?

        z = fill inside any of `count` squares of `size` pixels, x elsewhere

    Squares lie wholly inside the image, every place equally likely, and may overlap; one larger than the image covers it along
    that axis. All channels are hidden together.

    Arguments:
        size: the side of a patch in pixels. count: patches in each image.
        fill: `value` (the number `value`), `mean` (of each channel of the image), or `noise` (uniform in [0, 1], each pixel and
            channel).

    Raises:
        DataError: the inputs are not a batch of images, or leave [0, 1].

    References: Zeiler & Fergus (2014), "Visualizing and Understanding Convolutional Networks", ECCV,
        https://arxiv.org/abs/1311.2901 (grey squares); DeVries & Taylor (2017), "Improved Regularization of Convolutional Neural
        Networks with Cutout", https://arxiv.org/abs/1708.04552.

    Example:
        >>> from brinell.core.draws import derive
        >>> x = torch.ones(1, 3, 32, 32)
        >>> z = Occlusion(size=8, value=0.0)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> (z == 0).sum().item(), (z == 1).sum().item()
        (192, 2880)
    """

    telling = ("size",)
    size: int = Field(default=8, ge=1)
    count: int = Field(default=1, ge=1)
    fill: Literal["value", "mean", "noise"] = "value"
    value: float = Field(default=0.5, ge=0, le=1)

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        check_images(x, self.spec())
        hidden = patches(draws.uniform(self.count, 2), x.shape[2], x.shape[3], self.size)[:, None]
        if self.fill == "value":
            return x.masked_fill(hidden, self.value)
        fill = draws.uniform(*x.shape[1:]).to(x.dtype) if self.fill == "noise" else x.double().mean((2, 3), keepdim=True).to(x.dtype)
        return torch.where(hidden, fill, x)


def patches(place: Tensor, height: int, width: int, size: int) -> Tensor:
    """Which pixels the squares cover, (n, height, width) bool.

    Arguments:
        place: (n, count, 2) shares in [0, 1) of the possible rows and columns of a square's first pixel.
    """
    inside = []
    for axis, side in enumerate((height, width)):
        first = (place[:, :, axis] * (max(side - size, 0) + 1)).long().clamp_(max=max(side - size, 0))[:, :, None]
        at = torch.arange(side, device=place.device)
        inside.append((at >= first) & (at < first + size))
    return (inside[0][:, :, :, None] & inside[1][:, :, None, :]).any(1)
