"""What ready-made sets have in common: where their files lie, and messages for files that are not as published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from brinell.core.errors import DataError
from brinell.core.place import place_of


def misfit(place: object, expected: str, found: str, remedy: str) -> DataError:
    """The error for a file that is not as its set publishes it: place, expectation, fact, remedy."""
    return DataError(f"{place}: expected {expected}, found {found}; {remedy}")


def root(path: str, mark: Iterable[str], inner: Sequence[str], remedy: str) -> Path:
    """The directory of a set: `path` itself or one of the known directories in it, whichever holds a marking file.

    Arguments:
        path: what the user gave. mark: names of files or directories, one of which the set's own directory holds.
        inner: names under which the set's directory is published. remedy: how to get the set.

    Raises:
        DataError: there is no such directory, or no marking file in it.
    """
    top, marks = place_of(path, DataError), tuple(mark)
    for place in (top, *(top / name for name in inner)):
        if any((place / name).exists() for name in marks):
            return place
    if not top.is_dir():
        raise misfit(path, "a directory", f"none (seen from {Path.cwd()})", remedy)
    raise misfit(top, f"{' or '.join(marks)} in it or in {' or '.join(inner)}", listing(top), remedy)


def listing(directory: Path, most: int = 8) -> str:
    """The first names in a directory, for a message."""
    names = sorted(entry.name for entry in directory.iterdir())
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") if names else "nothing"


def size_note(n: int, published: int) -> str:
    """What a reader must be told where a set is not of its published size; "" where it is."""
    return "" if n == published else f"{n:,} samples, published are {published:,}"


def joined(*notes: str) -> str:
    """Some notes as one, empty ones left out."""
    return "; ".join(filter(None, notes))
