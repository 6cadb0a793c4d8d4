"""Kernel ridge regression with the ridge chosen on validation samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.errors import DataError, UndefinedReading
from brinell.models.kernel import Kernel, gram

RIDGES = tuple(10.0**k for k in range(-8, 3))
"""1e-8, 1e-7, ..., 1e2, times the mean diagonal entry of the kernel matrix."""

Samples = tuple[Tensor, Tensor]
"""x (n, d) and y (n,)."""


@dataclass(frozen=True)
class RidgePath:
    """Losses over ridges, in their order; infinite where the matrix is not positive definite in its precision.

    Arguments:
        ridges: relative ones. train, valid, test: mean squared errors. chosen: the place with the smallest validation loss.
            best: the place with the smallest test loss, more than anyone could have chosen.
    """

    ridges: tuple[float, ...]
    train: tuple[float, ...]
    valid: tuple[float, ...]
    test: tuple[float, ...]

    @property
    def chosen(self) -> int:
        return min(range(len(self.ridges)), key=self.valid.__getitem__)

    @property
    def best(self) -> int:
        return min(range(len(self.ridges)), key=self.test.__getitem__)


def ridge_fit(matrix: Tensor, y: Tensor, ridge: float) -> Tensor | None:
    """(K + ridge s I)^-1 y with s the mean diagonal entry of K; None where that matrix is not positive definite in its precision.

    A large ridge gives predictions near 0, a vanishing one interpolates where K has full rank.

    Arguments:
        matrix: (n, n) kernel matrix K, left as it is. y: (n,). ridge: > 0.

    Raises:
        DataError: a ridge that is not positive, or shapes that do not fit.

    Example:
        >>> ridge_fit(torch.eye(2), torch.tensor([2.0, 4.0]), 1.0)
        tensor([1., 2.])
    """
    if not ridge > 0 or matrix.shape != (len(y), len(y)):
        raise DataError(f"ridge_fit needs a ridge > 0 and an (n, n) matrix for y (n,); got {ridge} and {tuple(matrix.shape)}")
    shifted = matrix.clone()
    shifted.diagonal().add_(ridge * matrix.diagonal().mean())
    factor, info = torch.linalg.cholesky_ex(shifted)
    return None if int(info) else torch.cholesky_solve(y[:, None], factor)[:, 0]


def ridge_path(
    kernel: Kernel, train: Samples, valid: Samples, test: Samples, *, draws: Draws, ridges: Sequence[float] = RIDGES
) -> RidgePath:
    """Fit at every ridge on the training samples, and measure on all three.

    Arguments:
        train, valid, test: on one device, in one precision, which is that of the work. draws: for kernels that are random.

    Raises:
        DataError: a part has no samples or no ridge is given. UndefinedReading: no ridge gives a matrix that can be factored.

    Example:
        >>> from brinell.core.draws import derive
        >>> from brinell.models.kernel import NTK
        >>> x = derive(0, ids=range(60)).normal(2, dtype=torch.float64)
        >>> parts = [(x[rows], x[rows].norm(dim=1)) for rows in (slice(0, 40), slice(40, 50), slice(50, 60))]
        >>> path = ridge_path(NTK(), *parts, draws=derive(0, "kernel", ids=[0]))
        >>> path.test[path.chosen] < 0.05
        True
    """
    if not ridges or any(len(x) < 1 or len(x) != len(y) for x, y in (train, valid, test)):
        sizes = [(len(x), len(y)) for x, y in (train, valid, test)]
        raise DataError(f"ridge_path needs ridges, and samples x, y of one length in each part; got {list(ridges)} and {sizes}")
    matrix = gram(kernel, train[0], train[0], draws=draws)
    parts = [(matrix, train[1]), *((gram(kernel, x, train[0], draws=draws), y) for x, y in (valid, test))]
    losses: list[list[float]] = []
    for ridge in ridges:
        weights = ridge_fit(matrix, train[1], ridge)
        losses.append([float("inf") if weights is None else float((k @ weights - y).square().mean()) for k, y in parts])
    if all(loss[0] == float("inf") for loss in losses):
        raise UndefinedReading(
            f"{kernel.spec()} on {len(train[0])} samples: no ridge of {list(ridges)} makes its matrix positive definite; "
            f"add larger ridges or compute in float64"
        )
    on_train, on_valid, on_test = zip(*losses, strict=True)
    return RidgePath(tuple(ridges), on_train, on_valid, on_test)
