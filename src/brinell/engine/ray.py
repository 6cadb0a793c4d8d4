"""The Ray executor: pieces of a run as tasks on a cluster, or on the cores and GPUs of this machine."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from brinell.core.component import Component, walk
from brinell.core.errors import BrinellError, SpecError
from brinell.core.network import NetReference, Network, with_networks
from brinell.engine.allocator import keep_freed_memory
from brinell.engine.arguments import pick_device
from brinell.engine.portable import Portable

_RETRIES = 20
"""How often a piece whose worker or machine died is tried again. Pieces are idempotent, so that any number would do; one that kills
every worker it is given to must end."""
_WAITING = 2
"""Pieces handed out for every worker: one at work, one waiting, so that no worker is idle and the cluster's memory holds few results."""


class Ray:
    """Runs pieces of work as Ray tasks: what is measured is the same, whatever the number of workers (`docs/howto/cluster.md`).

    What the pieces share (network, data, perturbations) is placed once in the cluster's object store. The driver writes every file of
    the run; a worker or machine that dies costs the pieces it had in hand, and they are done again. A driver that dies leaves a run that
    the same command finishes.

    Arguments:
        address: HOST:PORT of a cluster's head node, as seen from one of its machines, `ray://HOST:PORT` from elsewhere, `auto` for the
            cluster this machine belongs to; None starts a cluster of this machine alone, which ends with the process.
        cpus, gpus: of one task; a fraction of a GPU lets several tasks share it. Tasks with a share of a GPU measure on it, others on
            the CPU with as many threads as they have cores.

    Raises:
        SpecError: ray is not installed, no cluster answers at the address, or no machine of it has what a task asks for.

    Example:
        >>> Ray(cpus=2).spec()
        'ray(cpus=2)'
    """

    def __init__(self, address: str | None = None, *, cpus: float = 1.0, gpus: float = 0.0) -> None:
        if cpus < 0 or gpus < 0 or cpus + gpus == 0:
            raise SpecError(f"a task of {cpus:g} cores and {gpus:g} GPUs cannot be placed; give a positive number of one of them")
        self.address, self.cpus, self.gpus = address, cpus, gpus
        self._held: list[tuple[Any, Any]] = []  # what lies in the object store, and the reference to it

    def spec(self) -> str:
        """The executor as text."""
        asked = {"address": self.address, "cpus": self.cpus, "gpus": self.gpus}
        usual = {"address": None, "cpus": 1.0, "gpus": 0.0}
        given = [f"{name}={value:g}" if isinstance(value, float | int) else f"{name}={value}" for name, value in asked.items()
                 if value != usual[name]]  # fmt: skip
        return f"ray({', '.join(given)})"

    def run(
        self, function: Callable[..., Iterable[Any]], shared: tuple[Any, ...], work: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        if not work:
            return
        ray = self._connect()
        task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=_RETRIES, retry_exceptions=False)(_piece)
        common = [self._placed(ray, item) for item in shared]
        most = _WAITING * self._workers(ray)
        waiting = iter(enumerate(work))
        running: dict[Any, int] = {}
        try:
            while True:
                for place, piece in waiting:
                    running[task.remote(function, max(1, int(self.cpus)), self.gpus, len(common), *common, *piece)] = place
                    if len(running) >= most:
                        break
                if not running:
                    return
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                place = running.pop(done)
                for result in self._result(ray, done):
                    yield place, result
        finally:
            for left in running:
                ray.cancel(left, force=True)

    def _connect(self) -> Any:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # brinell calls nobody
        try:
            import ray
        except ImportError as error:
            raise SpecError("the executor ray needs the package ray; install it with: pip install 'brinell[ray]'") from error
        if not ray.is_initialized():
            try:
                self._knock()
                alone: dict[str, Any] = {} if self.address else {"include_dashboard": False}
                ray.init(address=self.address or "local", log_to_driver=False, logging_level=logging.ERROR, **alone)
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                why = " ".join(str(error).split())[:200]
                raise SpecError(f"no Ray cluster answers at {self.address!r} ({why}); start one with: ray start --head") from error
        return ray

    def _knock(self) -> None:
        """Ray itself tries for minutes.

        Raises:
            OSError: nobody listens at the address. ValueError: it has no port.
        """
        if self.address and self.address not in ("auto", "local"):
            host, _, port = self.address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()

    def _placed(self, ray: Any, item: Any) -> Any:
        """The reference to an item that all pieces share; the same item is placed once for all runs."""
        for held, reference in self._held:
            if held is item:
                return reference
        reference = ray.put(Portable(item))
        self._held = [*self._held[-31:], (item, reference)]
        return reference

    def _workers(self, ray: Any) -> int:
        """How many tasks the cluster can run at once.

        Raises:
            SpecError: none.
        """
        most = 0
        for node in ray.nodes():
            if node["Alive"]:
                have = node["Resources"]
                room = [have.get(kind, 0.0) / asked for kind, asked in (("CPU", self.cpus), ("GPU", self.gpus)) if asked]
                most += int(min(room))
        if not most:
            raise SpecError(
                f"no machine of the Ray cluster has {self.cpus:g} cores and {self.gpus:g} GPUs for one task; "
                "ask for less with --cpus and --gpus"
            )
        return most

    def _result(self, ray: Any, done: Any) -> list[Any]:
        try:
            return ray.get(done)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, BrinellError):
                raise type(cause)(str(cause)) from None  # without the worker's stack in its message
            raise
        except ray.exceptions.RayError as error:
            why = " ".join(str(error).split())[:300]
            raise BrinellError(
                f"a task of {self.spec()} was lost {_RETRIES + 1} times ({why}); what is finished is kept, run again"
            ) from error


def _piece(function: Callable[..., Iterable[Any]], threads: int, gpus: float, count: int, *arguments: Any) -> list[Any]:
    """One piece of work, on a worker."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    shared = [_on_gpu(item) if gpus else item for item in arguments[:count]]
    return list(function(*shared, *arguments[count:]))


def _on_gpu(item: Any) -> Any:
    """Networks, those that items refer to, and the device of the run, moved to the GPU of this worker."""
    if isinstance(item, torch.device):
        return pick_device("cuda")
    if isinstance(item, Network):
        return item.frozen_copy("cuda")
    if isinstance(item, tuple):
        return tuple(_on_gpu(part) for part in item)
    if isinstance(item, Component):
        named = {part.label: part.network.frozen_copy("cuda") for part in walk(item) if isinstance(part, NetReference)}
        return with_networks(item, named)
    return item
