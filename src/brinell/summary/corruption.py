"""Errors under graded corruptions: of every cell, type, severity and family, and their plain mean."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from brinell.core.confidence import clopper_pearson
from brinell.core.lab import Table
from brinell.core.measurement import Finding, Reading
from brinell.core.summary import Summary
from brinell.summary.graded import SEVERITIES, TYPES, Ladder, Resampled, incomplete, ladders, resampled, standard


class CorruptionError(Summary, name="corruption_error"):
    """The share of wrong answers under graded corruptions: what do everyday faults of images cost on average?

    With E[c, s] the share of samples that are wrong under corruption c at severity s, and E0 the share wrong on clean inputs:

    - `corrupted_error`: E of one cell (layer: its spec); the mean over the measured severities of one type (layer: its name),
      over the types at one severity (layer `severity 3`), over the cells of one family (layer `family noise`);
    - `accuracy_drop` = E - E0 and `accuracy_ratio` = (1 - E) / (1 - E0), for the same layers: the loss beyond clean accuracy;
    - `mean_corruption_error_unnormalised`: the mean of E over the 15 types x 5 severities, in [0, 1]. Work on CIFAR-10-C calls
      this "mCE"; it is *not* the mCE of ImageNet-C, which divides by the errors of a reference network (summary `mce`).
      UNDEFINED unless all 75 cells are there, with what is missing;
    - `mean_error_measured_cells`: the mean over the cells that were measured, whichever they are (the reason says how many). Comparable
      only between networks with the same cells.

    The layer of a type that is not as published goes on with the reason: `frost (nonstandard: procedural textures)`, or
    `glass_blur (nonstandard: lengths x 0.25)` for images of 8 pixels.

    Means over a severity or a family need the same severities of each of their types, else they are UNDEFINED. The four types
    meant for validation (speckle_noise, gaussian_blur, spatter, saturate) stay out of means over types.

    Values are exact for the samples measured. Intervals are for the population: Clopper-Pearson for one cell; for means, drops
    and ratios a percentile bootstrap that draws samples and takes each with all its cells, since cells share their samples.
    It is too short where few samples are wrong. Clusters are not known here. A sample with NaN or inf among its logits is wrong.

    Arguments:
        confidence: of each interval. resamples: of the bootstrap.

    References: Hendrycks & Dietterich (2019), ICLR, https://arxiv.org/abs/1903.12261 (the corruptions); Hendrycks et al. (2020),
        "AugMix", ICLR, https://arxiv.org/abs/1912.02781 (the unnormalised mean on CIFAR-10-C).

    Example:
        >>> import brinell as br
        >>> data = br.load_dataset("digits", limit=60)
        >>> net = br.load_network("mlp(widths=(32,))", shape=data.shape, classes=10)
        >>> noises = ["gaussian_noise(severity=1)", "gaussian_noise(severity=5)"]
        >>> table = br.Lab().measure(net, data, noises, summaries=["corruption_error"])
        >>> [row["layer"] for row in table.select(name="corrupted_error")]
        ['gaussian_noise(severity=1)', 'gaussian_noise(severity=5)', 'gaussian_noise', 'severity 1', 'severity 5', 'family noise']
        >>> table.row("mean_corruption_error_unnormalised", perturbation="")["reason"]
        'gaussian_noise lacks severity 2, 3, 4; shot_noise is not measured; ...
    """

    confidence: float = Field(default=0.95, gt=0, lt=1)
    resamples: int = Field(default=2000, ge=100)

    def __call__(self, table: Table) -> list[tuple[str, Reading] | Finding]:
        found = ladders(table)
        errors, failed = resampled(table, self.resamples)
        readings: list[tuple[str, Reading] | Finding] = []
        for net in table.networks:
            readings += [(net, reading) for reading in self._network(net, found, errors, failed[net])]
            readings.append((net, self._mean_of_all(net, found, errors, failed[net], table)))
            readings.append((net, self._mean_of_measured(net, found, errors)))
        return readings

    def _network(self, net: str, found: list[Ladder], errors: Resampled, failed: dict[str, str]) -> Iterator[Reading]:
        groups: list[tuple[str, list[str], str]] = []
        for ladder in found:
            groups += [(item.spec(), [item.spec()], "") for _, item in sorted(ladder.steps.items())]
        for ladder in found:
            few = "" if len(ladder.steps) == len(SEVERITIES) else f"over severity {', '.join(map(str, sorted(ladder.steps)))} only"
            groups.append((ladder.label, [item.spec() for item in ladder.steps.values()], few))
        main = [ladder for ladder in found if ladder.counts]
        for severity in sorted({severity for ladder in main for severity in ladder.steps}):
            lacking = ", ".join(ladder.label for ladder in main if severity not in ladder.steps)
            cells = [] if lacking else [ladder.steps[severity].spec() for ladder in main]
            groups.append((f"severity {severity}", cells, lacking and f"not measured at this severity: {lacking}"))
        for family in dict.fromkeys(ladder.family for ladder in main if ladder.family):
            mine = [ladder for ladder in main if ladder.family == family]
            uneven = ", ".join(ladder.label for ladder in mine if set(ladder.steps) != set(mine[0].steps))
            cells = [] if uneven else [item.spec() for ladder in mine for item in ladder.steps.values()]
            groups.append((f"family {family}", cells, uneven and f"other severities than of {mine[0].label}: {uneven}"))
        for layer, cells, note in groups:
            yield from self._group(net, layer, cells, note, errors, failed)

    def _group(self, net: str, layer: str, cells: list[str], note: str, errors: Resampled, failed: dict[str, str]) -> Iterator[Reading]:
        why = next((failed[spec] for spec in cells if spec in failed), "" if cells else note)
        if why:
            for name in ("corrupted_error", "accuracy_drop", "accuracy_ratio"):
                yield Reading.undefined(name, why, layer=layer, n=errors.n)
            return
        at = errors.columns(net, cells)
        if len(cells) == 1:
            wrong = round(float(errors.observed[0, at[0]]) * errors.n)
            low, high = clopper_pearson(wrong, errors.n, self.confidence)
            yield Reading(
                "corrupted_error", wrong / errors.n, layer, low=low, high=high, confidence=self.confidence, n=errors.n, reason=note
            )
        else:
            yield errors.reading("corrupted_error", layer, lambda e: e[:, at].mean(1), self.confidence, mean=True, reason=note)
        if (net, "clean") not in errors:
            for name in ("accuracy_drop", "accuracy_ratio"):
                yield Reading.undefined(name, "the clean samples were not measured", layer=layer, n=errors.n)
            return
        (clean,) = errors.columns(net, ["clean"])
        yield errors.reading("accuracy_drop", layer, lambda e: e[:, at].mean(1) - e[:, clean], self.confidence, reason=note)
        if errors.observed[0, clean] == 1:
            yield Reading.undefined("accuracy_ratio", "clean accuracy is 0", layer=layer, n=errors.n)
        else:
            yield errors.reading(
                "accuracy_ratio", layer, lambda e: _ratio(1 - e[:, at].mean(1), 1 - e[:, clean]), self.confidence, reason=note
            )

    def _mean_of_all(self, net: str, found: list[Ladder], errors: Resampled, failed: dict[str, str], table: Table) -> Reading:
        name, missing = "mean_corruption_error_unnormalised", incomplete(found, failed)
        if missing:
            return Reading.undefined(name, missing, n=errors.n)
        mine = [ladder for ladder in found if ladder.first.name in TYPES]
        at = errors.columns(net, [item.spec() for ladder in mine for item in ladder.steps.values()])
        departures = "; ".join(filter(None, map(standard(table), mine)))
        note = f"not as published: {departures}" if departures else ""
        return errors.reading(name, "", lambda e: e[:, at].mean(1), self.confidence, mean=True, reason=note)

    def _mean_of_measured(self, net: str, found: list[Ladder], errors: Resampled) -> Reading:
        specs = [item.spec() for ladder in found if ladder.counts for item in ladder.steps.values()]
        there = [spec for spec in specs if (net, spec) in errors]
        if not there:
            return Reading.undefined("mean_error_measured_cells", "no graded corruption was measured", n=errors.n)
        at = errors.columns(net, there)
        note = f"over {len(there)} of {len(specs)} cells of the plan"
        return errors.reading("mean_error_measured_cells", "", lambda e: e[:, at].mean(1), self.confidence, mean=True, reason=note)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
