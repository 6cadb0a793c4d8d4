"""CIFAR-10 as its authors publish it: the python and the binary version, from a directory or from the archive."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from brinell.core.dataset import Dataset, Source
from brinell.core.errors import DataError
from brinell.core.place import place_of
from brinell.data.contents import digest_of
from brinell.data.layout import joined, listing, misfit, root, size_note
from brinell.data.pickled import byte_array, read_pickle

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = 3 * 32 * 32
RECORD = 1 + PIXELS
PYTHON_DIRECTORY, BINARY_DIRECTORY = "cifar-10-batches-py", "cifar-10-batches-bin"
ARCHIVE_BYTES, ARCHIVE_MD5 = 170_498_071, "c58f30108f718f92721af3b95e74349a"
"""Size and MD5 that the authors publish for cifar-10-python.tar.gz."""

BATCHES = {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)}
SIZES = {"train": 50_000, "test": 10_000}
LARGEST_BATCH = 1 << 26  # bytes; a published batch has 31 million
REMEDY = "get cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and give it, or the directory in it, as path"


class Cifar10(Source, name="cifar10"):
    """CIFAR-10: 60,000 colour images of 32x32 in 10 classes, read from the files its authors publish.

    Read are the directory `cifar-10-batches-py` or `cifar-10-batches-bin` (or the directory that holds one of them), and
    archives (.tar.gz) of either. The python version consists of pickles; they are read as inert records and nothing in them is
    run. Archives are read in memory; none of their members becomes a file. Ids are positions in the split: 0..49999 through
    `data_batch_1` .. `data_batch_5`, or 0..9999 through `test_batch`; those of `test` are also the ids of `cifar10_c`.

    The size and MD5 of `cifar-10-python.tar.gz` are checked against the published ones (`verify=False` for an archive packed
    by somebody else). For the other files no checksum is published, and the note says that none was checked.

    The pixels are uint8, row by row, all red ones first, and are divided by 255. They are read with the labels, and read
    again in another process when its first rows are asked for.

    Arguments:
        path: directory or archive. split: train or test. verify: check the archive's size and MD5.

    Raises:
        DataError: a file is missing, short, altered, hostile, or of another layout; a label lies outside 0..9. The message
            names the file.

    References: A. Krizhevsky (2009), "Learning Multiple Layers of Features from Tiny Images",
        https://www.cs.toronto.edu/~kriz/cifar.html (layouts and MD5).

    Example:
        >>> Cifar10(path="data/cifar-10-python.tar.gz", split="train").spec()
        "cifar10('data/cifar-10-python.tar.gz', split=train)"
    """

    positional = ("path",)
    telling = ("split",)
    path: str
    split: Literal["train", "test"] = "test"
    verify: bool = True

    def load(self) -> Dataset:
        place, names, note = self._found()
        read = _Batches(place, names)
        _, labels = read.open()
        return Dataset(
            source=self.spec(), shape=(3, 32, 32), y=labels, ids=np.arange(len(labels)), classes=CLASSES, read=read,
            content=digest_of([place] if place.is_file() else [place / name for name in names]),
            note=joined(size_note(len(labels), SIZES[self.split]), note),
        )  # fmt: skip

    def _found(self) -> tuple[Path, tuple[str, ...], str]:
        """The archive or directory, the names of the batches in it, and what was not checked."""
        unchecked = "no checksum was checked: none is published for these files"
        path, batches = place_of(self.path, DataError), BATCHES[self.split]
        if not path.is_file():
            marks = [f"{name}{end}" for name in BATCHES["train"] + BATCHES["test"] for end in ("", ".bin")]
            place = root(self.path, marks, (PYTHON_DIRECTORY, BINARY_DIRECTORY), REMEDY)
            end = "" if any((place / name).exists() for name in marks[::2]) else ".bin"
            return place, tuple(f"{name}{end}" for name in batches), unchecked
        directory = _archived(path)
        end = ".bin" if directory == BINARY_DIRECTORY else ""
        if directory == PYTHON_DIRECTORY:
            unchecked = "" if self.verify else "checksum not checked, as asked"
            if self.verify:
                _verify(path)
        return path, tuple(f"{directory}/{name}{end}" for name in batches), unchecked


class _Batches:
    """Reads rows of some batches, one after another; what it has opened is not pickled but read again elsewhere."""

    def __init__(self, place: Path, names: tuple[str, ...]) -> None:
        self.place, self.names = place, names
        self.opened: tuple[np.ndarray, np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}

    def open(self) -> tuple[np.ndarray, np.ndarray]:
        """(n, 3072) uint8 pixels and (n,) labels."""
        if self.opened is None:
            bodies = _members(self.place, self.names) if self.place.is_file() else _contents(self.place, self.names)
            parts = [(binary_batch if place.endswith(".bin") else python_batch)(body, place) for place, body in bodies]
            self.opened = np.concatenate([pixels for pixels, _ in parts]), np.concatenate([labels for _, labels in parts])
        return self.opened

    def __call__(self, ids: np.ndarray) -> Tensor:
        return torch.from_numpy(self.open()[0][ids]).float().div_(255).view(-1, 3, 32, 32)


def binary_batch(body: bytes, place: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of a batch of the binary version: records of one label and 3072 pixels.

    Raises:
        DataError: the bytes are not whole records, or a label is above 9.
    """
    if not body or len(body) % RECORD:
        raise misfit(place, f"records of {RECORD} bytes", f"{len(body):,} bytes, {len(body) % RECORD} too many", REMEDY)
    records = np.frombuffer(body, dtype=np.uint8).reshape(-1, RECORD)
    return records[:, 1:], _checked(records[:, 0].tolist(), place)


def python_batch(body: bytes, place: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of a batch of the python version: a pickled dict with `data`, (n, 3072) bytes, and a list `labels`.

    Raises:
        DataError: the pickle is hostile or damaged, or holds something else.
    """
    batch = read_pickle(body, place)
    if not isinstance(batch, dict):
        raise misfit(place, "a pickled dict", f"a {type(batch).__name__}", REMEDY)
    named = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    absent = [name for name in ("data", "labels") if name not in named]
    if absent:
        raise misfit(place, f"an entry {absent[0]!r}", f"only {', '.join(map(str, named)) or 'none'}"[:200], REMEDY)
    pixels, labels = byte_array(named["data"], place), named["labels"]
    if pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise misfit(place, f"data of shape (n, {PIXELS})", f"shape {pixels.shape}", REMEDY)
    if not isinstance(labels, list) or not all(type(label) is int for label in labels) or len(labels) != len(pixels):
        count = f"{len(labels)} entries" if isinstance(labels, list) else f"a {type(labels).__name__}"
        raise misfit(place, f"labels as a list of {len(pixels)} whole numbers", f"{count}, or others among them", REMEDY)
    return pixels, _checked(labels, place)


def _checked(labels: list[int], place: str) -> np.ndarray:
    for row, label in enumerate(labels):
        if not 0 <= label < len(CLASSES):
            raise misfit(f"{place}, row {row}", "a label from 0 to 9", str(label)[:40], REMEDY)
    return np.array(labels, dtype=np.int64)


def _contents(directory: Path, names: Iterable[str]) -> list[tuple[str, bytes]]:
    found = []
    for name in names:
        file = directory / name
        try:
            size = file.stat().st_size
            body = file.read_bytes() if size <= LARGEST_BATCH else b""
        except FileNotFoundError:
            raise misfit(file, "a batch", f"no such file (there: {listing(directory)})", REMEDY) from None
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
        found.append((str(file), _sized(body, size, str(file))))
    return found


def _members(archive: Path, names: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """The bodies of some members; their names are compared and never used as paths."""
    bodies: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                name = member.name.removeprefix("./")
                stream = opened.extractfile(member) if name in names and member.isreg() else None
                if stream is not None:
                    body = stream.read() if member.size <= LARGEST_BATCH else b""
                    bodies[name] = _sized(body, member.size, f"{archive}: {name}")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive} is no whole .tar.gz archive ({error}); {REMEDY}") from error
    for name in names:
        if name not in bodies:
            raise misfit(archive, f"a file {name} in it", ", ".join(sorted(bodies)) or "no batch", REMEDY)
    return [(f"{archive}: {name}", bodies[name]) for name in names]


def _sized(body: bytes, size: int, place: str) -> bytes:
    if size > LARGEST_BATCH:
        raise misfit(place, f"a batch of at most {LARGEST_BATCH:,} bytes", f"{size:,}", REMEDY)
    if len(body) != size:
        raise misfit(place, f"{size:,} bytes", f"only {len(body):,}", REMEDY)
    return body


def _archived(archive: Path) -> str:
    """Which of the two directories an archive holds."""
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                top = member.name.removeprefix("./").partition("/")[0]
                if top in (PYTHON_DIRECTORY, BINARY_DIRECTORY):
                    return top
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive} is no whole .tar.gz archive ({error}); {REMEDY}") from error
    raise misfit(archive, f"{PYTHON_DIRECTORY} or {BINARY_DIRECTORY} in it", "neither", REMEDY)


def _verify(archive: Path) -> None:
    size = archive.stat().st_size
    if size != ARCHIVE_BYTES:
        raise misfit(archive, f"{ARCHIVE_BYTES:,} bytes", f"{size:,}", f"{REMEDY}, or trust this one with verify=False")
    with archive.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != ARCHIVE_MD5:
        raise misfit(archive, f"MD5 {ARCHIVE_MD5}", found, f"{REMEDY}, or trust this one with verify=False")
