"""The intrinsic dimension of a cloud of points, from the distances between near neighbours; pure functions on tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from brinell.core.errors import UndefinedReading

_NEAR = 1e-5
_AT_ONCE = 128  # rows; what they need stays in the cache


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
    return two_nn_of(nearest_distances(points, 2), discard)


def two_nn_of(distances: Tensor, discard: float = 0.1) -> float:
    """`two_nn` from (n, k >= 2) distances to each point's nearest neighbours, as `nearest_distances` gives them."""
    if not 0 <= discard < 1:
        raise UndefinedReading(f"discard={discard} must lie in [0, 1), the share of the largest ratios that is left out")
    if len(distances) < 4:
        raise UndefinedReading(f"{len(distances)} different points are too few for two_nn; 4 are needed")
    ratios = (distances[:, 1] / distances[:, 0]).log().sort().values
    n = len(ratios)
    kept = max(int(n * (1 - discard)), 2)
    x = ratios[:kept]
    y = -torch.log1p(-torch.arange(1, kept + 1, dtype=torch.float64, device=x.device) / (n if kept < n else n + 1))
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
    return nearest_neighbour_dimension_of(nearest_distances(points, neighbours), neighbours)


def nearest_neighbour_dimension_of(distances: Tensor, neighbours: int = 20) -> float:
    """`nearest_neighbour_dimension` from (n, k >= neighbours) distances, as `nearest_distances` gives them."""
    if distances.shape[1] < neighbours:
        raise UndefinedReading(f"{len(distances)} different points are too few for {neighbours} nearest neighbours of each")
    logs = distances[:, :neighbours].log()
    inverse = ((logs[:, -1:] - logs[:, :-1]).sum(1) / (neighbours - 1)).mean()
    if not float(inverse) > 0:
        raise UndefinedReading("all nearest distances are equal: the maximum-likelihood dimension has no answer")
    return float(1 / inverse)


def nearest_distances(points: Tensor, k: int) -> Tensor:
    """Distances from each point to its k nearest others, ascending; of points that occur twice one is kept.

    Arguments:
        points: (n, d) of any scale. k: >= 1.

    Returns:
        (m, min(k, m - 1)) float64 for m different points, all above 0.

    Raises:
        UndefinedReading: not (n, d), or values are not finite.

    Example:
        >>> nearest_distances(torch.tensor([[0.0], [1.0], [3.0], [3.0]]), 2)
        tensor([[1., 3.],
                [1., 2.],
                [2., 3.]], dtype=torch.float64)
    """
    if points.ndim != 2 or not bool(torch.isfinite(points).all()):
        raise UndefinedReading(f"an intrinsic dimension needs finite (n, d) points; got shape {tuple(points.shape)}")
    wide = points.double().cpu()
    found = _nearest(wide, k)
    if found.numel() and float(found.min()) > 0:
        return found
    return _nearest(torch.unique(wide, dim=0), k)


def _nearest(points: Tensor, k: int) -> Tensor:
    """(n, min(k, n - 1)) distances, with 0 where points occur twice.

    |a|^2 + |b|^2 - 2ab is fast, and loses what is small beside |a|^2: points with a neighbour that near are done again by differences.
    """
    n = len(points)
    k = min(k, n - 1)
    if k < 1:
        return points.new_zeros(n, 0)
    size = points.abs().amax().clamp(min=torch.finfo(points.dtype).tiny)
    scale = size.log2().floor().exp2()  # squares of tiny numbers would vanish; a power of 2 rounds nothing
    points = points / scale
    centred = points - points.mean(0)
    squares = centred.square().sum(1)
    least = _NEAR * float(squares.max())
    found = []
    for rows in torch.arange(n, device=points.device).split(_AT_ONCE):
        between = _least(torch.addmm(squares, centred[rows], centred.T, alpha=-2), k + 1) + squares[rows, None]
        distances = between[:, 1:].clamp(min=0).sqrt()
        close = between[:, 1] < least
        if bool(close.any()):
            by_difference = torch.cdist(points[rows[close]], points, compute_mode="donot_use_mm_for_euclid_dist")
            distances[close] = _least(by_difference, k + 1)[:, 1:]
        found.append(distances)
    return torch.cat(found) * scale


def _least(values: Tensor, k: int) -> Tensor:
    """(n, k): the k least entries of each row of (n, m), ascending.

    `topk` takes longer than the distances themselves. Of some numbers of a row the k-th least is a limit that k entries do not exceed;
    few others do not either, and they are sorted. The numbers are the least of every m // 8-th entry.
    """
    m = values.shape[1]
    if m < 16 * k:
        return values.sort(1).values[:, :k]
    heads = values[:, : m - m % 8].unflatten(1, (8, -1)).amin(1).numpy()
    limit = np.partition(heads, k - 1, axis=1)[:, k - 1 : k]
    table = values.numpy()
    places = np.flatnonzero(table <= limit)
    counts = np.bincount(places // m, minlength=len(table))
    few = np.full((len(table), counts.max()), np.inf)
    few[places // m, np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)] = table.ravel()[places]
    few.sort(axis=1)
    return torch.from_numpy(few[:, :k])
