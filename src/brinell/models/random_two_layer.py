"""Random two-layer networks with any activation: what one gradient step does to them, for any width and dimension at O(k) cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.errors import NetworkError
from brinell.models.random_ensemble import Activation, activation_of
from brinell.models.random_relu import chi_squared

BLOCK = 1 << 20
"""Hidden units, times networks, that the reduced sampler holds at a time."""


@dataclass(frozen=True)
class Moments:
    """A = E psi(Z)^2, D = E psi'(Z)^2 and D2 = E psi'(Z)^2 Z^2 of a standard normal Z.

    At |x|^2 = d, a two-layer network has E f^2 = A and E |grad f|^2 = ((d - 1) D + D2) / d, for every k and d.
    """

    A: float
    D: float
    D2: float

    def flip_rate(self, step: float) -> float:
        """P(x - C sign(f) grad f has the other sign) = erf(C D / sqrt(2 A)) as d and k grow, for the fixed step C.

        Example:
            >>> round(moments("relu").flip_rate(3), 4)
            0.9661
        """
        return math.erf(step * self.D / math.sqrt(2 * self.A)) if self.A > 0 else 0.0

    def squared_gradient(self, d: int) -> float:
        """E |grad f(x)|^2."""
        return ((d - 1) * self.D + self.D2) / d


def moments(activation: str | Activation, nodes: int = 200) -> Moments:
    """The moments of an activation by Gauss-Hermite quadrature; an even number of nodes keeps off a kink at 0.

    Example:
        >>> m = moments("tanh")
        >>> [round(v, 4) for v in (m.A, m.D, m.D2)]
        [0.3943, 0.4644, 0.1078]
    """
    t, w = np.polynomial.hermite_e.hermegauss(nodes)
    z, weight = torch.from_numpy(t), torch.from_numpy(w / w.sum())
    value, slope = value_and_slope(activation, z)
    found = (value.square(), slope.square(), slope.square() * z.square())
    return Moments(*(float((weight * term).sum()) for term in found))


def value_and_slope(activation: str | Activation, z: Tensor) -> tuple[Tensor, Tensor]:
    """psi(z) and psi'(z), element by element; torch's convention at a kink (0 for ReLU).

    Raises:
        NetworkError: the function is not element-wise, or has no derivative.
    """
    psi = activation_of(activation)
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = psi(z)
        if value.shape != z.shape or not value.requires_grad:
            raise NetworkError(f"an activation must map {tuple(z.shape)} numbers to as many, with a derivative; got {tuple(value.shape)}")
        (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope


@dataclass(frozen=True)
class Step:
    """One gradient step on two-layer networks, one row each.

    Arguments:
        value: (n,) f(x). squared_gradient: (n,) |grad f(x)|^2. moved: (n, s) f(x - c sign(f) grad f) for each of s steps c.
    """

    value: Tensor
    squared_gradient: Tensor
    moved: Tensor

    @property
    def flipped(self) -> Tensor:
        """(n, s) bool: the sign is the other one, strictly."""
        return self.moved * self.value.sign()[:, None] < 0


def reduced_step(
    d: int, k: int, draws: Draws, steps: Sequence[float], *, activation: str | Activation = "relu", newton: bool = False, block: int = BLOCK
) -> Step:
    """What a gradient step does to `models.random_ensemble.two_layer` networks, drawn from the exact joint law at O(k) cost for any d.

        z ~ N(0, I_k),  a signs,  c_l = a_l psi'(z_l) / sqrt(k),  rho = <c, z> / sqrt(d),  v ~ chi2_{d-1} / d,
        xi ~ N(0, I_k) projected off c;  then jointly, in law
        <w_l, grad f> = z_l rho / sqrt(d) + v c_l + sqrt(v / d) |c| xi_l,      |grad f|^2 = rho^2 + |c|^2 v,
        f(x + eta grad f) = sum_l a_l psi(z_l + eta <w_l, grad f>) / sqrt(k).

    The hidden units are drawn in blocks and, where they do not fit into one, drawn again for the second pass: memory does not grow with k
    or d. Everything is float64.

    Arguments:
        d, k: dimension and width, at least 1; millions are no trouble. draws: a row for each network. steps: the fixed c >= 0, or
            with `newton` the margins m of c = m |f| / |grad f|^2. block: hidden units held at a time, over all networks.

    Raises:
        NetworkError: d or k is below 1, or the activation is not element-wise.

    References: Bubeck, Cherapanamjeri, Gidel & Tachet des Combes (2021), arXiv 2104.03863 (the model). The reduction is rotation
        invariance: given x, only the projections of w_l on x and on the gradient enter.

    Example:
        >>> from brinell.core.draws import derive
        >>> found = reduced_step(10**6, 1000, derive(0, "doc", ids=range(4)), (0.0, 3.0))
        >>> bool(torch.equal(found.moved[:, 0], found.value)), tuple(found.moved.shape)
        (True, (4, 2))
    """
    if min(d, k) < 1 or block < 1:
        raise NetworkError(f"reduced_step needs d, k and block of at least 1; got {d}, {k} and {block}")
    n, scale = len(draws), math.sqrt(k)
    units = Units(draws, k, max(1, block // max(n, 1)))
    zero = torch.zeros(n, dtype=torch.float64, device=draws.device)
    value, along_z, along_xi, square = zero, zero, zero, zero
    for a, z, xi in units:
        psi, slope = value_and_slope(activation, z)
        c = a * slope / scale
        value = value + (a * psi).sum(1) / scale
        along_z, along_xi, square = along_z + (c * z).sum(1), along_xi + (c * xi).sum(1), square + c.square().sum(1)
    v = chi_squared(torch.full((n,), d - 1), draws.at("tangent")).to(draws.device) / d
    squared_gradient = along_z.square() / d + square * v
    lengths = torch.tensor(steps, dtype=torch.float64, device=draws.device).expand(n, len(steps))
    if newton:
        lengths = lengths * (value.abs() / squared_gradient.clamp(min=1e-300))[:, None]
    moved = torch.zeros_like(lengths)
    for a, z, xi in units:
        _, slope = value_and_slope(activation, z)
        c = a * slope / scale
        free = xi - c * (along_xi / square.clamp(min=1e-300))[:, None]
        turn = z * (along_z / d)[:, None] + c * v[:, None] + (v * square / d).sqrt()[:, None] * free
        for at in range(len(steps)):
            psi, _ = value_and_slope(activation, z - turn * (lengths[:, at] * value.sign())[:, None])
            moved[:, at] += (a * psi).sum(1) / scale
    return Step(value, squared_gradient, moved)


@dataclass
class Units:
    """The hidden units of networks, (a, z, xi) in blocks of (n, at most `wide`); the same at every pass, kept if there is but one."""

    draws: Draws
    k: int
    wide: int
    kept: tuple[Tensor, Tensor, Tensor] | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for start in range(0, self.k, self.wide):
            if self.kept is not None:
                yield self.kept
                continue
            own, count = self.draws.at("units", start), min(self.wide, self.k - start)
            normal = own.normal(2, count, dtype=torch.float64)
            part = own.signs(count, dtype=torch.float64), normal[:, 0], normal[:, 1]
            if self.k <= self.wide:
                self.kept = part
            yield part
