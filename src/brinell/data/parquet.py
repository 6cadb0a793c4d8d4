"""Labelled images in Parquet files, in the layout of Hugging Face datasets."""

from __future__ import annotations

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from brinell.core.dataset import Dataset, class_names, whole_numbers
from brinell.core.errors import DataError, SampleError
from brinell.core.interrupt import interruptible
from brinell.core.place import place_of
from brinell.data.contents import digest_of
from brinell.data.images import Decoding, Images

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_NUMBERS = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")} | {
    "INTEGER", "UINTEGER", "BOOLEAN", "FLOAT", "DOUBLE"}  # fmt: skip


class Parquet(Images, name="parquet"):
    """Images and integer labels in Parquet files: the layout in which image sets are published on Hugging Face.

    The image column is a struct with a field `bytes` (the encoded image; a `path` beside it is never followed) or plain
    binary. Labels are read at once; images when their rows are asked for, from the row groups that hold them. Ids are row
    numbers, counted through the files in order. Class names come from the files' `huggingface` metadata (`ClassLabel`
    names); without it they are "0".."K-1" with K the largest label + 1.

    Arguments:
        path: a file, a directory (its `*.parquet`), a glob pattern, or several of these; the files of one pattern are
            taken in the order of their names.
        image, label: names of the columns. group, cluster: names of optional columns (readings per group; clusters that
            intervals resample whole).
        resize, crop, interpolation, mode: see `brinell.data.images.Images`.

    Raises:
        DataError: no file matches; a file is no Parquet; a column is missing or of the wrong type; a label is null,
            fractional or unnamed; when rows are read: an image is missing, damaged, or of another size. The message
            names the file and the row, counted from 0.

    Example:
        >>> Parquet(path="cifar10/test-*.parquet", group="site").spec()
        "parquet('cifar10/test-*.parquet', group=site)"
    """

    positional = ("path",)
    path: str | tuple[str, ...]
    image: str = "image"
    label: str = "label"
    group: str = ""
    cluster: str = ""

    def load(self) -> Dataset:
        files = find_files((self.path,) if isinstance(self.path, str) else self.path)
        wanted = {"label": self.label, **{use: name for use in ("group", "cluster") if (name := getattr(self, use))}}
        pixels = [_pixels(file, self.image) for file in files]
        parts = [_columns(file, wanted) for file in files]
        merged = {use: np.concatenate([part[use] for part in parts]) for use in wanted}
        labels = merged.pop("label")
        if not len(labels):
            raise DataError(f"{self.spec()}: the files hold no rows")
        names = [_class_names(file, self.label) for file in files]
        if any(found != names[0] for found in names):
            other = next(k for k, found in enumerate(names) if found != names[0])
            raise DataError(f"{files[other]} names other classes than {files[0]}; load them as two sets")
        starts = np.cumsum([0, *(len(part["label"]) for part in parts)])
        blobs = _Blobs(tuple(map(str, files)), tuple(pixels), starts)
        (blob,), (place,) = blobs(np.zeros(1, dtype=np.int64))
        decoder = self.decoder(blob, place)
        return Dataset(
            source=self.spec(), shape=decoder.shape, y=labels, ids=np.arange(len(labels)),
            classes=class_names(names[0], labels, self.spec()),
            read=Decoding(blobs, decoder), content=digest_of(files), columns=merged,
            note="" if names[0] else "the files name no classes",
        )  # fmt: skip


class _Blobs:
    """Fetches encoded images by row, with the places they come from."""

    def __init__(self, files: tuple[str, ...], pixels: tuple[str, ...], starts: np.ndarray) -> None:
        self.files, self.pixels, self.starts = files, pixels, starts

    def __call__(self, ids: np.ndarray) -> tuple[list[bytes], list[str]]:
        file_of = np.searchsorted(self.starts, ids, side="right") - 1
        rows = ids - self.starts[file_of]
        found: list[bytes] = [b""] * len(ids)
        for number in np.unique(file_of):
            mine = np.flatnonzero(file_of == number)
            blobs = _fetch(self.files[number], self.pixels[number], rows[mine])
            for k in mine:
                found[k] = blobs[rows[k]]
        return found, [f"{self.files[number]}, row {row}" for number, row in zip(file_of, rows, strict=True)]


def find_files(patterns: Sequence[str]) -> list[Path]:
    """The files that some paths, directories and glob patterns name, those of one pattern sorted.

    Raises:
        DataError: a pattern matches no file, or a file is named twice.
    """
    files: list[Path] = []
    for pattern in patterns:
        path = place_of(pattern, DataError)
        if path.is_dir():
            found = sorted(path.glob("*.parquet"))
        elif path.is_file():
            found = [path]
        else:
            if pattern.count("**") > 1:
                raise DataError(f"{pattern!r} holds ** more than once, which can take for ever in a deep directory; hold it to one")
            names = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
            found = sorted(Path(name) for name in names if Path(name).is_file())
        if not found:
            raise DataError(f"no Parquet file at {pattern!r} (seen from {Path.cwd()}); give a file, a directory of *.parquet, or a pattern")
        files += found
    twice = next((file for file, count in Counter(files).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{twice} is named twice by {', '.join(patterns)}; its rows would count double")
    return files


@cache
def _database(process: int) -> DuckDBPyConnection:
    """One in-memory database per process; a single thread, because shards are small and other threads compute."""
    import duckdb

    settings = {"threads": 1, "autoinstall_known_extensions": False, "autoload_known_extensions": False}
    return duckdb.connect(config=settings)


def _ask(file: str, query: str, values: list[Any], how: Literal["fetchall", "fetchnumpy"] = "fetchall") -> Any:
    """The answer to a query about one file: a list of rows, or arrays by column."""
    import duckdb

    try:
        with interruptible():
            return getattr(_database(os.getpid()).cursor().execute(query, values), how)()
    except duckdb.Error as error:
        if isinstance(error, duckdb.FatalException | duckdb.InternalException):
            _database.cache_clear()  # a damaged file can bring the whole database down; the next file gets a new one
        reason = str(error).partition("\n")[0]
        raise DataError(f"{file} cannot be read as Parquet: {reason}. Is it complete, and unchanged since it was loaded?") from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _existing(file: str, names: Iterable[str]) -> dict[str, str]:
    """The SQL type of every column of a file that has the columns asked for."""
    types = dict(row[:2] for row in _ask(file, "describe select * from read_parquet(?)", [glob.escape(file)]))
    for name in names:
        if name not in types:
            raise DataError(f"{file} has no column {name!r} (columns: {', '.join(types)}); say which with image=, label=, group=, cluster=")
    return types


def _pixels(path: Path, image: str) -> str:
    """The SQL expression for the encoded image."""
    kind = _existing(str(path), [image])[image]
    if kind == "BLOB":
        return _quoted(image)
    if not re.match(r'STRUCT\(.*\bbytes"? BLOB', kind):
        raise DataError(f"{path}: column {image!r} is {kind}, expected binary, or a struct with binary `bytes`")
    return f"struct_extract({_quoted(image)}, 'bytes')"


def _fetch(file: str, pixels: str, rows: np.ndarray) -> dict[int, bytes]:
    """Encoded images of one file by row."""
    low, high, wanted = int(rows.min()), int(rows.max()), np.unique(rows)
    query = f"select file_row_number, {pixels} from read_parquet(?, file_row_number=true) where file_row_number between ? and ?"
    values: list[Any] = [glob.escape(file), low, high]  # bounds first: row groups outside them are never opened
    if high - low + 1 != len(wanted):
        query += " and file_row_number in (select unnest(?::bigint[]))"
        values.append(wanted.tolist())
    blobs = dict(_ask(file, query, values))
    for row in wanted:
        if blobs.get(row) is None:
            raise SampleError(f"{file}, row {row}: {pixels} is null (a path beside it is not followed); embed the image, or remove the row")
    return blobs


def _columns(path: Path, wanted: dict[str, str]) -> dict[str, np.ndarray]:
    """The label and further columns of one file, checked."""
    file = str(path)
    types = _existing(file, wanted.values())
    if types[wanted["label"]] not in _NUMBERS:
        raise DataError(f"{file}: label column {wanted['label']!r} is {types[wanted['label']]}, expected whole numbers 0..K-1")
    for use, name in wanted.items():
        if types[name] == "BLOB" or types[name].endswith("]") or types[name].startswith(("STRUCT", "MAP", "UNION")):
            raise DataError(f"{file}: {use} column {name!r} is {types[name]}, expected numbers or text")
    text = {name: "" if types[name] in _NUMBERS else "::varchar" for name in wanted.values()}
    chosen = ", ".join(f"{_quoted(name)}{text[name]} as {use}_" for use, name in wanted.items())  # `group` is a reserved word
    arrays = _ask(file, f"select {chosen} from read_parquet(?)", [glob.escape(file)], "fetchnumpy")
    columns = {}
    for use, name in wanted.items():
        values = arrays[f"{use}_"]
        null = np.flatnonzero(np.ma.getmaskarray(values))
        if len(null):
            raise DataError(f"{file}, row {null[0]}: {name!r} is null ({len(null)} such rows); fill it in or remove the rows")
        columns[use] = np.asarray(values).astype(str) if values.dtype == object else np.asarray(values)
    return {**columns, "label": whole_numbers(columns["label"], f"{file}: {wanted['label']!r}")}


def _class_names(path: Path, label: str) -> tuple[str, ...] | None:
    """The names of a Hugging Face `ClassLabel`, where the file carries them."""
    query = "select value from parquet_kv_metadata(?) where key = 'huggingface'::blob"
    found = _ask(str(path), query, [glob.escape(str(path))])
    if not found:
        return None
    try:
        feature = json.loads(found[0][0])["info"]["features"][label]
    except (ValueError, KeyError, TypeError):
        return None
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(names) if isinstance(names, list) and names and all(isinstance(name, str) for name in names) else None
