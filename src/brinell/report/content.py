"""What a table holds, arranged for readers: answers by cell, what yields where, bounds of R(T), gaps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from brinell.core.component import parse
from brinell.core.errors import SpecError
from brinell.core.lab import Table
from brinell.core.measurement import Bound, Finding, Status, Verdict
from brinell.core.threat import Ball
from brinell.report.grade import NORMS, Grade, Kind, grade, size_of

YIELD = 0.9
"""A network has yielded where the upper end of its accuracy interval lies below this share of its clean accuracy."""


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


@dataclass(frozen=True)
class Yield:
    """The first size on one scale at which a network yields; grade and answer are None where nothing that was tried does it."""

    scale: str
    kind: Kind
    tried: int
    unanswered: int
    grade: Grade | None = None
    answer: Answer | None = None


@dataclass(frozen=True)
class Bounds:
    """What is known of R(T) of one network: the largest lower and the smallest upper bound, each None where there is none."""

    threat: str
    lower: float | None
    upper: float | None
    reasons: tuple[str, ...] = ()

    @property
    def contradictory(self) -> bool:
        return self.lower is not None and self.upper is not None and self.lower > self.upper

    def __str__(self) -> str:
        """`0.31 <= R(T) <= 0.44`; a lower bound is rounded down, an upper one up."""
        if self.lower is None and self.upper is None:
            return f"R(T) unknown: {'; '.join(self.reasons) or 'no bound was computed'}"
        if self.lower is not None and self.lower == self.upper:
            return f"R(T) = {number(self.lower)}"
        left = "" if self.lower is None else f"{_outward(self.lower, math.floor)} <= "
        right = "" if self.upper is None else f" <= {_outward(self.upper, math.ceil)}"
        return f"{left}R(T){right}"


class Content:
    """A table with its rows found by cell. Cells that the plan names and the rows lack are gaps, never errors."""

    def __init__(self, table: Table) -> None:
        plan = table.plan
        self.table, self.plan = table, plan
        self.data: dict[str, Any] = plan["data"] if isinstance(plan.get("data"), dict) else {"spec": plan.get("data")}
        self.networks = list(dict.fromkeys([*plan.get("networks", {}), *(row["net"] for row in table.rows if row.get("net"))]))
        measured = (row["perturbation"] for row in table.rows if row.get("perturbation"))
        self.grades = [grade(spec) for spec in dict.fromkeys([*plan.get("perturbations", ()), *measured])]
        self.findings: list[Finding] = sorted(table.findings, key=lambda found: _GRAVEST_FIRST.index(found.verdict))
        self._rows: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        self._cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in table.rows:
            self._rows.setdefault((row["net"], row.get("perturbation") or "", row["name"], row.get("layer") or ""), row)
            self._cells.setdefault((row["net"], row.get("perturbation") or ""), []).append(row)

    def about(self, net: str) -> dict[str, Any]:
        """What the plan says of a network: recipe, digest, notes, ..."""
        networks = self.plan.get("networks")
        found = networks.get(net) if isinstance(networks, dict) else None
        return found if isinstance(found, dict) else {}

    def cell(self, net: str, spec: str) -> list[dict[str, Any]]:
        """All rows of a network under a perturbation ("" for those of summaries)."""
        return self._cells.get((net, spec), [])

    def failure(self, net: str, spec: str) -> str:
        """Why the cell failed as a whole; empty where it did not."""
        rows = (row for row in self.cell(net, spec) if row.get("status") == Status.FAILED and not row.get("probe"))
        return next((row.get("reason") or "no reason was given" for row in rows), "")

    def answer(self, name: str, net: str, spec: str, layer: str = "") -> Answer:
        """The reading of a cell, or why there is none."""
        row = self._rows.get((net, spec, name, layer))
        if row is not None:
            return Answer.of(row)
        reason = self.failure(net, spec)
        if reason:
            return Answer(None, status="failed", reason=reason)
        reason = f"{name} was not measured here" if self.cell(net, spec) else "this cell is not in the table"
        return Answer(None, status="missing", reason=reason)

    def accuracy(self, net: str, spec: str) -> Answer:
        return self.answer("accuracy", net, spec)

    def clean(self, net: str) -> Answer:
        return self.accuracy(net, self.clean_spec)

    @property
    def clean_spec(self) -> str:
        return next((found.spec for found in self.grades if found.kind == "clean"), "clean")

    def of_kind(self, *kinds: Kind, scale: str = "") -> list[Grade]:
        return [found for found in self.grades if found.kind in kinds and (not scale or found.scale == scale)]

    def norms(self) -> list[str]:
        """The norms in which attacks or controls were run."""
        return [norm for norm in NORMS.values() if self.of_kind("attack", "control", scale=norm)]

    def yielded(self, net: str, answer: Answer) -> bool:
        """Does the upper end of the interval lie below 0.9 times the clean accuracy?"""
        clean, top = self.clean(net).value, answer.value if answer.high is None else answer.high
        return answer.ok and clean is not None and top is not None and top < YIELD * clean

    def yields(self, net: str) -> list[Yield]:
        """For each scale that was tried: the smallest size at which the network yields; of equals the one that costs most."""
        found = []
        scales: list[tuple[Kind, str]] = [("corruption", "severity"), *(("attack", norm) for norm in self.norms())]
        for kind, scale in scales:
            tried = [(item, self.accuracy(net, item.spec)) for item in self.of_kind(kind, scale=scale)]
            if not tried:
                continue
            worse = [(item.size, answer.value or 0.0, item, answer) for item, answer in tried if self.yielded(net, answer)]
            first = min(worse, key=lambda entry: entry[:2], default=(0, 0, None, None))
            found.append(Yield(scale, kind, len(tried), sum(not answer.ok for _, answer in tried), first[2], first[3]))
        return found

    def hardest(self, net: str, *kinds: Kind, scale: str = "") -> Grade | None:
        """The perturbation of these kinds that leaves the least accuracy (of equals the first)."""
        found = [(answer.value, item) for item in self.of_kind(*kinds, scale=scale) if (answer := self.accuracy(net, item.spec)).ok]
        return min(found, key=lambda entry: entry[0] or 0.0)[1] if found else None

    def stances(self, net: str) -> dict[str, Grade]:
        """The three views that explanations are shown under: clean, the hardest corruption, the hardest attack."""
        named = (
            ("clean", self.hardest(net, "clean")),
            ("corrupted", self.hardest(net, "corruption")),
            ("attacked", self.hardest(net, "attack")),
        )
        return {name: item for name, item in named if item is not None}

    def bounds(self, net: str) -> list[Bounds]:
        """Bounds of R(T) for each threat, from the rows named `robust_accuracy`."""
        threats: dict[str, list[dict[str, Any]]] = {}
        for row in self.table.rows:
            if row["net"] == net and row["name"] == "robust_accuracy":
                threats.setdefault(row.get("layer") or "", []).append(row)
        found = []
        for threat, rows in threats.items():
            answers = [(str(row.get("bound") or ""), Answer.of(row)) for row in rows]
            lower = [answer.value for bound, answer in answers if bound in (Bound.LOWER, Bound.EXACT) and answer.value is not None]
            upper = [answer.value for bound, answer in answers if bound in (Bound.UPPER, Bound.EXACT) and answer.value is not None]
            reasons = tuple(answer.reason for _, answer in answers if not answer.ok)
            found.append(Bounds(threat, max(lower, default=None), min(upper, default=None), reasons))
        return found

    @property
    def bounded(self) -> bool:
        """Is there a bound of R(T) of any network?"""
        return any((known.lower, known.upper) != (None, None) for net in self.networks for known in self.bounds(net))

    def gaps(self) -> Iterator[tuple[str, Grade, Answer]]:
        """Cells of the plan without an accuracy, and why."""
        for net in self.networks:
            for item in self.grades:
                answer = self.accuracy(net, item.spec)
                if not answer.ok:
                    yield net, item, answer

    def count(self, verdict: Verdict) -> int:
        return sum(found.verdict == verdict for found in self.findings)


_GRAVEST_FIRST = [Verdict.FAIL, Verdict.FLAG, Verdict.PASS]


def ball_of(threat: str) -> tuple[str, float, str] | None:
    """Scale, size and written size of a threat's text; None for threats that are no ball."""
    try:
        return size_of(parse(threat, Ball))
    except SpecError:
        return None


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


def _outward(value: float, towards: Callable[[float], int]) -> str:
    """Three decimals (two where they say it all), rounded so that the bound stays true."""
    thousandths = value * 1000
    nearest = round(thousandths)
    text = f"{(nearest if abs(thousandths - nearest) < 1e-6 else towards(thousandths)) / 1000:.3f}"
    return text.removesuffix("0")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
