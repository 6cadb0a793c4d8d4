"""The cells of graded corruptions in a table, and means over several of them with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from brinell.core.confidence import bootstrap_totals, clopper_pearson
from brinell.core.lab import Table
from brinell.core.measurement import Reading
from brinell.core.perturbation import Corruption
from brinell.summary.points import Cell

MAIN = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"), "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"), "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}  # fmt: skip
TYPES = tuple(kind for kinds in MAIN.values() for kind in kinds)
"""The 15 corruption types whose mean is called mCE, in the order of Hendrycks & Dietterich (2019)."""

SEVERITIES = (1, 2, 3, 4, 5)

Statistic = Callable[[np.ndarray], np.ndarray]
"""(r, q) means of q columns in, (r,) numbers out; NaN where there is none."""


@dataclass(eq=False)
class Ladder:
    """One corruption with its severities.

    Arguments:
        label: its name; where the plan has it with several settings, its spec with `severity=*`. Where results are not those of the
            published sets it goes on with `(nonstandard: why)`, see `departures`.
        steps: severity to corruption.
    """

    label: str
    steps: dict[int, Corruption] = field(default_factory=dict)

    @property
    def first(self) -> Corruption:
        return next(iter(self.steps.values()))

    @property
    def family(self) -> str:
        """noise, blur, weather, digital, or "" where it is not known."""
        return getattr(type(self.first), "family", "")

    @property
    def counts(self) -> bool:
        """Does it enter means over types? The four types meant for validation do not."""
        return getattr(type(self.first), "main", True)


def ladders(table: Table) -> list[Ladder]:
    """The graded corruptions of a plan, in its order: those that have a field `severity`."""
    found: dict[str, Ladder] = {}
    for item in table.perturbations():
        severity = getattr(item, "severity", None)
        if isinstance(item, Corruption) and isinstance(severity, int) and severity in SEVERITIES:
            rest = item.replace(severity=1).spec()
            found.setdefault(rest, Ladder(rest)).steps[severity] = item
    names = [ladder.first.name for ladder in found.values()]
    for rest, ladder in found.items():
        alone, why = names.count(ladder.first.name) == 1, departures(table, ladder.first)
        label = ladder.first.name if alone else rest.replace("severity=1", "severity=*", 1)
        ladder.label = f"{label} (nonstandard: {why})" if why else label
    return list(found.values())


def departures(table: Table, item: Any) -> str:
    """What keeps a corruption of the run's data from being as published (`Graded.departures`), in words; "" where nothing does."""
    side = _side(table)
    return ", ".join(item.departures(side)) if side and hasattr(item, "departures") else ""


def _side(table: Table) -> int:
    return min(int(size) for size in table.plan["data"]["shape"][1:] or (0,))


def standard(table: Table, preset: str = "") -> Callable[[Ladder], str]:
    """Says why a ladder is not the published one for this data (of a preset, where one is given); "" where it is."""
    side = _side(table)

    def departure(ladder: Ladder) -> str:
        item: Any = ladder.first  # parameters by size of image are Graded's, which a summary does not know
        if not getattr(item, "quantize", True):
            return f"{ladder.label} is not rounded to 8 bits"
        if preset and hasattr(item, "preset_at"):
            found = item.preset_at(side)
            return "" if found == preset else f"{ladder.label} has the parameters of {found}, not of {preset}"
        why = departures(table, item)
        return f"{ladder.first.name} has {why}" if why else ""

    return departure


def incomplete(found: list[Ladder], failed: Mapping[str, str], kinds: tuple[str, ...] = TYPES) -> str:
    """What is missing from five severities of each of some types, in words; "" where nothing is.

    Arguments:
        failed: cells without samples, with the reason.
    """
    missing = []
    for kind in kinds:
        mine = [ladder for ladder in found if ladder.first.name == kind]
        if len(mine) > 1:
            missing.append(f"{kind} is measured with several settings ({', '.join(ladder.label for ladder in mine)}): run them apart")
            continue
        absent = [str(s) for s in SEVERITIES if not mine or s not in mine[0].steps]
        broken = [str(s) for s, item in (mine[0].steps.items() if mine else ()) if item.spec() in failed]
        if len(absent) == len(SEVERITIES):
            missing.append(f"{kind} is not measured")
        elif absent:
            missing.append(f"{kind} lacks severity {', '.join(absent)}")
        if broken:
            missing.append(f"{kind} failed at severity {', '.join(broken)}")
    return "; ".join(missing)


class Resampled:
    """Means of 0/1 columns on the same samples: as observed, and on samples drawn again with replacement.

    All columns are resampled together, because cells share their samples: resample r is a function of (r, n) alone, and the
    same in every run.

    Arguments:
        columns: name to (n,) 0/1. resamples: how many.
    """

    def __init__(self, columns: Mapping[tuple[str, str], np.ndarray], resamples: int) -> None:
        self.place = {name: k for k, name in enumerate(columns)}
        stacked = np.stack([np.asarray(column, dtype=np.float64) for column in columns.values()], 1) if columns else np.zeros((0, 0))
        self.n = len(stacked)
        self.observed = stacked.mean(0, keepdims=True) if self.n else stacked
        self.again = bootstrap_totals(stacked, resamples=resamples) / self.n if self.n > 1 else None

    def __contains__(self, name: tuple[str, str]) -> bool:
        return name in self.place

    def columns(self, net: str, specs: list[str]) -> np.ndarray:
        """Where some cells of a network stand."""
        return np.array([self.place[net, spec] for spec in specs], dtype=int)

    def reading(self, name: str, layer: str, statistic: Statistic, confidence: float, *, mean: bool = False, reason: str = "") -> Reading:
        """A statistic of the observed means, with its percentile interval over the resamples.

        The ends are rounded outwards to a resample that occurred, and never leave out the observed value. There is no interval,
        and the reason says why, where samples do not vary, or where the statistic does not exist on some resample. A *mean* of
        columns that is exactly 0 or 1 has the interval of Clopper and Pearson for an event that never (always) occurred.
        """
        value = float(statistic(self.observed)[0])
        if not np.isfinite(value):
            return Reading.undefined(name, reason or "it is a ratio to 0", layer=layer, n=self.n)
        low, high, why = self._interval(value, statistic, confidence, mean)
        told = None if low is None else confidence
        return Reading(name, value, layer, low=low, high=high, confidence=told, n=self.n, reason="; ".join(filter(None, (reason, why))))

    def _interval(self, value: float, statistic: Statistic, confidence: float, mean: bool) -> tuple[float | None, float | None, str]:
        if mean and value in (0.0, 1.0):
            return *clopper_pearson(self.n if value else 0, self.n, confidence), ""
        if self.again is None:
            return None, None, "no interval: there is one sample"
        values = statistic(self.again)
        if not np.isfinite(values).all():
            return None, None, "no interval: on samples drawn again the denominator comes too close to 0"
        tail = (1 - confidence) / 2
        low, high = np.quantile(values, tail, method="lower"), np.quantile(values, 1 - tail, method="higher")
        if low == high:
            return None, None, "no interval: the samples do not vary"
        return float(min(low, value)), float(max(high, value)), ""


def resampled(table: Table, resamples: int) -> tuple[Resampled, dict[str, dict[str, str]]]:
    """The errors of all networks under clean and graded inputs, and the cells without samples: network, spec, reason.

    A sample whose logits hold NaN or inf counts as an error.
    """
    columns: dict[tuple[str, str], np.ndarray] = {}
    failed: dict[str, dict[str, str]] = {net: {} for net in table.networks}
    wanted = [item for ladder in ladders(table) for item in ladder.steps.values()]
    for net in table.networks:
        for item in [clean for clean in table.perturbations() if clean.name == "clean"] + wanted:
            samples = table.samples(net, item)
            if samples:
                columns[net, item.spec()] = ~Cell(item, samples).correct
            else:
                failed[net][item.spec()] = f"the cell {item.spec()} failed"
    return Resampled(columns, resamples), failed
