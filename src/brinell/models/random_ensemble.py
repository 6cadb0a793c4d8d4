"""Ensembles: n random networks of one architecture, evaluated as one batch with their weights stacked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from brinell.core.draws import Draws, derive
from brinell.core.errors import NetworkError

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "relu": F.relu, "tanh": torch.tanh, "sin": torch.sin, "softplus": F.softplus, "erf": torch.erf, "abs": torch.abs,
    "identity": lambda t: t,
}  # fmt: skip
"""Activations by name; anywhere one is asked for, any element-wise function on tensors may be given instead."""

Variance = Literal["he", "paper"]
"""Of the hidden weights: 2 / fan_in (`he`, keeps the scale through ReLU) or 1 / fan_in (`paper`). The readout has 1 / fan_in."""

BUDGET = 1 << 30
"""Bytes that one chunk of an ensemble may take: its weights, what drawing them needs, and the points evaluated at once."""


def activation_of(activation: str | Activation) -> Activation:
    """The function of a name, or the function itself.

    Raises:
        NetworkError: no activation has this name.
    """
    if callable(activation):
        return activation
    if activation not in ACTIVATIONS:
        raise NetworkError(f"no activation is called {activation!r}; there are {', '.join(ACTIVATIONS)}, or give a function on tensors")
    return ACTIVATIONS[activation]


class Ensemble:
    """n networks without biases, one batch of inputs each: f_i(x) = w_i psi(W_iL psi(... psi(W_i1 x))), a number.

    Hidden layers are batched matrix products in the dtype of the weights; the readout is summed in float64, since f is a small
    difference of large numbers near its zeros.

    Arguments:
        weights: per layer (n, out, in), the last with out = 1; one layer alone is a linear function.
        activation: a name of `ACTIVATIONS`, or an element-wise function.

    Raises:
        NetworkError: the shapes do not follow one another.

    Example:
        >>> nets = Ensemble([torch.tensor([[[1.0], [-1.0]]]), torch.tensor([[[2.0, 3.0]]])])
        >>> nets(torch.tensor([[[5.0], [-1.0]]]))     # one network, two points of one number
        tensor([[10.,  3.]], dtype=torch.float64)
    """

    def __init__(self, weights: Sequence[Tensor], activation: str | Activation = "relu") -> None:
        self.weights, self.activation = tuple(weights), activation_of(activation)
        shapes = [tuple(w.shape) for w in self.weights]
        chained = bool(shapes) and all(len(shape) == 3 and shape[0] == shapes[0][0] for shape in shapes)
        if not chained or any(a[1] != b[2] for a, b in pairwise(shapes)) or shapes[-1][1] != 1:
            raise NetworkError(f"an ensemble needs weights (n, out, in), layer after layer, the last with out = 1; got {shapes}")

    def __len__(self) -> int:
        return len(self.weights[0])

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the input and of each hidden layer."""
        return tuple(w.shape[2] for w in self.weights)

    def __call__(self, x: Tensor) -> Tensor:
        """(n, m) float64 values at m points of every network, (n, m, d)."""
        h = x
        for w in self.weights[:-1]:
            h = self.activation(torch.bmm(h, w.mT))
        return torch.bmm(h.double(), self.weights[-1].double().mT)[..., 0]

    def hidden(self, x: Tensor) -> list[Tensor]:
        """The activations of each hidden layer, (n, m, width), at points (n, m, d)."""
        found: list[Tensor] = []
        for w in self.weights[:-1]:
            found.append(self.activation(torch.bmm(found[-1] if found else x, w.mT)))
        return found

    def jacobians(self, x: Tensor) -> list[Tensor]:
        """d h_i / d x of each hidden layer at one point of every network, (n, d) in: (n, width, d) each, by explicit products."""
        found: list[Tensor] = []
        h = x[:, None]
        for w in self.weights[:-1]:
            z = torch.bmm(h, w.mT).detach().requires_grad_()
            with torch.enable_grad():
                h = self.activation(z)
                (slope,) = torch.autograd.grad(h.sum(), z)
            h = h.detach()
            found.append(slope.mT * (torch.bmm(w, found[-1]) if found else w))
        return found

    def to(self, where: torch.dtype | torch.device | str) -> Ensemble:
        """The same networks in another dtype or on another device."""
        return Ensemble([w.to(where) for w in self.weights], self.activation)


def fan_in_scales(layers: int, variance: Variance) -> list[float]:
    """s_i of the weights' variance s_i / fan_in, layer by layer, the readout (always 1) included."""
    if variance not in ("he", "paper"):
        raise NetworkError(f"variance={variance!r} is neither 'he' (2 / fan_in) nor 'paper' (1 / fan_in)")
    return [2.0 if variance == "he" else 1.0] * layers + [1.0]


def gaussian(
    widths: Sequence[int], draws: Draws, *, variance: Variance = "he", activation: str | Activation = "relu",
    dtype: torch.dtype = torch.float32,
) -> Ensemble:  # fmt: skip
    """A Gaussian network for each row of draws: W_i[a, b] ~ N(0, s_i / d_{i-1}), independent, no biases, one output.

    Arguments:
        widths: d_0 of the input, d_1, ..., d_L of the hidden layers; (d,) alone gives linear functions.
        variance: s_i = 1 in all layers (`paper`), or 2 in the hidden ones (`he`). dtype: float32 or float64, which are other numbers.

    Raises:
        NetworkError: a width is below 1, or the variance has no such name.

    References: Bartlett, Bubeck & Cherapanamjeri (2021), arXiv 2106.12611 (Gaussian and independent; that the variance is 1 / fan_in
        was not found in what was read of it). He, Zhang, Ren & Sun (2015), arXiv 1502.01852.

    Example:
        >>> nets = gaussian((16, 32, 8), derive(0, "doc", ids=range(5)))
        >>> nets(torch.ones(5, 3, 16)).shape
        torch.Size([5, 3])
    """
    sizes = _checked(widths)
    scales = fan_in_scales(len(sizes) - 1, variance)
    weights = []
    for layer, (inputs, outputs) in enumerate(pairwise((*sizes, 1))):
        own = draws.at("layer", layer)
        weights.append(own.normal(outputs, inputs, std=math.sqrt(scales[layer] / inputs), dtype=dtype))
    return Ensemble(weights, activation)


def two_layer(
    d: int, k: int, draws: Draws, *, activation: str | Activation = "relu", dtype: torch.dtype = torch.float32
) -> Ensemble:  # fmt: skip
    """f(x) = k^-1/2 sum_l a_l psi(w_l . x) for each row of draws: w_l ~ N(0, I / d), a_l = -1 or 1, all independent.

    References: Bubeck, Cherapanamjeri, Gidel & Tachet des Combes (2021), "A single gradient step finds adversarial examples on random
        two-layers neural networks", arXiv 2104.03863, section 1.

    Raises:
        NetworkError: d or k is below 1.

    Example:
        >>> two_layer(4, 6, derive(0, "doc", ids=[0]), activation="tanh").widths
        (4, 6)
    """
    _checked((d, k))
    first = draws.at("layer", 0).normal(k, d, std=d**-0.5, dtype=dtype)
    return Ensemble([first, draws.at("layer", 1).signs(1, k, dtype=dtype) / math.sqrt(k)], activation)


def inputs(d: int, draws: Draws, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """One point for each row of draws, uniform on the sphere of radius sqrt(d): (n, d)."""
    x = draws.at("input").normal(d, dtype=torch.float64)
    return (x * (math.sqrt(d) / x.norm(dim=1, keepdim=True))).to(dtype)


def bytes_each(widths: Sequence[int], points: int = 1, dtype: torch.dtype = torch.float32) -> int:
    """What one network of a chunk takes at most: weights, the drawing of the largest layer, and `points` points on their way through."""
    sizes = [*_checked(widths), 1]
    layers = [a * b for a, b in pairwise(sizes)]
    flowing = points * (4 * max(sizes) * dtype.itemsize + 16 * sizes[-2])  # two layers and their gradients; the readout in float64
    return (sum(layers) + 4 * max(layers)) * dtype.itemsize + 8 * layers[-1] + flowing + sum(sizes) * 8


def chunks(
    widths: Sequence[int], count: int, *, seed: int, path: str, start: int = 0, points: int = 1, budget: int = BUDGET,
    dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu",
) -> Iterator[Draws]:  # fmt: skip
    """The draws of networks start, ..., count - 1, as many at a time as fit into `budget` bytes: memory is bounded for any count.

    Network i depends on (seed, path, i) alone, not on the chunk it is in.

    Arguments:
        points: how many points of each network are evaluated at once.

    Raises:
        NetworkError: one network alone needs more than the budget.

    Example:
        >>> [len(draws) for draws in chunks((64, 128), 100, seed=0, path="doc", budget=2_000_000)]
        [11, 11, 11, 11, 11, 11, 11, 11, 11, 1]
    """
    each = bytes_each(widths, points, dtype)
    tall = budget // each
    if tall < 1:
        raise NetworkError(
            f"a network of widths {tuple(widths)} with {points} points needs {each:,} bytes, more than the budget of {budget:,}; "
            "raise the budget or evaluate fewer points at once"
        )
    for at in range(start, count, tall):
        yield derive(seed, path, ids=range(at, min(at + tall, count)), device=device)


def _checked(widths: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(widths)
    if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        raise NetworkError(f"widths={sizes} must be whole numbers of at least 1: the input's, then those of the hidden layers")
    return sizes
