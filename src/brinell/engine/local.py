"""Executors: where the independent pieces of a run are worked on. The local one takes them one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol


class Executor(Protocol):
    """Runs independent, idempotent pieces of work; results may come in any order."""

    def run(
        self, function: Callable[..., Iterable[Any]], shared: tuple[Any, ...], work: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        """Each result of `function(*shared, *piece)` with the place of its piece in the work."""
        ...


class Local:
    """One piece at a time, here; an interruption loses the piece at hand and nothing else."""

    def run(
        self, function: Callable[..., Iterable[Any]], shared: tuple[Any, ...], work: Sequence[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any]]:
        for place, piece in enumerate(work):
            for result in function(*shared, *piece):
                yield place, result
