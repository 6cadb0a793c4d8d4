"""Studies: a paper's experiment as a component that measures, and judges the paper's claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np

from brinell.core.component import Component
from brinell.core.confidence import bootstrap_totals


class Scale(StrEnum):
    """How large a study is run: seconds in a test, minutes on two cores, or as published."""

    SMOKE = "smoke"
    SMALL = "small"
    PAPER = "paper"


class Judgement(StrEnum):
    """What our numbers say of a claim."""

    HOLDS = "holds"
    FAILS = "fails"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Reference:
    """A paper: authors, year, title, link."""

    authors: str
    year: int
    title: str
    link: str


@dataclass(frozen=True)
class Claim:
    """One statement of a paper, in one sentence, and where it stands there."""

    name: str
    statement: str
    place: str = ""


@dataclass(frozen=True)
class Verdict:
    """What was found of one claim.

    Arguments:
        claim, judgement: of it. effect: the number it was judged by, with its unit in `measure`; low, high: its interval. n: how many
            independent pieces of evidence (seeds, networks) it rests on. why: one sentence for the reader.
    """

    claim: Claim
    judgement: Judgement
    measure: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    why: str = ""


@dataclass(frozen=True)
class Curve:
    """One line of a figure: y over x, with intervals where there are some."""

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Figure:
    """Curves on common axes. caption: what one sees, in one sentence."""

    title: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    caption: str = ""


@dataclass
class Outcome:
    """What a study leaves: verdicts, the numbers they rest on, and figures.

    Arguments:
        study, scale: what was run. verdicts: one for every claim, in their order. rows: tidy numbers, one dict each. figures: for the
            report. notes: what a reader must know (excluded networks, departures).
    """

    study: str
    scale: Scale
    paper: Reference
    verdicts: tuple[Verdict, ...]
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()

    def verdict(self, name: str) -> Verdict:
        """The verdict of the claim with this name."""
        return next(verdict for verdict in self.verdicts if verdict.claim.name == name)

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON; numbers that do not exist are None."""
        return _plain(asdict(self))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, StrEnum) else value


class Study(Component):
    """Composes perturbations, probes and hardenings into a paper's experiment.

    Studies have names of their own: the study `class_selectivity` stands beside the probe of that name.
    """

    registry: ClassVar[dict[str, type[Component]]] = {}
    packages: ClassVar[tuple[str, ...]] = ("studies",)
    paper: ClassVar[Reference]
    claims: ClassVar[tuple[Claim, ...]] = ()

    def __call__(self, lab: Any, *, scale: Scale) -> Outcome:
        """Run on a lab: one verdict per claim. What the lab remembers is not measured again."""
        raise TypeError(f"{type(self).__name__} does not say how it is run")


def judge_difference(
    claim: Claim, differences: Sequence[float], measure: str, *, least: float = 0.0, why: str = "", confidence: float = 0.95
) -> Verdict:
    """Judge a claim "this difference is positive" by independent repetitions, such as the paired differences of seeds.

    The interval is a percentile bootstrap of the mean over repetitions. HOLDS: its lower end lies above `least`; FAILS: its upper end lies
    below `least`; INCONCLUSIVE otherwise, and with fewer than three repetitions, of which an interval knows nothing.

    Example:
        >>> judge_difference(Claim("gain", "it gains"), [0.1, 0.12, 0.09], "points").judgement
        <Judgement.HOLDS: 'holds'>
    """
    values = np.asarray(list(differences), dtype=float)
    values = values[np.isfinite(values)]
    if len(values) < 3:
        mean = float(values.mean()) if len(values) else None
        return Verdict(claim, Judgement.INCONCLUSIVE, measure, mean, n=len(values), why=why or "fewer than three repetitions")
    means = bootstrap_totals(values[:, None])[:, 0] / len(values)
    low, high = (float(end) for end in np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]))
    judgement = Judgement.HOLDS if low > least else Judgement.FAILS if high < least else Judgement.INCONCLUSIVE
    return Verdict(claim, judgement, measure, float(values.mean()), low, high, len(values), why)


def judge_correlation(
    claim: Claim, groups: Mapping[Any, tuple[Sequence[float], Sequence[float]]], measure: str, *, sign: int = 1, why: str = "",
    confidence: float = 0.95,
) -> Verdict:  # fmt: skip
    """Judge a claim "y grows (sign 1) or falls (sign -1) with x" by Spearman's rank correlation.

    Arguments:
        groups: (x, y) by seed; the correlation is taken within each, and its mean over seeds is bootstrapped over seeds.
    """
    from scipy.stats import rankdata

    found = []
    for x, y in groups.values():
        keep = np.isfinite(x) & np.isfinite(y)
        a, b = np.asarray(x, dtype=float)[keep], np.asarray(y, dtype=float)[keep]
        if len(a) > 2 and np.ptp(a) > 0 and np.ptp(b) > 0:
            found.append(sign * float(np.corrcoef(rankdata(a), rankdata(b))[0, 1]))
    verdict = judge_difference(claim, found, measure, why=why, confidence=confidence)
    if sign > 0 or verdict.effect is None:
        return verdict
    low, high = (None if end is None else -end for end in (verdict.high, verdict.low))
    return replace(verdict, effect=0.0 - verdict.effect, low=low, high=high)
