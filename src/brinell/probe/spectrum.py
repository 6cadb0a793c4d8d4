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
    return spectrum_of_moments(torch.tensor(len(a)), a.sum(0), a.T @ a)


def spectrum_of_moments(count: Tensor, total: Tensor, products: Tensor) -> Tensor:
    """The eigenvalues of the covariance from sums over samples, largest first.

    Arguments:
        count: number of samples n. total: (d,) sum of points. products: (d, d) sum of outer products, float64.
    """
    mean = total / count
    covariance = products / count - mean[:, None] * mean
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


def two_nn(points: Tensor, discard: float = 0.1) -> float:
    """The intrinsic dimension of points from the ratio of each one's two nearest distances.

        mu_i = r_2(i) / r_1(i);   d = slope through the origin of  -log(1 - F(mu))  on  log mu,  F the empirical distribution

    fitted on the smallest 1 - `discard` of the ratios; F(mu_(i)) = i / n. Points that occur twice count once. It is a local,
    non-linear dimension: a curve of one parameter has 1, however many linear components it fills. It falls short where the dimension
    is high for the number of points (uniform in 5 dimensions, 2,000 points: about 4.8; in 10: about 8.6).

    Arguments:
        points: (n, d), n >= 4 different ones; the distances cost n^2.

    Raises:
        UndefinedReading: fewer than 4 different points, or values are not finite.

    References: Facco, d'Errico, Rodriguez & Laio (2017), "Estimating the intrinsic dimension of datasets by a minimal neighborhood
        information", Scientific Reports 7, equations 5 and 6; the share discarded follows its implementation by Ansuini et al.
        (2019), arXiv 1905.12784.

    Example:
        >>> from brinell.core.draws import derive
        >>> line = derive(0, ids=range(500)).uniform(1) * torch.tensor([[1.0, 2.0, 3.0]])
        >>> round(two_nn(line), 1)
        1.0
    """
    if not 0 <= discard < 1:
        raise UndefinedReading(f"discard={discard} must lie in [0, 1), the share of the largest ratios that is left out")
    distances = _nearest(points, 2)
    ratios = (distances[:, 1] / distances[:, 0]).log().sort().values
    n = len(ratios)
    kept = max(int(n * (1 - discard)), 2)
    x = ratios[:kept]
    y = -torch.log1p(-torch.arange(1, kept + 1, dtype=torch.float64) / (n if kept < n else n + 1))
    if not float(x.square().sum()) > 0:
        raise UndefinedReading("all two nearest distances are equal, as on a grid: two_nn has no answer")
    return float((x * y).sum() / x.square().sum())


def nearest_neighbour_dimension(points: Tensor, neighbours: int = 20) -> float:
    """The maximum-likelihood intrinsic dimension from the distances to each point's k nearest neighbours.

        1 / d = mean_i  1/(k - 1) sum_{j<k} log( T_k(i) / T_j(i) )        T_j: distance to the j-th nearest

    The inverses are averaged, not the estimates (MacKay & Ghahramani's correction); k - 1 is Levina & Bickel's divisor. Points that occur
    twice count once.

    Arguments:
        points: (n, d) with more than `neighbours` different ones.

    Raises:
        UndefinedReading: too few different points, fewer than 3 neighbours, or values are not finite.

    References: Levina & Bickel (2004), "Maximum likelihood estimation of intrinsic dimension", NIPS 17, equation 8; MacKay & Ghahramani
        (2005), comments on it, https://www.inference.org.uk/mackay/dimension/.

    Example:
        >>> line = torch.linspace(0, 1, 500)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
        >>> 0.9 < nearest_neighbour_dimension(line) < 1.3
        True
    """
    if neighbours < 3:
        raise UndefinedReading(f"neighbours={neighbours} are too few for an estimate; give at least 3")
    logs = _nearest(points, neighbours).log()
    inverse = ((logs[:, -1:] - logs[:, :-1]).sum(1) / (neighbours - 1)).mean()
    if not float(inverse) > 0:
        raise UndefinedReading("all nearest distances are equal: the maximum-likelihood dimension has no answer")
    return float(1 / inverse)


def _nearest(points: Tensor, k: int) -> Tensor:
    """(n, k) distances to the k nearest other points, ascending; of points that occur twice one is kept."""
    if points.ndim != 2 or not bool(torch.isfinite(points).all()):
        raise UndefinedReading(f"an intrinsic dimension needs finite (n, d) points; got shape {tuple(points.shape)}")
    distinct = torch.unique(points.double(), dim=0)
    needed = max(k + 1, 4)
    if len(distinct) < needed:
        raise UndefinedReading(f"{len(distinct)} different points are too few for {k} nearest neighbours; {needed} are needed")
    distinct = distinct - distinct.mean(0)
    found = [torch.cdist(rows, distinct, compute_mode="donot_use_mm_for_euclid_dist") for rows in distinct.split(512)]
    return torch.cat([block.topk(k + 1, largest=False).values[:, 1:] for block in found])
