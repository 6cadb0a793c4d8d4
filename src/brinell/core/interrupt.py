"""Interrupts: Ctrl-C is KeyboardInterrupt, whoever was at work when it came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """A scope for queries to DuckDB, which takes an interrupt that comes within one for an error of its own and forgets it.

    Raises:
        KeyboardInterrupt: a query inside ended so; other errors pass.

    Example:
        >>> try:
        ...     with interruptible():
        ...         raise RuntimeError("Query interrupted")
        ... except KeyboardInterrupt:
        ...     "stopped"
        'stopped'
    """
    try:
        yield
    except Exception as error:
        if type(error).__name__ in ("RuntimeError", "InterruptException") and "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        raise
