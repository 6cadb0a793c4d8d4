"""The ground truth that two-layer learners are asked for: a sum of absolute values along unknown orthonormal directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.errors import DataError


def hermite_coefficient(order: int) -> float:
    """The weight c_k of Hermite order k in E |t|^2 = sum_k c_k = 1, t standard normal.

        c_k = 2 [(k - 3)!!]^2 / (pi k!)  for even k,  (-1)!! = 1,  c_0 = 2 / pi;      c_k = 0 for odd k

    For unit vectors u, v with cosine rho, E |u.x| |v.x| = sum_k c_k rho^k. It falls as 0.508 k^(-5/2).

    Arguments:
        order: k >= 0.

    Raises:
        DataError: a negative order.

    References: Li, Ma & Zhang (2020), "Learning over-parametrized two-layer ReLU neural networks beyond NTK", COLT,
        https://arxiv.org/abs/2007.04596, equation (4).

    Departures: the paper writes the decay as 1 / k^3; Stirling's formula gives k^(-5/2).

    Example:
        >>> [round(hermite_coefficient(k), 6) for k in (0, 1, 2, 4, 6)]
        [0.63662, 0.0, 0.31831, 0.026526, 0.007958]
    """
    if order < 0:
        raise DataError(f"hermite_coefficient({order}): there is no negative order; give 0, 1, 2, ...")
    if order % 2:
        return 0.0
    if order == 0:
        return 2 / math.pi
    # (k - 3)!! = Gamma((k - 1) / 2) 2^(k / 2 - 1) / sqrt(pi), also for k = 2
    half = math.lgamma((order - 1) / 2) + (order / 2 - 1) * math.log(2) - math.log(math.pi) / 2
    return 2 / math.pi * math.exp(2 * half - math.lgamma(order + 1))


@dataclass(frozen=True)
class Target:
    """f*(x) = sum_j a_j |w*_j . x| on standard normal inputs: 2k ReLU neurons in k orthonormal directions.

    What the best polynomial of a degree leaves of it is known exactly (`best_polynomial`), and so is what kernels cannot learn from
    less than about d^4 / 24 samples (`floor`).

    Arguments:
        directions: (k, d) orthonormal rows w*_j, k <= d. weights: (k,) positive a_j.

    Raises:
        DataError: the shapes do not fit, the rows are not orthonormal to 1e-4, or a weight is not positive and finite.

    References: Li, Ma & Zhang (2020), https://arxiv.org/abs/2007.04596, section 2 (there k = d and sum a = 1).

    Example:
        >>> target = Target(torch.eye(2), torch.tensor([0.25, 0.75]))
        >>> target(torch.tensor([[2.0, -1.0]])).tolist()
        [1.25]
    """

    directions: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        v, a = self.directions, self.weights
        if v.ndim != 2 or a.shape != v.shape[:1] or not 1 <= len(v) <= v.shape[1]:
            raise DataError(f"a target needs directions (k, d) with 1 <= k <= d, and weights (k,); got {tuple(v.shape)}, {tuple(a.shape)}")
        off = float((v.double() @ v.double().T - torch.eye(len(v), dtype=torch.float64, device=v.device)).abs().max())
        if not off < 1e-4:
            raise DataError(f"the directions of a target must be orthonormal; their Gram matrix is off the identity by {off:.2g}")
        if not bool((torch.isfinite(a) & (a > 0)).all()):
            raise DataError(f"the weights of a target must be positive; the smallest is {float(a.min()):.3g}")

    def __call__(self, x: Tensor) -> Tensor:
        """(..., n, d) inputs to (..., n) values."""
        return (x @ self.directions.mT).abs() @ self.weights

    def to(self, *args: torch.device | torch.dtype | str) -> Target:
        """On another device or in another precision."""
        directions, weights = self.directions, self.weights
        for arg in args:
            directions, weights = directions.to(arg), weights.to(arg)
        return self if directions is self.directions and weights is self.weights else Target(directions, weights)

    @property
    def energy(self) -> float:
        """sum_j a_j^2: what all losses of this target scale with."""
        return float(self.weights.double().square().sum())

    def best_polynomial(self, degree: int) -> float:
        """The loss of the best polynomial of this degree, (1 - sum over even k <= degree of c_k) sum a^2.

        Degree 0 or 1: the variance, (1 - 2/pi) sum a^2. Degree 2 or 3: (1 - 3/pi) sum a^2 = 0.0451 sum a^2.

        Example:
            >>> [round(uniform_target(10).best_polynomial(k) * 10, 6) for k in (0, 2, 4)]
            [0.36338, 0.04507, 0.018545]
        """
        return (1 - sum(hermite_coefficient(k) for k in range(0, degree + 1, 2))) * self.energy

    @property
    def floor(self) -> float:
        """`best_polynomial(2)`: what kernels reach, and do not pass, with d^2 << N << d^4 / 24 samples."""
        return self.best_polynomial(2)


def uniform_target(d: int) -> Target:
    """a_j = 1/d along the axes, float64: the target of the paper's simulations.

    Example:
        >>> round(uniform_target(20).floor * 20, 4)
        0.0451
    """
    return Target(torch.eye(_dimension(d), dtype=torch.float64), torch.full((d,), 1 / d, dtype=torch.float64))


def drawn_target(d: int, *, draws: Draws, kappa: float = 1.0, block: int = 0) -> Target:
    """A target whose directions and weights are drawn: a_j = b_j / sum b with b uniform on [1, kappa], so kappa = 1 gives 1/d.

    With block=0 the directions are the columns of a uniformly drawn rotation. With block=r they are those of the lower bound for
    kernels: the coordinates are parted at random into d/r blocks of r, and the directions of a block are the columns of the r x r
    Hadamard matrix divided by sqrt(r).

    Arguments:
        d: dimension. draws: the first row is used. kappa: >= 1; all a_j lie in [1 / (kappa d), kappa / d]. block: 0, or a power of 2 that
            divides d; the paper's bound asks for r^2 <= d.

    Returns: a float64 target with k = d.

    Raises:
        DataError: d < 1, kappa < 1, or a block that is no power of 2 or does not divide d.

    References: Li, Ma & Zhang (2020), https://arxiv.org/abs/2007.04596, theorem 2 and appendix C (kappa = 2 there).

    Example:
        >>> from brinell.core.draws import derive
        >>> target = drawn_target(8, draws=derive(0, "target", ids=[0]), kappa=2.0, block=4)
        >>> sorted(set(target.directions.flatten().tolist()))
        [-0.5, 0.0, 0.5]
    """
    if not kappa >= 1:
        raise DataError(f"kappa={kappa}: the weights spread over [1, kappa] before they are normalised; give kappa >= 1")
    if block and (block & (block - 1) or _dimension(d) % block or block < 0):
        raise DataError(f"block={block}: a Hadamard block has a power of 2 as its size and divides the dimension {d}")
    device, double = draws.device, torch.float64
    directions = _hadamard_blocks(d, block, draws.at("partition")) if block else rotation(d, draws=draws.at("rotation"))
    b = draws.at("weights").uniform(d, low=1.0, high=float(kappa), dtype=double)[0]
    return Target(directions.to(device), b / b.sum())


def rotation(d: int, *, draws: Draws) -> Tensor:
    """(d, d) float64, uniformly distributed among the orthogonal matrices; the first row of `draws` is used.

    References: Mezzadri (2007), "How to generate random matrices from the classical compact groups", Notices of the AMS 54(5),
        https://arxiv.org/abs/math-ph/0609050.

    Example:
        >>> from brinell.core.draws import derive
        >>> q = rotation(5, draws=derive(0, ids=[0]))
        >>> bool(torch.allclose(q @ q.T, torch.eye(5, dtype=q.dtype)))
        True
    """
    q, r = torch.linalg.qr(draws.normal(_dimension(d), d, dtype=torch.float64)[0])
    return q * r.diagonal().sign()  # without the signs the law depends on how the factorisation is computed


def _hadamard_blocks(d: int, block: int, draws: Draws) -> Tensor:
    unit = torch.ones(1, 1, dtype=torch.float64)
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    for _ in range(block.bit_length() - 1):
        unit = torch.kron(unit, two)
    blocks = torch.block_diag(*[unit / math.sqrt(block)] * (d // block))
    return blocks.to(draws.device)[:, draws.uniform(d, dtype=torch.float64)[0].argsort()]


def _dimension(d: int) -> int:
    if d < 1:
        raise DataError(f"dimension {d}: give at least 1")
    return d
