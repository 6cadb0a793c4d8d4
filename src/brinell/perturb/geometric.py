"""Geometry: the same picture, moved, turned, enlarged or sheared."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from brinell.core.draws import Draws
from brinell.core.perturbation import Corruption
from brinell.perturb.severity import check_images

Border = Literal["black", "repeat", "mirror"]
_PADDING = {"black": "zeros", "repeat": "border", "mirror": "reflection"}


class Geometric(Corruption):
    """An affine map about the centre of the image; base of those below.

        z(p) = x(A^-1 (p - centre - t) + centre),   interpolated linearly

    Arguments:
        fixed: True moves every image by just the amounts given; False draws each sample's amounts uniformly between minus and plus
            them (factors: log-uniformly between 1 / factor and factor).
        border: what is seen beyond the border: `black`, `repeat` (the border pixels) or `mirror` (about the border pixels).

    Images are (n, channels, height, width) in [0, 1].

    Raises:
        DataError: the inputs are not a batch of images, or leave [0, 1].

    References: Engstrom, Tran, Tsipras, Schmidt & Madry (2019), "Exploring the Landscape of Spatial Robustness", ICML,
        https://arxiv.org/abs/1712.02779 (turns up to 30 degrees, shifts up to a tenth of the side, black borders).
    """

    fixed: bool = False
    border: Border = "black"

    def amounts(self) -> tuple[float, float, float, float, float]:
        """Right, down (pixels), turn (degrees), factor, shear (degrees)."""
        raise TypeError(f"{type(self).__name__} does not say how far it moves")

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        check_images(x, self.spec())
        wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
        right, down, turn, factor, shear = self.amounts()
        share = torch.ones(len(x), 5, dtype=torch.float64, device=x.device)
        if not self.fixed:
            share = draws.uniform(5, low=-1, high=1, dtype=torch.float64)
        most = share.new_tensor([right, down, math.radians(turn), math.log(factor), math.radians(shear)])
        return moved(wide, share * most, self.border)


def moved(x: Tensor, amounts: Tensor, border: Border = "black") -> Tensor:
    """Images moved by an affine map each, about the centre ((h - 1) / 2, (w - 1) / 2): first sheared, then enlarged and turned,
    then shifted.

    Arguments:
        x: (n, c, h, w). amounts: (n, 5) right and down in pixels, turn in radians (counterclockwise as seen), log of the factor,
            shear angle in radians (rows move to the right the higher they are).

    Example:
        >>> x = torch.arange(9.0).reshape(1, 1, 3, 3) / 8
        >>> moved(x, torch.tensor([[1.0, 0, 0, 0, 0]]))[0, 0].mul(8).round()
        tensor([[0., 0., 1.],
                [0., 3., 4.],
                [0., 6., 7.]])
    """
    (height, width), wide = x.shape[2:], amounts.double()
    right, down, turn, log, shear = wide.unbind(1)
    cos, sin, slant = turn.cos() * (-log).exp(), turn.sin() * (-log).exp(), shear.tan()
    rows, columns = (torch.arange(size, dtype=torch.float64, device=x.device) - (size - 1) / 2 for size in (height, width))
    across = (columns - right[:, None])[:, None, :]
    along = (rows - down[:, None])[:, :, None]
    source_down = sin[:, None, None] * across + cos[:, None, None] * along
    source_right = cos[:, None, None] * across - sin[:, None, None] * along + slant[:, None, None] * source_down
    place = torch.stack((source_right * (2 / max(width - 1, 1)), source_down * (2 / max(height - 1, 1))), 3)
    return F.grid_sample(x, place.to(x.dtype), mode="bilinear", padding_mode=_PADDING[border], align_corners=True).clamp_(0, 1)


class Translation(Geometric, name="translation"):
    """The image shifted: does the network mind where things are?

    Arguments:
        right, down: pixels, at most (see `Geometric`: fixed or drawn); negative ones go left and up. fixed, border: see `Geometric`.

    References: `Geometric`.

    Example:
        >>> from brinell.core.draws import derive
        >>> x = torch.rand(1, 1, 32, 32)
        >>> z = Translation(right=4, down=0, fixed=True)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> torch.allclose(z[..., 4:], x[..., :-4], atol=1e-5), z[..., :3].max().item()
        (True, 0.0)
    """

    telling = ("down", "right")
    right: float = Field(default=3.0, allow_inf_nan=False)
    down: float = Field(default=3.0, allow_inf_nan=False)

    def amounts(self) -> tuple[float, float, float, float, float]:
        return self.right, self.down, 0.0, 1.0, 0.0


class Rotation(Geometric, name="rotation"):
    """The image turned about its centre: does the network mind which way is up?

    Arguments:
        degrees: at most (see `Geometric`: fixed or drawn), counterclockwise. fixed, border: see `Geometric`.

    References: `Geometric`.

    Example:
        >>> from brinell.core.draws import derive
        >>> x = torch.rand(1, 1, 32, 32)
        >>> z = Rotation(degrees=90, fixed=True)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> torch.allclose(z, x.rot90(1, (2, 3)), atol=1e-4)
        True
    """

    telling = ("degrees",)
    degrees: float = Field(default=30.0, allow_inf_nan=False)

    def amounts(self) -> tuple[float, float, float, float, float]:
        return 0.0, 0.0, self.degrees, 1.0, 0.0


class Scale(Geometric, name="scale"):
    """The image enlarged or shrunk about its centre: does the network mind how near things are?

    Arguments:
        factor: above 1 enlarges (see `Geometric`: fixed or drawn between 1 / factor and factor). Shrinking does not smooth.
        fixed, border: see `Geometric`.

    References: `Geometric`.

    Example:
        >>> from brinell.core.draws import derive
        >>> x = torch.arange(5.0).expand(1, 1, 5, 5) / 4
        >>> z = Scale(factor=2, fixed=True)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> z[0, 0, 0]
        tensor([0.2500, 0.3750, 0.5000, 0.6250, 0.7500])
    """

    telling = ("factor",)
    factor: float = Field(default=1.2, gt=0, allow_inf_nan=False)

    def amounts(self) -> tuple[float, float, float, float, float]:
        return 0.0, 0.0, 0.0, self.factor, 0.0


class Affine(Geometric, name="affine"):
    """The image sheared, enlarged, turned and shifted at once: does the network mind the point of view?

    Arguments:
        degrees, factor, right, down: see `Rotation`, `Scale`, `Translation`. shear: degrees, below 90 either way.
        fixed, border: see `Geometric`.

    References: `Geometric`.

    Example:
        >>> from brinell.core.draws import derive
        >>> x = torch.rand(2, 3, 32, 32)
        >>> z = Affine()(None, x, torch.tensor([0, 1]), draws=derive(0, ids=[0, 1]))
        >>> z.shape, bool((z == x).all())
        (torch.Size([2, 3, 32, 32]), False)
    """

    telling = ("degrees", "factor", "shear")
    degrees: float = Field(default=15.0, allow_inf_nan=False)
    factor: float = Field(default=1.1, gt=0, allow_inf_nan=False)
    shear: float = Field(default=10.0, gt=-90, lt=90)
    right: float = Field(default=2.0, allow_inf_nan=False)
    down: float = Field(default=2.0, allow_inf_nan=False)

    def amounts(self) -> tuple[float, float, float, float, float]:
        return self.right, self.down, self.degrees, self.factor, self.shear
