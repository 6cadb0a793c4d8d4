"""Studies: a paper's experiment as a component that measures, and judges the paper's claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np

from brinell.core.component import Component
from brinell.core.confidence import bootstrap_totals
from brinell.core.draws import derive
from brinell.core.errors import UndefinedReading


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


def judge_range(
    claim: Claim, value: float | None, low: float | None, high: float | None, measure: str, *,
    least: float = -np.inf, most: float = np.inf, n: int = 0, why: str = "",
) -> Verdict:  # fmt: skip
    """Judge a claim "this number lies between `least` and `most`" by a measured value and its interval.

    HOLDS: the whole interval lies in the range. FAILS: all of it lies outside, on one side. INCONCLUSIVE otherwise, and without a
    finite value and interval.

    Example:
        >>> judge_range(Claim("slope", "it falls"), -0.5, -0.55, -0.45, "slope", least=-0.6, most=-0.4).judgement
        <Judgement.HOLDS: 'holds'>
    """
    if value is None or low is None or high is None or not np.isfinite([value, low, high]).all():
        return Verdict(
            claim, Judgement.INCONCLUSIVE, measure, _finite(value), _finite(low), _finite(high), n, why or "there is no interval"
        )
    judgement = Judgement.INCONCLUSIVE
    if least <= low and high <= most:
        judgement = Judgement.HOLDS
    elif high < least or low > most:
        judgement = Judgement.FAILS
    return Verdict(claim, judgement, measure, value, low, high, n, why)


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None


def judge_prediction(
    claim: Claim, value: float | None, low: float | None, high: float | None, predicted: float, measure: str, *,
    tolerance: float = 0.0, resolution: float = np.inf, n: int = 0, why: str = "",
) -> Verdict:  # fmt: skip
    """Judge a claim "this number is as predicted" by a measured value and its interval.

    HOLDS: the prediction lies in the interval widened by `tolerance` on both sides. FAILS: it does not. INCONCLUSIVE where half the length
    of the interval exceeds `resolution`, for then the measurement could hardly have told another prediction from this one.

    Arguments:
        tolerance: what the prediction is known to leave out (finite width or dimension), in the unit of the value.

    Example:
        >>> judge_prediction(Claim("rate", "as predicted"), 0.81, 0.78, 0.84, 0.8427, "flip rate", tolerance=0.01).judgement
        <Judgement.HOLDS: 'holds'>
    """
    told = why or f"predicted {predicted:.4g}" + (f", give or take {tolerance:.3g}" if tolerance else "")
    if value is None or low is None or high is None or not np.isfinite([value, low, high, predicted]).all():
        return Verdict(claim, Judgement.INCONCLUSIVE, measure, _finite(value), _finite(low), _finite(high), n, told)
    judgement = Judgement.HOLDS if low - tolerance <= predicted <= high + tolerance else Judgement.FAILS
    if (high - low) / 2 > resolution:
        judgement = Judgement.INCONCLUSIVE
    return Verdict(claim, judgement, measure, value, low, high, n, told)


def judge_all(claim: Claim, parts: Mapping[str, Verdict]) -> Verdict:
    """Judge a claim that is one statement about several cells: it holds if it holds in each of them.

    FAILS where any part fails, HOLDS where all hold, INCONCLUSIVE otherwise or without parts. The numbers are those of the first
    part, by name of its cell, that decided; `n` is the sum. Take the parts' intervals at the confidence of `confidence.bonferroni`, so
    that a true claim about many cells is not refuted by one of them by chance.

    Example:
        >>> claim = Claim("rate", "it is high")
        >>> parts = {k: judge_range(claim, v, v - 0.05, v + 0.05, "rate", least=0.5) for k, v in {"a": 0.9, "b": 0.3}.items()}
        >>> found = judge_all(claim, parts)
        >>> str(found.judgement), found.why
        ('fails', 'b (1 of 2 cells fail, 1 hold)')
    """
    counts = {judgement: sum(part.judgement is judgement for part in parts.values()) for judgement in Judgement}
    worst = next((j for j in (Judgement.FAILS, Judgement.INCONCLUSIVE) if counts[j]), Judgement.HOLDS)
    if not parts:
        return Verdict(claim, Judgement.INCONCLUSIVE, "no cell was measured")
    name, shown = next((name, part) for name, part in parts.items() if part.judgement is worst)
    told = f"{name} ({counts[Judgement.FAILS]} of {len(parts)} cells fail, {counts[Judgement.HOLDS]} hold)"
    why = f"{told}; {shown.why}" if shown.why else told
    return replace(shown, claim=claim, judgement=worst, n=sum(part.n for part in parts.values()), why=why)


@dataclass(frozen=True)
class Slope:
    """A slope in logarithmic axes, its standard error, and the interval of a percentile bootstrap."""

    value: float
    error: float
    low: float
    high: float


def log_slope(
    groups: Mapping[float, Sequence[float]], *, statistic: Callable[..., Any] = np.median, confidence: float = 0.95, resamples: int = 1000
) -> Slope:
    """The exponent b of y ~ x^b: the least-squares slope of log y over log x, y a statistic of independent repetitions at each x.

    Standard error and interval are a bootstrap within each x; they say how well the slope is known, not how straight the line is.

    Arguments:
        groups: the repetitions at each x > 0. statistic: called as statistic(values, axis=-1), positive; the median by default.

    Raises:
        UndefinedReading: fewer than two x, a group of fewer than two finite values, or a statistic that is not positive.

    Example:
        >>> found = log_slope({x: [x**-0.5 * k for k in (0.9, 1.0, 1.1)] for x in (1.0, 4.0, 16.0)})
        >>> round(found.value, 6), found.low < -0.5 < found.high
        (-0.5, True)
    """
    kept = {float(x): np.asarray(y, dtype=float)[np.isfinite(np.asarray(y, dtype=float))] for x, y in groups.items()}
    if len(kept) < 2 or any(x <= 0 for x in kept) or any(len(y) < 2 for y in kept.values()):
        sizes = ", ".join(f"{x:g}: {len(y)}" for x, y in kept.items())
        raise UndefinedReading(f"a slope needs two or more positive x with two or more finite values each; got {sizes or 'none'}")
    x = np.log(list(kept))
    draws = [derive(0, "study.log_slope", at, ids=range(resamples)) for at in range(len(kept))]
    tried = [statistic(y[d.integers(0, len(y), len(y)).numpy()], axis=-1) for d, y in zip(draws, kept.values(), strict=True)]
    whole = np.stack([statistic(y, axis=-1) for y in kept.values()])
    if not (whole > 0).all():
        raise UndefinedReading(f"a slope in logarithmic axes needs positive values; got {whole.tolist()}")
    weights = (x - x.mean()) / np.square(x - x.mean()).sum()
    with np.errstate(divide="ignore"):
        slopes = weights @ np.log(np.stack(tried))
    slopes = slopes[np.isfinite(slopes)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(slopes, [tail, 1 - tail]) if len(slopes) > 1 else (-np.inf, np.inf)
    return Slope(float(weights @ np.log(whole)), float(slopes.std(ddof=1)) if len(slopes) > 1 else np.inf, float(low), float(high))
