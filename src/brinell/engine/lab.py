"""The lab: runs plans, remembers what is finished, and gives tables."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brinell.core.component import Component, walk
from brinell.core.dataset import Dataset, Source
from brinell.core.draws import derive
from brinell.core.errors import BrinellError, SampleError, SpecError, StoreError
from brinell.core.hardening import Hardening
from brinell.core.lab import Table
from brinell.core.measurement import Finding, Reading, Status, measurement
from brinell.core.network import Counted, Network, with_networks
from brinell.core.perturbation import Perturbation
from brinell.core.probe import Probe
from brinell.core.summary import Summary
from brinell.core.tally import added
from brinell.engine.arguments import as_component, as_dataset, as_networks, pick_device, pick_executor
from brinell.engine.expectation import limited
from brinell.engine.local import Executor
from brinell.engine.observing import observe_places, rehearse
from brinell.engine.plan import Cell, Plan, agree
from brinell.engine.progress import Progress, Shown, Silent
from brinell.engine.shards import EXPLAINED, Shard, readings_of, reason
from brinell.engine.store import Store, digest_of
from brinell.engine.table import open_table

ROW_COLUMNS = ("place", *measurement(Reading("", 0.0), **dict.fromkeys(
    ("net", "data", "perturbation", "probe", "seed", "perturbation_full", "probe_full", "net_digest", "data_digest", "versions",
     "forwards", "backwards", "seconds"))))  # fmt: skip


class _FinishedElsewhere(Exception):
    """Another run on the same directory was quicker."""


class Lab:
    """Measures networks under perturbations, and remembers: the same request finishes where an earlier run was cut off.

    Arguments:
        directory: the run directory; a temporary one, gone with the lab, when None.
        seed: of all randomness. device: `cpu`, `cuda` (all there are, `cuda:1` for one), `mps`, or `auto` for the best there is.
        batch_size: samples per shard. progress: see `engine.progress`; silent by default.
        executor: runs the shards; `local`, `ray`, an `engine.ray.Ray(...)` or an `engine.devices.Devices(...)`.
        exact: no attack computes in bfloat16, also where a timing of the network says that it gains.

    Example:
        >>> import brinell as br
        >>> data = br.load_dataset("digits(side=8)", limit=60)
        >>> net = br.load_network("mlp(widths=(32,))", shape=data.shape, classes=10)
        >>> table = br.Lab().measure({"net": net}, data, ["uniform_noise(threat=ball(eps=0.1))"], ["accuracy"])
        >>> [row["perturbation"] for row in table.select(name="accuracy")]
        ['clean', 'uniform_noise(threat=ball(eps=0.1, norm=inf))']
    """

    def __init__(
        self, directory: str | Path | None = None, *, seed: int = 0, device: str = "auto", batch_size: int = 256,
        progress: Progress | None = None, executor: Executor | str = "local", exact: bool = False,
    ) -> None:  # fmt: skip
        if batch_size < 1:
            raise SpecError(f"a batch size of {batch_size} cannot be measured; give at least 1")
        if not -(1 << 63) <= seed < 1 << 63:
            raise SpecError(f"seed {seed} does not fit into 64 bits; give a smaller number")
        self.store = Store(tempfile.mkdtemp(prefix="brinell-") if directory is None else directory)
        if directory is None:
            weakref.finalize(self, shutil.rmtree, self.store.root, ignore_errors=True)
        self.seed, self.batch_size, self.device, self.exact = seed, batch_size, pick_device(device), exact
        self.progress: Progress = progress or Silent()
        self.executor = pick_executor(executor, device=self.device) if isinstance(executor, str) else executor

    @torch.inference_mode(False)  # whose tensors know neither gradients nor what was written into them
    def plan(
        self,
        nets: Any,
        data: Dataset | Source | str | tuple[Any, Any],
        perturbations: Sequence[Perturbation | str] = (),
        probes: Sequence[Probe | str] = ("accuracy",),
        summaries: Sequence[Summary | str] = (),
        *,
        suite: str = "",
        minutes: float | None = None,
    ) -> Plan:
        """What `measure` with the same arguments would do, without doing it.

        Arguments:
            minutes: a time limit, converted into the budget of passes of the attacks that take one (`strongest`).

        Raises:
            SpecError, DataError, NetworkError: an argument cannot be used; the message says which and why.
        """
        wrapped = as_networks(nets)
        samples = as_dataset(data)
        plan = Plan(
            nets={name: net.frozen_copy(self.device) for name, net in wrapped.items()},
            data=samples,
            perturbations=_distinct(Perturbation, ("clean", *perturbations)),
            probes=_distinct(Probe, probes),
            summaries=_distinct(Summary, summaries),
            seed=self.seed,
            shard=min(self.batch_size, len(samples)),
            device=self.device,
            training={name: any(part.training for part in net.module.modules()) for name, net in wrapped.items()},
            suite=suite,
            exact=self.exact,
        )
        if minutes is None:
            return plan
        return limited(plan, minutes, self.store.read_json("plan.json") if self.store.has("plan.json") else None)

    def measure(
        self,
        nets: Any,
        data: Dataset | Source | str | tuple[Any, Any],
        perturbations: Sequence[Perturbation | str] = (),
        probes: Sequence[Probe | str] = ("accuracy",),
        summaries: Sequence[Summary | str] = (),
    ) -> Table:
        """Read every probe under every perturbation (the clean samples always among them) for every network.

        Arguments:
            nets: a network or module, or a dict of them by name. data: a dataset, its spec, or a pair (x, y).
            perturbations, probes, summaries: components or their specs.

        Raises:
            StoreError: the directory holds another run. DataError, NetworkError: samples or networks cannot be used.
        """
        return self.run(self.plan(nets, data, perturbations, probes, summaries))

    @torch.inference_mode(False)
    def run(self, plan: Plan) -> Table:
        """Measure what of a plan is not finished yet, and return the whole table."""
        plan = self._adopt(plan)
        cells = list(plan.cells())
        todo = [cell for cell in cells if not self._finished(cell)]
        cost = {cell.key: sum(plan.passes(cell)) for cell in cells}
        total = float(sum(cost.values()) * len(plan.data))
        with Shown(self.progress):
            self.progress.start("measuring", total, total - sum(cost[cell.key] for cell in todo) * len(plan.data))
            for name in plan.nets:
                self._measure_network(plan, [cell for cell in todo if cell.net == name])
                for cell in todo:
                    if cell.net == name:
                        self._fold(plan, cell)
            self.store.tidy(f"shards/{cell.key}" for cell in cells)
            return self._summarise(plan)

    def _finished(self, cell: Cell) -> bool:
        """Is there an answer, whole? A cell that failed is tried again: what was wrong may be mended by now."""
        path = f"readings/{cell.key}.parquet"
        if not self.store.has(path) or any(row["status"] == Status.FAILED for row in self.store.read_rows(path)):
            return False
        return all(self.store.has(beside) for beside in self.store.signature(path).beside)

    def _adopt(self, plan: Plan) -> Plan:
        """Write plan.json, or continue the run that is there with its shard size."""
        if not self.store.has("plan.json"):
            with suppress(BrinellError):  # measuring says it better, sample by sample
                rehearse(plan.nets.values(), plan.data, seed=plan.seed, device=plan.device)  # networks may note what they return
        new = plan.to_json()
        if not self.store.has("plan.json"):
            self.store.write_json("plan.json", {**new, "drafts": plan.drafts()})
        old = self.store.read_json("plan.json")
        agree(old, new, str(self.store.root))
        plan.settle(old)
        return replace(plan, shard=int(old["shard"])) if old["shard"] != plan.shard else plan

    def _measure_network(self, plan: Plan, cells: list[Cell]) -> None:
        if not cells:
            return
        net = plan.nets[cells[0].net]
        ready, unready = self._prepare_all(plan, net, [*(cell.perturbation for cell in cells), *plan.probes])
        probes = [ready[probe] for probe in plan.probes if probe in ready]
        mute = {probe.spec(): unready[probe] for probe in plan.probes if probe in unready}
        asked = tuple(ready[cell.perturbation] for cell in cells if cell.perturbation in ready)
        able = [cell for cell in cells if cell.perturbation in ready]
        work: list[tuple[np.ndarray, tuple[int, ...]]] = []  # samples, and places of the perturbations that they still lack
        numbers: list[int] = []
        for number, positions in enumerate(plan.data.shards(plan.shard)):
            missing = [cell for cell in cells if not self.store.has(_shard_path(plan, cell, number))]
            for cell in cells:
                if cell not in missing:
                    self.progress.advance(sum(plan.passes(cell)) * len(positions))
                elif cell.perturbation in unready:
                    self._keep(plan, cell, number, len(positions), Shard(failure=unready[cell.perturbation]))
            places = tuple(place for place, cell in enumerate(able) if cell in missing)
            if places:
                work.append((positions, places))
                numbers.append(number)
        shared = (net, plan.data, asked, tuple(probes), plan.seed, self.device)
        for piece, (place, shard) in self.executor.run(observe_places, shared, work):
            shard.probe_failures |= mute
            for line in shard.log:
                self.progress.say(line)
            self._keep(plan, able[place], numbers[piece], len(work[piece][0]), shard)

    def _keep(self, plan: Plan, cell: Cell, number: int, samples: int, shard: Shard) -> None:
        """Write a finished shard; one that the machine's power takes with it is measured again."""
        try:
            self.store.write_tensors(_shard_path(plan, cell, number), *shard.pack(), lasting=False)
        except StoreError:
            if not self.store.has(f"readings/{cell.key}.parquet"):
                raise
            # another run on this directory has finished the cell meanwhile, and removed the folder of its shards
        self.progress.advance(sum(plan.passes(cell)) * samples, f"{cell.net}: {cell.perturbation.spec()}")

    def _prepare_all(self, plan: Plan, net: Network, items: list[Any]) -> tuple[dict[Any, Any], dict[Any, str]]:
        """The items that could be prepared, and why the others could not."""
        ready, unready = {}, {}
        for item in items:
            try:
                ready[item] = self._prepare(plan, net, item)
            except StoreError:
                raise
            except EXPLAINED as error:
                unready[item] = reason(error)
        return ready, unready

    def _prepare(self, plan: Plan, net: Network, item: Any) -> Any:
        """The item with the networks it refers to and with what its `prepare` fitted on this one; fitted once and kept."""
        item = with_networks(item, plan.nets)
        if all(type(part).prepare is Component.prepare for part in walk(item)):
            return item
        path = f"states/{digest_of(net.digest, plan.data.digest, item.key(), str(plan.seed))}.safetensors"
        if not self.store.has(path):
            try:
                state = self._fit(plan, net, item, plan.data)
            except SampleError:
                state = self._fit(plan, net, item, plan.data.readable())
            self.store.write_tensors(path, state or {}, {"none": state is None})
        tensors, about = self.store.read_tensors(path)
        return item.prepared(None if about["none"] else tensors)

    def _fit(self, plan: Plan, net: Network, item: Any, data: Dataset) -> Any:
        return item.prepare(Counted(net), data, draws=derive(plan.seed, "prepare", item.spec(), ids=data.ids))

    def _shard(self, plan: Plan, cell: Cell, number: int) -> Shard:
        """A stored shard, measured again where its file is damaged.

        Raises:
            _FinishedElsewhere: another run has finished the cell meanwhile.
        """
        path = _shard_path(plan, cell, number)
        for attempt in range(2):
            try:
                return Shard.unpacked(*self.store.read_tensors(path))
            except FileNotFoundError:
                if self.store.has(f"readings/{cell.key}.parquet"):
                    raise _FinishedElsewhere from None
            except StoreError:
                if attempt:
                    raise
                self.store.drop(path)
            self._measure_network(plan, [cell])
        raise StoreError(f"{self.store.root / path} vanishes as soon as it is written; is something removing files there?")

    def _fold(self, plan: Plan, cell: Cell) -> None:
        """Add up a cell's shards in their order and write its files, the readings last."""
        try:
            total = added(self._shard(plan, cell, number) for number, _ in enumerate(plan.data.shards(plan.shard))) or Shard()
        except _FinishedElsewhere:
            return
        readings = list(readings_of(plan.probes, len(plan.data), total))
        arrays = {
            f"{place}": torch.from_numpy(np.ascontiguousarray(r.array)) for place, (_, r) in enumerate(readings) if r.array is not None
        }
        beside: dict[str, str] = {}  # digests of what stands beside the readings
        if arrays:
            path, about = f"arrays/{cell.key}.safetensors", {"net": cell.net, "perturbation": cell.perturbation.spec()}
            beside[path] = self.store.write_tensors(path, arrays, about)
        if total.samples and not total.failure:
            beside[f"samples/{cell.key}.parquet"] = self.store.write_columns(f"samples/{cell.key}.parquet", _in_order(total.samples))
        origins = {probe: self._origin(plan, probe, cell.net, cell.perturbation, total) for probe in (None, *plan.probes)}
        rows = [{"place": place, **measurement(reading, **origins[probe])} for place, (probe, reading) in enumerate(readings)]
        self.store.write_rows(f"readings/{cell.key}.parquet", rows, ROW_COLUMNS, beside)
        self.store.drop(f"shards/{cell.key}")

    def _origin(self, plan: Plan, probe: Component | None, net: str, perturbation: Perturbation | None, cost: Shard) -> dict[str, Any]:
        """What all readings of one probe in one cell have in common; a summary may speak of no network in particular (`net` is "")."""
        return {
            "net": net, "data": plan.data.source, "seed": plan.seed,
            "perturbation": perturbation.spec() if perturbation else "", "probe": probe.spec() if probe else "",
            "perturbation_full": perturbation.spec(full=True) if perturbation else "",
            "probe_full": probe.spec(full=True) if probe else "",
            "net_digest": plan.digests.get(net, ""), "data_digest": plan.data.digest,
            "versions": " ".join(f"{c.name}={c.key().rpartition('@')[2]}" for c in (perturbation, probe) if c),
            "forwards": cost.forwards, "backwards": cost.backwards, "seconds": cost.seconds,
        }  # fmt: skip

    def _summarise(self, plan: Plan) -> Table:
        findings: list[Finding] = []
        rows: list[dict[str, Any]] = []
        arrays: dict[str, Tensor] = {}
        table = open_table(self.store, cells_only=True) if plan.summaries else None
        for summary in plan.summaries:
            for item in summary(table):
                if isinstance(item, Finding):
                    findings.append(item)
                    continue
                if item[1].array is not None:
                    arrays[str(len(rows))] = torch.from_numpy(np.ascontiguousarray(item[1].array))
                rows.append({"place": len(rows), **measurement(item[1], **self._origin(plan, summary, item[0], None, Shard()))})
        if plan.summaries:
            beside = {"arrays/summary.safetensors": self.store.write_tensors("arrays/summary.safetensors", arrays, {})}
            self.store.write_rows("summary.parquet", rows, ROW_COLUMNS, beside)
        self.store.write_json("findings.json", {"findings": [{**vars(each), "verdict": str(each.verdict)} for each in findings]})
        table = open_table(self.store)
        table.keeps = self  # a temporary directory lives as long as its table
        return table

    @torch.inference_mode(False)
    def harden(
        self, nets: Any, hardening: Hardening | str, data: Dataset | Source | str, *,
        valid: Dataset | Source | str | None = None, seed: int | None = None,
    ) -> dict[str, Network]:  # fmt: skip
        """Each network hardened; kept in the run directory, so that a second call trains nothing and an interrupted one goes on.

        Arguments:
            valid: samples to choose the best epoch on, for hardenings that choose one. seed: of the training; the lab's by default.

        Raises:
            SpecError, DataError, NetworkError: an argument cannot be used.
        """
        how, samples = as_component(Hardening, hardening), as_dataset(data)
        judges = None if valid is None else as_dataset(valid)
        lot = self.seed if seed is None else seed
        return {name: self._hardened(name, net, how, samples, judges, lot) for name, net in as_networks(nets).items()}

    def _hardened(self, name: str, net: Network, how: Hardening, data: Dataset, valid: Dataset | None, seed: int) -> Network:
        key = digest_of(net.digest, how.key(), data.digest, "" if valid is None else valid.digest, str(seed))
        path, checkpoint = f"networks/{key}.safetensors", f"checkpoints/{key}.safetensors"
        if not self.store.has(path):
            self.progress.say(f"{name}: {how.spec()}")
            kept = self.store.root / checkpoint
            made = how(net, data, seed=seed, valid=valid, progress=self.progress, device=self.device, checkpoint=kept)
            state = {key: value for key, value in made.module.state_dict().items() if isinstance(value, Tensor)}
            self.store.write_tensors(path, state, {"recipe": made.recipe, "notes": list(made.notes), "hardening": how.spec(full=True)})
            self.store.drop(checkpoint)
        tensors, about = self.store.read_tensors(path)
        module = how.wrap(net.frozen_copy().module)
        module.load_state_dict(tensors)
        return Network(module.eval(), about["recipe"], tuple(about["notes"]), net.source, shape=data.shape, classes=len(data.classes))

    def part(self, name: str) -> Lab:
        """A lab of the same settings in a sub-directory of this run, for studies that measure more than one plan."""
        return Lab(
            self.store.root / name, seed=self.seed, device=str(self.device), batch_size=self.batch_size, progress=self.progress,
            executor=self.executor, exact=self.exact,
        )  # fmt: skip

    def map(self, function: Callable[[Any], dict[str, Any]], items: Iterable[Any], *, key: Callable[[Any], str]) -> list[dict[str, Any]]:
        """`function(item)` for every item, each result kept under `key(item)`: a second call computes what is missing.

        Results are dicts of tensors and of values JSON can hold.
        """
        asked = [(key(item), item) for item in items]
        paths = {name: f"results/{digest_of(getattr(function, '__qualname__', ''), name, str(self.seed))}.safetensors" for name, _ in asked}
        missing = {name: item for name, item in asked if not self.store.has(paths[name])}
        names = list(missing)
        for piece, made in self.executor.run(_apply, (function,), [(item,) for item in missing.values()]):
            tensors = {k: v for k, v in made.items() if isinstance(v, Tensor)}
            about = {"key": names[piece], "order": list(made), "values": {k: v for k, v in made.items() if k not in tensors}}
            self.store.write_tensors(paths[names[piece]], tensors, about)
        results: dict[str, dict[str, Any]] = {}
        for name, path in paths.items():
            tensors, about = self.store.read_tensors(path)
            results[name] = {k: tensors[k] if k in tensors else about["values"][k] for k in about["order"]}
        return [results[name] for name, _ in asked]


def _distinct(kind: type[Any], items: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(as_component(kind, item) for item in items))


def _apply(function: Callable[[Any], dict[str, Any]], item: Any) -> Iterator[dict[str, Any]]:
    yield function(item)


def _shard_path(plan: Plan, cell: Cell, number: int) -> str:
    """The size is part of the name: runs that started at the same moment with two batch sizes cannot mix their shards."""
    return f"shards/{cell.key}/{plan.shard}-{number:05d}.safetensors"


def _in_order(samples: dict[str, Tensor]) -> dict[str, np.ndarray]:
    columns = {name: values.numpy() for name, values in samples.items()}
    order = np.argsort(columns["id"], kind="stable")
    return {name: values[order] for name, values in columns.items()}
