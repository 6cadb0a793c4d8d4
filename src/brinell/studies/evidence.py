"""Numbers with intervals that studies of random networks judge and show: medians, rates, means, and differences of rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from brinell.core.confidence import mean_interval, quantile_interval, wilson


@dataclass(frozen=True)
class Number:
    """A value, its interval, and how many networks it rests on; NaN where there is none."""

    value: float
    low: float
    high: float
    n: int

    @property
    def ends(self) -> tuple[float, float, float]:
        return self.value, self.low, self.high


def median(values: ArrayLike, confidence: float = 0.95) -> Number:
    """The median of values >= 0 and its interval between two of them; inf counts as large, NaN are left out.

    Example:
        >>> median([1.0, 2.0, float("inf"), float("nan")]).ends
        (2.0, 0.0, inf)
    """
    x = np.asarray(values, dtype=float)
    x = x[~np.isnan(x)]
    return Number(*quantile_interval(x, 0.5, confidence), len(x)) if len(x) else Number(np.nan, np.nan, np.nan, 0)


def rate(flags: ArrayLike, confidence: float = 0.95) -> Number:
    """A share of successes with Wilson's interval.

    Example:
        >>> rate([True] * 50).value
        1.0
    """
    hits = np.asarray(flags, dtype=bool)
    if not hits.size:
        return Number(np.nan, np.nan, np.nan, 0)
    low, high = wilson(int(hits.sum()), hits.size, confidence)
    return Number(float(hits.mean()), low, high, hits.size)


def mean(values: ArrayLike, confidence: float = 0.95) -> Number:
    """A mean with Student's interval; NaN are left out."""
    x = np.asarray(values, dtype=float)
    x = x[~np.isnan(x)]
    if len(x) < 2:
        return Number(float(x.mean()) if len(x) else np.nan, np.nan, np.nan, len(x))
    return Number(float(x.mean()), *mean_interval(x, confidence), len(x))


def gap(a: Number, b: Number) -> Number:
    """The number a minus the number b, measured on other networks, with an interval made from the two of them.

    The squared distances of the ends from the values add up; for two rates with Wilson's intervals this is Newcombe's method.

    References: Newcombe (1998), "Interval estimation for the difference between independent proportions", Stat. Med. 17:873, method 10;
        Zou & Donner (2008), "Construction of confidence limits about effect measures", Stat. Med. 27:1693 (any two numbers).

    Example:
        >>> found = gap(rate([1] * 56 + [0] * 14), rate([1] * 48 + [0] * 32))
        >>> [round(v, 4) for v in found.ends]
        [0.2, 0.0524, 0.3339]
    """
    apart = a.value - b.value
    low, high = apart - np.hypot(a.value - a.low, b.high - b.value), apart + np.hypot(a.high - a.value, b.value - b.low)
    return Number(apart, float(low), float(high), a.n + b.n)


def entry(row: str, cell: str, quantity: str, number: Number, predicted: float | None = None) -> dict[str, Any]:
    """A line of a study's table: what was measured in which cell, its interval, and what was predicted."""
    value, low, high = (float(v) if np.isfinite(v) else None for v in number.ends)
    return {"row": row, "cell": cell, "quantity": quantity, "value": value, "low": low, "high": high, "predicted": predicted, "n": number.n}
