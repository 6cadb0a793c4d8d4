"""Shards: one network, a few hundred samples, all perturbations. Each perturbed batch is made once and read by every probe."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brinell.core import norms
from brinell.core.dataset import Dataset
from brinell.core.draws import derive
from brinell.core.errors import BrinellError, NetworkError, TamperedNetwork, ThreatViolation
from brinell.core.measurement import Reading, Status
from brinell.core.network import Counted, Network
from brinell.core.perturbation import DONE, Attempt, Corruption, Perturbation
from brinell.core.probe import Probe, View
from brinell.core.record import Recording, pooled, record, whole
from brinell.core.tally import Tallies, Tally, unpack

EXPLAINED = Exception
"""What an item may raise without taking the other cells with it: its cell or probe is FAILED with the reason. Items are other
people's code, which may raise anything."""


@dataclass
class Shard:
    """What one shard of one cell leaves: sample columns, tallies by probe spec, cost, failures with their reasons, and what the
    perturbation said of its work: for how many samples it found no point, and why."""

    samples: dict[str, Tensor] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)
    failure: str = ""
    probe_failures: dict[str, str] = field(default_factory=dict)
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    gave_up: int = 0
    notes: list[str] = field(default_factory=list)

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
        about |= {"gave_up": self.gave_up, "notes": self.notes}
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
    """An exception as one line that starts with its name."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def observe_shard(
    net: Network, data: Dataset, positions: np.ndarray, perturbations: Sequence[Perturbation], probes: Sequence[Probe], *,
    seed: int, device: torch.device,
) -> Iterator[tuple[Perturbation, Shard]]:  # fmt: skip
    """Measure some samples under each perturbation in turn.

    Raises:
        DataError: the samples cannot be read. NetworkError: the network fails on the clean samples.
    """
    batch = _Batch(net, data, positions, tuple(probes), seed, device)
    for perturbation in perturbations:
        with _own_random_state(seed, net.recipe, perturbation.spec(), int(positions[0]), device):
            measured = batch.under(perturbation)
        yield perturbation, measured


def rehearse(nets: Iterable[Network], data: Dataset, *, seed: int, device: torch.device) -> None:
    """Pass two samples through each network, so that one that does not fit its data is known before a run is begun.

    Raises:
        DataError: the samples cannot be read. NetworkError: a network fails on them.
    """
    for net in nets:
        _Batch(net, data, np.arange(min(2, len(data))), (), seed, device)


class _Batch:
    """The samples of a shard with their clean record."""

    def __init__(
        self, net: Network, data: Dataset, positions: np.ndarray, probes: tuple[Probe, ...], seed: int, device: torch.device
    ) -> None:
        self.net, self.data, self.positions, self.probes, self.seed, self.device = Counted(net), data, positions, probes, seed, device
        self.x = data.x(positions).to(device)
        if len(data.shape) == 3 and any(p.ndim == 4 for p in net.module.parameters()):
            self.x = self.x.contiguous(memory_format=torch.channels_last)
        self.ids = torch.from_numpy(data.ids[positions])
        self.y = data.labels(positions).to(device)
        self.columns = {name: values[positions] for name, values in data.columns.items()}
        needs = [probe.needs for probe in probes]
        self.graph = any(need.graph for need in needs)
        self.recorded = any(need.layers is not None for need in needs)
        self.kinds = tuple(sorted({kind for need in needs if need.layers is not None for kind in need.kinds}))
        self.keep = whole if any(need.layers is not None and not need.pooled for need in needs) else pooled
        began = time.perf_counter()
        with _own_random_state(seed, net.recipe, "clean", int(positions[0]), device):
            try:
                self.clean = self._pass(self.x, graph=self.graph)
            except NetworkError:
                raise
            except Exception as error:  # the network is the user's code
                full = isinstance(error, torch.OutOfMemoryError | MemoryError)
                remedy = "Give a smaller batch size" if full else "Check channels, side and normalisation of network and data"
                raise NetworkError(
                    f"{net.recipe} fails on {data.source} (a batch of shape {tuple(self.x.shape)}): {reason(error)}. {remedy}"
                ) from error
        self._check_classes(net.recipe)
        self.clean_seconds = time.perf_counter() - began
        self.clean_passes = self.net.reset()

    def _weights(self) -> int:
        """Changes whenever a parameter is written to."""
        return sum(p._version for p in self.net.module.parameters()) if self.net.module else 0

    def _check_classes(self, recipe: str) -> None:
        outputs, classes = self.clean[0].shape[1], len(self.data.classes)
        if outputs < classes:
            remedy = f"load the network with classes={classes}"
            if int(self.data.y.min()) == 1 and outputs == classes - 1:
                remedy = "labels seem to number from 1; subtract 1 from them"
            raise NetworkError(f"{recipe} has {outputs} outputs but {self.data.source} has {classes} classes; {remedy}")

    def _pass(self, z: Tensor, *, graph: bool) -> tuple[Tensor, Recording]:
        """Logits and recorded activations by one forward pass (no_grad, not inference mode: networks may keep tensors)."""
        z = z.detach().requires_grad_(graph)
        with torch.set_grad_enabled(graph):
            if not self.recorded:
                return self.net(z), Recording()
            with record(self.net, kinds=self.kinds, keep=self.keep) as activations:
                logits = self.net(z)
            return logits, activations

    def under(self, perturbation: Perturbation) -> Shard:
        shard, began = Shard(), time.perf_counter()
        try:
            z, status, note = self._perturb(perturbation)
            same = isinstance(perturbation, Corruption) and torch.equal(z, self.x)
            logits, activations = self.clean if same else self._pass(z, graph=self.graph)
        except TamperedNetwork:
            raise
        except EXPLAINED as error:
            shard.failure = reason(error)
        else:
            shard.samples = self._samples(z, status, logits)
            shard.gave_up, shard.notes = int((status != DONE).sum()), [note] if note else []
            for probe in self.probes:
                draws = derive(self.seed, "probe", probe.spec(), ids=self.ids, device=z.device)
                try:
                    view = self._view(probe, self.x if same else z, logits, activations)
                    shard.tallies[probe.spec()] = probe.observe(view, draws=draws)
                except EXPLAINED as error:
                    shard.probe_failures[probe.spec()] = reason(error)
        shard.forwards, shard.backwards = self.net.reset()
        shard.seconds = time.perf_counter() - began
        if perturbation.name == "clean":
            shard.forwards, shard.backwards = shard.forwards + self.clean_passes[0], shard.backwards + self.clean_passes[1]
            shard.seconds += self.clean_seconds
        return shard

    def _perturb(self, perturbation: Perturbation) -> tuple[Tensor, Tensor, str]:
        draws = derive(self.seed, "perturb", perturbation.spec(), ids=self.ids, device=self.x.device)
        x = self.x.clone()  # whatever a perturbation does to its input, the next one gets the clean samples
        self.net.remember(x, self.clean[0].detach())
        weights = self._weights()
        made = perturbation(self.net, x, self.y, draws=draws)
        if self._weights() != weights:
            raise TamperedNetwork(f"{perturbation.spec()} changed the network's parameters: nothing measured after it can be trusted")
        attempt = made if isinstance(made, Attempt) else Attempt(made)
        status = torch.full_like(self.y, DONE) if attempt.status is None else attempt.status.to(self.y)
        z = attempt.z
        if z.shape == self.x.shape and bool((status != DONE).any()):
            z = torch.where((status == DONE).reshape(-1, *(1,) * (z.ndim - 1)), z, self.x)
        inspect_points(perturbation, self.x, z, self.ids, self.data.domain)
        return z, status, attempt.note

    def _samples(self, z: Tensor, status: Tensor, logits: Tensor) -> dict[str, Tensor]:
        """Per-sample columns: what was predicted and how far the sample was moved, in every norm."""
        answered = (logits < torch.inf).all(1)  # -inf is an answer ("never this class"), NaN and +inf are none
        predicted = torch.where(answered, logits.argmax(1), -1)
        moved = z.double() - self.x.double()
        columns = {
            "id": self.ids, "label": self.y, "prediction": predicted, "correct": predicted == self.y, "finite": answered,
            "status": status, **{f"l{p:g}": norms.length(moved, p) for p in (0, 1, 2, float("inf"))},
        }  # fmt: skip
        return {name: value.detach().cpu() for name, value in columns.items()}

    def _view(self, probe: Probe, z: Tensor, logits: Tensor, activations: Recording) -> View:
        need = probe.needs

        def seen(z: Tensor, logits: Tensor, found: Recording, clean: View | None) -> View:
            chosen = {} if need.layers is None else found.pick(need.layers, need.kinds)
            if need.pooled and self.keep is whole:
                chosen = {name: pooled(value) for name, value in chosen.items()}
            net = self.net if need.net else None
            return View(self.x, z, self.y, self.ids, logits, chosen, clean, net, self.data.classes, self.columns)

        return seen(z, logits, activations, seen(self.x, *self.clean, None) if need.clean else None)


def readings_of(probes: Sequence[Probe], n: int, total: Shard, tallies: dict[str, Tally]) -> Iterator[tuple[Probe | None, Reading]]:
    """The readings of a cell; what failed is a reading that says why, and so is what the perturbation had to note."""
    if total.failure:
        yield None, Reading.undefined("perturbation", total.failure, n=n, status=Status.FAILED)
        return
    if total.notes:
        more = f"; and {len(total.notes) - 3} more" if len(total.notes) > 3 else ""
        yield None, Reading("proposed", 1 - total.gave_up / n, n=n, reason="; ".join(total.notes[:3]) + more)
    for probe in probes:
        spec = probe.spec()
        if spec in total.probe_failures or spec not in tallies:
            yield probe, Reading.undefined(probe.name, total.probe_failures.get(spec, "no sample was seen"), n=n, status=Status.FAILED)
            continue
        try:
            readings = probe.read(tallies[spec])
        except BrinellError as error:
            readings = [Reading.undefined(probe.name, f"{type(error).__name__}: {error}", n=n)]
        for reading in readings:
            yield probe, reading


def inspect_points(perturbation: Perturbation, x: Tensor, z: Tensor, ids: Tensor, domain: tuple[float, float]) -> None:
    """The lab disposes: are the proposed points of the right shape, finite, inside the domain and inside the threat?

    Raises:
        ThreatViolation: some are not; the message names the first sample and how far it went.
    """
    name = perturbation.spec()
    if z.shape != x.shape:
        raise ThreatViolation(f"{name} returned shape {tuple(z.shape)} for inputs of shape {tuple(x.shape)}")
    low, high = norms.extremes(z)
    broken = ~(low.isfinite() & high.isfinite())
    if bool(broken.any()):
        raise ThreatViolation(f"{name} returned NaN or inf for sample {int(ids[int(broken.nonzero()[0])])} ({int(broken.sum())} samples)")
    outside = (low < domain[0]) | (high > domain[1])
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise ThreatViolation(
            f"{name} left the domain [{domain[0]:g}, {domain[1]:g}]: sample {int(ids[row])} reaches from {float(low[row]):.4g} "
            f"to {float(high[row]):.4g} ({int(outside.sum())} samples). Clamp the result to the domain"
        )
    threat = perturbation.threat
    if threat is not None:
        inside = threat.contains(x, z)
        if not bool(inside.all()):
            row = int((~inside).nonzero()[0])
            distance = getattr(threat, "distance", None)
            moved = f" moved {float(distance(x[row : row + 1], z[row : row + 1])):.4g}" if distance else ""
            raise ThreatViolation(
                f"{name} left {threat.spec()}: sample {int(ids[row])}{moved} ({int((~inside).sum())} samples). "
                f"Project the result with threat.project"
            )


@contextmanager
def _own_random_state(seed: int, recipe: str, use: str, first: int, device: torch.device) -> Iterator[None]:
    """A scope in which torch's random state depends on these alone (for networks that turn out random); then it is as before."""
    text = repr((seed, recipe, use, first)).encode()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1)
        yield
