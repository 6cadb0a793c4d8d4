"""Progress: a bar with the time left on a terminal, one plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self, TextIO


class Progress(Protocol):
    """What the engine tells while it works. `total` and `amount` are in passes of one sample."""

    def start(self, title: str, total: float, done: float = 0.0) -> None: ...
    def advance(self, amount: float, text: str = "") -> None: ...
    def say(self, text: str) -> None: ...
    def stop(self) -> None: ...


class Silent:
    """Says nothing; the default of the Python interface."""

    def start(self, title: str, total: float, done: float = 0.0) -> None: ...
    def advance(self, amount: float, text: str = "") -> None: ...
    def say(self, text: str) -> None: ...
    def stop(self) -> None: ...


class Lines:
    """Plain log lines with time stamps, at most one every `every` seconds."""

    def __init__(self, stream: TextIO | None = None, every: float = 10.0) -> None:
        self.stream, self.every = stream or sys.stderr, every
        self.title, self.total, self.done, self.skipped, self.began, self.last = "", 1.0, 0.0, 0.0, 0.0, 0.0

    def start(self, title: str, total: float, done: float = 0.0) -> None:
        self.title, self.total, self.done, self.skipped = title, max(total, 1e-9), done, done
        self.began = self.last = time.monotonic()
        self.say(f"{title}: started" + (f", {done / self.total:.0%} done before" if done else ""))

    def advance(self, amount: float, text: str = "") -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            fresh = self.done - self.skipped
            left = (now - self.began) * (self.total - self.done) / fresh if fresh > 0 else float("inf")
            self.say(f"{self.title}: {min(self.done / self.total, 1):.0%}, about {_duration(left)} left{f' ({text})' if text else ''}")

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=self.stream, flush=True)

    def stop(self) -> None:
        if self.title:
            how = "finished" if self.done >= self.total * (1 - 1e-9) else f"stopped at {self.done / self.total:.0%},"
            self.say(f"{self.title}: {how} in {_duration(time.monotonic() - self.began)}")
            self.title = ""


class Bar:
    """A rich progress bar."""

    def __init__(self) -> None:
        from rich import progress
        from rich.console import Console

        self.console = Console(stderr=True)
        self._make = lambda: progress.Progress(
            progress.TextColumn("[bold]{task.description}"), progress.BarColumn(), progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(), progress.TextColumn("left"), progress.TimeRemainingColumn(elapsed_when_finished=False),
            progress.TextColumn("{task.fields[note]}", markup=False), console=self.console, transient=False,
        )  # fmt: skip
        self._bar: Any = None
        self._task: Any = None

    def start(self, title: str, total: float, done: float = 0.0) -> None:
        self.stop()
        self._bar = self._make()
        self._bar.start()
        self._task = self._bar.add_task(title, total=total, completed=done, note="")

    def advance(self, amount: float, text: str = "") -> None:
        if self._bar is not None:
            self._bar.update(self._task, advance=amount, note=text[:60])

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, note="")
            self._bar.stop()
            self._bar = None


class Shown:
    """A progress display that is stopped however the block ends."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()


def for_stream(stream: TextIO | None = None) -> Progress:
    """A bar when the stream (standard error by default) is a terminal, plain lines otherwise."""
    return Bar() if (stream or sys.stderr).isatty() else Lines(stream)


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "an unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
