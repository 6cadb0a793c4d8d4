"""Noise: chance within a threat, the control every attack is compared with, and the noises of cameras."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, ClassVar

from torch import Tensor

from brinell.core.draws import Draws
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

    ladder: ClassVar[Ladder] = {
        "cifar": ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
        "tiny_imagenet": ((0.04,), (0.08,), (0.12,), (0.15,), (0.18,)),
        "imagenet": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    }

    def corrupt(self, x: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
        (std,) = parameters
        return x + draws.normal(*x.shape[1:], std=std).to(x.dtype)
