"""Paths: what people write is expanded or refused with a reason; what is written appears whole, where it was asked for."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from brinell.core.errors import BrinellError


def place_of(path: str | Path, failure: type[BrinellError]) -> Path:
    """The path, with `~` expanded; links in it are followed later, as everywhere.

    Arguments:
        failure: the error to raise, `DataError` or `WeightsError`, say.

    Raises:
        failure: the path is empty, too long, holds a NUL character, or names the home of an unknown user.

    Example:
        >>> place_of("data/set.npz", BrinellError).name
        'set.npz'
    """
    text = str(path)
    shown = repr(text if len(text) <= 100 else f"{text[:100]}...")
    if not text:
        raise failure("an empty path names no file; give one")
    try:
        found = Path(text).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # for whoever opens it to explain
            found.stat()
    except (OSError, ValueError, RuntimeError) as error:
        raise failure(f"{shown} is no path that can be opened ({getattr(error, 'strerror', None) or error}); correct it") from error
    return found


@contextmanager
def written_to(place: Path) -> Iterator[Path]:
    """A temporary path beside `place`; what is written there takes its place at once, and is gone where that fails.

    A link that lies at `place` is replaced, not followed: a directory that somebody sent can name any file of ours by one.

    Raises:
        OSError: the file cannot be written, or `place` is a directory.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{secrets.token_hex(4)}.partial{place.suffix}")
    try:
        yield partial
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)
