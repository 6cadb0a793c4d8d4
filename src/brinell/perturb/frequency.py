"""Frequencies: what is left of an image without its fine detail, and noise of one single frequency."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.errors import DataError
from brinell.core.perturbation import Corruption
from brinell.perturb.severity import check_images

Kind = Literal["ideal", "gaussian", "butterworth"]


class LowPass(Corruption, name="low_pass"):
    """The image without its high frequencies: does the network need fine detail?

        z = clip(F^-1(H F(x)), 0, 1),   F the discrete Fourier transform of each channel,   f = sqrt(fy^2 + fx^2)
        ideal:        H = 1 if f <= cutoff else 0
        gaussian:     H = exp(-f^2 / (2 cutoff^2))
        butterworth:  H = 1 / (1 + (f / cutoff)^(2 order))

    Arguments:
        cutoff: in cycles per pixel; 0.5 is the highest frequency of a row or column, sqrt(1/2) that of a diagonal.
        kind: the form of H. An ideal filter leaves ripples beside edges, the others do not.
        order: of the butterworth filter: the larger, the nearer it is to the ideal one.

    Images are (n, channels, height, width) in [0, 1]. The transform takes them to be periodic. Means of channels stay, but for clipping.

    Raises:
        DataError: the inputs are not a batch of images, or leave [0, 1].

    References: Gonzalez & Woods (2008), "Digital Image Processing", 3rd edition, section 4.8 (the three filters); Yin et al. (2019),
        "A Fourier Perspective on Model Robustness in Computer Vision", NeurIPS, https://arxiv.org/abs/1906.08988.

    Example:
        >>> from brinell.core.draws import derive
        >>> column = torch.arange(32.0)
        >>> slow, fast = (0.5 + 0.2 * (2 * torch.pi * f * column).cos() for f in (4 / 32, 12 / 32))
        >>> z = LowPass(cutoff=0.25)(None, (slow + fast - 0.5).expand(1, 1, 32, 32), torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> torch.allclose(z, slow.expand(1, 1, 32, 32), atol=1e-6)
        True
    """

    telling = ("cutoff",)
    cutoff: float = Field(default=0.25, gt=0, le=math.sqrt(0.5))
    kind: Kind = "ideal"
    order: int = Field(default=2, ge=1)

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        check_images(x, self.spec())
        wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
        return low_pass(wide, self.cutoff, self.kind, self.order).clamp_(0, 1)


def low_pass(x: Tensor, cutoff: float, kind: Kind = "ideal", order: int = 2) -> Tensor:
    """x filtered along its last two axes (`LowPass`), not clipped: (..., h, w) in, the same out."""
    height, width = x.shape[-2:]
    down = torch.fft.fftfreq(height, dtype=torch.float64, device=x.device)
    right = torch.fft.rfftfreq(width, dtype=torch.float64, device=x.device)
    square = down[:, None] ** 2 + right**2
    match kind:
        case "ideal":
            gain = (square <= cutoff**2 * (1 + 1e-12)).double()
        case "gaussian":
            gain = (-square / (2 * cutoff**2)).exp()
        case "butterworth":
            gain = 1 / (1 + (square / cutoff**2) ** order)
    return torch.fft.irfft2(torch.fft.rfft2(x.contiguous()) * gain.to(x.dtype), s=(height, width))


class FourierBasis(Corruption, name="fourier_basis"):
    """Noise of one single frequency: which frequencies is the network sensitive to?

        z = clip(x + r eps U, 0, 1),   U(h, w) = cos(2 pi (row h / height + column w / width)) / its L2 norm

    with a random sign r for each sample and channel. U is the real matrix of unit length whose Fourier transform is not zero at
    (row, column) and (-row, -column) alone. `fourier_grid` lists them all; the summary
    `fourier_heat_map` draws the paper's map.

    Arguments:
        row, column: whole waves over the height and the width, at most half as many as there are pixels; the sign of one against
            the other turns the waves. (0, 0) is constant.
        eps: L2 norm in each channel, before clipping; an image of c channels moves by eps sqrt(c). The paper takes 4 for CIFAR-10
            and 15.7 for ImageNet.

    Raises:
        DataError: the inputs are not a batch of images, leave [0, 1], or are too small to hold the frequency.

    References: Yin, Gontijo Lopes, Shlens, Cubuk & Gilmer (2019), "A Fourier Perspective on Model Robustness in Computer Vision",
        NeurIPS, https://arxiv.org/abs/1906.08988, section 2 (the phase of U is not stated in the paper; here a cosine).

    Example:
        >>> from brinell.core.draws import derive
        >>> x = torch.full((1, 3, 32, 32), 0.5)
        >>> z = FourierBasis(row=3, column=-5, eps=4.0)(None, x, torch.tensor([0]), draws=derive(0, ids=[0]))
        >>> (z - x).flatten(2).norm(dim=2)
        tensor([[4., 4., 4.]])
    """

    telling = ("column", "eps", "row")
    row: int = 0
    column: int = 4
    eps: float = Field(default=4.0, ge=0, allow_inf_nan=False)

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        check_images(x, self.spec())
        height, width = x.shape[2:]
        if 2 * abs(self.row) > height or 2 * abs(self.column) > width:
            raise DataError(f"{self.spec()} needs at least two pixels a wave; images of {height}x{width} pixels are too small")
        wave = fourier_basis(height, width, self.row, self.column).to(x)
        return (x + draws.signs(x.shape[1]).to(x)[:, :, None, None] * (self.eps * wave)).clamp_(0, 1)


def fourier_basis(height: int, width: int, row: int, column: int) -> Tensor:
    """U of `FourierBasis`: (height, width) float64 of L2 norm 1.

    Example:
        >>> fourier_basis(1, 4, 0, 2)
        tensor([[ 0.5000, -0.5000,  0.5000, -0.5000]], dtype=torch.float64)
    """
    down, right = torch.arange(height)[:, None] * (row % height), torch.arange(width) * (column % width)
    turns = (down % height).double() / height + (right % width).double() / width
    wave = torch.cos(2 * math.pi * turns)
    return wave / wave.norm()


def fourier_grid(height: int, width: int, *, eps: float = 4.0, most: int | None = None, step: int = 1) -> tuple[FourierBasis, ...]:
    """The basis functions of a Fourier heat map (summary `fourier_heat_map`): one of each pair (row, column) and (-row, -column).

    Arguments:
        height, width: of the images, in pixels. eps: of each. most: the largest number of waves each way; None for all there are.
        step: every how many waves, from 0.

    Example:
        >>> [(wave.row, wave.column) for wave in fourier_grid(32, 32, most=1)]
        [(0, 0), (0, 1), (1, -1), (1, 0), (1, 1)]
        >>> len(fourier_grid(32, 32))                        # 4 are their own partners: (32 * 32 - 4) / 2 + 4
        514
    """
    spans = []
    for side in (height, width):
        reach = side // 2 if most is None else min(side // 2, most)
        reach -= reach % step
        spans.append(range(-reach, reach + 1, step))
    pairs = {}
    for row in spans[0]:
        for column in spans[1]:
            pair = frozenset(((row % height, column % width), (-row % height, -column % width)))
            pairs[pair] = (row, column)  # the last of a pair has the larger row
    return tuple(FourierBasis(row=row, column=column, eps=eps) for row, column in sorted(pairs.values()))
