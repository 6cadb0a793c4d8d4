"""Verdicts of the study "beyond NTK": what descents and kernel regressions say of each claim."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from brinell.core.confidence import bonferroni
from brinell.core.errors import UndefinedReading
from brinell.core.study import (
    Claim,
    Judgement,
    Slope,
    Verdict,
    judge_all,
    judge_correlation,
    judge_difference,
    judge_prediction,
    judge_range,
    log_slope,
)
from brinell.studies.beyond_ntk_runs import Fitted, History, reaching

AT_FLOOR = 0.9
"""A loss of at least this many floors counts as standing at the floor: test losses of kernels have errors of some percent."""


@dataclass
class Found:
    """What was run, by row."""

    histories: dict[str, list[History]] = field(default_factory=dict)
    kernels: dict[str, list[Fitted]] = field(default_factory=dict)


def verdicts(claims: Iterable[Claim], found: Found) -> Iterator[Verdict]:
    """One for each claim, in their order; one whose row was not run stays open."""
    for claim in claims:
        row, judge = _JUDGES[claim.name]
        if found.histories.get(row) or found.kernels.get(row):
            yield judge(claim, found)
        else:
            yield Verdict(claim, Judgement.INCONCLUSIVE, "not measured", why=f"row {row} was not run")


def _each(claim: Claim, cells: Mapping[str, Iterable[float]], measure: str, least: float = 0.0) -> Verdict:
    """Are the numbers of all cells above `least`, by intervals that hold at once?"""
    confidence = bonferroni(0.95, max(len(cells), 1))
    parts = {name: judge_difference(claim, [*values], measure, least=least, confidence=confidence) for name, values in cells.items()}
    return judge_all(claim, parts) if len(parts) != 1 else next(iter(parts.values()))


def _under(claim: Claim, cells: Mapping[str, np.ndarray], share: float, of: str = "floor") -> Verdict:
    """Are the numbers of all cells below `share`, on a logarithmic scale?"""
    return _each(
        claim, {name: math.log10(share) - np.log10(values) for name, values in cells.items()}, f"log10 of {share:g} {of} / measured"
    )


def _slope(claim: Claim, groups: Mapping[float, Sequence[float]], judge: Callable[[Slope], Verdict]) -> Verdict:
    try:
        return judge(log_slope(groups))
    except UndefinedReading as reason:
        return Verdict(claim, Judgement.INCONCLUSIVE, "log-log slope", why=str(reason))


def _final(histories: Iterable[History]) -> dict[str, np.ndarray]:
    """Losses in floors at the end, by dimension and width; repetitions of one setting are joined."""
    joined: dict[str, list[float]] = {}
    for history in histories:
        joined.setdefault(f"d={history.course.problem.d}, m={history.course.width}", []).extend(history.floors[-1])
    return {name: np.asarray(values) for name, values in joined.items()}


def _plateau(claim: Claim, found: Found) -> Verdict:
    cells = {f"d={history.course.problem.d}": at_plateau(history) for history in found.histories["A"]}
    return _each(claim, cells, "loss / floor where T0 and T2 first are below 0.005 sum a^2", least=0.7)


def at_plateau(history: History) -> np.ndarray:
    """(members,) the loss in floors at the first mark at which T0 and T2 are below 0.005 sum a^2; NaN where they never are."""
    low = np.maximum(history.values["T0"], history.values["T2"]) < 0.005 * history.target.energy
    places = low.argmax(0)
    return np.where(low.any(0), history.floors[places, np.arange(low.shape[1])], np.nan)


def _plateau_length(claim: Claim, found: Found) -> Verdict:
    groups = {float(history.course.problem.d): [*reaching(history, 0.5)] for history in found.histories["A"]}
    logs = 1 / math.log(math.prod(groups) ** (1 / len(groups)))  # the slope of d^2 / log d falls short of 2 by this
    return _slope(claim, groups, lambda slope: judge_prediction(
        claim, slope.value, slope.low, slope.high, 2.0,
        f"log-log slope of the step at half the floor over d, standard error {slope.error:.2g}",
        tolerance=logs, resolution=0.5, n=sum(map(len, groups.values())),
    ))  # fmt: skip


def _recovery(claim: Claim, found: Found) -> Verdict:
    cells = {f"d={history.course.problem.d}": history.values["mass"][-1] for history in found.histories["A"]}
    return _each(claim, cells, "share of sum ||w||^2 in neurons with a cosine above 0.95 to a direction", least=0.9)


def _order_zero(claim: Claim, found: Found) -> Verdict:
    cells = {}
    for history in found.histories["A"]:
        after = history.step >= 50
        share = (history.values["trace"] <= history.values["second"])[after].mean(0)
        cells[f"d={history.course.problem.d}"] = share
    return _each(claim, cells, "share of marks from step 50 on at which |E ||w||^2 - target| is the smaller", least=0.9)


def _lottery(claim: Claim, found: Found) -> Verdict:
    groups = {}
    for history in found.histories["A"]:
        start, directions = history.course.start().double(), history.target.directions
        luck = ((start @ directions.mT) / start.norm(dim=-1, keepdim=True)).square().amax(-1)
        ends = history.w.double().square().sum(-1)
        groups |= {(history.course.problem.d, k): (luck[k].tolist(), ends[k].tolist()) for k in range(len(luck))}
    return judge_correlation(claim, groups, "Spearman correlation of the largest squared cosine at the start with ||w||^2 at the end")


def _kernel_floor(claim: Claim, found: Found) -> Verdict:
    cells: dict[str, list[float]] = {}
    for fitted in found.kernels["B"]:
        task = fitted.task
        if not task.problem.axes and task.samples <= task.problem.d**4 / 100:
            cells.setdefault(f"{task.kernel}, d={task.problem.d}, N={task.samples}", []).append(fitted.best / fitted.floor)
    return _each(claim, cells, "loss / floor at the best ridge in hindsight", least=AT_FLOOR)


def _kernel_scaling(claim: Claim, found: Found) -> Verdict:
    groups = {d: [*losses] for d, losses in scaling(found).items()}
    return _slope(claim, groups, lambda slope: judge_prediction(
        claim, slope.value, slope.low, slope.high, -1.0,
        f"log-log slope of the tangent kernel's loss over d, N = 2.5 d^2, standard error {slope.error:.2g}",
        tolerance=0.15, resolution=0.3, n=sum(map(len, groups.values())),
    ))  # fmt: skip


def scaling(found: Found) -> dict[float, list[float]]:
    """Losses of the tangent kernel of both layers by dimension, at 2.5 d^2 samples."""
    groups: dict[float, list[float]] = {}
    for fitted in found.kernels["B"]:
        task = fitted.task
        if task.kernel == "ntk" and task.samples == round(2.5 * task.problem.d**2):
            groups.setdefault(float(task.problem.d), []).append(fitted.best)
    return dict(sorted(groups.items()))


def _kernel_passes(claim: Claim, found: Found) -> Verdict:
    tangent = [fitted for fitted in found.kernels["B"] if fitted.task.kernel == "ntk"]
    most = max(fitted.task.samples for fitted in tangent)
    return _under(claim, {f"N={most}": np.array([fitted.best / fitted.floor for fitted in tangent if fitted.task.samples == most])}, 1.0)


def _rotation(claim: Claim, found: Found) -> Verdict:
    known, rotated = (
        np.array([f.best / f.floor for f in found.kernels["B"] if f.task.kernel == "additive" and f.task.problem.axes is axes])
        for axes in (True, False)
    )
    return judge_all(claim, {
        "axes known": _under(claim, {"": known}, 0.1),
        "rotated": judge_difference(claim, [*rotated], "loss / floor of the additive kernel", least=AT_FLOOR),
    })  # fmt: skip


def ratios(found: Found, row: str) -> dict[int, list[float]]:
    """By number of samples: the network's final loss over the kernel's at its best ridge, on the same samples."""
    kernels = {(fitted.task.problem, fitted.task.samples): fitted.best for fitted in found.kernels[row]}
    made: dict[int, list[float]] = {}
    for history in found.histories[row]:
        course = history.course
        if (course.problem, course.samples) in kernels:
            made.setdefault(course.samples, []).append(float(history.values["loss"][-1, 0]) / kernels[course.problem, course.samples])
    return made


def _same_samples(claim: Claim, found: Found) -> Verdict:
    return _under(claim, {f"N={n}": np.array(values) for n, values in ratios(found, "C").items()}, 0.35, "kernel loss")


def _few_samples(claim: Claim, found: Found) -> Verdict:
    found_ratios = ratios(found, "D")
    fewest = min(found_ratios)
    return judge_difference(claim, [*np.log10(found_ratios[fewest])], f"log10 of the network's loss / the kernel's, N = {fewest}")


def _more_samples(claim: Claim, found: Found) -> Verdict:
    groups: dict[float, list[float]] = {}
    for history in found.histories["D"]:
        groups.setdefault(float(history.course.samples), []).append(float(history.values["loss"][-1, 0]))
    return _slope(claim, groups, lambda slope: judge_range(
        claim, slope.value, slope.low, slope.high, f"log-log slope of the loss over N, standard error {slope.error:.2g}",
        most=0.0, n=sum(map(len, groups.values())),
    ))  # fmt: skip


def _online(claim: Claim, found: Found) -> Verdict:
    return _under(claim, _final(found.histories["E"]), 0.2)


def _widths(found: Found, narrow: bool) -> dict[str, np.ndarray]:
    return _final(history for history in found.histories["F"] if (history.course.width <= history.course.problem.d) is narrow)


def published(found: Found) -> list[History]:
    """The descents of the abs learner on the first of the data that row P has, by width."""
    first = found.histories["P"][0].course
    same = [h for h in found.histories["P"] if (h.course.problem, h.course.samples) == (first.problem, first.samples)]
    return sorted(same, key=lambda history: history.course.width)


def _figure_1(claim: Claim, found: Found) -> Verdict:
    widest = published(found)[-1]
    worst = np.maximum(widest.values["T4"][-1], widest.values["T6"][-1]) / widest.target.energy
    return _under(claim, {f"m={widest.course.width}": worst}, 0.01, "sum a^2")


def _figure_2(claim: Claim, found: Found) -> Verdict:
    double = [history for history in published(found) if history.course.width == 2 * history.course.problem.d]
    values = itertools.chain.from_iterable(np.log10(history.values["T4"][-1] / history.target.energy) for history in double)
    samples = next((history.course.samples for history in double), 0)
    on = f"on {samples} samples" if samples else "on the population, where the paper has 10^4 samples"
    return judge_difference(claim, [*values], "log10 of T4 / sum a^2 at the end, m = 2d", least=-1.0,
                            why=f"stuck would mean that a tenth of order 4 or more is left; {on}")  # fmt: skip


def _faster(claim: Claim, found: Found) -> Verdict:
    runs = published(found)
    wide, double = runs[-1], next((h for h in runs if h.course.width == 2 * h.course.problem.d), runs[0])
    step = 0.3 * min(wide.course.steps, double.course.steps)
    narrow_loss, wide_loss = (history.floors[np.searchsorted(history.step, step)] for history in (double, wide))
    measure = f"log10 of the loss at m = {double.course.width} / at m = {wide.course.width}, near step {step:.0f}"
    return judge_difference(claim, [*np.log10(narrow_loss / wide_loss)], measure)


_JUDGES: dict[str, tuple[str, Callable[[Claim, Found], Verdict]]] = {
    "plateau": ("A", _plateau),
    "below_floor": ("A", lambda claim, found: _under(claim, _final(found.histories["A"]), 0.1)),
    "plateau_length": ("A", _plateau_length),
    "recovery": ("A", _recovery),
    "order_zero": ("A", _order_zero),
    "lottery": ("A", _lottery),
    "kernel_floor": ("B", _kernel_floor),
    "kernel_scaling": ("B", _kernel_scaling),
    "kernel_passes": ("B", _kernel_passes),
    "rotation": ("B", _rotation),
    "same_samples": ("C", _same_samples),
    "few_samples": ("D", _few_samples),
    "more_samples": ("D", _more_samples),
    "online": ("E", _online),
    "narrow": ("F", lambda claim, found: _each(claim, _widths(found, True), "loss / floor", least=AT_FLOOR)),
    "wide": ("F", lambda claim, found: _under(claim, _widths(found, False), 0.1)),
    "hard_kernel": ("H", lambda claim, found: judge_difference(
        claim, [fitted.best / fitted.floor for fitted in found.kernels["H"]], "loss / floor of the tangent kernel", least=AT_FLOOR)),
    "hard_network": ("H", lambda claim, found: _under(claim, _final(found.histories["H"]), 0.1)),
    "published": ("P", _figure_1),
    "stuck": ("P", _figure_2),
    "wider_is_faster": ("P", _faster),
}  # fmt: skip
"""The row each claim rests on, and how it is judged."""
