"""Comparisons: two runs on the same samples, cell by cell, and which differences are more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from brinell.core.component import Component, parse
from brinell.core.confidence import PairedTest, bonferroni, mcnemar
from brinell.core.errors import SpecError, StoreError
from brinell.core.lab import Table
from brinell.report.answer import Answer
from brinell.report.content import Content

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """One cell in both runs: the accuracies, and B minus A sample by sample.

    Arguments:
        net: the pair's name. perturbation: its spec. a, b: the accuracies. test: of B against A, its interval holding at once with
        those of all other cells; None where a run has no answer. p_value: of the exact test, adjusted by Holm over all cells.
        reason: why there is no test.
    """

    net: str
    perturbation: str
    a: Answer
    b: Answer
    test: PairedTest | None = None
    p_value: float | None = None
    reason: str = ""

    @property
    def verdict(self) -> str:
        """`B better`, `B worse`, `no difference shown`, or `no answer`."""
        if self.test is None or self.p_value is None:
            return "no answer"
        if self.p_value > 1 - CONFIDENCE:
            return "no difference shown"
        return "B better" if self.test.difference > 0 else "B worse"


@dataclass
class Comparison:
    """Run B against run A on the same samples.

    Arguments:
        a, b: what the runs are called. data: spec of the samples. n: how many. pairs: network of A, network of B.
        cells: those in both plans, in A's order. only_a, only_b: specs of perturbations in one plan only.
        notes: what else differs between the plans, and what limits the comparison.
    """

    a: str
    b: str
    data: str
    n: int
    pairs: list[tuple[str, str]]
    cells: list[Difference]
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def comparisons(self) -> int:
        return sum(cell.test is not None for cell in self.cells)

    def count(self, verdict: str) -> int:
        return sum(cell.verdict == verdict for cell in self.cells)

    @property
    def headline(self) -> str:
        """One sentence: in how many cells B is better, worse, or not distinguishable."""
        better, worse, same, none = (self.count(verdict) for verdict in ("B better", "B worse", "no difference shown", "no answer"))
        said = f"B is better in {better} and worse in {worse} of {len(self.cells)} cells; no difference is shown in {same}"
        return said + (f", and {none} have no answer" if none else "")

    @property
    def method(self) -> str:
        return (
            f"Difference: accuracy of B minus accuracy of A on the same {self.n} samples. Intervals (Bonett and Price) hold for all "
            f"{self.comparisons} cells at once at about {100 * CONFIDENCE:g} %; p is of the exact McNemar test, adjusted by Holm for "
            f"{self.comparisons} comparisons; B is called better or worse where p <= {1 - CONFIDENCE:g}."
        )

    def to_json(self) -> dict[str, Any]:
        cells = []
        for cell in self.cells:
            test = asdict(cell.test) if cell.test else dict.fromkeys(PairedTest.__dataclass_fields__)
            one, two = ({"value": answer.value, "low": answer.low, "high": answer.high} for answer in (cell.a, cell.b))
            cells.append(
                {"net": cell.net, "perturbation": cell.perturbation, "a": one, "b": two}
                | {"difference": test["difference"], "low": test["low"], "high": test["high"], "p_value": cell.p_value}
                | {"only_a": test["only_a"], "only_b": test["only_b"], "n": test["n"], "verdict": cell.verdict, "reason": cell.reason}
            )
        return {
            "a": self.a, "b": self.b, "data": self.data, "n": self.n, "pairs": self.pairs, "confidence": CONFIDENCE,
            "comparisons": self.comparisons, "cells": cells, "only_a": self.only_a, "only_b": self.only_b, "notes": self.notes,
        }  # fmt: skip


def compare(a: Table, b: Table, names: tuple[str, str] = ("A", "B"), pairs: Sequence[tuple[str, str]] = ()) -> Comparison:
    """Pair two runs sample by sample: does B differ from A by more than chance, where, and by how much?

    Cells are matched by their perturbation as a component. Networks are matched by name, or as the only one of each run.

    Arguments:
        names: what to call the runs. pairs: (network of A, network of B) where names do not say it.

    Raises:
        StoreError: the runs are not on the same samples, or their networks cannot be paired.
    """
    one, two = Content(a), Content(b)
    if one.data.get("digest") != two.data.get("digest"):
        said = " and ".join(
            f"{name}: {run.data.get('spec')}, {run.data.get('n')} samples" for name, run in zip(names, (one, two), strict=True)
        )
        raise StoreError(
            f"the runs are on different data ({said}; the digests differ), so their samples cannot be paired. "
            f"Measure both with the same --data, --limit and --seed"
        )
    chosen = list(pairs) or _pairs(one.networks, two.networks, names)
    for pair in chosen:
        for net, run, name in zip(pair, (one, two), names, strict=True):
            if net not in run.networks:
                raise StoreError(f"{name} has no network {net!r}; it has {', '.join(run.networks)}")
    here, there = _by_component(one), _by_component(two)
    shared = [(here[key], there[key]) for key in here if key in there]
    cells = [_difference(a, b, one, two, pair, specs) for pair in chosen for specs in shared]
    only_a, only_b = ([known[key] for key in known if key not in other] for known, other in ((here, there), (there, here)))
    notes = _notes(one, two, chosen, shared)
    return Comparison(*names, str(one.data.get("spec")), int(one.data.get("n") or 0), chosen, _adjusted(cells), only_a, only_b, notes)


def _pairs(a: list[str], b: list[str], names: tuple[str, str]) -> list[tuple[str, str]]:
    shared = [net for net in a if net in b]
    if shared:
        return [(net, net) for net in shared]
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    said = f"{names[0]} has {', '.join(a) or 'none'}; {names[1]} has {', '.join(b) or 'none'}"
    raise StoreError(f"no network of the two runs has the same name ({said}). Say which belong together: --pair NAME_IN_A=NAME_IN_B")


def _by_component(run: Content) -> dict[Component | str, str]:
    """Specs of a plan by what they mean; by their text where they name something that is not installed here."""
    full = run.plan.get("full") or {}
    found: dict[Component | str, str] = {}
    for item in run.grades:
        try:
            found[parse(full.get(item.spec, item.spec))] = item.spec
        except SpecError:
            found[full.get(item.spec, item.spec)] = item.spec
    return found


def _difference(
    a: Table, b: Table, one: Content, two: Content, pair: tuple[str, str], specs: tuple[str, str]
) -> tuple[Difference, np.ndarray | None, np.ndarray | None]:
    """A cell without its test, and the flags to test."""
    answers = one.accuracy(pair[0], specs[0]), two.accuracy(pair[1], specs[1])
    silent = [f"{name}: {answer}" for name, answer in zip("AB", answers, strict=True) if not answer.ok]
    title = pair[0] if pair[0] == pair[1] else f"{pair[0]} → {pair[1]}"
    if silent:
        return Difference(title, specs[0], *answers, reason="; ".join(silent)), None, None
    left, right = _samples(a, pair[0], specs[0]), _samples(b, pair[1], specs[1])
    if not left or not right or not np.array_equal(left["id"], right["id"]):
        return Difference(title, specs[0], *answers, reason="the samples of this cell are missing in one of the runs"), None, None
    return Difference(title, specs[0], *answers), left["correct"], right["correct"]


def _samples(table: Table, net: str, spec: str) -> dict[str, np.ndarray]:
    return table.load_samples(net, spec) if table.load_samples else {}


def _adjusted(cells: list[tuple[Difference, np.ndarray | None, np.ndarray | None]]) -> list[Difference]:
    """The cells with their tests: simultaneous intervals (Bonferroni), and p-values adjusted step down (Holm)."""
    flagged = sum(left is not None for _, left, _ in cells)
    level = bonferroni(CONFIDENCE, max(flagged, 1))
    tests = [None if left is None or right is None else mcnemar(right, left, level) for _, left, right in cells]
    adjusted = iter(holm([test.p_value for test in tests if test is not None]))
    return [
        cell if test is None else Difference(cell.net, cell.perturbation, cell.a, cell.b, test, next(adjusted))
        for (cell, _, _), test in zip(cells, tests, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: rejecting those <= alpha keeps the chance of any false rejection at alpha, however they depend.

        p~_(i) = max over j <= i of min(1, (m - j + 1) p_(j)),      p_(1) <= ... <= p_(m)

    References: Holm (1979), "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6:65,
        https://www.jstor.org/stable/4615733.

    Example:
        >>> holm([0.04, 0.01, 0.03])
        [0.06, 0.03, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.minimum(1.0, (len(values) - np.arange(len(values))) * values[order])
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted.tolist()


def _notes(one: Content, two: Content, pairs: list[tuple[str, str]], shared: list[tuple[str, str]]) -> list[str]:
    plans, notes = (one.plan, two.plan), []
    if plans[0].get("seed") != plans[1].get("seed"):
        notes.append(f"The seeds differ ({plans[0].get('seed')} and {plans[1].get('seed')}): noise and random starts are not the same.")
    versions = [plan.get("versions") or {} for plan in plans]
    moved = [a for a, b in shared if versions[0].get(a) != versions[1].get(b)]
    if moved:
        notes.append(f"Measured with other versions, whose numbers may differ for that reason: {', '.join(moved)}.")
    for place, (title, run) in enumerate((("A", one), ("B", two))):
        alone = [net for net in run.networks if net not in {pair[place] for pair in pairs}]
        if alone:
            notes.append(f"Networks of {title} without a partner: {', '.join(alone)}.")
    same = [a for a, b in pairs if one.about(a).get("digest") and one.about(a).get("digest") == two.about(b).get("digest")]
    if same:
        notes.append(f"The same network in both runs: {', '.join(same)}.")
    if "cluster" in (one.data.get("columns") or ()):
        notes.append("The samples come in clusters, which are not known here: intervals are too short and p-values too small.")
    return notes
