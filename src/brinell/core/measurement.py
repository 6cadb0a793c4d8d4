"""Readings, findings and measurements: numbers that say what they are, how sure they are, and where they came from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np


class Bound(StrEnum):
    """How a number relates to the quantity it is named after."""

    EXACT = "exact"  # the quantity itself, on these samples
    ESTIMATE = "estimate"
    LOWER = "lower"  # the quantity is at least this
    UPPER = "upper"  # the quantity is at most this


class Status(StrEnum):
    """Whether there is an answer; "no answer" carries a reason and is never a number."""

    OK = "ok"
    UNDEFINED = "undefined"
    FAILED = "failed"


class Verdict(StrEnum):
    """What a check says."""

    PASS = "pass"
    FLAG = "flag"
    FAIL = "fail"


@dataclass(frozen=True)
class Reading:
    """One number read by a probe or a summary.

    Arguments:
        name: what it is, e.g. `accuracy`. value: the number; None unless status is OK.
        layer: the layer, class or other place it belongs to, empty for the whole network.
        bound: how it relates to the quantity. low, high, confidence: the interval, None where there is none.
        n: how many samples it rests on. array: per-unit or per-sample values behind it. axis: what the array runs over.
        status, reason: why there is no value, where there is none.

    Example:
        >>> Reading("accuracy", 0.91, low=0.88, high=0.93, confidence=0.95, n=512).value
        0.91
    """

    name: str
    value: float | None
    layer: str = ""
    bound: Bound = Bound.EXACT
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    n: int = 0
    array: np.ndarray | None = field(default=None, compare=False)
    axis: str = ""
    status: Status = Status.OK
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status is Status.OK and (self.value is None or not math.isfinite(self.value)):
            raise ValueError(f"reading {self.name!r} has value {self.value}; a missing answer is status UNDEFINED with a reason")
        if self.status is not Status.OK and (self.value is not None or not self.reason):
            raise ValueError(f"reading {self.name!r} with status {self.status} must have no value and a reason")

    @classmethod
    def undefined(cls, name: str, reason: str, *, layer: str = "", n: int = 0, status: Status = Status.UNDEFINED) -> Reading:
        """A reading without an answer, and why."""
        return cls(name, None, layer=layer, n=n, status=status, reason=reason)

    @classmethod
    def over_units(cls, name: str, values: np.ndarray, layer: str, *, n: int = 0) -> Reading:
        """The mean over units, with the per-unit values behind it."""
        return cls(name, float(np.mean(values)), layer=layer, n=n, array=np.asarray(values), axis="unit")


@dataclass(frozen=True)
class Finding:
    """The outcome of a check: a verdict with the number behind it.

    Arguments:
        name: the check. verdict: pass, flag or fail. value: the number behind it; threshold: what it was held against.
        message: one sentence for the reader, with the remedy where there is one. net, perturbation: what it is about.
    """

    name: str
    verdict: Verdict
    message: str
    value: float | None = None
    threshold: float | None = None
    net: str = ""
    perturbation: str = ""


COLUMNS = (
    "net", "data", "perturbation", "probe", "layer", "name", "value", "low", "high", "confidence", "bound", "status", "reason", "n",
    "seed", "perturbation_full", "probe_full", "net_digest", "data_digest", "versions", "forwards", "backwards", "seconds",
)  # fmt: skip
"""Columns of the tidy table, one row per measurement; the last three are the cost and differ between runs."""

COST = ("forwards", "backwards", "seconds")


def measurement(reading: Reading, **provenance: Any) -> dict[str, Any]:
    """A reading with everything needed to repeat it: one row of the tidy table.

    Raises:
        KeyError: a column of `COLUMNS` is missing.
    """
    row = {
        "name": reading.name, "value": reading.value, "layer": reading.layer, "bound": str(reading.bound),
        "low": reading.low, "high": reading.high, "confidence": reading.confidence, "n": reading.n,
        "status": str(reading.status), "reason": reading.reason, **provenance,
    }  # fmt: skip
    return {column: row[column] for column in COLUMNS}
