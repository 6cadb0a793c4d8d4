"""Untrained Gaussian ReLU networks without biases, and what is known exactly of them at every finite width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from brinell.core.draws import Draws
from brinell.core.network import Architecture
from brinell.models.random_ensemble import Variance, fan_in_scales
from brinell.models.shapes import features


class RandomReLU(Architecture, name="random_relu"):
    """A fully connected ReLU network without biases whose weights are Gaussian: the object of theorems about untrained networks.

        logits = W_{L+1} relu(W_L ... relu(W_1 x)),      W_i[a, b] ~ N(0, s_i / d_{i-1})

    The input is flattened. Being positively homogeneous, it answers c x as x for every c > 0. It can be trained like any other.

    Arguments:
        widths: d_1, ..., d_L of the hidden layers; () gives a linear network.
        variance: s_i = 2 in the hidden layers (`he`) or 1 (`paper`); the readout has 1. Relative steps and flip rates of an untrained
            network are the same for both, but `paper` shrinks the output by 2^(-L/2).

    References: Bartlett, Bubeck & Cherapanamjeri (2021), "Adversarial examples in multi-layer random ReLU networks", NeurIPS, arXiv
        2106.12611. He, Zhang, Ren & Sun (2015), "Delving deep into rectifiers", arXiv 1502.01852, equation 10.

    Example:
        >>> [tuple(p.shape) for p in RandomReLU(widths=(128, 32)).build((1, 8, 8), 10).parameters()]
        [(128, 64), (32, 128), (10, 32)]
    """

    widths: tuple[Annotated[int, Field(ge=1, le=1 << 20)], ...] = (128,)
    variance: Variance = "he"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        scales = fan_in_scales(len(self.widths), self.variance)
        layers: list[nn.Module] = [nn.Flatten()]
        for place, (inputs, outputs) in enumerate(pairwise((features(shape), *self.widths, classes))):
            layer = nn.Linear(inputs, outputs, bias=False)
            nn.init.normal_(layer.weight, std=math.sqrt(scales[place] / inputs))
            layers += [nn.ReLU(), layer] if place else [layer]
        return nn.Sequential(*layers)


def second_moment(layers: int, variance: Variance = "paper") -> float:
    """E f(x)^2 = E |grad f(x)|^2 at |x|^2 = d, over the weights, at any widths: 2^-L for s_i = 1, and 1 for He's variance.

    Example:
        >>> second_moment(3), second_moment(3, "he")
        (0.125, 1.0)
    """
    return math.prod(scale / 2 for scale in fan_in_scales(layers, variance)[:-1])


def kurtosis(widths: Sequence[int]) -> float:
    """E f^4 / (E f^2)^2 = 3 prod_i (1 + 5 / d_i) over the hidden layers; 3 is that of a Gaussian.

    Arguments:
        widths: of the input and the hidden layers.

    Example:
        >>> round(kurtosis((7, 10, 20)), 9)
        5.625
    """
    return 3 * math.prod(1 + 5 / width for width in widths[1:])


def dead_probability(widths: Sequence[int]) -> float:
    """P(some hidden layer is silent at x), when f and its gradient are 0 there: 1 - prod_i (1 - 2^-d_i).

    Arguments:
        widths: of the input and the hidden layers.

    Example:
        >>> round(dead_probability((8, 6, 12, 5)), 5)
        0.04662
    """
    return 1 - math.prod(1 - 2.0**-width for width in widths[1:])


def output_law(widths: Sequence[int], draws: Draws, variance: Variance = "paper") -> Tensor:
    """f(x) at |x|^2 = d for each row of draws, from its exact law and without a network: (n,) float64.

        q_0 = 1,   q_i = q_{i-1} s_i chi2(B_i) / d_i,   B_i ~ Bin(d_i, 1/2),   f | q_L ~ N(0, q_L)

    Example:
        >>> from brinell.core.draws import derive
        >>> output_law((8, 1000), derive(0, "doc", ids=range(3))).shape
        torch.Size([3])
    """
    scales = fan_in_scales(len(widths) - 1, variance)
    q = torch.ones(len(draws), dtype=torch.float64)
    for layer, width in enumerate(widths[1:]):
        own = draws.at("law", layer)
        active = (own.signs(width) > 0).sum(1)
        q = q * scales[layer] * chi_squared(active, own) / width
    return q.sqrt() * draws.at("law", "readout").normal(1, dtype=torch.float64)[:, 0]


def chi_squared(freedom: Tensor, draws: Draws) -> Tensor:
    """A chi-squared number for each row of draws, by inversion of its distribution function: (n,) float64.

    Arguments:
        freedom: (n,) degrees of freedom, at least 0, of which 0 always gives 0.
    """
    from scipy.special import gammaincinv

    half = freedom.double().cpu() / 2
    u = draws.uniform(1, dtype=torch.float64)[:, 0].cpu()
    found = torch.from_numpy(2 * gammaincinv(half.clamp(min=0.5).numpy(), u.numpy()))
    return torch.where(half > 0, found, 0.0).to(draws.device)
