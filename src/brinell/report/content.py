"""What a table holds, arranged for readers: answers by cell, what yields where, bounds of R(T), gaps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from brinell.core.component import parse
from brinell.core.errors import SpecError, StoreError
from brinell.core.lab import Samples, Table
from brinell.core.measurement import Bound, Finding, Status, Verdict
from brinell.core.threat import Ball
from brinell.report.answer import Answer, number
from brinell.report.grade import NORMS, Grade, Kind, grade, size_of

YIELD = 0.9
"""A network has yielded where the upper end of its accuracy interval lies below this share of its clean accuracy."""


@dataclass(frozen=True)
class Yield:
    """The first size on one scale at which a network yields; grade and answer are None where nothing that was tried does it.

    Arguments:
        answer: the accuracy there, with the interval that holds at once with those of all corruptions and attacks of the network.
        sizes: the sizes that were tried, as written, in their order. at: the place of the first yield among them.
    """

    scale: str
    kind: Kind
    tried: int
    unanswered: int
    grade: Grade | None = None
    answer: Answer | None = None
    sizes: tuple[str, ...] = ()
    at: int | None = None


@dataclass(frozen=True)
class Bounds:
    """What is known of R(T) of one network: the largest lower and the smallest upper bound, each None where there is none.

    Arguments:
        reasons: why there is no bound. doubts: names of checks that failed, and without which the bounds cannot be believed.
    """

    threat: str
    lower: float | None
    upper: float | None
    reasons: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

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
        self.damaged: dict[str, None] = {}
        self._rows: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        self._cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._samples: dict[tuple[str, str], Samples] = {}
        self._arrays: dict[int, np.ndarray | None] = {}
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

    def outcomes(self, net: str, spec: str) -> Samples:
        """The samples of a cell where they say id, label, prediction and correct; else empty (so in runs of other versions)."""
        found = self.samples(net, spec)
        return found if {"id", "label", "prediction", "correct"} <= found.keys() else {}

    def samples(self, net: str, spec: str) -> Samples:
        """Per-sample columns of a cell; empty where there are none, or where their file is damaged (noted in `damaged`)."""
        if (net, spec) not in self._samples:
            found: Samples = {}
            if self.table.load_samples is not None:
                try:
                    found = self.table.load_samples(net, spec)
                except StoreError as error:
                    self.damaged[str(error)] = None
            self._samples[net, spec] = found
        return self._samples[net, spec]

    def array(self, row: Mapping[str, Any] | None) -> np.ndarray | None:
        """The array behind a row; None where there is none, or where its file is damaged (noted in `damaged`)."""
        if row is None:
            return None
        if id(row) not in self._arrays:
            try:
                self._arrays[id(row)] = self.table.array(row)
            except StoreError as error:
                self.damaged[str(error)], self._arrays[id(row)] = None, None
        return self._arrays[id(row)]

    def row(self, name: str, net: str, spec: str, layer: str = "") -> dict[str, Any] | None:
        return self._rows.get((net, spec, name, layer))

    def failure(self, net: str, spec: str) -> str:
        """Why the cell failed as a whole; empty where it did not."""
        rows = (row for row in self.cell(net, spec) if row.get("status") == Status.FAILED and not row.get("probe"))
        return next((row.get("reason") or "no reason was given" for row in rows), "")

    def answer(self, name: str, net: str, spec: str, layer: str = "") -> Answer:
        """The reading of a cell, or why there is none."""
        row = self.row(name, net, spec, layer)
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

    @cached_property
    def clean_spec(self) -> str:
        return next((found.spec for found in self.grades if found.kind == "clean"), "clean")

    def of_kind(self, *kinds: Kind, scale: str = "") -> list[Grade]:
        return [found for found in self.grades if found.kind in kinds and (not scale or found.scale == scale)]

    def norms(self) -> list[str]:
        """The norms in which attacks or controls were run."""
        return [norm for norm in NORMS.values() if self.of_kind("attack", "control", scale=norm)]

    @cached_property
    def compared(self) -> int:
        """Of how many corruptions and attacks the first to yield is picked, in the network with the most answers."""
        tried = self.of_kind("corruption", "attack")
        return max((sum(self.accuracy(net, item.spec).ok for item in tried) for net in self.networks), default=0)

    def yielded(self, net: str, answer: Answer) -> bool:
        """Does the upper end of the simultaneous interval lie below 0.9 times the clean accuracy?"""
        clean, wide = self.clean(net).value, answer.among(self.compared)
        top = wide.value if wide.high is None else wide.high
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
            sizes = dict(sorted((item.size, item.shown) for item, _ in tried))
            found.append(Yield(
                scale, kind, len(tried), sum(not answer.ok for _, answer in tried), first[2],
                first[3].among(self.compared) if first[3] else None, tuple(sizes.values()),
                list(sizes).index(first[2].size) if first[2] else None,
            ))  # fmt: skip
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
            doubts = tuple(self._doubts(net, threat))
            found.append(Bounds(threat, max(lower, default=None), min(upper, default=None), reasons, doubts))
        return found

    def _doubts(self, net: str, threat: str) -> dict[str, None]:
        """The failed checks of a network as a whole, of an attack as such, and of attacks in this threat."""
        of_attacks = ("unbounded", "binarisation")
        failed = [found for found in self.findings if found.verdict == Verdict.FAIL and found.net in ("", net)]
        return {found.name: None for found in failed if not found.perturbation or threat in found.perturbation or found.name in of_attacks}

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


def _outward(value: float, towards: Callable[[float], int]) -> str:
    """Three decimals (two where they say it all), rounded so that the bound stays true."""
    thousandths = value * 1000
    nearest = round(thousandths)
    text = f"{(nearest if abs(thousandths - nearest) < 1e-6 else towards(thousandths)) / 1000:.3f}"
    return text.removesuffix("0")
