"""Gates: does a run meet requirements? Every answer names the number it rests on, or why there is none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from brinell.core.component import Component, parse
from brinell.core.errors import SpecError
from brinell.core.lab import Table
from brinell.core.measurement import Bound, Status
from brinell.engine.requirement import Requirement, requirement

NEAR = 3


class Outcome(StrEnum):
    """Whether a requirement is met; MISSING where the run holds no such number."""

    MET = "met"
    NOT_MET = "not met"
    MISSING = "missing"


@dataclass(frozen=True)
class Judgement:
    """What one requirement says of one network: the number it was compared with (None where there is none), and in words."""

    requirement: Requirement
    net: str
    outcome: Outcome
    number: float | None
    detail: str

    def __str__(self) -> str:
        return f"{self.outcome.upper():8} {self.net}: {self.detail}"

    def to_json(self) -> dict[str, Any]:
        return {
            "requirement": self.requirement.text, "net": self.net, "outcome": str(self.outcome), "number": self.number,
            "threshold": self.requirement.threshold, "detail": self.detail,
        }  # fmt: skip


def judge(table: Table, requirements: Iterable[Requirement | str]) -> list[Judgement]:
    """Every requirement, held against every network that it is about.

    A reading that is UNDEFINED or FAILED meets nothing; one that the run does not hold is MISSING, and near misses are listed.

    Example:
        >>> row = {"net": "a", "perturbation": "clean", "name": "accuracy", "value": 0.9, "low": 0.85, "high": 0.93}
        >>> table = Table({"networks": {"a": {}}, "perturbations": ["clean"]}, [row])
        >>> for judgement in judge(table, ["accuracy >= 0.8", "accuracy >= 0.88", "value(accuracy) >= 0.88"]):
        ...     print(judgement)
        MET      a: low(accuracy) is 0.85 (0.9 [0.85, 0.93])
        NOT MET  a: low(accuracy) is 0.85 (0.9 [0.85, 0.93]), and must be >= 0.88
        MET      a: value(accuracy) is 0.9 (0.9 [0.85, 0.93])
    """
    cells = _Cells(table)
    return [found for wanted in requirements for found in cells.judge(requirement(wanted) if isinstance(wanted, str) else wanted)]


def worst(judgements: Sequence[Judgement]) -> Outcome:
    """MISSING before NOT_MET before MET: what a gate answers as a whole."""
    found = {judgement.outcome for judgement in judgements}
    return next((outcome for outcome in (Outcome.MISSING, Outcome.NOT_MET) if outcome in found), Outcome.MET)


def outcome_text(judgements: Sequence[Judgement]) -> str:
    """One requirement to a paragraph: its text, and below it what each network shows."""
    lines: list[str] = []
    for wanted in dict.fromkeys(judgement.requirement for judgement in judgements):
        lines.append(wanted.text)
        lines += [f"  {judgement}" for judgement in judgements if judgement.requirement == wanted]
    met = sum(judgement.outcome == Outcome.MET for judgement in judgements)
    return "\n".join([*lines, f"{met} of {len(judgements)} met"]) + "\n"


class _Cells:
    """The rows of a table, found by what they are about."""

    def __init__(self, table: Table) -> None:
        self.table = table
        full = table.plan.get("full") or {}
        planned = [*table.plan.get("perturbations", ()), *(row["perturbation"] for row in table.rows if row["perturbation"])]
        self.components = {text: _component(full.get(text, text)) for text in dict.fromkeys(planned)}

    def judge(self, wanted: Requirement) -> list[Judgement]:
        nets = [net for net in self.table.networks if wanted.net in (None, net)]
        if not nets:
            return [
                Judgement(wanted, wanted.net or "", Outcome.MISSING, None, _not_among(wanted.net or "", self.table.networks, "network"))
            ]
        return [self._of(wanted, net) for net in nets]

    def _of(self, wanted: Requirement, net: str) -> Judgement:
        rows, missing = self._rows(wanted, net)
        silent = [row for row in rows if row.get("value") is None]
        if silent:
            reason = f"{silent[0].get('status') or Status.UNDEFINED}: {silent[0].get('reason') or 'no reason was given'}"
            return Judgement(wanted, net, Outcome.NOT_MET, None, reason)
        if wanted.end in ("low", "high") and any(row.get(wanted.end) is None for row in rows):
            missing = f"{wanted.name} has no interval here; compare value({wanted.name}...) instead"
        if missing or not rows:
            return Judgement(wanted, net, Outcome.MISSING, None, missing)
        numbers = [(_end(row, wanted), row) for row in rows]
        number, row = min(numbers, key=lambda pair: pair[0] if wanted.from_below else -pair[0])
        met = wanted.met_by(number)
        interval = "" if row.get("low") is None else f" [{_digits(row['low'])}, {_digits(row['high'])}]"
        compared = wanted.compared if row.get(wanted.compared) is not None else "value"
        said = f"{compared}({wanted.name}) is {_beside(number, wanted.threshold)} ({_digits(row['value'])}{interval or ', no interval'})"
        said += "" if met else f", and must be {wanted.operator} {wanted.threshold:.9g}"
        return Judgement(wanted, net, Outcome.MET if met else Outcome.NOT_MET, number, said)

    def _rows(self, wanted: Requirement, net: str) -> tuple[list[dict[str, Any]], str]:
        """The rows that a requirement is about, or why there are none. Of a failed cell the row that says so."""
        cell, missing = self._cell(wanted, net)
        broken = [row for row in cell if row.get("status") == Status.FAILED and not row.get("probe")]
        if missing or broken:
            return broken, missing
        named = [row for row in cell if row["name"] == wanted.name]
        if not named:
            failed = "; ".join(f"{row['name']} failed: {row['reason']}" for row in cell if row.get("status") == Status.FAILED)
            return [], _not_among(wanted.name, [row["name"] for row in cell], "reading") + (f" ({failed})" if failed else "")
        layers = dict.fromkeys(row.get("layer") or "" for row in named)
        asked = wanted.threat.spec() if wanted.threat else wanted.layer
        if asked is not None:
            chosen = [layer for layer in layers if layer == asked or _same(layer, asked)]
        else:
            chosen = [""] if "" in layers else list(layers) if len(layers) == 1 else []
        if not chosen:
            about = "threat" if wanted.threat else "layer"
            return [], _not_among(asked, layers, about) if asked else f"{wanted.name} is read for several; give layer=... ({_some(layers)})"
        rows = [row for row in named if (row.get("layer") or "") in chosen]
        bounds = {row.get("bound") for row in rows}
        bound = wanted.bound or (Bound.LOWER if wanted.compared == "low" or wanted.from_below else Bound.UPPER)
        if wanted.bound or {Bound.LOWER, Bound.UPPER} <= bounds:
            rows = [row for row in rows if row.get("bound") in (bound, Bound.EXACT)]
        return rows, "" if rows else f"{wanted.name} has no bound={bound} here; it has {_some(bounds)}"

    def _cell(self, wanted: Requirement, net: str) -> tuple[list[dict[str, Any]], str]:
        """The rows of the cell that a requirement names, or why there are none."""
        rows = [row for row in self.table.rows if row["net"] == net]
        if wanted.threat is not None:
            return [row for row in rows if not row["perturbation"]], ""
        if wanted.perturbation is None:
            clean = [row for row in rows if (row["perturbation"] or "").partition("(")[0] == "clean"]
            summaries = [row for row in rows if not row["perturbation"]]
            found = summaries if any(row["name"] == wanted.name for row in summaries) else clean
            return (found, "") if found else ([], "the clean samples are not measured yet; repeat the command of the run to finish it")
        texts = [text for text, known in self.components.items() if wanted.perturbation in (known, text) or wanted.perturbation == known]
        if not texts:
            return [], _not_among(wanted.perturbation.spec(), self.components, "cell")
        found = [row for row in rows if row["perturbation"] in texts]
        return found, "" if found else f"{texts[0]} is planned but not measured yet; repeat the command of the run to finish it"


def _component(text: str) -> Component | None:
    """What a text says; None where it names something that is not installed here."""
    try:
        return parse(text)
    except SpecError:
        return None


def _same(a: str, b: str) -> bool:
    first = _component(a) if "(" in a or a.isidentifier() else None
    return first is not None and first == _component(b)


def _end(row: dict[str, Any], wanted: Requirement) -> float:
    """The number that is compared; readings without an interval have only one."""
    return row["value"] if row.get(wanted.compared) is None else row[wanted.compared]


def _not_among(text: str, known: Iterable[str], what: str) -> str:
    names = list(dict.fromkeys(name for name in known if name))
    near = difflib.get_close_matches(text, names, n=NEAR, cutoff=0.3)
    return f"this run has no {what} {text}; " + (f"near: {', '.join(near)}" if near else f"it has {_some(names)}")


def _some(names: Iterable[Any], most: int = 8) -> str:
    listed = [str(name) for name in names if name]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return (", ".join(listed[:most]) or "none") + more


def _digits(number: float) -> str:
    return f"{number:.4g}"


def _beside(number: float, threshold: float) -> str:
    """As few digits as leave the number on its side of the threshold."""
    side = (number > threshold) - (number < threshold)
    texts = (f"{number:.{digits}g}" for digits in (4, 6, 9))
    return next((text for text in texts if (float(text) > threshold) - (float(text) < threshold) == side), repr(number))
