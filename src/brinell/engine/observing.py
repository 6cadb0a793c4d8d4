"""Observing a shard: one network, a few hundred samples, all perturbations. Each perturbed batch is made once and read by every probe."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn

from brinell.core import norms
from brinell.core.dataset import Dataset
from brinell.core.draws import derive
from brinell.core.errors import BrinellError, NetworkError, SampleError, TamperedNetwork, ThreatViolation
from brinell.core.network import Counted, Network, answered
from brinell.core.perturbation import DONE, Attempt, Corruption, Perturbation
from brinell.core.probe import Probe, View
from brinell.core.record import Keep, Recording, itself, pooled, record, whole
from brinell.core.threat import Threat
from brinell.engine.shards import EXPLAINED, Shard, reason

_in_place: WeakSet[nn.Module] = WeakSet()
"""Networks that write over activations of theirs, which must be copied while they are recorded."""


class _InPlace(Exception):
    """A recording that the network has written over."""


class _Unfit(Exception):
    """A batch that cannot be measured in one piece.

    Arguments:
        error: what to tell the user when it cannot be done in smaller ones either. full: was it too large for the memory?
    """

    def __init__(self, error: BrinellError, *, full: bool = False) -> None:
        super().__init__(str(error))
        self.error, self.full = error, full


def observe_shard(
    net: Network, data: Dataset, positions: np.ndarray, perturbations: Sequence[Perturbation], probes: Sequence[Probe], *,
    seed: int, device: torch.device,
) -> Iterator[tuple[Perturbation, Shard]]:  # fmt: skip
    """Measure some samples under each perturbation in turn.

    A sample that cannot be read, or that the network fails on also alone, is lost: the shards say which and why, and the others
    are measured. Where the memory does not suffice, the shard is measured in halves.

    Raises:
        DataError: the samples are not what the data say they are. NetworkError: the network fails on every one of several samples.
    """
    told: list[BrinellError] = []
    for perturbation, shard in _observed(net, data, positions, list(perturbations), tuple(probes), seed, device, told):
        if len(shard.lost) == len(positions) > 1 and isinstance(told[0], NetworkError):
            raise told[0]
        yield perturbation, shard


def observe_places(
    net: Network, data: Dataset, perturbations: tuple[Perturbation, ...], probes: tuple[Probe, ...], seed: int, device: torch.device,
    positions: np.ndarray, places: tuple[int, ...],
) -> Iterator[tuple[int, Shard]]:  # fmt: skip
    """`observe_shard` for the perturbations at some places, each with its place: the piece of work that executors run."""
    chosen = [perturbations[place] for place in places]
    for place, (_, shard) in zip(places, observe_shard(net, data, positions, chosen, probes, seed=seed, device=device), strict=True):
        yield place, shard


def _observed(
    net: Network, data: Dataset, positions: np.ndarray, left: list[Perturbation], probes: tuple[Probe, ...], seed: int,
    device: torch.device, told: list[BrinellError],
) -> Iterator[tuple[Perturbation, Shard]]:  # fmt: skip
    """told: why batches did not fit, the largest first."""
    why, full, again = "", False, False
    try:
        batch = _Batch(net, data, positions, probes, seed, device)
        while left:
            with _own_random_state(seed, net.recipe, left[0].spec(), int(positions[0]), device):
                measured = batch.under(left[0])
            yield left.pop(0), measured
        return
    except _InPlace:
        again = True
    except _Unfit as unfit:  # left behind at the end of the block, so that the memory its traceback holds is free
        why, full = reason(unfit.error), unfit.full
        told.append(unfit.error)
    batch = None
    if again:  # which is known of the network now
        yield from _observed(net, data, positions, left, probes, seed, device, told)
        return
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if len(positions) == 1:
        lost = {str(int(data.ids[positions[0]])): why}
        yield from ((perturbation, Shard(lost=lost)) for perturbation in left)
        return
    middle = len(positions) // 2
    parts = positions[:middle], positions[middle:]
    halves = [list(_observed(net, data, part, list(left), probes, seed, device, told)) for part in parts]
    log = [f"{net.recipe}: the memory does not hold {len(positions)} samples at once ({why}); going on with {middle}"] if full else []
    for (perturbation, first), (_, second) in zip(*halves, strict=True):
        yield perturbation, Shard(log=log) + first + second


def _exhausted(error: BaseException) -> bool:
    """Was there too little memory? Allocators of some devices say so in a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in ("out of memory", "can't allocate memory"))
    )


def rehearse(nets: Iterable[Network], data: Dataset, *, seed: int, device: torch.device) -> None:
    """Pass two samples through each network, so that one that does not fit its data is known before a run is begun.

    Raises:
        DataError: the samples are not what the data say they are, or none can be read. NetworkError: a network fails on them.
    """
    few = data.readable(2)
    for net in nets:
        try:
            _Batch(net, few, np.arange(len(few)), (), seed, device)
        except _Unfit as unfit:
            raise unfit.error from None


class _Batch:
    """The samples of a shard with their clean record."""

    def __init__(
        self, net: Network, data: Dataset, positions: np.ndarray, probes: tuple[Probe, ...], seed: int, device: torch.device
    ) -> None:
        self.net, self.data, self.positions, self.probes, self.seed, self.device = Counted(net), data, positions, probes, seed, device
        try:
            self.x = data.x(positions).to(device)
        except SampleError as error:
            raise _Unfit(SampleError(str(error))) from error
        except EXPLAINED as error:
            if _exhausted(error) and len(positions) > 1:
                raise _Unfit(NetworkError(str(error)), full=True) from error
            raise
        if len(data.shape) == 3 and any(p.ndim == 4 for p in net.module.parameters()):
            self.x = self.x.contiguous(memory_format=torch.channels_last)
        self.ids = torch.from_numpy(data.ids[positions])
        self.y = data.labels(positions).to(device)
        self.columns = {name: values[positions] for name, values in data.columns.items()}
        needs = [probe.needs for probe in probes]
        self.graph = any(need.graph for need in needs)
        self.recorded = any(need.layers is not None for need in needs)
        self.kinds = tuple(sorted({kind for need in needs if need.layers is not None for kind in need.kinds}))
        self.whole = any(need.layers is not None and not need.pooled for need in needs)
        began, written = time.perf_counter(), self.x._version
        with _own_random_state(seed, net.recipe, "the first pass", int(positions[0]), device):
            try:
                self.clean = self._pass(self.x, graph=self.graph)
            except _InPlace:
                raise
            except Exception as error:  # the network is the user's code
                raise self._refused(error) from error
        if self.x._version != written:
            raise NetworkError(
                f"{net.recipe} writes into its input, so that nobody knows what it was asked; let it begin with x = x.clone()"
            )
        self._check_classes(net.recipe)
        self.clean_seconds = time.perf_counter() - began
        self.clean_passes = self.net.reset()

    def _refused(self, error: Exception) -> _Unfit:
        """What to say of a network that fails on the clean samples."""
        if isinstance(error, NetworkError):
            return _Unfit(NetworkError(str(error)))
        full = _exhausted(error)
        remedy = "It needs more memory than there is" if full else "Check channels, side and normalisation of network and data"
        recipe, shape = self.net.net.recipe, tuple(self.x.shape)  # pyright: ignore[reportFunctionMemberAccess]
        told = NetworkError(f"{recipe} fails on {self.data.source} (a batch of shape {shape}): {reason(error)}. {remedy}")
        return _Unfit(told, full=full)

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
            with record(self.net, kinds=self.kinds, keep=self._keep()) as activations:
                logits = self.net(z)
            self._check_overwritten(activations)
            return logits, activations

    def _keep(self) -> Keep:
        if not self.whole:
            return pooled
        return whole if self.net.module in _in_place else itself

    def _check_overwritten(self, recording: Recording) -> None:
        """Whole maps are recorded without copying them, which is right for all but a few networks.

        Raises:
            _InPlace: the network works in place. It is one of `_in_place` from now on.
        """
        if self.whole and self.net.module is not None and self.net.module not in _in_place and recording.overwritten():
            _in_place.add(self.net.module)
            raise _InPlace

    def under(self, perturbation: Perturbation) -> Shard:
        shard, began = Shard(), time.perf_counter()
        try:
            z, status, note = self._perturb(perturbation)
            same = z is self.x or (isinstance(perturbation, Corruption) and torch.equal(z, self.x))
            logits, activations = self.clean if same else self._pass(z, graph=self.graph)
            samples = self._samples(None if same else z, status, logits)
        except TamperedNetwork:
            raise
        except EXPLAINED as error:
            self._start_over(error)
            shard.failure = reason(error)
        else:
            shard.samples = samples
            shard.gave_up, shard.notes = int((status != DONE).sum()), [note] if note else []
            for probe in self.probes:
                draws = derive(self.seed, "probe", probe.spec(), ids=self.ids, device=z.device)
                try:
                    view = self._view(probe, self.x if same else z, logits, activations, perturbation.threat)
                    shard.tallies[probe.spec()] = probe.observe(view, draws=draws)
                except EXPLAINED as error:
                    self._start_over(error)
                    shard.probe_failures[probe.spec()] = reason(error)
        shard.forwards, shard.backwards = self.net.reset()
        shard.seconds = time.perf_counter() - began
        if perturbation.name == "clean":
            shard.forwards, shard.backwards = shard.forwards + self.clean_passes[0], shard.backwards + self.clean_passes[1]
            shard.seconds += self.clean_seconds
        return shard

    def _start_over(self, error: Exception) -> None:
        """Pass on what is no fault of one cell: half the samples need half the memory, and a network that works in place needs copies.

        Raises:
            _InPlace: it was that.
            _Unfit: it was memory that failed, and there is more than one sample.
        """
        if isinstance(error, _InPlace):
            raise error
        if _exhausted(error) and len(self.x) > 1:
            raise _Unfit(NetworkError(str(error)), full=True) from None

    def _perturb(self, perturbation: Perturbation) -> tuple[Tensor, Tensor, str]:
        if perturbation.name == "clean":
            return self.x, torch.full_like(self.y, DONE), ""
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

    def _samples(self, z: Tensor | None, status: Tensor, logits: Tensor) -> dict[str, Tensor]:
        """Per-sample columns: what was predicted and how far the sample was moved, in every norm; z: None where none was."""
        finite = answered(logits)
        predicted = torch.where(finite, logits.argmax(1), -1)
        moved = self.x.new_zeros(len(self.x), 1, dtype=torch.float64) if z is None else z.double() - self.x.double()
        columns = {
            "id": self.ids, "label": self.y, "prediction": predicted, "correct": predicted == self.y, "finite": finite,
            "status": status, **{f"l{p:g}": norms.length(moved, p) for p in (0, 1, 2, float("inf"))},
        }  # fmt: skip
        return {name: value.detach().cpu() for name, value in columns.items()}

    def _view(self, probe: Probe, z: Tensor, logits: Tensor, activations: Recording, threat: Threat | None) -> View:
        need = probe.needs

        def seen(z: Tensor, logits: Tensor, found: Recording, clean: View | None) -> View:
            self._check_overwritten(found)  # by a pass that another probe has made
            chosen = {} if need.layers is None else found.pick(need.layers, need.kinds)
            if need.pooled and self.whole:
                chosen = {name: found.pooled(name) for name in chosen}
            net = self.net if need.net else None
            return View(self.x, z, self.y, self.ids, logits, chosen, clean, net, self.data.classes, self.columns, threat)

        return seen(z, logits, activations, seen(self.x, *self.clean, None) if need.clean else None)


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
    word = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
    if device.type != "cpu":
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(word)
            yield
        return
    before = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(word)  # torch.manual_seed would look for other devices, which takes a millisecond
        yield
    finally:
        torch.set_rng_state(before)
