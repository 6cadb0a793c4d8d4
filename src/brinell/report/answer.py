"""Answers: readings as they are shown, a number with its interval or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from brinell.core.confidence import bonferroni, clopper_pearson
from brinell.core.measurement import Status


@dataclass(frozen=True)
class Answer:
    """A reading as it is shown: a number with its interval, or why there is none (status undefined, failed or missing)."""

    value: float | None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    n: int = 0
    status: str = "ok"
    reason: str = ""

    @classmethod
    def of(cls, row: dict[str, Any]) -> Answer:
        value = row.get("value")
        status, reason = str(row.get("status") or "ok"), row.get("reason") or ""
        if status == Status.OK and (value is None or not math.isfinite(value)):
            status, reason = "undefined", reason or "the value is not a finite number"
        if status != Status.OK:
            return cls(None, n=row.get("n") or 0, status=status, reason=reason or "no reason was given")
        return cls(value, _finite(row.get("low")), _finite(row.get("high")), row.get("confidence"), row.get("n") or 0)

    @property
    def ok(self) -> bool:
        return self.value is not None

    @property
    def interval(self) -> str:
        """`[0.893, 0.928]`, or nothing."""
        return "" if self.low is None or self.high is None else f"[{number(self.low)}, {number(self.high)}]"

    @property
    def brief(self) -> str:
        """The number, or the status in its place."""
        return self.status if self.value is None else number(self.value)

    def __str__(self) -> str:
        """The number with its interval, or the status with its reason."""
        return f"{self.status}: {self.reason}" if self.value is None else f"{self.brief} {self.interval}".rstrip()

    def among(self, many: int) -> Answer:
        """A share with the interval that holds at once with those of many cells (Bonferroni).

        Clopper-Pearson at the higher confidence. An interval that is wider than Clopper-Pearson's (samples came in clusters) is
        stretched by the same factor as a normal one would be, and stays the hull of both.

        Example:
            >>> answer = Answer(0.5, 0.398, 0.602, 0.95, 100)
            >>> str(answer), str(answer.among(75))
            ('0.500 [0.398, 0.602]', '0.500 [0.330, 0.670]')
        """
        if many < 2 or self.value is None or self.low is None or self.high is None or not self.confidence or not self.n:
            return self
        from scipy.special import ndtri

        hits, level = round(self.value * self.n), bonferroni(self.confidence, many)
        if not 0 <= hits <= self.n:
            return self
        low, high = clopper_pearson(hits, self.n, level)
        own = clopper_pearson(hits, self.n, self.confidence)
        stretch = float(ndtri(0.5 + level / 2) / ndtri(0.5 + self.confidence / 2))
        if self.low < own[0] - 1e-3:
            low = min(low, max(0.0, self.value - stretch * (self.value - self.low)))
        if self.high > own[1] + 1e-3:
            high = max(high, min(1.0, self.value + stretch * (self.high - self.value)))
        return replace(self, low=float(low), high=float(high))


def number(value: float | None) -> str:
    """A number as it is read: three decimals, four below 0.001; smaller and very large ones in powers of ten.

    Example:
        >>> number(0.5), number(0.4375), number(0.00046), number(0.000012), number(None)
        ('0.500', '0.438', '0.0005', '1.2e-05', '')
    """
    if value is None:
        return ""
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.1e}"
    return f"{value:.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.4f}"


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def listed(words: Iterable[str], join: str = "and") -> str:
    """Words as a sentence lists them.

    Example:
        >>> listed(["L1", "L2", "Linf"])
        'L1, L2 and Linf'
    """
    *most, last = list(words) or [""]
    return f"{', '.join(most)} {join} {last}" if most else last


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
