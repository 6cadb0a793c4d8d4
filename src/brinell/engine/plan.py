"""Plans: what will be measured, in texts and digests, and what it is expected to cost."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from brinell.core import precision
from brinell.core.component import walk
from brinell.core.dataset import Dataset
from brinell.core.errors import StoreError
from brinell.core.network import Network
from brinell.core.perturbation import Perturbation
from brinell.core.probe import Probe
from brinell.core.summary import Summary
from brinell.engine.calibration import latest
from brinell.engine.store import digest_of

FORMAT = 1
"""Raised when files of older runs can no longer be continued."""

IDENTITY = ("format", "networks", "data", "perturbations", "probes", "summaries", "full", "versions", "seed")
"""The entries of plan.json that must agree for a run to be continued."""


@dataclass(frozen=True)
class Cell:
    """One network under one perturbation."""

    net: str
    perturbation: Perturbation
    key: str


@dataclass
class Plan:
    """Networks x perturbations, read by all probes.

    Arguments:
        nets: frozen copies by name. digests: of the networks as they were passed. training: who came in training mode.
        shard: samples per shard; part of how a run is stored, not of what it measures. exact: attacks never compute in bfloat16.
        minutes: the time that budgets of attacks were cut to (`expectation.limited`).
    """

    nets: dict[str, Network]
    data: Dataset
    perturbations: tuple[Perturbation, ...]
    probes: tuple[Probe, ...]
    summaries: tuple[Summary, ...]
    seed: int
    shard: int
    device: torch.device
    training: dict[str, bool] = field(default_factory=dict)
    suite: str = ""
    exact: bool = False
    minutes: float | None = None

    def __post_init__(self) -> None:
        self.digests = {name: net.digest for name, net in self.nets.items()}

    def cells(self) -> Iterator[Cell]:
        """All cells, network by network, in the plan's order."""
        probes, data = "|".join(probe.key() for probe in self.probes), self.data.digest
        for name in self.nets:
            for perturbation in self.perturbations:
                parts = (str(FORMAT), name, self.digests[name], data, perturbation.key(), probes, str(self.seed))
                yield Cell(name, perturbation, digest_of(*parts))

    def to_json(self) -> dict[str, Any]:
        """What plan.json holds."""
        data = self.data
        return {
            "format": FORMAT,
            "suite": self.suite,
            "networks": {
                name: {
                    "recipe": net.recipe,
                    "digest": self.digests[name],
                    "notes": list(net.notes),
                    "parameters": sum(p.numel() for p in net.module.parameters()),
                    "training": self.training.get(name, False),
                }
                for name, net in self.nets.items()
            },
            "data": {
                "spec": data.source, "digest": data.digest, "n": len(data), "shape": list(data.shape),
                "classes": list(data.classes), "note": data.note, "columns": list(data.columns),
                "domain": [end if math.isfinite(end) else str(end) for end in data.domain],
            },
            "perturbations": [p.spec() for p in self.perturbations],
            "probes": [p.spec() for p in self.probes],
            "summaries": [s.spec() for s in self.summaries],
            "full": {c.spec(): c.spec(full=True) for c in (*self.perturbations, *self.probes, *self.summaries)},
            "versions": {c.spec(): c.key().rpartition("@")[2] for c in (*self.perturbations, *self.probes, *self.summaries)},
            "seed": self.seed,
            "shard": self.shard,
            "minutes": self.minutes,
            "environment": environment(self.device),
        }  # fmt: skip

    def drafts(self) -> dict[str, bool]:
        """For each network, whether attacks on it draft in bfloat16: a short timing says, where any attack would (`core.precision`)."""
        able = any(getattr(part, "exact", True) is False for perturbation in self.perturbations for part in walk(perturbation))
        if self.exact or not able:
            return dict.fromkeys(self.nets, False)
        x = self.data.readable(1).x().to(self.device)
        return {name: precision.drafts(net, x) for name, net in self.nets.items()}

    def settle(self, stored: Mapping[str, Any]) -> None:
        """Take up the choices of a stored plan, so that a run that goes on computes as it began.

        Raises:
            StoreError: the run has drafted in bfloat16, and is now to be exact.
        """
        chosen = stored.get("drafts", {})
        if self.exact and any(chosen.values()):
            raise StoreError("this run has drafted its attacks in bfloat16; choose another --out to measure without (--exact)")
        for name, net in self.nets.items():
            precision.decide(net, bool(chosen.get(name, False)))

    def passes(self, cell: Cell) -> tuple[int, int]:
        """(forwards, backwards) per sample that a cell costs at most."""
        forwards, backwards = cell.perturbation.cost
        if cell.perturbation.name == "clean":
            own = [probe.cost for probe in self.probes]
            return forwards + 1 + sum(f for f, _ in own), backwards + sum(b for _, b in own)
        return forwards + 1, backwards


def keys_of(plan: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """The key of every cell, by network and perturbation, from what plan.json holds: that of `Plan.cells`."""
    versioned = {spec: f"{spec}@{version}" for spec, version in plan["versions"].items()}
    probes = "|".join(versioned[spec] for spec in plan["probes"])
    return {
        (net, spec): digest_of(
            str(plan["format"]), net, about["digest"], plan["data"]["digest"], versioned[spec], probes, str(plan["seed"])
        )
        for net, about in plan["networks"].items()
        for spec in plan["perturbations"]
    }


def agree(old: Any, new: dict[str, Any], place: str) -> None:
    """Check that a stored plan is the one now asked for.

    Raises:
        StoreError: it is not; the entries that differ are named.
    """
    if not isinstance(old, dict) or "shard" not in old:
        raise StoreError(f"{place}/plan.json is not the plan of a run. Choose another --out")
    differ = []
    for entry in IDENTITY:
        if entry == "networks":
            was, now = ({name: net["digest"] for name, net in plan.get(entry, {}).items()} for plan in (old, new))
        elif entry == "data":
            was, now = (plan.get(entry, {}).get("digest") for plan in (old, new))
        else:
            was, now = old.get(entry), new.get(entry)
        if was != now:
            differ.append(entry)
    if differ:
        raise StoreError(
            f"{place} holds another run: its {', '.join(differ)} differ from what is asked now. Choose another --out, or repeat the "
            f"old command to continue it"
        )


def environment(device: torch.device) -> dict[str, Any]:
    """Where and with what this runs."""
    import brinell

    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "brinell": brinell.__version__, "torch": torch.__version__, "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores", "device": f"{device} ({name})",
        "threads": torch.get_num_threads(), "date": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "calibration": str(latest() or "none on this machine; `brinell calibrate` tries the laws"),
    }  # fmt: skip
