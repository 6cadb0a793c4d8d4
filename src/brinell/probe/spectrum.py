"""The spectrum of a cloud of points, and the numbers of dimensions read off it; pure functions on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from brinell.core.errors import UndefinedReading


def spectrum(activations: Tensor) -> Tensor:
    """The eigenvalues of the covariance of n points (divisor n), largest first, never below 0; (d,) float64.

    Arguments:
        activations: (n, d), n >= 1.

    Raises:
        UndefinedReading: not (n, d) with at least one row, or values are not finite.

    Example:
        >>> spectrum(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        tensor([1., 0.], dtype=torch.float64)
    """
    if activations.ndim != 2 or not len(activations):
        raise UndefinedReading(f"a spectrum needs (n, d) points with n >= 1; got shape {tuple(activations.shape)}. Flatten or average maps")
    if not bool(torch.isfinite(activations).all()):
        raise UndefinedReading("the spectrum of activations that hold NaN or inf does not exist")
    a = activations.double()
    centred = a - a.mean(0)
    n, d = a.shape
    if n >= d:
        return spectrum_of(centred.T @ centred / n)
    return torch.cat([spectrum_of(centred @ centred.T / n), a.new_zeros(d - n)])  # the same, where the points span no more


def spectrum_of(covariance: Tensor) -> Tensor:
    """The eigenvalues of a (d, d) covariance in float64, largest first; what rounding made negative is 0."""
    return torch.linalg.eigvalsh((covariance + covariance.T) / 2).flip(0).clamp(min=0)


def components(eigenvalues: Tensor, share: float = 0.9) -> int:
    """How many of the largest eigenvalues reach a share of their sum: min{k : sum_{i<=k} lambda_i >= share * sum lambda}.

    0 where all are 0. Rounding cannot raise the count: sums within 1e-12 of the share have reached it.

    Example:
        >>> components(torch.ones(20), 0.9), components(torch.tensor([3.0, 1.0]), 0.9), components(torch.zeros(3))
        (18, 2, 0)
    """
    if not 0 < share <= 1:
        raise UndefinedReading(f"share={share} must lie in (0, 1], the part of the variance to be reached")
    values = _sorted(eigenvalues)
    if not float(values.sum()) > 0:
        return 0
    reached = values.cumsum(0) / values.sum()
    return int((reached < share - 1e-12).sum()) + 1


def participation_ratio(activations: Tensor) -> float:
    """The participation ratio of points: `participation_ratio_of(spectrum(activations))`.

    Example:
        >>> round(participation_ratio(torch.eye(20)), 6)                    # the mean takes one dimension away
        19.0
    """
    return participation_ratio_of(spectrum(activations))


def participation_ratio_of(eigenvalues: Tensor) -> float:
    """(sum lambda)^2 / sum lambda^2: d for d equal eigenvalues, 1 for a single one; 0 where all are 0.

    References: Gao et al. (2017), "A theory of multineuronal dimensionality, dynamics and measurement", bioRxiv 214262.

    Example:
        >>> round(participation_ratio_of(torch.tensor([3.0, 1.0])), 6)
        1.6
    """
    values = _sorted(eigenvalues)
    top = float(values.max()) if len(values) else 0.0
    if not top > 0:
        return 0.0
    values = values / top  # squares of tiny numbers would vanish
    return float(values.sum().square() / values.square().sum())


def effective_rank(eigenvalues: Tensor) -> float:
    """exp of the entropy of the eigenvalues as shares of their sum; d for d equal ones, 0 where all are 0.

    References: Roy & Vetterli (2007), "The effective rank: a measure of effective dimensionality", EUSIPCO (there of singular
        values; here of eigenvalues of the covariance, whose sum is the variance).

    Example:
        >>> round(effective_rank(torch.tensor([1.0, 1.0, 0.0])), 6)
        2.0
    """
    values = _sorted(eigenvalues)
    if not float(values.sum()) > 0:
        return 0.0
    p = values / values.sum()
    return float(torch.special.entr(p).sum().exp())


def _sorted(eigenvalues: Tensor) -> Tensor:
    values = eigenvalues.double()
    if values.ndim != 1 or bool((values < 0).any()) or not bool(values.isfinite().all()):
        raise UndefinedReading("eigenvalues of a covariance are a vector of finite numbers that are not negative")
    return values.sort(descending=True).values
