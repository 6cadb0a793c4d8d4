"""mCE: errors under the 15 common corruptions as a percentage of a reference network's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from brinell.core.errors import UndefinedReading
from brinell.core.lab import Table
from brinell.core.measurement import Finding, Reading
from brinell.core.network import NetReference
from brinell.core.summary import Summary
from brinell.summary.graded import SEVERITIES, TYPES, Ladder, Resampled, Statistic, incomplete, ladders, resampled, standard

ALEXNET_CLEAN = 0.435
ALEXNET = {
    "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452), "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    "impulse_noise": (0.78374, 0.89808, 0.94870, 0.98720, 0.99548), "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344), "motion_blur": (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
    "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198), "snow": (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
    "frost": (0.61390, 0.79734, 0.88790, 0.89942, 0.93430), "fog": (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
    "brightness": (0.45140, 0.48502, 0.54048, 0.62166, 0.72440), "contrast": (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
    "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554), "pixelate": (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
    "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
}  # fmt: skip
"""Errors of AlexNet on ImageNet-C, severities 1 to 5, and (above) on clean ImageNet: the constants of published mCE values."""

SMALLEST = 0.01


class MCE(Summary, name="mce"):
    """The mean corruption error of ImageNet-C: is the network hurt by common corruptions more than a reference network is?

        CE_c  = 100 sum_s E[c, s] / sum_s Eref[c, s]                          `ce`,           layer: the type
        mCE   = mean of CE_c over the 15 types                                `mce`
        relative CE_c = 100 sum_s (E[c, s] - E0) / sum_s (Eref[c, s] - Eref0) `relative_ce`,  layer: the type
        relative mCE  = its mean over the 15 types                            `relative_mce`

    with E the share of wrong answers under type c at severity s = 1..5, E0 that on clean inputs, ref the reference. The reference
    itself has 100 throughout; smaller is better; relative CE is about the loss beyond the clean error and may be negative.
    Without `reference` it is AlexNet with its published errors on ImageNet-C (clean: 43.5 %), which asks for data of 1000
    classes and the corruptions at ImageNet's parameters; else any network of the run. The mean error that work on CIFAR-10-C
    calls "mCE" is another quantity: see `corruption_error`.

    Where corruptions are not as published (frost without the authors' photographs, lengths scaled below 32 pixels, `quantize=False`)
    the means say so; in the first two cases the layers of such types go on with `(nonstandard: why)`.

    UNDEFINED, with the reason: a type without all five severities, and then the mean over types; a ratio whose denominator,
    as a mean over severities, is below `smallest` (the corruption does not hurt the reference, so that the ratio would be huge
    and mean nothing) and then the mean over types; a reference that is not in the run.

    Values are exact for the samples measured. Intervals are for the population: a percentile bootstrap that draws samples and
    takes each with all its cells and, where it is in the run, with its answers by the reference. There is none where a
    denominator falls below `smallest` on some resample. AlexNet's errors count as known without error.

    Arguments:
        reference: `net(NAME)`, a network of the run; None: AlexNet. smallest: denominator, as a mean error (not stated in the paper).
        confidence: of each interval. resamples: of the bootstrap.

    References: Hendrycks & Dietterich (2019), "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
        ICLR, https://arxiv.org/abs/1903.12261; AlexNet's errors: the authors' code, https://github.com/hendrycks/robustness.

    Example:
        >>> MCE(reference=NetReference(label="standard")).spec()
        'mce(reference=net(standard))'
    """

    reference: NetReference | None = None
    smallest: float = Field(default=SMALLEST, gt=0, le=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)
    resamples: int = Field(default=2000, ge=100)

    def __call__(self, table: Table) -> list[tuple[str, Reading] | Finding]:
        found = ladders(table)
        errors, failed = resampled(table, self.resamples)
        unfit = self._unfit(table, found)
        departures = filter(None, map(standard(table), (ladder for ladder in found if ladder.first.name in TYPES)))
        note = f"not as published: {told}" if (told := "; ".join(departures)) else ""
        readings: list[tuple[str, Reading] | Finding] = []
        for net in table.networks:
            readings += [(net, reading) for reading in self._network(net, found, errors, failed, unfit, note)]
        return readings

    def _unfit(self, table: Table, found: list[Ladder]) -> str:
        """Why the reference does not fit this run; "" where it does."""
        if self.reference is not None:
            label = self.reference.label
            return "" if label in table.networks else f"no network of this run is called {label!r} (they are {', '.join(table.networks)})"
        advice = "AlexNet's errors are those on ImageNet-C; give reference=net(NAME)"
        classes = len(table.plan["data"]["classes"])
        if classes != 1000:
            return f"the data have {classes} classes, not 1000: {advice}"
        departures = filter(None, map(standard(table, "imagenet"), (ladder for ladder in found if ladder.first.name in TYPES)))
        departure = next(departures, "")
        return f"{departure}: {advice}" if departure else ""

    def _network(
        self, net: str, found: list[Ladder], errors: Resampled, failed: dict[str, dict[str, str]], unfit: str, note: str
    ) -> Iterator[Reading]:
        label = self.reference.label if self.reference else net
        broken = {**failed[net], **failed.get(label, {})}
        unclean = "" if {(net, "clean"), (label, "clean")} <= errors.place.keys() else "the clean samples were not measured"
        for name, mean_name, relative in (("ce", "mce", False), ("relative_ce", "relative_mce", True)):
            parts: list[Statistic] = []
            reasons: list[str] = []
            for kind in TYPES:
                mine = [ladder for ladder in found if ladder.first.name == kind]
                why = unfit or incomplete(found, broken, (kind,)) or unclean * relative
                if not why:
                    part, why = self._part(net, mine[0], errors, relative)
                    if not why:
                        parts.append(part)
                        yield errors.reading(name, mine[0].label, part, self.confidence)
                        continue
                reasons.append(why if kind in why else f"{kind}: {why}")
                if mine:
                    yield Reading.undefined(name, why, layer=mine[0].label if len(mine) == 1 else kind, n=errors.n)
            if reasons:
                yield Reading.undefined(mean_name, unfit or "; ".join(reasons), n=errors.n)
            else:
                mean: Statistic = lambda e, parts=parts: np.mean([part(e) for part in parts], 0)  # noqa: E731
                yield errors.reading(mean_name, "", mean, self.confidence, reason=note)

    def _part(self, net: str, ladder: Ladder, errors: Resampled, relative: bool) -> tuple[Statistic, str]:
        """The (relative) CE of one type as a function of the means of columns; and why it has no value, if it has none."""
        specs = [ladder.steps[severity].spec() for severity in SEVERITIES]

        def weights(whose: str) -> np.ndarray:
            made = np.zeros(len(errors.place))
            made[errors.columns(whose, specs)] = 1 / len(specs)
            if relative:
                made[errors.columns(whose, ["clean"])] = -1
            return made

        top = weights(net)
        if self.reference is None:
            bottom, fixed = np.zeros(len(errors.place)), float(np.mean(ALEXNET[ladder.first.name])) - ALEXNET_CLEAN * relative
        else:
            bottom, fixed = weights(self.reference.label), 0.0

        def part(e: np.ndarray) -> np.ndarray:
            below = e @ bottom + fixed
            return 100 * np.divide(e @ top, below, out=np.full(len(e), np.nan), where=below >= self.smallest)

        return part, _too_small(float((errors.observed @ bottom)[0]) + fixed, self.smallest, relative)


def error_table(table: Table, net: str) -> np.ndarray:
    """The errors of one network of a run under the 15 types, as `corruption_errors` takes them: any run can be the reference.

    Returns:
        (15, 5) shares of wrong answers, in the order of `graded.TYPES`.

    Raises:
        UndefinedReading: the run lacks one of the 75 cells, or has a type with several settings. The message names it.

    Example:
        >>> import brinell as br
        >>> data = br.load_dataset("digits", limit=20)
        >>> net = br.load_network("mlp(widths=(16,))", shape=data.shape, classes=10)
        >>> error_table(br.Lab().measure(net, data, ["fog(severity=1)"]), "net")
        Traceback (most recent call last):
        brinell.core.errors.UndefinedReading: the errors of net are not complete: gaussian_noise is not measured; ...
    """
    found = ladders(table)
    place = {(ladder.first.name, severity): item for ladder in found for severity, item in ladder.steps.items()}
    failed = {item.spec(): "failed" for item in place.values() if not table.samples(net, item)}
    if missing := incomplete(found, failed):
        raise UndefinedReading(f"the errors of {net} are not complete: {missing}")
    return np.array([[1 - np.mean(table.samples(net, place[kind, severity])["correct"]) for severity in SEVERITIES] for kind in TYPES])


def _too_small(below: float, smallest: float, relative: bool) -> str:
    if below >= smallest:
        return ""
    what = "error above its clean error" if relative else "error"
    return f"the reference's mean {what} is {round(below, 6) + 0.0:g}, below smallest={smallest:g}: a ratio to it would mean nothing"


def corruption_errors(
    errors: ArrayLike, reference: ArrayLike, clean: float | None = None, reference_clean: float | None = None, *, smallest: float = SMALLEST
) -> np.ndarray:  # fmt: skip
    """CE of each type from error rates; relative CE where the clean errors are given. Their mean over the 15 types is the (relative) mCE.

    For errors that were measured apart, as on the published sets; `MCE` reads them off one run, with intervals.

    Arguments:
        errors, reference: (k, 5) shares of wrong answers, types by severities. clean, reference_clean: those on clean inputs.

    Returns:
        (k,) percentages.

    Raises:
        UndefinedReading: shapes differ, a share lies outside [0, 1], only one clean error is given, or a denominator, as a mean over
            severities, is below `smallest`.

    References: Hendrycks & Dietterich (2019), https://arxiv.org/abs/1903.12261.

    Example:
        >>> corruption_errors([[0.1, 0.2, 0.3, 0.4, 0.5]], [[0.2, 0.4, 0.6, 0.8, 1.0]]).tolist()
        [50.0]
        >>> corruption_errors([[0.1, 0.2, 0.3, 0.4, 0.5]], [[0.2, 0.4, 0.6, 0.8, 1.0]], clean=0.1, reference_clean=0.2).round(6).tolist()
        [50.0]
    """
    mine, theirs = np.asarray(errors, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if mine.shape != theirs.shape or mine.ndim != 2 or mine.shape[1] != len(SEVERITIES):
        raise UndefinedReading(f"corruption errors need two tables (types, 5 severities); got shapes {mine.shape} and {theirs.shape}")
    if (clean is None) != (reference_clean is None):
        raise UndefinedReading("a relative corruption error needs both clean errors; only one is given")
    ends = np.concatenate([mine.ravel(), theirs.ravel(), [clean or 0.0, reference_clean or 0.0]])
    if not ((ends >= 0) & (ends <= 1)).all():
        raise UndefinedReading("error rates are shares in [0, 1]; divide percentages by 100")
    below = theirs.mean(1) - (reference_clean or 0.0)
    if len(below) and (why := _too_small(float(below.min()), smallest, clean is not None)):
        raise UndefinedReading(f"type {below.argmin()}: {why}")
    return 100 * ((mine.mean(1) - (clean or 0.0)) / below)
