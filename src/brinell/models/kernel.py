"""Kernels on vectors: the predictors that a network is compared with when the question is whether it learns features."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.component import Component
from brinell.core.draws import Draws
from brinell.core.errors import DataError
from brinell.models.two_layer import Activation, initial_neurons

_BLOCK = 1 << 24
"""Entries of a kernel matrix made at once: what the intermediate values of a kernel may take."""


class Kernel(Component):
    """A positive semi-definite function of two vectors. An item defines `__call__`; `gram` calls it in blocks of rows."""

    def __call__(self, x: Tensor, z: Tensor, *, draws: Draws) -> Tensor:
        """K(x_i, z_j), (n, k), of x (n, d) and z (k, d).

        Arguments:
            draws: one row, for kernels that are random; the same draws give the same kernel, and the stream does not move on.
        """
        raise TypeError(f"{type(self).__name__} does not say what its values are")


def gram(kernel: Kernel, x: Tensor, z: Tensor, *, draws: Draws) -> Tensor:
    """K(x_i, z_j), (n, k), made in blocks of rows, so that little more than the matrix itself is held.

    Raises:
        DataError: x and z are not (n, d) and (k, d) in one dimension.

    Example:
        >>> from brinell.core.draws import derive
        >>> x = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> gram(NTK(), x, x, draws=derive(0, ids=[0])).diagonal()
        tensor([25.,  1.])
    """
    if x.ndim != 2 or z.ndim != 2 or x.shape[1] != z.shape[1]:
        raise DataError(f"a kernel matrix needs x (n, d) and z (k, d); got {tuple(x.shape)} and {tuple(z.shape)}")
    out = torch.empty(len(x), len(z), dtype=x.dtype, device=x.device)
    rows = max(1, _BLOCK // max(1, len(z)))
    for at in range(0, len(x), rows):
        out[at : at + rows] = kernel(x[at : at + rows], z, draws=draws.fork())
    return out


class NTK(Kernel, name="ntk"):
    """Neural tangent kernel of a wide two-layer ReLU network: what training it predicts while it stays linear in its weights.

        K(x, z) = (||x|| ||z|| / d) [rho k0(rho) + k1(rho)]      both layers;  K(x, x) = 2 ||x||^2 / d
        K(x, z) = (||x|| ||z|| / d)  rho k0(rho)                 layers=first: output weights fixed;  K(x, x) = ||x||^2 / d
        k0 = (pi - arccos rho) / pi,    k1 = (sqrt(1 - rho^2) + rho (pi - arccos rho)) / pi,    rho the cosine of x and z

    It does not change when data are rotated. A zero vector has kernel value 0 with everything.

    Arguments:
        layers: both, or first for the weights of the first layer alone.

    References: Jacot, Gabriel & Hongler (2018), "Neural tangent kernel", NeurIPS, https://arxiv.org/abs/1806.07572; Cho & Saul (2009),
        "Kernel methods for deep learning", NeurIPS (k0, k1).

    Example:
        >>> from brinell.core.draws import derive
        >>> NTK(layers="first")(torch.eye(2), torch.eye(2), draws=derive(0, ids=[0]))
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
    """

    layers: Literal["both", "first"] = "both"

    def __call__(self, x: Tensor, z: Tensor, *, draws: Draws) -> Tensor:
        size = x.norm(dim=1)[:, None] * z.norm(dim=1)
        rho = (x @ z.T).div_(size.clamp(min=torch.finfo(x.dtype).tiny)).clamp_(-1, 1)
        k0 = rho.acos().neg_().add_(math.pi).div_(math.pi)
        value = k0.mul_(rho)
        if self.layers == "both":
            value = value.mul_(2).add_((1 - rho * rho).sqrt_(), alpha=1 / math.pi)
        return value.mul_(size).div_(x.shape[1])


class LearnerNTK(Kernel, name="learner_ntk"):
    """Tangent kernel of the two-layer learner itself at its initialisation, at its finite width.

        K(x, z) = sum_i <df(x)/dw_i, df(z)/dw_i>,   f = (1/m) sum_i ||w_i|| act(w_i.x),   w_i ~ N(0, I_d / d),   times m
                = (1/m) sum_i [3 act(w_i.x) act(w_i.z) + ||w_i||^2 act'(w_i.x) act'(w_i.z) x.z]

    The second line holds because act is homogeneous. Its rank is at most the number m d of parameters.

    Arguments:
        width: m. activation: relu or abs.

    References: Jacot, Gabriel & Hongler (2018), "Neural tangent kernel", NeurIPS, https://arxiv.org/abs/1806.07572.

    Example:
        >>> from brinell.core.draws import derive
        >>> LearnerNTK(width=10)(torch.eye(3), torch.eye(3), draws=derive(0, ids=[0])).shape
        torch.Size([3, 3])
    """

    width: int = Field(100, ge=1, le=1 << 20)
    activation: Activation = "relu"

    def __call__(self, x: Tensor, z: Tensor, *, draws: Draws) -> Tensor:
        w = initial_neurons(self.width, x.shape[1], draws=draws[:1], dtype=x.dtype)[0]
        (a, slope_a), (b, slope_b) = (self._layer(part @ w.T) for part in (x, z))
        turn = (slope_a * w.square().sum(1)) @ slope_b.T
        return torch.addcmul(3 * (a @ b.T), turn, x @ z.T).div_(self.width)

    def _layer(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        slope = (hidden > 0).to(hidden.dtype) if self.activation == "relu" else hidden.sign()
        return hidden * slope, slope


class RBF(Kernel, name="rbf"):
    """Gaussian kernel K(x, z) = exp(-||x - z||^2 / (2 d scale^2)): smooth functions, without a preferred direction.

    Arguments:
        scale: length in units of sqrt(d), the size of a standard normal vector.

    Example:
        >>> from brinell.core.draws import derive
        >>> RBF()(torch.zeros(1, 2), torch.tensor([[2.0, 0.0]]), draws=derive(0, ids=[0])).item()
        0.367...
    """

    scale: float = Field(1.0, gt=0)

    def __call__(self, x: Tensor, z: Tensor, *, draws: Draws) -> Tensor:
        apart = (x.square().sum(1)[:, None] + z.square().sum(1)).sub_(x @ z.T, alpha=2).clamp_(min=0)
        return apart.mul_(-1 / (2 * x.shape[1] * self.scale**2)).exp_()


class Polynomial(Kernel, name="polynomial"):
    """K(x, z) = (offset + x.z / d)^degree: polynomials up to a degree.

    Arguments:
        degree: at least 1. offset: at least 0; 0 leaves monomials of this degree alone.

    Example:
        >>> from brinell.core.draws import derive
        >>> Polynomial(degree=2)(torch.ones(1, 4), torch.ones(1, 4), draws=derive(0, ids=[0])).item()
        4.0
    """

    degree: int = Field(4, ge=1, le=64)
    offset: float = Field(1.0, ge=0)

    def __call__(self, x: Tensor, z: Tensor, *, draws: Draws) -> Tensor:
        return (x @ z.T).div_(x.shape[1]).add_(self.offset).pow_(self.degree)


class RandomFeatures(Kernel, name="random_features"):
    """A two-layer network whose first layer is drawn once and stays: K(x, z) = (1/p) sum_i act(v_i.x) act(v_i.z), v_i ~ N(0, I_d / d).

    Arguments:
        features: p, their number and the largest rank. activation: relu or abs.

    References: Rahimi & Recht (2007), "Random features for large-scale kernel machines", NeurIPS.

    Example:
        >>> from brinell.core.draws import derive
        >>> values = RandomFeatures(features=2)(torch.randn(5, 3), torch.randn(4, 3), draws=derive(0, ids=[0]))
        >>> values.shape, bool((values >= 0).all())
        (torch.Size([5, 4]), True)
    """

    features: int = Field(1000, ge=1, le=1 << 20)
    activation: Activation = "relu"

    def __call__(self, x: Tensor, z: Tensor, *, draws: Draws) -> Tensor:
        v = initial_neurons(self.features, x.shape[1], draws=draws[:1], dtype=x.dtype)[0]
        a, b = ((hidden.relu() if self.activation == "relu" else hidden.abs()) for hidden in (x @ v.T, z @ v.T))
        return (a @ b.T).div_(self.features)


class Additive(Kernel, name="additive"):
    """K(x, z) = (1/d) sum_i exp(-(x_i - z_i)^2 / (2 scale^2)): sums of functions of single coordinates, so it sees the axes.

    A control: it learns a target along the axes from few samples, and none along unknown directions. A comparison with it is fair
    only after the target has been rotated at random.

    Arguments:
        scale: length in units of a coordinate.

    References: Duvenaud, Nickisch & Rasmussen (2011), "Additive Gaussian processes", NeurIPS, https://arxiv.org/abs/1112.4394.

    Example:
        >>> from brinell.core.draws import derive
        >>> Additive()(torch.zeros(1, 2), torch.tensor([[0.0, 100.0]]), draws=derive(0, ids=[0])).item()
        0.5
    """

    scale: float = Field(1.0, gt=0)

    def __call__(self, x: Tensor, z: Tensor, *, draws: Draws) -> Tensor:
        total = torch.zeros(len(x), len(z), dtype=x.dtype, device=x.device)
        for column in range(x.shape[1]):
            total += (x[:, column, None] - z[:, column]).square_().mul_(-0.5 / self.scale**2).exp_()
        return total.div_(x.shape[1])
