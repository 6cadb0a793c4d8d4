"""Shards: what some of the samples of a cell leave behind. Shards add up to the cell, in their order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brinell.core.errors import BrinellError
from brinell.core.measurement import Reading, Status
from brinell.core.probe import Probe
from brinell.core.tally import Tallies, Tally, unpack

EXPLAINED = Exception
"""What an item may raise without taking the other cells with it: its cell or probe is FAILED with the reason. Items are other
people's code, which may raise anything."""
_LONGEST = 1_000  # characters of a reason, which is kept for every sample that is lost


@dataclass
class Shard:
    """What one shard of one cell leaves: sample columns, tallies by probe spec, cost, failures with their reasons, what the
    perturbation said of its work (for how many samples it found no point, and why), the samples that could not be measured, with
    reasons by their ids, and what the log should say."""

    samples: dict[str, Tensor] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)
    failure: str = ""
    probe_failures: dict[str, str] = field(default_factory=dict)
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    gave_up: int = 0
    notes: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def __add__(self, other: Shard) -> Shard:
        """Both together, this one's samples first. A probe whose tallies have no sum has failed, and takes nothing with it."""
        tallies, failures = dict(self.tallies), {**other.probe_failures, **self.probe_failures}
        for spec, tally in other.tallies.items():
            try:
                tallies[spec] = tallies[spec] + tally if spec in tallies else tally
            except EXPLAINED as error:
                remedy = "where the network has layers for some batches alone, give the probe layers=(...) that it always has"
                failures.setdefault(spec, f"what it kept of two shards has no sum: {reason(error)}; {remedy}")
        return Shard(
            {name: torch.cat([part.samples[name] for part in (self, other) if part.samples]) for name in self.samples or other.samples},
            tallies,
            self.failure or other.failure,
            failures,
            self.forwards + other.forwards,
            self.backwards + other.backwards,
            self.seconds + other.seconds,
            self.gave_up + other.gave_up,
            list(dict.fromkeys((*self.notes, *other.notes))),
            {**self.lost, **other.lost},
            list(dict.fromkeys((*self.log, *other.log))),
        )

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """One flat tensor for each type of number, with what lies where: a few large tensors are written faster than a thousand small."""
        kind, tallies = Tallies(self.tallies).pack()
        groups: dict[str, dict[str, Tensor]] = {"tally": tallies, "sample": self.samples}
        flat: dict[str, list[Tensor]] = {}
        places: list[tuple[str, str, str, list[int]]] = []
        for group, tensors in groups.items():
            for name, value in tensors.items():
                number = str(value.dtype).removeprefix("torch.")
                flat.setdefault(number, []).append(value.reshape(-1))
                places.append((group, name, number, list(value.shape)))
        about = {"kind": kind, "places": places, "failure": self.failure, "probe_failures": self.probe_failures}
        about |= {"gave_up": self.gave_up, "notes": self.notes, "lost": self.lost, "log": self.log}
        about |= {"forwards": self.forwards, "backwards": self.backwards, "seconds": self.seconds}
        return {number: torch.cat(values) for number, values in flat.items()}, about

    @classmethod
    def unpacked(cls, tensors: dict[str, Tensor], about: dict[str, Any]) -> Shard:
        groups: dict[str, dict[str, Tensor]] = {"tally": {}, "sample": {}}
        first = dict.fromkeys(tensors, 0)
        for group, name, number, shape in about.pop("places"):
            end = first[number] + math.prod(shape)
            groups[group][name] = tensors[number][first[number] : end].reshape(shape)
            first[number] = end
        kind = about.pop("kind")
        return cls(groups["sample"], dict(unpack(kind, groups["tally"]).parts), **about)


def reason(error: BaseException) -> str:
    """An exception as one line that starts with its name; a long one is cut."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said if len(said) <= _LONGEST else f'{said[:_LONGEST]}...'}"


def readings_of(probes: Sequence[Probe], n: int, total: Shard) -> Iterator[tuple[Probe | None, Reading]]:
    """The readings of a cell of n samples; what failed is a reading that says why, and so is what the perturbation had to note."""
    said = [f"sample {number}: {why}" for number, why in total.lost.items()]
    failure = total.failure or (f"not one sample could be measured; {_some(said)}" if len(said) == n else "")
    if failure:
        yield None, Reading.undefined("perturbation", failure, n=n, status=Status.FAILED)
        return
    if said:
        yield None, Reading("lost", float(len(said)), n=n, reason=_some(said), array=np.array([int(i) for i in total.lost]), axis="sample")
        n -= len(said)
    if total.notes:
        yield None, Reading("proposed", 1 - total.gave_up / n, n=n, reason=_some(total.notes))
    for probe in probes:
        spec = probe.spec()
        if spec in total.probe_failures:
            yield probe, Reading.undefined(probe.name, total.probe_failures[spec], n=n, status=Status.FAILED)
            continue
        try:
            readings = list(probe.read(total.tallies.get(spec, Tallies())))  # a tally that holds nothing is not written
        except EXPLAINED as error:
            status = Status.UNDEFINED if isinstance(error, BrinellError) else Status.FAILED
            readings = [Reading.undefined(probe.name, reason(error), n=n, status=status)]
        for reading in readings:
            yield probe, reading


def _some(reasons: list[str]) -> str:
    return "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
