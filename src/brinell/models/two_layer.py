"""Two-layer networks whose output weights are the norms of their neurons: the learner of "beyond NTK"."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from brinell.core.draws import Draws
from brinell.core.errors import NetworkError
from brinell.core.network import Architecture
from brinell.models.shapes import features
from brinell.models.two_layer_target import Target

Activation = Literal["relu", "abs"]
"""relu(t), or |t| = relu(t) + relu(-t)."""

OUTPUT_SCALE: dict[Activation, float] = {"relu": 0.5, "abs": 1.0}
"""alpha: the even part of the activation is alpha |t|, so (1/m) sum w w^T must reach sum_j a_j w*_j w*_j^T / alpha."""


def two_layer(x: Tensor, w: Tensor, activation: Activation = "relu") -> Tensor:
    """f_W(x) = (1/m) sum_i ||w_i|| act(w_i . x).

    Arguments:
        x: (..., n, d). w: (..., m, d) neurons; leading dimensions are those of an ensemble.

    Returns: (..., n).

    Raises:
        NetworkError: the shapes do not fit, or the activation is neither relu nor abs.

    References: Li, Ma & Zhang (2020), "Learning over-parametrized two-layer ReLU neural networks beyond NTK", COLT,
        https://arxiv.org/abs/2007.04596, section 2.

    Example:
        >>> two_layer(torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, 4.0], [-1.0, 0.0]])).tolist()
        [17.5]
    """
    checked_weights(w, activation)
    if x.ndim < 2 or x.shape[-1] != w.shape[-1]:
        raise NetworkError(f"two_layer needs inputs (..., n, {w.shape[-1]}) for neurons {tuple(w.shape)}; got {tuple(x.shape)}")
    hidden = x @ w.mT
    out = (hidden.relu() if activation == "relu" else hidden.abs()) @ (w.norm(dim=-1, keepdim=True) / w.shape[-2])
    return out[..., 0]


def checked_weights(w: Tensor, activation: str) -> Tensor:
    """The weights themselves, if they are some of a two-layer network.

    Raises:
        NetworkError: they are not (..., m, d) floating-point numbers with m, d >= 1, or there is no such activation.
    """
    if activation not in OUTPUT_SCALE:
        raise NetworkError(f"activation={activation!r} of a two-layer network; use one of {', '.join(OUTPUT_SCALE)}")
    if w.ndim < 2 or 0 in w.shape or not w.is_floating_point():
        raise NetworkError(f"a two-layer network needs floating-point weights (..., m, d), m, d >= 1; got {tuple(w.shape)} of {w.dtype}")
    return w


def initial_neurons(width: int, d: int, *, draws: Draws, dtype: torch.dtype = torch.float32) -> Tensor:
    """w_i ~ N(0, I_d / d) for an ensemble with one member per row of `draws`: (len(draws), width, d).

    Raises:
        NetworkError: width or d below 1.

    Example:
        >>> from brinell.core.draws import derive
        >>> initial_neurons(4, 3, draws=derive(0, "init", ids=[0, 1])).shape
        torch.Size([2, 4, 3])
    """
    if width < 1 or d < 1:
        raise NetworkError(f"initial_neurons: width={width}, d={d}; give at least 1")
    return draws.normal(width, d, std=d**-0.5, dtype=dtype)


def ground_truth(target: Target, activation: Activation = "relu") -> Tensor:
    """Neurons whose network is the target itself: +- sqrt(m a_j) w*_j with m = 2k for relu, sqrt(m a_j) w*_j with m = k for abs.

    Example:
        >>> w = ground_truth(Target(torch.eye(2), torch.tensor([0.25, 0.75])))
        >>> two_layer(torch.tensor([[2.0, -1.0]]), w).tolist()
        [1.25]
    """
    m = len(target.weights) * (2 if activation == "relu" else 1)
    neurons = target.directions * (m * target.weights).sqrt()[:, None]
    return checked_weights(torch.cat((neurons, -neurons)) if activation == "relu" else neurons, activation)


class TiedTwoLayer(nn.Module):
    """The module of `two_layer`: (n, *shape) inputs to (n, K) outputs, one set of neurons per output.

    Arguments:
        neurons: (K, m, d), copied.
    """

    def __init__(self, neurons: Tensor, activation: Activation = "relu") -> None:
        super().__init__()
        self.neurons, self.activation = nn.Parameter(checked_weights(neurons, activation).detach().clone()), activation

    def forward(self, x: Tensor) -> Tensor:
        outputs, width, d = self.neurons.shape
        hidden = (x.flatten(1) @ self.neurons.reshape(-1, d).mT).reshape(-1, outputs, width)
        active = hidden.relu() if self.activation == "relu" else hidden.abs()
        return (active * self.neurons.norm(dim=-1)).mean(-1)


class TwoLayer(Architecture, name="two_layer"):
    """Two layers with one set of parameters: the output weight of a neuron is its norm over the width.

        f_k(x) = (1/m) sum_i ||w_ki|| act(w_ki . x),      w_ki ~ N(0, I_d / d)      (x flattened)

    Outputs are not negative and grow with the square of the weights; the learner of the paper is the case of one output. As a
    classifier each class has m neurons of its own.

    Arguments:
        width: m, neurons per output. activation: relu, or abs for |t| as in the paper's simulations.

    References: Li, Ma & Zhang (2020), "Learning over-parametrized two-layer ReLU neural networks beyond NTK", COLT,
        https://arxiv.org/abs/2007.04596, section 2 and algorithm 1 (initialisation).

    Example:
        >>> [tuple(p.shape) for p in TwoLayer(width=100).build((1, 8, 8), 10).parameters()]
        [(10, 100, 64)]
    """

    width: int = Field(100, ge=1, le=1 << 20)
    activation: Activation = "relu"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        d = features(shape)
        return TiedTwoLayer(torch.randn(classes, self.width, d) / d**0.5, self.activation)
