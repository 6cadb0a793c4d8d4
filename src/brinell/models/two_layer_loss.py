"""Losses of two-layer learners and their gradients: on the whole population in closed form, and on samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from brinell.core.errors import DataError
from brinell.models.two_layer import Activation, checked_weights, two_layer
from brinell.models.two_layer_target import Target

_PAIR: dict[Activation, tuple[float, float]] = {"relu": (1 / (2 * math.pi), 0.25), "abs": (2 / math.pi, 0.0)}
"""Both kernels of a learner with itself are scale * (sqrt(1 - rho^2) + rho arcsin(rho)) + linear * rho."""
_BLOCK = 1 << 24
"""Hidden values held at once: what bounds the memory of gradients on samples."""


def even_kernel(rho: Tensor) -> Tensor:
    """sqrt(1 - rho^2) + rho arcsin(rho), the shape that all kernels here share; rho is cut to [-1, 1].

    Example:
        >>> even_kernel(torch.tensor([0.0, 1.0]))
        tensor([1.0000, 1.5708])
    """
    rho = rho.clamp(-1, 1)
    return (1 - rho * rho).sqrt() + rho * rho.asin()


def relu_kernel(rho: Tensor) -> Tensor:
    """E relu(u.x) relu(v.x) for unit u, v with cosine rho, x standard normal: (sqrt(1-rho^2) + rho (pi - arccos rho)) / (2 pi).

    References: Cho & Saul (2009), "Kernel methods for deep learning", NeurIPS, equation (6) with n = 1 (times 1/2).

    Example:
        >>> relu_kernel(torch.tensor([1.0, 0.0, -1.0]))
        tensor([0.5000, 0.1592, 0.0000])
    """
    return pair_kernel(rho, "relu")


def cross_kernel(rho: Tensor) -> Tensor:
    """E act(u.x) |v.x| for act = relu: (sqrt(1-rho^2) + rho arcsin rho) / pi. For act = abs it is twice this.

    Example:
        >>> cross_kernel(torch.tensor([1.0, 0.0, -1.0]))
        tensor([0.5000, 0.3183, 0.5000])
    """
    return even_kernel(rho) / math.pi


def abs_kernel(rho: Tensor) -> Tensor:
    """E |u.x| |v.x|: (2/pi) (sqrt(1-rho^2) + rho arcsin rho).

    Example:
        >>> abs_kernel(torch.tensor([1.0, 0.0]))
        tensor([1.0000, 0.6366])
    """
    return pair_kernel(rho, "abs")


def pair_kernel(rho: Tensor, activation: Activation) -> Tensor:
    """E act(u.x) act(v.x): `relu_kernel` or `abs_kernel`."""
    scale, linear = _PAIR[activation]
    return scale * even_kernel(rho) + linear * rho.clamp(-1, 1)


def population_loss(w: Tensor, target: Target, activation: Activation = "relu") -> Tensor:
    """L(W) = E (f_W(x) - f*(x))^2 over standard normal x, exactly: no test set.

        L = (1/m^2) sum_ij r_i r_j k(u_i.u_j) - (2/m) sum_ij r_i a_j kx(u_i.w*_j) + (2/pi) (sum a)^2 + (1 - 2/pi) sum a^2

    with r_i = ||w_i||^2, u_i = w_i / ||w_i||, and k, kx = `relu_kernel`, `cross_kernel`, or `abs_kernel` twice. Computed and returned in
    float64, whatever the weights have; a value of exactly 0 may come out as +-1e-15. All zero weights give E f*^2.

    Arguments:
        w: (..., m, d).

    Returns: (...) float64.

    Raises:
        NetworkError: w is no set of weights. DataError: it does not have the target's dimension.

    References: Li, Ma & Zhang (2020), https://arxiv.org/abs/2007.04596 (loss, section 2); the closed form follows from the
        arc-cosine kernels of Cho & Saul (2009).

    Example:
        >>> from brinell.models.two_layer import ground_truth
        >>> from brinell.models.two_layer_target import uniform_target
        >>> target = uniform_target(5)
        >>> abs(float(population_loss(ground_truth(target), target))) < 1e-14
        True
    """
    r, _, u, cos = _polar(_fitting(w, target, activation).double(), target.to(torch.float64))
    a, m, twice = target.weights.double(), w.shape[-2], 2 if activation == "abs" else 1
    own = (r * (pair_kernel(u @ u.mT, activation) @ r[..., None])[..., 0]).sum(-1) / m**2
    shared = (r * (twice * cross_kernel(cos) @ a)).sum(-1) / m
    return own - 2 * shared + 2 / math.pi * a.sum() ** 2 + (1 - 2 / math.pi) * a.square().sum()


def population_gradient(w: Tensor, target: Target, activation: Activation = "relu") -> Tensor:
    """The mean-field gradient m dL/dw_i of `population_loss`, (..., m, d), in the precision of w; 0 for a neuron that is 0.

        4 w_i A_i + 2 ||w_i|| sum_j B_ij (u_j - rho_ij u_i) - 4 w_i (kx a)_i - 2 ||w_i|| sum_j kx'_ij a_j (w*_j - u_ij u_i)
        A_i = (1/m) sum_j r_j k(rho_ij),      B_ij = r_j k'(rho_ij) / m

    Derivatives of the kernels are written out: automatic differentiation through arccos is infinite at rho = +-1.

    Raises:
        NetworkError, DataError: as in `population_loss`.

    Example:
        >>> from brinell.models.two_layer_target import uniform_target
        >>> population_gradient(torch.zeros(2, 3), uniform_target(3).to(torch.float32)).abs().max()
        tensor(0.)
    """
    target = target.to(_fitting(w, target, activation).dtype)
    r, n, u, cos = _polar(w, target)
    scale, linear = _PAIR[activation]
    a, share, outer = target.weights, r / w.shape[-2], (2 if activation == "abs" else 1) / math.pi
    rho = (u @ u.mT).clamp_(-1, 1)
    slope = rho.asin()  # k' = scale * slope + linear
    turn = scale * (slope @ (share[..., None] * u)) + linear * (share[..., None] * u).sum(-2, keepdim=True)
    bend = _sine(rho).add_(rho.mul_(slope), alpha=0.5)  # of 4 A_i - 2 sum_j B_ij rho_ij
    along = 4 * scale * (bend @ share[..., None]) + 2 * linear * (u * (share[..., None] * u).sum(-2, keepdim=True)).sum(-1, keepdim=True)
    pull = cos.asin()
    along = along - 4 * outer * ((0.5 * cos * pull + _sine(cos)) @ a)[..., None]
    return w * along + 2 * n * (turn - outer * (pull * a) @ target.directions)


def sample_loss(w: Tensor, x: Tensor, y: Tensor, activation: Activation = "relu") -> Tensor:
    """(1/N) sum_n (f_W(x_n) - y_n)^2, without a factor 1/2.

    Arguments:
        w: (..., m, d). x: (..., N, d). y: (..., N).

    Returns: (...).

    Raises:
        DataError: no samples, or x and y that do not fit.

    Example:
        >>> sample_loss(torch.zeros(2, 3), torch.ones(4, 3), torch.full((4,), 2.0))
        tensor(4.)
    """
    _samples(x, y)
    parts = [(two_layer(xs, w, activation) - ys).square().sum(-1) for xs, ys in _blocks(w, x, y)]
    return torch.stack(parts).sum(0) / x.shape[-2]


def sample_gradient(w: Tensor, x: Tensor, y: Tensor, activation: Activation = "relu") -> Tensor:
    """The mean-field gradient m dL/dw_i of `sample_loss`, (..., m, d); act'(0) = 0, and 0 for a neuron that is 0.

        g_i = (2/N) sum_n (f(x_n) - y_n) act'(w_i.x_n) x_n,      gradient_i = ||w_i|| g_i + u_i (w_i.g_i)

    Samples pass in blocks, so memory does not grow with N.

    Raises:
        DataError: as in `sample_loss`.

    Example:
        >>> sample_gradient(torch.tensor([[1.0]]), torch.tensor([[1.0]]), torch.tensor([3.0]))
        tensor([[-8.]])
    """
    _samples(x, y)
    checked_weights(w, activation)
    n = w.norm(dim=-1, keepdim=True)
    g = torch.zeros_like(w)
    for xs, ys in _blocks(w, x, y):
        hidden = xs @ w.mT
        slope = (hidden > 0).to(w.dtype) if activation == "relu" else hidden.sign()
        error = (hidden.mul_(slope) @ (n / w.shape[-2]))[..., 0] - ys
        g += slope.mul_(error[..., None]).mT @ xs
    g *= 2 / x.shape[-2]
    return n * g + _unit(w, n) * (w * g).sum(-1, keepdim=True)


def _polar(w: Tensor, target: Target) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Squared norms (..., m), norms (..., m, 1), unit neurons, and their cosines with the target's directions."""
    n = w.norm(dim=-1, keepdim=True)
    u = _unit(w, n)
    return n[..., 0].square(), n, u, (u @ target.directions.mT).clamp_(-1, 1)


def _unit(w: Tensor, n: Tensor) -> Tensor:
    return w / n.clamp(min=torch.finfo(w.dtype).tiny)


def _sine(rho: Tensor) -> Tensor:
    return (1 - rho * rho).clamp_(min=0).sqrt_()


def _fitting(w: Tensor, target: Target, activation: str) -> Tensor:
    if checked_weights(w, activation).shape[-1] != target.directions.shape[1]:
        raise DataError(f"neurons {tuple(w.shape)} do not fit a target in {target.directions.shape[1]} dimensions")
    return w


def _samples(x: Tensor, y: Tensor) -> None:
    if x.ndim < 2 or x.shape[-2] < 1 or y.shape[-1:] != x.shape[-2:-1]:
        raise DataError(f"samples need x (..., N, d) and y (..., N) with N >= 1; got {tuple(x.shape)} and {tuple(y.shape)}")


def _blocks(w: Tensor, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    rows = max(1, _BLOCK // max(1, math.prod(w.shape[:-1])))
    return [(x[..., at : at + rows, :], y[..., at : at + rows]) for at in range(0, x.shape[-2], rows)]
