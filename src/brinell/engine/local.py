"""The local executor: shards one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol


class Executor(Protocol):
    """Runs independent, idempotent pieces of work; results may come in any order."""

    def run(self, function: Callable[..., Any], work: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """`function(*arguments)` for each tuple of arguments."""
        ...


class Local:
    """One piece at a time, here; an interruption loses the piece at hand and nothing else."""

    def run(self, function: Callable[..., Any], work: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        for arguments in work:
            yield function(*arguments)
