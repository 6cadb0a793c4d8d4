"""Noise: chance within a threat, the control every attack is compared with, and the four published noises of cameras."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from brinell.core import norms
from brinell.core.draws import Draws
from brinell.core.errors import DataError
from brinell.core.perturbation import Corruption
from brinell.core.threat import Ball, Threat
from brinell.perturb.severity import Graded, Ladder


class UniformNoise(Corruption, name="uniform_noise"):
    """A uniformly random point of the threat: what does chance alone do where an attack searches?

        z = x + eps u,   u uniform in the unit L_p ball;   entries that leave the domain are moved to its border

    for a ball; any other threat is asked for a point of its own (`Threat.sample`). In D dimensions |z - x|_p is eps U^(1/D)
    before clipping, so nearly eps for images. Always inside the threat.

    Raises:
        TypeError: the threat cannot be sampled.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x, noise = torch.full((2, 100), 0.5), UniformNoise(threat=Ball(norm=2, eps=0.3))
        >>> z = noise(None, x, torch.tensor([0, 1]), draws=derive(0, ids=[0, 1]))
        >>> noise.threat.contains(x, z).tolist(), (z - x).norm(dim=1).round(decimals=1).tolist()
        ([True, True], [0.30..., 0.30...])
    """

    telling = ("threat",)
    threat: Threat = Ball()

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        return self.threat.sample(x, draws)


class NormalNoise(Corruption, name="normal_noise"):
    """Gaussian noise about as long as the ball is wide, kept inside it: the white-noise control of an attack.

        z = project(x + std g),   g standard normal,   std = eps * `normal_scale(norm, D)`

    The scale makes half of the noises longer than eps (nearly exactly half for norms 1 and 2): those are projected onto the
    ball, the nearest point in L2, and so are all entries onto the domain. Always inside the threat.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x, noise = torch.full((2, 100), 0.5), NormalNoise(threat=Ball(norm=1, eps=2.0))
        >>> z = noise(None, x, torch.tensor([0, 1]), draws=derive(0, ids=[0, 1]))
        >>> noise.threat.contains(x, z).tolist()
        [True, True]
    """

    telling = ("threat",)
    threat: Ball = Ball()

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        std = self.threat.eps * normal_scale(self.threat.norm, x[0].numel())
        return self.threat.project(x, x + draws.normal(*x.shape[1:]).to(x.dtype) * std)


def normal_scale(norm: float, count: int) -> float:
    """The standard deviation at which white noise of `count` entries typically has length 1 in the L_p norm.

        p = 2:    1 / sqrt(D)                         then E |std g|_2^2 = 1
        p = 1:    sqrt(pi / 2) / D                    then E |std g|_1 = 1
        p = inf:  1 / t,  (2 Phi(t) - 1)^D = 1/2      then the median of |std g|_inf is 1

    Example:
        >>> normal_scale(2, 100), round(normal_scale(float("inf"), 3072), 4)
        (0.1, 0.2711)
    """
    if norm == 2:
        return 1 / math.sqrt(count)
    if norm == 1:
        return math.sqrt(math.pi / 2) / count
    return -1 / NormalDist().inv_cdf(-math.expm1(-math.log(2) / count) / 2)


class L2Noise(Corruption, name="l2_noise"):
    """White noise of just the given L2 norm in every sample: what does noise do that is as large as another perturbation?

        z = clip(x + t g, 0, 1),   g standard normal,   t such that |z - x|_2 = eps

    The norm holds after clipping too; t is found by bisection, from below. Only where clipping leaves no room (eps nears the distance
    to the corner of [0, 1]^D that g points to) is z the nearest thing to it.

    Arguments:
        eps: the L2 norm, in the units of x.

    Inputs have any shape, in [0, 1].

    Raises:
        DataError: an input lies outside [0, 1].

    Example:
        >>> from brinell.core.draws import derive
        >>> x = torch.zeros(2, 3, 32, 32)                       # half of the noise is cut off
        >>> z = L2Noise(eps=2.0)(None, x, torch.tensor([0, 1]), draws=derive(0, ids=[0, 1]))
        >>> (z - x).flatten(1).norm(dim=1)
        tensor([2., 2.])
    """

    telling = ("eps",)
    eps: float = Field(default=1.0, ge=0, allow_inf_nan=False)

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        low, high = torch.aminmax(x)
        if not bool((low >= 0) & (high <= 1)):
            raise DataError(f"{self.spec()} needs inputs in [0, 1]; they reach from {float(low):g} to {float(high):g}")
        return norms.stretch(x, draws.normal(*x.shape[1:]).to(x), self.eps)


class GaussianNoise(Graded, name="gaussian_noise"):
    """Gaussian noise on every pixel and channel, as of a sensor in low light.

        z = x + c g,   g standard normal;   c in units of the full range [0, 1]

    Each channel has noise of its own, also on grey images.

    References: `Graded`.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.full((1, 3, 32, 32), 0.5)
        >>> z = GaussianNoise(severity=5)(None, x, torch.tensor([0]), draws=derive(0, ids=[7]))
        >>> round((z - x).std().item(), 2)
        0.1
    """

    family = "noise"
    ladder: ClassVar[Ladder] = {
        "cifar": ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
        "tiny_imagenet": ((0.04,), (0.08,), (0.12,), (0.15,), (0.18,)),
        "imagenet": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        (std,) = parameters
        return x + draws.normal(*x.shape[1:], std=std).to(x.dtype)


class ShotNoise(Graded, name="shot_noise"):
    """Shot noise: light counted photon by photon, as in dim light; a bright pixel counts c photons on average.

        z = P(c x) / c,   P(m) a Poisson number of mean m;   so E z = x and Var z = x / c, before clipping

    Each channel counts photons of its own, also on grey images. An image of 8-bit levels meets only 256 means, whose laws are
    tabulated once (Walker's alias method, one 32-bit word a number); any other image is drawn number by number. Which of the
    two serves a sample depends on that sample alone.

    References: `Graded`; Walker (1977), "An Efficient Method for Generating Discrete Random Variables with General
        Distributions", ACM Transactions on Mathematical Software 3(3), https://doi.org/10.1145/355744.355749.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.full((1, 3, 128, 128), 51 / 255)
        >>> z = ShotNoise(severity=4, quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[7]))   # c = 5
        >>> round(z.mean().item(), 2), round(z.var().item(), 2), z.mul(5).round().unique().tolist()
        (0.2, 0.04, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    """

    family = "noise"
    ladder: ClassVar[Ladder] = {
        "cifar": ((500,), (250,), (100,), (75,), (50,)),
        "tiny_imagenet": ((250,), (100,), (50,), (30,), (15,)),
        "imagenet": ((60,), (25,), (12,), (5,), (3,)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        (photons,) = parameters
        level = (x * 255).round_()
        eight_bit = ((x * 255).sub_(level).abs_() < 1e-3).flatten(1).all(1)
        if bool(eight_bit.all()):
            return photon_counts(level.to(torch.int32), int(photons), draws).div_(photons).to(x.dtype)
        out, rest = torch.empty_like(x), ~eight_bit
        out[eight_bit] = photon_counts(level[eight_bit].to(torch.int32), int(photons), draws[eight_bit]).div_(photons).to(x.dtype)
        out[rest] = draws[rest].poisson(x[rest] * photons).div_(photons)
        return out


def photon_counts(level: Tensor, photons: int, draws: Draws) -> Tensor:
    """Poisson numbers of mean photons * level / 255, those above `photons` given as `photons`; float32, shaped as `level`.

    The high bits of a 32-bit word choose a column of the alias table, the low 22 bits one of the column's two numbers.

    Arguments:
        level: (n, *d) int32, 0 to 255. photons: 3 to 1023.
    """
    table = _alias_table(photons).to(level.device)
    columns = len(table) // 256
    shape, count = level.shape, level[0].numel() if len(level) else 0
    word = draws.words((count + 1) // 2).view(torch.int32)[:, :count]
    column = (word >> (33 - columns.bit_length())).bitwise_and_(columns - 1)
    entry = table.index_select(0, torch.add(column, level.reshape(column.shape), alpha=columns).flatten()).reshape(column.shape)
    other = entry & 1023
    return torch.where((word & _COIN) < entry.bitwise_right_shift_(10).bitwise_and_(_COIN), column, other).float().reshape(shape)


_COIN = (1 << 22) - 1


@lru_cache(maxsize=32)
def _alias_table(photons: int) -> Tensor:
    """For each of 256 levels some 2^k columns; an entry is the chance (times 2^22) of the column's own number and, in the low 10
    bits, the number that has the rest."""
    from scipy.special import gammainc, gammaln, xlogy

    mean = photons * np.arange(256)[:, None] / 255
    number = np.arange(photons + 1)
    chance = np.exp(xlogy(number, mean) - mean - gammaln(number + 1))
    chance[:, -1] = gammainc(photons, mean[:, 0])  # photons or more
    columns = 1 << photons.bit_length()
    table = np.zeros((256, columns), np.int64)
    for row, law in zip(table, chance, strict=True):
        share = np.zeros(columns)
        share[: photons + 1] = law / law.sum() * columns
        poor, rich = list(np.flatnonzero(share < 1)), list(np.flatnonzero(share >= 1))
        while poor and rich:
            low, high = poor.pop(), rich[-1]
            row[low] = (min(round(share[low] * (_COIN + 1)), _COIN) << 10) + high
            share[high] -= 1 - share[low]
            if share[high] < 1:
                poor.append(rich.pop())
        for left in poor + rich:  # a share of 1 but for rounding: whichever way the coin falls, its own number
            row[left] = (_COIN << 10) + left
    return torch.from_numpy(table.reshape(-1).astype(np.uint32).view(np.int32))


class ImpulseNoise(Graded, name="impulse_noise"):
    """Salt and pepper: broken elements of a sensor, each black or white whatever the light.

        z = 1 with chance c / 2,   0 with chance c / 2,   else x;   each pixel and channel on its own

    Each channel is hit on its own, so a pixel of a colour image may turn red, cyan, ...

    References: `Graded`; the form is `skimage.util.random_noise(mode="s&p")`, which the authors call.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.full((1, 3, 128, 128), 0.4)
        >>> z = ImpulseNoise(severity=5, quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[7]))
        >>> [round((z == value).float().mean().item(), 2) for value in (0, 1)]       # c = 0.27
        [0.1..., 0.1...]
    """

    family = "noise"
    ladder: ClassVar[Ladder] = {
        "cifar": ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
        "tiny_imagenet": ((0.01,), (0.02,), (0.05,), (0.08,), (0.14,)),
        "imagenet": ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        (share,) = parameters
        u = draws.uniform(*x.shape[1:])
        return x.masked_fill(u < share / 2, 0.0).masked_fill_(u > 1 - share / 2, 1.0)


class SpeckleNoise(Graded, name="speckle_noise"):
    """Speckle: noise in proportion to the light (a validation type of the benchmark: not one of the 15 that enter mCE).

        z = x + x c g,   g standard normal, one for each pixel and channel

    References: `Graded`.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.full((1, 3, 128, 128), 0.5)
        >>> z = SpeckleNoise(severity=1, quantize=False)(None, x, torch.tensor([0]), draws=derive(0, ids=[7]))   # c = 0.15
        >>> round((z - x).std().item(), 3)
        0.075
    """

    family, main = "noise", False
    ladder: ClassVar[Ladder] = {
        "cifar": ((0.06,), (0.10,), (0.12,), (0.16,), (0.20,)),
        "tiny_imagenet": ((0.15,), (0.20,), (0.25,), (0.30,), (0.35,)),
        "imagenet": ((0.15,), (0.20,), (0.35,), (0.45,), (0.60,)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        (share,) = parameters
        return draws.normal(*x.shape[1:], std=share).to(x.dtype).mul_(x).add_(x)
