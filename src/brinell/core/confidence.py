"""Intervals: what a number measured on n samples says about the population they were drawn from.

Every function works on counts or arrays; nothing here draws from a global random state. `confidence` is the probability with
which the method, repeated, covers the true value; Clopper-Pearson guarantees it, the others approach it as n grows.

References: Clopper & Pearson (1934), Biometrika 26:404, doi:10.1093/biomet/26.4.404; Wilson (1927), JASA 22:209,
    doi:10.1080/01621459.1927.10502953; McNemar (1947), Psychometrika 12:153, doi:10.1007/BF02295996; Bonett & Price (2012),
    J. Educ. Behav. Stat. 37:479, doi:10.3102/1076998611411915; Efron (1979), Ann. Stat. 7:1, doi:10.1214/aos/1176344552.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from brinell.core.draws import derive
from brinell.core.errors import UndefinedReading

Side = Literal["both", "low", "high"]
"""Which ends of an interval are wanted: `low` leaves the upper end at 1 and spends the whole error on the lower one."""

Counts = np.ndarray | Sequence[int]
RESAMPLES = 10_000
_BATCH = 1 << 22  # resampled clusters held in memory at a time


@overload
def clopper_pearson(successes: int, n: int, confidence: float = 0.95, side: Side = "both") -> tuple[float, float]: ...
@overload
def clopper_pearson(successes: Counts, n: Counts | int, confidence: float = 0.95, side: Side = "both") -> tuple[np.ndarray, np.ndarray]: ...
def clopper_pearson(successes: ArrayLike, n: ArrayLike, confidence: float = 0.95, side: Side = "both") -> tuple:
    """The exact interval of a binomial proportion: which p make k successes of n not too surprising?

    low = B^-1(a; k, n-k+1), high = B^-1(1-a; k+1, n-k) with B^-1 the inverse regularised incomplete beta function and
    a = (1 - confidence) / 2 (two-sided) or 1 - confidence (one-sided). Coverage is at least `confidence` for every p and n.
    low is exactly 0 at k = 0, high exactly 1 at k = n; n = 0 gives (0, 1).

    Arguments:
        successes, n: whole numbers, 0 <= successes <= n; scalars, or arrays that broadcast.

    Returns:
        (low, high): floats for scalars, float64 arrays for arrays.

    Raises:
        UndefinedReading: a count is impossible, or confidence lies outside (0, 1).

    References: Clopper & Pearson (1934), doi:10.1093/biomet/26.4.404.

    Example:
        >>> low, high = clopper_pearson(0, 10)
        >>> low, round(high, 4)
        (0.0, 0.3085)
    """
    from scipy.special import betaincinv

    k, total = _counts(successes, n)
    tail = _tail(confidence, side)
    low = np.where(k == 0, 0.0, betaincinv(np.maximum(k, 1), total - k + 1, tail))
    high = np.where(k == total, 1.0, betaincinv(k + 1, np.maximum(total - k, 1), 1 - tail))
    return _ends(low, high, side)


@overload
def wilson(successes: int, n: int, confidence: float = 0.95, side: Side = "both") -> tuple[float, float]: ...
@overload
def wilson(successes: Counts, n: Counts | int, confidence: float = 0.95, side: Side = "both") -> tuple[np.ndarray, np.ndarray]: ...
def wilson(successes: ArrayLike, n: ArrayLike, confidence: float = 0.95, side: Side = "both") -> tuple:
    """The score interval of a binomial proportion: narrower than the exact one, right on average over p, not for every p.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), with p = k/n and z the normal quantile; n = 0 gives (0, 1).
    Arguments, result and errors as for `clopper_pearson`.

    References: Wilson (1927), doi:10.1080/01621459.1927.10502953.

    Example:
        >>> low, high = wilson(0, 10)
        >>> low, round(high, 4)
        (0.0, 0.2775)
    """
    from scipy.special import ndtri

    k, total = _counts(successes, n)
    z2 = ndtri(_tail(confidence, side)) ** 2
    middle, spread = k + z2 / 2, np.sqrt(z2 * (k * (1 - k / np.maximum(total, 1)) + z2 / 4))
    low = np.where(k == 0, 0.0, (middle - spread) / (total + z2))
    high = np.where(k == total, 1.0, (middle + spread) / (total + z2))
    return _ends(low, high, side)


def bonferroni(confidence: float, comparisons: int) -> float:
    """The confidence each of several intervals needs so that all hold at once with `confidence`: 1 - (1 - confidence) / m.

    Raises:
        UndefinedReading: comparisons < 1, or confidence outside (0, 1).

    Example:
        >>> round(bonferroni(0.95, 10), 6)
        0.995
    """
    if comparisons < 1:
        raise UndefinedReading(f"{comparisons} comparisons have no simultaneous confidence; give at least 1")
    return 1 - (1 - _checked(confidence)) / comparisons


def simultaneous(successes: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Clopper-Pearson intervals of many cells that all hold at once (Bonferroni over the cells with n > 0).

    The worst of many cells is picked after looking; its interval is valid only if all cells' intervals are.

    Arguments:
        successes, n: (m,) whole numbers. A cell with n = 0 gets (0, 1).
    """
    trials = np.atleast_1d(n)
    return clopper_pearson(np.atleast_1d(successes), trials, bonferroni(confidence, max(int(np.count_nonzero(trials)), 1)))


def proportion(flags: ArrayLike, confidence: float = 0.95, clusters: np.ndarray | None = None, *, seed: int = 0) -> tuple[float, float]:
    """The interval of a share of samples: Clopper-Pearson, or a cluster bootstrap when samples come in clusters.

    With clusters (patients, videos, speakers) samples are not independent. The result is the hull of the cluster bootstrap and
    of Clopper-Pearson on the samples, since the percentile bootstrap is too short near 0 and 1. Where all flags are equal the
    bootstrap sees no variation: Clopper-Pearson on the number of clusters instead. One cluster with both outcomes gives (0, 1).

    Arguments:
        flags: (n,) booleans or 0/1. clusters: (n,) cluster of each sample, or None for independent samples.

    Example:
        >>> flags = np.repeat([1, 1, 1, 0], 25)
        >>> independent, clustered = proportion(flags), proportion(flags, clusters=np.repeat([1, 2, 3, 4], 25))
        >>> clustered[1] - clustered[0] > 2 * (independent[1] - independent[0])
        True
    """
    hits = np.asarray(flags).astype(bool)
    k, n = int(hits.sum()), hits.size
    low, high = clopper_pearson(k, n, confidence)
    if clusters is None or n == 0:
        return low, high
    groups = len(np.unique(_aligned(hits, clusters)))
    if k in (0, n):
        return clopper_pearson(groups if k else 0, groups, confidence)
    if groups == 1:
        return 0.0, 1.0
    ends = cluster_bootstrap(hits.astype(np.float64), clusters, confidence, seed=seed)
    return min(low, ends[0]), max(high, ends[1])


def cluster_bootstrap(
    values: ArrayLike, clusters: ArrayLike, confidence: float = 0.95, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The percentile interval of a mean when samples come in clusters: whole clusters are drawn with replacement.

    A resample of m clusters has mean (sum of their sums) / (sum of their sizes), so large clusters keep their weight. The ends
    are the a and 1-a quantiles over the resamples, a = (1 - confidence) / 2, rounded outwards to a resample that occurred; where
    a < 1 / resamples they are the extremes. Below about 20 clusters the interval is too short; at equal values its length is 0.

    Arguments:
        values: (n,) finite numbers. clusters: (n,) cluster of each, any sortable values. seed: names the resamples.

    Raises:
        UndefinedReading: fewer than 2 clusters (one cluster says nothing about how clusters differ), or values not finite.

    References: Efron (1979), doi:10.1214/aos/1176344552; for hierarchical data Davison & Hinkley (1997), Bootstrap Methods and
        their Application, doi:10.1017/CBO9780511802843.

    Example:
        >>> cluster_bootstrap([0.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"])
        (0.0, 1.0)
    """
    _checked(confidence)
    numbers = _finite(values)
    _, which = np.unique(_aligned(numbers, clusters), return_inverse=True)
    totals = np.stack([np.bincount(which, numbers), np.bincount(which)], 1)
    sums, sizes = bootstrap_totals(totals, seed=seed, resamples=resamples).T
    return _percentiles(sums / sizes, confidence)


def bootstrap_totals(totals: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Column sums of resampled rows: (m, q) totals of m independent units in, (resamples, q) out; memory is bounded.

    Resample r is a function of (seed, r, m) alone.

    Raises:
        UndefinedReading: fewer than 2 rows, or fewer than 1 resample.
    """
    m = len(totals)
    if m < 2 or resamples < 1:
        raise UndefinedReading(f"a bootstrap needs at least 2 independent units and 1 resample; got {m} and {resamples}")
    out = np.empty((resamples, totals.shape[1]))
    tall = max(1, _BATCH // m)
    for start in range(0, resamples, tall):
        rows = np.arange(start, min(start + tall, resamples))
        picks = derive(seed, "confidence.bootstrap", ids=rows).integers(0, m, m).numpy()
        picks += (np.arange(len(rows)) * m)[:, None]
        out[rows] = np.bincount(picks.reshape(-1), minlength=len(rows) * m).reshape(len(rows), m) @ totals
    return out


def mean_interval(
    values: ArrayLike,
    confidence: float = 0.95,
    clusters: np.ndarray | None = None,
    *,
    within: tuple[float, float] = (-np.inf, np.inf),
    seed: int = 0,
) -> tuple[float, float]:
    """The interval of the mean of real-valued samples: Student's t, or a cluster bootstrap when samples come in clusters.

    mean -+ t_{n-1} s / sqrt(n), cut to `within`. Exact for normal values, right for large n otherwise; for skewed values such as
    a loss with few large entries it is too short at small n. At equal values its length is 0.

    Arguments:
        values: (n,) finite numbers. within: the range that a mean can have.

    Raises:
        UndefinedReading: fewer than 2 values (or clusters), or values not finite.

    References: "Student" (1908), Biometrika 6:1, doi:10.1093/biomet/6.1.1.

    Example:
        >>> low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
        >>> round(low, 3), round(high, 3)
        (0.446, 4.554)
    """
    from scipy.special import stdtrit

    numbers = _finite(values)
    tail = _tail(confidence, "both")
    if clusters is not None:
        low, high = cluster_bootstrap(numbers, clusters, confidence, seed=seed)
    elif numbers.size < 2:
        raise UndefinedReading(f"the mean of {numbers.size} value(s) has no interval: nothing shows how values vary; give at least 2")
    else:
        half = -stdtrit(numbers.size - 1, tail) * numbers.std(ddof=1) / np.sqrt(numbers.size)
        low, high = numbers.mean() - half, numbers.mean() + half
    return float(max(low, within[0])), float(min(high, within[1]))


@dataclass(frozen=True)
class PairedTest:
    """Two networks on the same n samples.

    Arguments:
        difference: share right under a minus share right under b, in [-1, 1]. low, high, confidence: its interval.
        p_value: exact two-sided McNemar. only_a, only_b: samples that exactly one of them has right. n: samples.
    """

    difference: float
    low: float
    high: float
    confidence: float
    p_value: float
    only_a: int
    only_b: int
    n: int


def mcnemar(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> PairedTest:
    """The exact paired test of two classifiers on the same samples: is one right where the other is wrong more often than chance?

    Under equal accuracy each of the N = only_a + only_b discordant samples falls on either side with probability 1/2, so
    p = min(1, 2 P[Binomial(N, 1/2) <= min(only_a, only_b)]), and 1 at N = 0. The interval of the difference is Bonett & Price's
    adjusted Wald: with A = (only_a + 1) / (n + 2), B = (only_b + 1) / (n + 2) it is
    A - B -+ z sqrt((A + B - (A - B)^2) / (n + 2)), cut to [-1, 1]. It always holds `difference`; its coverage is near
    `confidence`, not guaranteed, and it may disagree with the exact p-value in close cases.

    Arguments:
        a, b: (n,) booleans or 0/1, whether each network has sample i right.

    Raises:
        UndefinedReading: the lengths differ, there is no sample, or a value is not 0 or 1.

    References: McNemar (1947), doi:10.1007/BF02295996; Bonett & Price (2012), doi:10.3102/1076998611411915.

    Example:
        >>> test = mcnemar([1] * 8 + [0] * 2, [1] * 2 + [0] * 8)
        >>> test.difference, test.only_a, test.only_b, test.p_value
        (0.6, 6, 0, 0.03125)
    """
    from scipy.special import bdtr, ndtri

    first, second = np.asarray(a), np.asarray(b)
    if first.shape != second.shape or first.ndim != 1 or first.size == 0:
        raise UndefinedReading(f"a paired test needs two lists of flags of the same samples; got shapes {first.shape} and {second.shape}")
    if not (np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all()):
        raise UndefinedReading("a paired test needs flags that are 0 or 1 (right or wrong); threshold scores first")
    first, second, n = first.astype(bool), second.astype(bool), first.size
    only_a, only_b = int((first & ~second).sum()), int((second & ~first).sum())
    p_value = min(1.0, 2 * float(bdtr(float(min(only_a, only_b)), only_a + only_b, 0.5)))
    share_a, share_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    middle = share_a - share_b
    half = -float(ndtri(_tail(confidence, "both"))) * ((share_a + share_b - middle**2) / (n + 2)) ** 0.5
    low, high = max(-1.0, middle - half), min(1.0, middle + half)
    return PairedTest((only_a - only_b) / n, low, high, confidence, p_value, only_a, only_b, n)


def quantile_interval(values: np.ndarray, share: float, confidence: float) -> tuple[float, float, float]:
    """The quantile x_(k), k = ceil(share n), and the interval [x_(l), x_(u)] that covers the population's with at least `confidence`.

        l = max{j: P(B < j) <= alpha / 2},   u = min{j: P(B < j) >= 1 - alpha / 2},   B ~ Binomial(n, share)

    with sorted values x_(1) <= ... <= x_(n), none of them negative. Where l = 0 the lower end is 0, where u > n the upper is inf.

    Example:
        >>> quantile_interval(np.arange(1.0, 21.0), 0.5, 0.95)
        (10.0, 6.0, 15.0)
    """
    from scipy.stats import binom

    n, ordered, tail = len(values), np.sort(values), (1 - confidence) / 2
    below = binom.cdf(np.arange(-1, n + 1), n, share)  # below[j] = P(B < j)
    low = int(np.flatnonzero(below <= tail).max(initial=0))
    over = np.flatnonzero(below >= 1 - tail)
    high = int(over.min(initial=n + 1))
    at = math.ceil(share * n - 1e-9)
    return float(ordered[max(at, 1) - 1]), float(ordered[low - 1]) if low else 0.0, float(ordered[high - 1]) if high <= n else math.inf


def _percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low = np.quantile(values, tail, method="lower")
    return float(low), float(np.quantile(values, 1 - tail, method="higher"))


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise UndefinedReading(f"a confidence of {confidence} is no probability strictly between 0 and 1; 0.95 is usual")
    return confidence


def _tail(confidence: float, side: Side) -> float:
    if side not in ("both", "low", "high"):
        raise UndefinedReading(f"an interval has no side {side!r}; choose both, low or high")
    return (1 - _checked(confidence)) / (2 if side == "both" else 1)


def _counts(successes: ArrayLike, n: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    k, total = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    wrong = ~((k >= 0) & (k <= total) & (k == np.floor(k)) & (total == np.floor(total)) & np.isfinite(total))
    if wrong.any():
        raise UndefinedReading(
            f"{k[wrong][0]:g} successes of {total[wrong][0]:g} trials is impossible; both are whole, 0 <= successes <= n"
        )
    return k, total


def _ends(low: np.ndarray, high: np.ndarray, side: Side) -> tuple:
    low = np.zeros_like(low) if side == "high" else low
    high = np.ones_like(high) if side == "low" else high
    return (low, high) if low.ndim else (float(low), float(high))


def _finite(values: ArrayLike) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise UndefinedReading(f"an interval of a mean needs a list of finite numbers; got shape {numbers.shape}, or NaN or inf among them")
    return numbers


def _aligned(values: np.ndarray, clusters: ArrayLike) -> np.ndarray:
    groups = np.asarray(clusters)
    if groups.shape != values.shape:
        raise UndefinedReading(f"{values.shape} values and {groups.shape} clusters do not belong together; give one cluster per value")
    return groups
