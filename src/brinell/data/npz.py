"""Arrays saved by `numpy.savez`: inputs, labels, and what belongs to them."""

from __future__ import annotations

import lzma
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.lib import format as npy
from pydantic import model_validator
from torch import Tensor

from brinell.core.dataset import Dataset, Lookup, Source, class_names, whole_numbers
from brinell.core.errors import DataError
from brinell.core.place import place_of
from brinell.data.contents import digest_of

Axes = Literal["as_is", "grey", "last"]
_FAILURES = (
    ValueError, OSError, EOFError, SyntaxError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
    tokenize.TokenError,
)  # fmt: skip
"""What zipfile and numpy raise on damaged or hostile bytes; a header is Python text, which is read as a literal."""


class Npz(Source, name="npz"):
    """Arrays in one `.npz` file: `x` (n, *shape) and `y` (n,), optionally `ids`, `classes`, `group` and `cluster`.

    uint8 images are divided by 255; floats must lie in [low, high]. Other types are refused. Nothing is unpickled. A file
    written by `numpy.savez` is mapped: only the rows asked for are read. From one written by `numpy.savez_compressed` the
    whole array is unpacked once per process, in its own type, when the first rows are asked for.

    `layout="auto"` takes four-dimensional x as images: (n, channels, height, width) unless the last axis is 1 or 3 and
    the second is not: then channels come last and are moved, as the note says. Where both are 1 or 3 it asks for a layout.
    Three-dimensional uint8 x are grey images and get one channel. `layout="first"` takes x as it is, `"last"` moves the
    last of four axes to the second place.

    Arguments:
        path: the file. x, y: names of the arrays in it ("test_images", say). low, high: the domain.
        layout: auto, first or last.

    Raises:
        DataError: the file is no zip archive of arrays, or damaged; an array is missing, pickled, or of the wrong shape or
            type; a label is fractional or unnamed; when rows are read: NaN or a value outside [low, high]. The message
            names the file and the row.

    Example:
        >>> Npz(path="set.npz", x="test_images", y="test_labels", low=-1).spec()
        "npz('set.npz', low=-1, x=test_images, y=test_labels)"
    """

    positional = ("path",)
    path: str
    x: str = "x"
    y: str = "y"
    low: float = 0.0
    high: float = 1.0
    layout: Literal["auto", "first", "last"] = "auto"

    @model_validator(mode="after")
    def _check(self) -> Npz:
        if not self.low < self.high:
            raise ValueError(f"low={self.low:g} must lie below high={self.high:g}")
        return self

    def load(self) -> Dataset:
        path = place_of(self.path, DataError)
        shape, dtype = _header(path, self.x)
        axes, sample = self._axes(shape, dtype)
        labels = _read(path, self.y)
        labels = whole_numbers(labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels, f"{path}: label")
        if len(labels) != shape[0]:
            raise DataError(f"{path}: {self.x!r} has {shape[0]} rows but {self.y!r} has {len(labels)}")
        present = _members(path)
        ids = whole_numbers(_read(path, "ids"), f"{path}: id") if "ids" in present else np.arange(len(labels))
        names = _text(path, "classes").tolist() if "classes" in present else None
        notes = ["uint8 divided by 255"] if dtype == np.uint8 else []
        notes += {"last": ["channels moved from the last axis to the first"], "grey": ["grey images given one channel"]}.get(axes, [])
        return Dataset(
            source=self.spec(), shape=sample, y=labels, ids=ids, classes=class_names(names, labels, str(path)),
            read=_Array(path, self.x, ids, axes), content=digest_of([path]), domain=(self.low, self.high),
            columns={name: _text(path, name) for name in ("group", "cluster") if name in present}, note="; ".join(notes),
        )  # fmt: skip

    def _axes(self, shape: tuple[int, ...], dtype: np.dtype) -> tuple[Axes, tuple[int, ...]]:
        place = f"{self.path}: {self.x!r} of shape {shape} and type {dtype}"
        if dtype != np.uint8 and dtype.kind != "f":
            raise DataError(f"{place}: expected uint8 images, or floats in [{self.low:g}, {self.high:g}]")
        if len(shape) < 2:
            raise DataError(f"{place}: expected (n, *shape), one row per sample")
        if self.layout == "last" and len(shape) != 4:
            raise DataError(f"{place}: layout=last needs (n, height, width, channels)")
        first, last = shape[1] in (1, 3), shape[-1] in (1, 3)
        if self.layout == "auto" and len(shape) == 4 and first and last:
            raise DataError(f"{place}: channels may stand first or last; say which with layout=first or layout=last")
        if self.layout == "last" or (self.layout == "auto" and len(shape) == 4 and last):
            return "last", (shape[3], shape[1], shape[2])
        if self.layout == "auto" and len(shape) == 3 and dtype == np.uint8:
            return "grey", (1, *shape[1:])
        return "as_is", shape[1:]


class _Array:
    """Reads rows of one array of the file; what it has opened is not pickled."""

    def __init__(self, path: Path, name: str, ids: np.ndarray, axes: Axes) -> None:
        self.path, self.name, self.axes, self.lookup = path, name, axes, Lookup(ids)
        self.opened: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}

    def __call__(self, ids: np.ndarray) -> Tensor:
        if self.opened is None:
            self.opened = _mapped(self.path, self.name)
        picked = np.array(self.opened[self.lookup(ids)])
        if self.axes == "last":
            picked = np.moveaxis(picked, 3, 1)
        elif self.axes == "grey":
            picked = picked[:, None]
        x = torch.from_numpy(np.ascontiguousarray(picked, dtype=np.float32))
        return x.div_(255) if picked.dtype == np.uint8 else x


def _members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """The arrays in the archive by name; their names are keys, nothing is ever extracted to a path."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is no regular file; give an .npz archive, as numpy.savez(path, x=..., y=...) writes it")
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename.removesuffix(".npy"): info for info in archive.infolist() if info.filename.endswith(".npy")}
    except FileNotFoundError as error:
        raise DataError(f"no file at {str(path)!r} (seen from {Path.cwd()})") from error
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no .npz archive ({error}); write it with numpy.savez(path, x=..., y=...)") from error


def _member(path: Path, name: str) -> zipfile.ZipInfo:
    present = _members(path)
    if name not in present:
        raise DataError(f"{path} holds no array {name!r} (arrays: {', '.join(sorted(present)) or 'none'}); say which with x= and y=")
    return present[name]


def _damaged(path: Path, name: str, error: Exception) -> DataError:
    return DataError(
        f"{path}: array {name!r} cannot be read ({error}); write it again with numpy.savez, as a plain array of numbers or text"
    )


def _start(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the npy format, as for structured arrays")
    return npy.read_array_header_1_0(stream) if version == (1, 0) else npy.read_array_header_2_0(stream)


def _header(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, from its first bytes."""
    info = _member(path, name)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(info) as stream:
            shape, _, dtype = _start(stream)
            if dtype.hasobject:
                raise ValueError("it holds pickled Python objects, which are never loaded")
            expected = stream.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
            if expected != info.file_size:
                raise ValueError(f"{info.file_size} bytes, but its header says {expected}")
    except _FAILURES as error:
        raise _damaged(path, name, error) from error
    return tuple(shape), dtype


def _read(path: Path, name: str) -> np.ndarray:
    _header(path, name)
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_member(path, name)) as stream:
            return npy.read_array(stream, allow_pickle=False)
    except _FAILURES as error:
        raise _damaged(path, name, error) from error


def _mapped(path: Path, name: str) -> np.ndarray:
    """The array: mapped from the file where it lies there uncompressed, else unpacked into memory."""
    info = _member(path, name)
    if info.compress_type != zipfile.ZIP_STORED:
        return _read(path, name)
    _header(path, name)
    with path.open("rb") as stream:
        stream.seek(info.header_offset + 26)  # a local header is 30 bytes, then a name and extra fields of the lengths at 26
        lengths = int.from_bytes(stream.read(2), "little"), int.from_bytes(stream.read(2), "little")
        stream.seek(sum(lengths), 1)
        shape, fortran, dtype = _start(stream)
        return np.memmap(stream, dtype=dtype, mode="r", offset=stream.tell(), shape=shape, order="F" if fortran else "C")


def _text(path: Path, name: str) -> np.ndarray:
    """A column of numbers or text."""
    values = _read(path, name)
    if values.ndim != 1 or values.dtype.kind not in "biufUS":
        raise DataError(f"{path}: {name!r} has shape {values.shape} and type {values.dtype}; expected one number or text per row")
    try:
        return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {name!r} holds bytes that are no UTF-8 ({error}); write it as text") from error
