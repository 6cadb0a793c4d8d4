"""The executor of several devices of this machine: a process for each, which sees that device alone."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import torch

from brinell.core.errors import BrinellError, SpecError
from brinell.engine.allocator import keep_freed_memory
from brinell.engine.arguments import pick_device
from brinell.engine.local import Local
from brinell.engine.portable import Portable
from brinell.engine.shards import reason

_WAITING = 2
"""Pieces handed to each process: one at work, one waiting, so that no device is idle while this process writes."""


class Devices:
    """Works on pieces in one process per device; what is measured is the same, whatever their number.

    Processes and not threads, because torch's CPU random state and the interpreter's lock are one for all threads: a network that
    draws random numbers would answer as the threads happen to take turns. Each process sees its own CUDA device as the only one,
    has its share of this process's CPU threads, and lives as long as the executor; a run of one piece needs none. This process
    writes all files; when it is interrupted the others end, and the same command goes on from what is finished.

    Arguments:
        names: devices of one kind, such as `("cuda:0", "cuda:1")`; one may be named twice. The lab's own device is then `cuda`.

    Raises:
        SpecError: there is no such device, none is named, or they are of several kinds, which would give different numbers.

    Example:
        >>> Devices(("cpu", "cpu")).devices
        (device(type='cpu'), device(type='cpu'))
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.devices = tuple(pick_device(name) for name in names)
        kinds = sorted({device.type for device in self.devices})
        if len(kinds) != 1:
            raise SpecError(f"a run needs devices of one kind; got {' and '.join(kinds) or 'none'}")
        self._workers: list[_Worker] = []
        self._heard: queue.SimpleQueue[tuple[int, str, Any]] = queue.SimpleQueue()
        weakref.finalize(self, _end, self._workers)

    def run(
        self, function: Callable[..., Iterable[Any]], shared: tuple[Any, ...], work: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        if len(work) < 2:
            yield from Local().run(function, shared, work)
            return
        self._start()
        common = pickle.dumps((function, Portable(shared)))
        waiting = iter(enumerate(work))
        queues: list[list[int]] = [[] for _ in self._workers]  # the places that each process has still to do, in order
        try:
            for worker in self._workers:
                worker.tell(("shared", common))
            for _ in range(_WAITING):
                for number in range(len(queues)):
                    self._hand_out(number, waiting, queues)
            while any(queues):
                number, what, value = self._heard.get()
                if what == "result":
                    yield queues[number][0], value
                elif what == "done":
                    queues[number].pop(0)
                    self._hand_out(number, waiting, queues)
                else:
                    raise self._failure(number, what, value)
        finally:
            if any(queues):
                _end(self._workers)

    def _hand_out(self, number: int, waiting: Iterator[tuple[int, tuple[Any, ...]]], queues: list[list[int]]) -> None:
        for place, piece in waiting:
            self._workers[number].tell(("piece", pickle.dumps(Portable(piece))))
            queues[number].append(place)
            return

    def _start(self) -> None:
        if any(worker.process.poll() is not None for worker in self._workers):
            _end(self._workers)
        if not self._workers:
            self._heard = queue.SimpleQueue()
            threads = max(1, torch.get_num_threads() // len(self.devices))
            self._workers += [_Worker(number, device, threads, self._heard) for number, device in enumerate(self.devices)]

    def _failure(self, number: int, what: str, value: Any) -> BrinellError:
        if what == "failed":
            kind, text, stack = value
            error = kind(text)
            if stack:
                error.add_note(stack)
            return error
        code = self._workers[number].process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return BrinellError(
            f"the process that measured on {self.devices[number]} (device {number + 1} of {len(self.devices)}) {how}; "
            f"what is finished is kept, run again"
        )


class _Worker:
    """A process, and a thread here that hears what it says."""

    def __init__(self, number: int, device: torch.device, threads: int, heard: queue.SimpleQueue[tuple[int, str, Any]]) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from brinell.engine.devices import serve; serve({threads})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **_visible(device)}
        )
        threading.Thread(target=_hear, args=(self.process, number, heard), daemon=True).start()

    def tell(self, message: tuple[str, bytes]) -> None:
        stream = self.process.stdin
        if stream is not None:
            with suppress(OSError):  # it has died, which the thread that hears it says
                pickle.dump(message, stream)
                stream.flush()


def _visible(device: torch.device) -> dict[str, str]:
    """What makes a device of this process the only one, number 0, of another."""
    if device.type != "cuda":
        return {}
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    place = device.index or 0
    return {"CUDA_VISIBLE_DEVICES": named[place].strip() if named != [""] else str(place)}


def _hear(process: subprocess.Popen[bytes], number: int, heard: queue.SimpleQueue[tuple[int, str, Any]]) -> None:
    stream = process.stdout
    try:
        while stream is not None:
            heard.put((number, *pickle.load(stream)))
    except (EOFError, OSError, ValueError, pickle.UnpicklingError):  # it has died, perhaps in the middle of a word
        heard.put((number, "gone", None))


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.wait()
        for stream in (worker.process.stdin, worker.process.stdout):
            if stream is not None:
                with suppress(OSError):  # what was still to be written to it
                    stream.close()
    workers.clear()


def serve(threads: int) -> None:
    """The work of a process: pieces come on standard input and results leave on standard output, until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the one that started this one ends it
    asked, said = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a network prints is no result
    keep_freed_memory()
    torch.set_num_threads(threads)
    function: Any = None
    shared: tuple[Any, ...] = ()

    def say(what: str, value: Any = None) -> None:
        pickle.dump((what, Portable(value)), said)
        said.flush()

    while True:
        try:
            what, body = pickle.load(asked)
        except EOFError:
            return
        try:
            if what == "shared":
                function, shared = pickle.loads(body)
                continue
            for result in function(*shared, *pickle.loads(body)):
                say("result", result)
            say("done")
        except BrokenPipeError:  # nobody listens any more
            return
        except BrinellError as error:
            say("failed", (type(error), str(error), ""))
        except Exception as error:  # a study's own function may raise anything; what it was must be told
            say("failed", (BrinellError, f"a piece of the run failed: {reason(error)}", traceback.format_exc()))
