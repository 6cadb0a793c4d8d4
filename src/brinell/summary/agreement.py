"""Agreement: do cheap measures of robustness put networks in the order of their robust accuracy?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from brinell.core.draws import derive
from brinell.core.lab import Table
from brinell.core.measurement import Finding, Reading, Status, Verdict
from brinell.core.summary import Summary
from brinell.core.threat import Ball
from brinell.summary.flipping_distance import flipping_distances
from brinell.summary.points import Room, balls, cells

CAP = 0.999e12
"""Values of psi from here on are capped ones, which means leave out (`probe.psi`)."""
METRICS = (
    "psi", "psi_inverse_mean", "psi_mean", "psi_trimmed_mean", "psi_limit_l2", "psi_limit_linf", "lipschitz", "linear_distance",
    "curvature", "flipping_distance",
)  # fmt: skip
_CHUNK = 1 << 22

Statistic = Callable[[np.ndarray], np.ndarray]


def median(values: np.ndarray) -> np.ndarray:
    """The lower median along the last axis, as medians of readings are."""
    return np.sort(values, -1)[..., (values.shape[-1] - 1) // 2]


def _mean(values: np.ndarray) -> np.ndarray:
    kept = np.where(values < CAP, values, np.nan)
    with np.errstate(invalid="ignore"):
        return np.nansum(kept, -1) / (~np.isnan(kept)).sum(-1)


def _trimmed(values: np.ndarray) -> np.ndarray:
    """Without a tenth of the uncapped values at either end."""
    ordered = np.sort(np.where(values < CAP, values, np.inf), -1)
    count = np.isfinite(ordered).sum(-1, keepdims=True)
    cut, place = (0.1 * count).astype(int), np.arange(values.shape[-1])
    kept = (place >= cut) & (place < count - cut)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(kept, ordered, 0.0).sum(-1) / kept.sum(-1)


def _inverse_mean(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return 1 / values.mean(-1)


SOURCES: dict[str, tuple[str, Statistic]] = {
    "psi_inverse_mean": ("worst_divergence", _inverse_mean),
    "psi_mean": ("psi", _mean),
    "psi_trimmed_mean": ("psi", _trimmed),
}
"""Metrics that are statistics of another reading's array; the others are the medians of their own."""


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation along the last axis, equal values sharing their mean rank; NaN where one side is constant.

    Example:
        >>> spearman(np.array([1.0, 2.0, 9.0]), np.array([3.0, 5.0, 4.0])).round(6).item()
        0.5
    """
    from scipy.stats import rankdata

    p, q = (rankdata(side, axis=-1) - (side.shape[-1] + 1) / 2 for side in (a, b))
    with np.errstate(invalid="ignore"):
        found = (p * q).sum(-1) / np.sqrt((p * p).sum(-1) * (q * q).sum(-1))
    return np.where(np.isnan(a).any(-1) | np.isnan(b).any(-1), np.nan, found)


@dataclass(frozen=True)
class Metric:
    """One measure of all networks: its name with its layer, and per network (n,) values, of which it is a statistic."""

    label: str
    values: list[np.ndarray]
    statistic: Statistic


class Agreement(Summary, name="agreement"):
    """Rank correlation across the networks of a run between each measure of robustness and robust accuracy in each ball.

        rho = corr( rank of the measure, rank of the upper bound of R(T) )      over networks, equal values sharing a rank (Spearman)

    R(T) is bounded as in `bound`: a sample counts where it is right at every measured point inside the ball, so put the strongest attack
    into the run. Measures are the readings of the clean cells called `metrics` that have a value for each sample (`psi`, `smoothness`,
    `fisher`, at both scales of the logits), and the median distance that minimum-norm attacks of the plan found.

    Reading `agreement`, of no single network (`net` is empty), layer `MEASURE | BALL`: rho, with a percentile bootstrap over images, all
    networks and both sides on the same ones; n is the number of networks; array (axis `network`, in the plan's order): measure and
    robust accuracy. The interval says how well rho of *these* networks is known, nothing of other networks. Values without an answer
    for some network, or equal ones throughout, leave it UNDEFINED.

    A measure that asks no label says nothing of accuracy: a constant network has infinite psi. Where clean accuracies differ by more than
    `margin` the ranking would mix the two; then the finding `mixed_accuracies` is FLAG and every reading UNDEFINED, with the range.

    Arguments:
        threat: the ball; None for all balls of the plan. metrics: names of readings, in which `flipping_distance` stands for the
            distances. margin: the largest difference of clean accuracies. confidence, resamples: of the bootstrap.

    References: Spearman (1904), "The Proof and Measurement of Association between Two Things", Am. J. Psychol. 15:72; the question is that
        of Yu et al. (2019), arXiv 1905.04270. The margin is ours.

    Example:
        >>> Agreement(margin=0.1).spec()
        'agreement(margin=0.1)'
    """

    threat: Ball | None = None
    metrics: tuple[str, ...] = METRICS
    margin: float = Field(default=0.05, ge=0, le=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    resamples: int = Field(default=1000, ge=100)

    def __call__(self, table: Table) -> list[tuple[str, Reading] | Finding]:
        asked = [self.threat] if self.threat is not None else balls(table.perturbations())
        clean = [table.samples(net, "clean").get("correct") for net in table.networks]
        if any(flags is None for flags in clean):
            return [Finding("mixed_accuracies", Verdict.FLAG, "The clean cell of a network failed, so that no network can be ranked")]
        accuracies = np.array([np.mean(flags) for flags in clean if flags is not None])
        mixed = _mixed(accuracies, table.networks, self.margin)
        found: list[tuple[str, Reading] | Finding] = [mixed]
        measures = list(self._measures(table))
        for ball in asked:
            survived = [Room(table).survived(cells(table, net), ball) for net in table.networks]
            found += [("", self._reading(measure, ball, survived, mixed)) for measure in measures]
        return found

    def _measures(self, table: Table) -> Iterator[Metric | Reading]:
        """The measures that every network has, and for the others a reading that says what is missing."""
        rows = {(row["net"], row["name"], row["layer"]): row for row in table.select(perturbation="clean")}
        for name in self.metrics:
            source, statistic = SOURCES.get(name, (name, median))
            for layer in dict.fromkeys(layer for _, found, layer in rows if found == name):
                label = f"{name} {layer}".strip()
                own = {net: rows.get((net, name, layer)) for net in table.networks}
                lost = [net for net, row in own.items() if row is None or row["status"] != Status.OK]
                if lost:
                    yield Reading.undefined("agreement", f"{lost[0]} has no {label}", layer=label, n=len(own))
                    continue
                arrays = [table.array(rows[net, source, layer]) if (net, source, layer) in rows else None for net in own]
                if all(array is not None and array.ndim == 1 for array in arrays):
                    yield Metric(label, [array for array in arrays if array is not None], statistic)
        norms = {item.threat.norm for item in table.perturbations() if item.unbounded and isinstance(item.threat, Ball)}
        for norm in sorted(norms) if "flipping_distance" in self.metrics else ():
            measured = [flipping_distances(cells(table, net), norm) for net in table.networks]
            yield Metric(f"flipping_distance L{norm:g}", measured, median)

    def _reading(self, measure: Metric | Reading, ball: Ball, survived: list[np.ndarray | None], mixed: Finding) -> Reading:
        label = measure.layer if isinstance(measure, Reading) else measure.label
        layer, n = f"{label} | {ball.spec()}", len(survived)
        if isinstance(measure, Reading):
            return Reading.undefined("agreement", measure.reason, layer=layer, n=n)
        flags = [kept for kept in survived if kept is not None]
        if mixed.verdict is not Verdict.PASS:
            return Reading.undefined("agreement", mixed.message, layer=layer, n=n)
        if len(flags) < max(n, 3):
            why = (
                f"{n} networks have no order to speak of; give at least 3" if n < 3 else "no measured point of a network lies in this ball"
            )
            return Reading.undefined("agreement", why, layer=layer, n=n)
        observed = np.array([[measure.statistic(v[None])[0], kept.mean()] for v, kept in zip(measure.values, flags, strict=True)])
        rho = float(spearman(observed[:, 0], observed[:, 1]))
        if not np.isfinite(rho):
            return Reading.undefined("agreement", "all networks have the same value, or one has none", layer=layer, n=n)
        again = _resampled(measure, flags, self.resamples)
        again = again[np.isfinite(again)]
        tail = (1 - self.confidence) / 2
        ends = [float(end) for end in np.quantile(again, [tail, 1 - tail])] if len(again) >= 0.95 * self.resamples else [None, None]
        return Reading(
            "agreement", rho, layer, low=ends[0], high=ends[1], confidence=None if ends[0] is None else self.confidence, n=n,
            array=observed, axis="network",
        )  # fmt: skip


def _mixed(accuracies: np.ndarray, networks: list[str], margin: float) -> Finding:
    low, high = int(accuracies.argmin()), int(accuracies.argmax())
    gap = float(accuracies[high] - accuracies[low])
    said = f"clean accuracies lie between {accuracies[low]:.3f} ({networks[low]}) and {accuracies[high]:.3f} ({networks[high]})"
    if gap <= margin + 1e-12:
        return Finding("mixed_accuracies", Verdict.PASS, f"Networks may be ranked: {said}", value=gap, threshold=margin)
    return Finding(
        "mixed_accuracies", Verdict.FLAG, f"No ranking by measures that ask no label: {said}, more than margin={margin:g} apart. Compare "
        "networks of like accuracy, or state a wider margin", value=gap, threshold=margin,
    )  # fmt: skip


def _resampled(measure: Metric, flags: list[np.ndarray], resamples: int) -> np.ndarray:
    """(resamples,) rank correlations on images drawn again with replacement, the same ones for all networks."""
    n, found = len(flags[0]), list[np.ndarray]()
    tall = max(1, _CHUNK // max(n, 1))
    for start in range(0, resamples, tall):
        rows = derive(0, "agreement", n, ids=range(start, min(start + tall, resamples))).integers(0, n, n).numpy()
        columns = [(measure.statistic(v[rows]), kept[rows].mean(1)) for v, kept in zip(measure.values, flags, strict=True)]
        found.append(spearman(np.stack([a for a, _ in columns], 1), np.stack([b for _, b in columns], 1)))
    return np.concatenate(found)
