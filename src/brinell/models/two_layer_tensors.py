"""The loss of a two-layer learner order by order: which tensor of the target it has learnt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from brinell.core.errors import DataError
from brinell.models.two_layer import OUTPUT_SCALE, Activation, checked_weights
from brinell.models.two_layer_target import Target, hermite_coefficient


def tensor_errors(w: Tensor, target: Target, orders: Sequence[int] = (0, 2, 4, 6), activation: Activation = "relu") -> Tensor:
    """T_k = || alpha M_k - sum_j a_j w*_j^{(k)} ||_F^2 with M_k = (1/m) sum_i ||w_i||^2 u_i^{(k)}: the error in the k-th moment tensor.

        T_k = (alpha/m)^2 sum_ij r_i r_j rho_ij^k - (2 alpha/m) sum_ij r_i a_j u_ij^k + sum_jl a_j a_l (w*_j.w*_l)^k

    alpha is 1/2 for relu and 1 for abs; the last term is (sum a)^2 for k = 0 and sum a^2 otherwise. L = `linear_error` + sum over
    even k of c_k T_k, with c_k = `hermite_coefficient(k)`. Rounding may leave -1e-16 where the answer is 0.

    Arguments:
        w: (..., m, d). orders: even k >= 0.

    Returns: (..., len(orders)) float64.

    Raises:
        DataError: an odd or negative order, which |t| does not have.

    References: Li, Ma & Zhang (2020), "Learning over-parametrized two-layer ReLU neural networks beyond NTK", COLT,
        https://arxiv.org/abs/2007.04596, equation (4).

    Departures: the paper's equation leaves out the factor alpha of a ReLU learner, and its linear term.

    Example:
        >>> from brinell.models.two_layer_target import uniform_target
        >>> tensor_errors(torch.zeros(3, 2), uniform_target(2), (0, 2)).tolist()
        [1.0, 0.5]
    """
    if any(k < 0 or k % 2 for k in orders):
        raise DataError(f"tensor orders {tuple(orders)}: |t| has the even ones 0, 2, 4, ... alone")
    target = target.to(torch.float64)
    r, _, rho, cos = _cosines(w, target, activation)
    alpha, a = OUTPUT_SCALE[activation], target.weights
    share = (alpha / w.shape[-2]) * r
    found = []
    for k in orders:
        own = (share * (rho**k @ share[..., None])[..., 0]).sum(-1)
        both = (share * (cos**k @ a)).sum(-1)
        found.append(own - 2 * both + (a.sum().square() if k == 0 else a.square().sum()))
    return torch.stack(found, -1)


def linear_error(w: Tensor, activation: Activation = "relu") -> Tensor:
    """The part of the loss of order 1: (1/4) || (1/m) sum_i ||w_i|| w_i ||^2 for relu, 0 for abs. (...) float64.

    Example:
        >>> linear_error(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item()
        0.0
    """
    double = checked_weights(w, activation).double()
    mean = (double * double.norm(dim=-1, keepdim=True)).mean(-2)
    return mean.square().sum(-1) * (0.25 if activation == "relu" else 0.0)


def series_loss(w: Tensor, target: Target, order: int, activation: Activation = "relu") -> Tensor:
    """The loss up to a Hermite order: `linear_error` + sum over even k <= order of c_k T_k. It rises to `population_loss`.

    The rest lies between 0 and (alpha/m sum r + sum a)^2 times the sum of c_k over k > order, which is what `series_gap` returns.

    Example:
        >>> from brinell.models.two_layer_target import uniform_target
        >>> round(float(series_loss(torch.zeros(3, 2), uniform_target(2), 2)), 4)
        0.7958
    """
    orders = tuple(range(0, order + 1, 2))
    c = torch.tensor([hermite_coefficient(k) for k in orders], dtype=torch.float64, device=w.device)
    return linear_error(w, activation) + tensor_errors(w, target, orders, activation) @ c


def series_gap(w: Tensor, target: Target, order: int, activation: Activation = "relu") -> Tensor:
    """The most that orders above `order` can add to the loss: (alpha/m sum_i r_i + sum_j a_j)^2 (1 - sum over k <= order of c_k).

    Example:
        >>> from brinell.models.two_layer_target import uniform_target
        >>> round(float(series_gap(torch.zeros(3, 2), uniform_target(2), 2)), 4)
        0.0451
    """
    r = checked_weights(w, activation).double().square().sum(-1)
    mass = OUTPUT_SCALE[activation] * r.mean(-1) + target.weights.double().sum()
    return mass.square() * (1 - sum(hermite_coefficient(k) for k in range(0, order + 1, 2)))


def moment_errors(w: Tensor, target: Target, activation: Activation = "relu") -> tuple[Tensor, Tensor]:
    """How far (1/m) sum w w^T, times alpha, is from sum_j a_j w*_j w*_j^T: its trace, and its largest eigenvalue by size.

    Returns: two (...) float64 tensors of absolute errors.

    References: Li, Ma & Zhang (2020), https://arxiv.org/abs/2007.04596, section 4: the error of order 0 stays below the largest of order 2.

    Example:
        >>> from brinell.models.two_layer_target import uniform_target
        >>> trace, largest = moment_errors(torch.zeros(3, 2), uniform_target(2))
        >>> trace.item(), largest.item()
        (1.0, 0.5)
    """
    double, target = checked_weights(w, activation).double(), target.to(torch.float64)
    wanted = target.directions.mT @ (target.weights[:, None] * target.directions)
    off = OUTPUT_SCALE[activation] * (double.mT @ double) / w.shape[-2] - wanted
    return off.diagonal(dim1=-2, dim2=-1).sum(-1).abs(), torch.linalg.eigvalsh(off).abs().amax(-1)


def recovered_mass(w: Tensor, target: Target, above: float = 0.95, activation: Activation = "relu") -> Tensor:
    """The share of sum ||w_i||^2 that lies in neurons within a cosine `above` of some +- w*_j; 0 where all neurons are 0. (...) float64.

    Example:
        >>> from brinell.models.two_layer_target import uniform_target
        >>> recovered_mass(torch.tensor([[3.0, 0.0], [1.0, 1.0]]), uniform_target(2)).item()
        0.818...
    """
    r, _, _, cos = _cosines(w, target.to(torch.float64), activation)
    close = cos.abs().amax(-1) > above
    return (r * close).sum(-1) / r.sum(-1).clamp(min=torch.finfo(torch.float64).tiny)


def _cosines(w: Tensor, target: Target, activation: Activation) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    double = checked_weights(w, activation).double()
    if w.shape[-1] != target.directions.shape[1]:
        raise DataError(f"neurons {tuple(w.shape)} do not fit a target in {target.directions.shape[1]} dimensions")
    n = double.norm(dim=-1)
    u = double / n.clamp(min=torch.finfo(torch.float64).tiny)[..., None]
    return n.square(), u, (u @ u.mT).clamp(-1, 1), (u @ target.directions.mT).clamp(-1, 1)
