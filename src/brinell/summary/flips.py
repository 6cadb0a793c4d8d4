"""Flips: how often a prediction changes along a sequence of inputs that should all mean the same."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from brinell.core.errors import UndefinedReading
from brinell.core.lab import Table
from brinell.core.measurement import Finding, Reading
from brinell.core.network import NetReference
from brinell.core.summary import Summary
from brinell.summary.graded import Ladder, Resampled, Statistic, ladders

Against = Literal["first", "previous"]


class FlipProbability(Summary, name="flip_probability"):
    """The share of steps along growing severities at which the prediction changes: how stable are answers, right or wrong?

    The sequence of a sample is its clean input and then the severities of one graded corruption that the plan names, in
    increasing order: x_1, ..., x_m. Then

        FP = mean over samples and j = 2..m of 1[f(x_j) != f(x_1)]            reference=first
        FP = mean over samples and j = 2..m of 1[f(x_j) != f(x_{j-1})]        reference=previous

    in [0, 1]: `flip_probability`, layer: the type; and `mean_flip_probability`, its mean over the types other than those meant
    for validation. With `relative_to`, a network of the run, there are also

        FR = 100 FP / FP of that network                                      `flip_rate`,  layer: the type

    and `mean_flip_rate` (mFR), its mean over the same types; that network itself has 100. These sequences are *not* those of
    ImageNet-P; for sequences of your own there is the function `flip_probability`.

    UNDEFINED where a cell failed, where a sample has NaN or inf among its logits, or where the clean samples are missing; a rate also
    where the network it is relative to is not in the run, or never changes an answer. Values
    are exact for the samples measured; intervals: a percentile bootstrap that draws whole sequences.

    Arguments:
        reference: the frame each is compared with. relative_to: `net(NAME)`, for flip rates; None: no rates.
        confidence: of each interval. resamples: of the bootstrap.

    References: Hendrycks & Dietterich (2019), https://arxiv.org/abs/1903.12261 (flip probability, for ImageNet-P).

    Example:
        >>> FlipProbability(reference="previous").spec()
        'flip_probability(reference=previous)'
    """

    reference: Against = "first"
    relative_to: NetReference | None = None
    confidence: float = Field(default=0.95, gt=0, lt=1)
    resamples: int = Field(default=2000, ge=100)

    def __call__(self, table: Table) -> list[tuple[str, Reading] | Finding]:
        found = ladders(table)
        columns: dict[tuple[str, str], np.ndarray] = {}
        broken: dict[tuple[str, str], str] = {}
        for net in table.networks:
            for ladder in found:
                frames, why = _frames(table, net, ladder)
                if why:
                    broken[net, ladder.label] = why
                    continue
                for step, flips in enumerate(_flips(frames, self.reference).T):
                    columns[net, f"{ladder.label} {step}"] = flips
        shares = Resampled(columns, self.resamples)
        readings = [(net, reading) for net in table.networks for reading in self._network(net, found, shares, broken)]
        if self.relative_to is None:
            return [*readings]
        rates = [
            (net, reading) for net in table.networks for reading in self._rates(net, self.relative_to.label, table, found, shares, broken)
        ]
        return [*readings, *rates]

    def _network(self, net: str, found: list[Ladder], shares: Resampled, broken: dict[tuple[str, str], str]) -> list[Reading]:
        readings, rows = [], []
        for ladder in found:
            why = broken.get((net, ladder.label), "")
            if why:
                readings.append(Reading.undefined("flip_probability", why, layer=ladder.label))
                continue
            at = shares.columns(net, [f"{ladder.label} {step}" for step in range(len(ladder.steps))])
            note = f"sequence: clean, severity {', '.join(map(str, sorted(ladder.steps)))}"
            reading = shares.reading(
                "flip_probability", ladder.label, lambda e, at=at: e[:, at].mean(1), self.confidence, mean=True, reason=note
            )
            readings.append(reading)
            if ladder.counts:
                rows.append(at)
        lost = [why for (name, _), why in broken.items() if name == net]
        if lost or not rows:
            return [*readings, Reading.undefined("mean_flip_probability", lost[0] if lost else "no graded corruption was measured")]
        mean = shares.reading(
            "mean_flip_probability", "", lambda e: np.mean([e[:, at].mean(1) for at in rows], 0), self.confidence, mean=True
        )  # fmt: skip
        return [*readings, mean]

    def _rates(
        self, net: str, other: str, table: Table, found: list[Ladder], shares: Resampled, broken: dict[tuple[str, str], str]
    ) -> list[Reading]:
        readings: list[Reading] = []
        parts: list[Statistic] = []
        lost: list[str] = []
        for ladder in found:
            why = broken.get((net, ladder.label)) or broken.get((other, ladder.label), "")
            if other not in table.networks:
                why = f"no network of this run is called {other!r} (they are {', '.join(table.networks)})"
            if why:
                readings.append(Reading.undefined("flip_rate", why, layer=ladder.label))
                lost.append(why)
                continue
            steps = [f"{ladder.label} {step}" for step in range(len(ladder.steps))]
            part = _rate(*(shares.columns(who, steps) for who in (net, other)))
            never = f"{other} never changes an answer there" * bool(np.isnan(part(shares.observed)[0]))
            readings.append(shares.reading("flip_rate", ladder.label, part, self.confidence, reason=never))
            if ladder.counts:
                parts.append(part)
                lost += [never] if never else []
        if lost or not parts:
            return [*readings, Reading.undefined("mean_flip_rate", lost[0] if lost else "no graded corruption was measured")]
        mean: Statistic = lambda e: np.mean([part(e) for part in parts], 0)  # noqa: E731
        return [*readings, shares.reading("mean_flip_rate", "", mean, self.confidence)]


def _rate(mine: np.ndarray, theirs: np.ndarray) -> Statistic:
    """100 times the ratio of the mean of some columns to that of others; NaN where it is one to 0."""

    def rate(e: np.ndarray) -> np.ndarray:
        below = e[:, theirs].mean(1)
        return 100 * np.divide(e[:, mine].mean(1), below, out=np.full(len(e), np.nan), where=below > 0)

    return rate


def _frames(table: Table, net: str, ladder: Ladder) -> tuple[np.ndarray, str]:
    """(n, m) predictions along the sequence, or why there are none."""
    cells = [table.samples(net, item) for item in ("clean", *(item for _, item in sorted(ladder.steps.items())))]
    if not all(cells):
        return np.zeros((0, 0)), "the clean samples were not measured" if not cells[0] else f"a cell of {ladder.label} failed"
    if not all(cell["finite"].all() for cell in cells):
        return np.zeros((0, 0)), f"some samples have NaN or inf among their logits under {ladder.label}, so they have no prediction"
    return np.stack([cell["prediction"] for cell in cells], 1), ""


def flip_probability(predictions: ArrayLike, reference: Against = "first") -> float:
    """The share of frames after the first whose prediction differs from that of the first, or of the previous, frame.

        FP = 1 / (m (t - 1)) sum_i sum_{j=2..t} 1[f(x_ij) != f(x_i,r)],   r = 1 (first) or j - 1 (previous)

    ImageNet-P compares with the first frame where frames carry noise of their own, and with the previous one where the
    perturbation grows with time. The flip rate of a network is its FP over that of a reference network.

    Arguments:
        predictions: (m, t) classes of m sequences of t frames.

    Raises:
        UndefinedReading: another shape, no sequence, or fewer than two frames.

    References: Hendrycks & Dietterich (2019), https://arxiv.org/abs/1903.12261.

    Example:
        >>> flip_probability([[1, 2, 2, 1]]), flip_probability([[1, 2, 2, 1]], "previous")
        (0.6666666666666666, 0.6666666666666666)
        >>> flip_probability([[1, 2, 2, 2]]), flip_probability([[1, 2, 2, 2]], "previous")
        (1.0, 0.3333333333333333)
    """
    frames = np.asarray(predictions)
    if frames.ndim != 2 or not len(frames) or frames.shape[1] < 2:
        raise UndefinedReading(f"flips need (m, t) predictions with m >= 1 and t >= 2 frames; got shape {frames.shape}")
    if reference not in ("first", "previous"):
        raise UndefinedReading(f"flips are counted against the first or the previous frame, not against {reference!r}")
    return float(_flips(frames, reference).mean())


def _flips(frames: np.ndarray, reference: Against) -> np.ndarray:
    """(m, t - 1) bool."""
    return frames[:, 1:] != (frames[:, :1] if reference == "first" else frames[:, :-1])


def top5_distance(ranks: ArrayLike) -> np.ndarray:
    """How far the five best-ranked classes of one frame have moved in another, a move beyond rank 6 counting as one to rank 6.

        d(sigma) = sum_{i=1..5} sum_{j=min(i, sigma(i))+1}^{max(i, sigma(i))} 1[1 <= j - 1 <= 5] = sum_{i=1..5} |i - min(sigma(i), 6)|

    Arguments:
        ranks: (..., k) permutations of 1..k, k >= 5: sigma(i), the new rank of the class that had rank i. `new_ranks` gives them
            from logits.

    Returns:
        (...) whole numbers from 0 to 15 = 5 + 4 + 3 + 2 + 1, when all five have left the first five ranks.

    Raises:
        UndefinedReading: fewer than 5 classes, or a row is no permutation.

    References: Hendrycks & Dietterich (2019), https://arxiv.org/abs/1903.12261.

    Example:
        >>> top5_distance([[1, 2, 3, 4, 5, 6], [2, 1, 3, 4, 5, 6], [2, 3, 4, 5, 6, 1]]).tolist()
        [0, 2, 5]
    """
    sigma = np.asarray(ranks)
    if sigma.ndim < 1 or sigma.shape[-1] < 5 or not (np.sort(sigma, -1) == np.arange(1, sigma.shape[-1] + 1)).all():
        raise UndefinedReading(f"the top-5 distance needs permutations of the ranks 1..k with k >= 5; got an array of shape {sigma.shape}")
    return np.abs(np.arange(1, 6) - np.minimum(sigma[..., :5], 6)).sum(-1)


def new_ranks(before: ArrayLike, after: ArrayLike) -> np.ndarray:
    """The rank by `after` (1: largest) of the class that has rank i by `before`; equal logits rank by class number.

    Arguments:
        before, after: (..., k) logits of two frames.

    Example:
        >>> new_ranks([0.9, 0.1, 0.5], [0.1, 0.2, 0.3]).tolist()       # class 0 falls from 1 to 3, class 2 rises from 2 to 1
        [3, 1, 2]
    """
    order = np.argsort(-np.asarray(before, dtype=np.float64), -1, kind="stable")
    places = np.argsort(np.argsort(-np.asarray(after, dtype=np.float64), -1, kind="stable"), -1) + 1
    return np.take_along_axis(places, order, -1)
