"""The store: a run is a directory of immutable files, each written under a temporary name and renamed into place.

    plan.json                    what is measured, in texts and digests; written first
    readings/CELL.parquet        one row per measurement of a finished cell (a network under a perturbation); written last
    samples/CELL.parquet         one row per sample of a finished cell
    arrays/CELL.safetensors      per-unit and per-sample values behind the readings
    shards/CELL/SIZE-00000.safetensors   tallies and sample rows of finished shards; removed when their cell is finished
    states/, networks/, results/ what components fitted, hardened networks, results of `lab.map`
    checkpoints/                 trainings under way; removed when their network is finished
    summary.parquet, findings.json  read off the finished cells

There is no server and no lock. Two runs that write the same file write the same content. Every file holds a digest of its own
content (JSON under `digest`, Parquet and safetensors in their metadata), and readings also those of the files beside them, with a seal
over all these; a file with wrong content is found by it and named (`check`, `engine.integrity`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from brinell.core.errors import StoreError
from brinell.core.interrupt import interruptible
from brinell.core.measurement import COLUMNS
from brinell.core.place import place_of

TYPES = {
    "value": "DOUBLE", "low": "DOUBLE", "high": "DOUBLE", "confidence": "DOUBLE", "seconds": "DOUBLE",
    "n": "BIGINT", "seed": "BIGINT", "forwards": "BIGINT", "backwards": "BIGINT", "place": "BIGINT",
}  # fmt: skip

R = TypeVar("R")

_TEMPORARY = ".unfinished"
_LONG_AGO = 3600.0  # seconds; writing one file takes no such time


def digest_of(*parts: str) -> str:
    """A short name for some texts, fit for a file name."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class Signature:
    """The digest that a file holds of its content (empty where it holds none), and those of the files beside it, by path."""

    digest: str
    beside: Mapping[str, str] = field(default_factory=dict)


class Store:
    """Reads and writes the files of one run directory.

    Raises:
        StoreError: the directory cannot be written, or a file in it is damaged (the message names it).
    """

    def __init__(self, root: str | Path) -> None:
        self.root = place_of(root, StoreError)
        self._connection: Any = None
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot use {self.root} as a run directory: {error.strerror}. Choose another --out") from error

    @property
    def duckdb(self) -> Any:
        """A connection of this store's own; it only ever reads and writes Parquet files."""
        if self._connection is None:
            self._connection = _database(os.getpid()).cursor()
        return self._connection

    @contextmanager
    def _new(self, path: str | Path, *, lasting: bool = True) -> Iterator[Path]:
        """A temporary name; what is written there appears under the real one at once and whole, or not at all.

        What is not lasting may be lost or damaged with the machine's power, though not with the process.
        """
        final = self.root / path
        temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}{_TEMPORARY}")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if lasting:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            temporary.replace(final)
        except (OSError, *_duckdb_errors()) as error:
            why = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            raise StoreError(f"cannot write {final}: {why}. What was finished before is kept; run again") from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def has(self, path: str | Path) -> bool:
        return (self.root / path).exists()

    def write_json(self, path: str, value: Any) -> None:
        """A value as JSON; a dict also gets an entry `digest`."""
        signed = {**value, "digest": _json_digest(value)} if isinstance(value, dict) else value
        with self._new(path) as place:
            place.write_text(json.dumps(signed, indent=1, sort_keys=False, allow_nan=False) + "\n", encoding="utf-8")

    def read_json(self, path: str) -> Any:
        """What `write_json` wrote, without the digest.

        Raises:
            StoreError: the file is damaged, or missing.
        """
        value = self._json(path)
        if not isinstance(value, dict):
            return value
        plain = {name: entry for name, entry in value.items() if name != "digest"}
        self._hold(path, value.get("digest", ""), _json_digest(plain))
        return plain

    def _json(self, path: str) -> Any:
        place = self.root / path
        try:
            return json.loads(place.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StoreError(f"{place} is missing: {self.root} is not a run directory (or its run never started)") from None
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(f"{place} is damaged ({error}); delete it and run again") from error

    def write_tensors(self, path: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any], *, lasting: bool = True) -> str:
        """Named tensors and a JSON-able note about them, with a digest over both, which is returned."""
        from safetensors.torch import save

        plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        text = json.dumps(about, allow_nan=False)
        digest = _digest(plain, text)
        body = save(plain, metadata={"about": text, "digest": digest})
        with self._new(path, lasting=lasting) as place:
            place.write_bytes(body)
        return digest

    def read_tensors(self, path: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `write_tensors` wrote.

        Raises:
            StoreError: the file is damaged. FileNotFoundError: it does not exist.
        """
        from safetensors import SafetensorError, safe_open

        place = self.root / path
        if not place.exists():
            raise FileNotFoundError(place)
        try:
            with safe_open(place, "pt") as file:
                note = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            if _digest(tensors, note["about"]) != note["digest"]:
                raise ValueError("its digest does not match its content")
            return tensors, json.loads(note["about"])
        except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
            if not place.exists():
                raise FileNotFoundError(place) from error  # another run removed it meanwhile
            raise StoreError(f"{place} is damaged ({error}); delete it and run again") from error

    def write_rows(
        self, path: str, rows: list[dict[str, Any]], columns: tuple[str, ...] = COLUMNS, beside: Mapping[str, str] | None = None
    ) -> None:
        """Dicts as one Parquet file, missing answers as NULL; `beside` are the digests of files that belong to it, by path."""
        select = ", ".join(f'unnest(${i + 1})::{TYPES.get(c, "VARCHAR")} AS "{c}"' for i, c in enumerate(columns))
        with self._new(path) as place, interruptible():
            self.duckdb.execute(
                f"COPY (SELECT {select}) TO '{_quoted(place)}' ({_signed(_rows_digest(rows, columns), beside)})",
                [[row[c] for row in rows] for c in columns],
            )

    def read_rows(self, path: str) -> list[dict[str, Any]]:
        """The dicts of one Parquet file, in the order they were written.

        Raises:
            StoreError: the file is damaged, or missing.
        """

        def read(found: Any) -> tuple[list[dict[str, Any]], str]:
            names = tuple(column[0] for column in found.description)
            rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
            return rows, _rows_digest(rows, names)

        rows, digest = self._parquet(path, "read_parquet", read)
        self._hold(path, self.signature(path).digest, digest)
        return rows

    def write_columns(self, path: str, columns: Mapping[str, np.ndarray]) -> str:
        """Arrays of one length as one Parquet file; its digest is returned."""
        table = {name: np.ascontiguousarray(value) for name, value in columns.items()}
        digest = _columns_digest(table)
        with self._new(path) as place, interruptible():
            self.duckdb.register("columns_to_write", table)
            try:
                self.duckdb.execute(f"COPY (SELECT * FROM columns_to_write) TO '{_quoted(place)}' ({_signed(digest)})")
            finally:
                self.duckdb.unregister("columns_to_write")
        return digest

    def read_columns(self, path: str) -> dict[str, np.ndarray]:
        """The arrays of one Parquet file.

        Raises:
            StoreError: the file is damaged, or missing.
        """
        columns = self._parquet(path, "read_parquet", lambda found: {name: np.asarray(value) for name, value in found.fetchnumpy().items()})
        self._hold(path, self.signature(path).digest, _columns_digest(columns))
        return columns

    def signature(self, path: str) -> Signature:
        """What a Parquet file says of itself and of its neighbours."""
        return self._parquet(path, "parquet_kv_metadata", lambda found: _signature(found.fetchall()))

    def _hold(self, path: str, was: str, found: str) -> None:
        if was and found != was:  # files of older versions hold no digest
            raise StoreError(f"{self.root / path} is damaged (its digest does not match its content); delete it and run again")

    def check(self, path: str, *, columns: bool = False) -> Signature:
        """Read a file whole and hold it against its own digest; `columns` for Parquet that `write_columns` wrote.

        Raises:
            StoreError: the file is damaged, or missing.
        """
        place = self.root / path
        if not place.exists():
            raise StoreError(f"{place} is missing; run again to measure its cell")
        if place.suffix == ".safetensors":
            tensors, about = self.read_tensors(path)  # refuses a digest that does not match
            return Signature(_digest(tensors, json.dumps(about, allow_nan=False)))
        if place.suffix == ".json":
            self.read_json(path)  # it refuses what is damaged
            value = self._json(path)
            return Signature(value.get("digest", "") if isinstance(value, dict) else "")
        _ = self.read_columns(path) if columns else self.read_rows(path)  # they refuse it too
        return self.signature(path)

    def _parquet(self, path: str, function: str, read: Callable[[Any], R]) -> R:
        """What `read` makes of a file as one of DuckDB's table functions sees it; whatever it trips over is damage."""
        import duckdb

        place = self.root / path
        try:
            with interruptible():
                return read(self.duckdb.execute(f"SELECT * FROM {function}('{_quoted(place)}')"))
        except (duckdb.Error, ValueError, TypeError, KeyError) as error:
            if not place.exists():
                raise StoreError(f"{place} is missing; run again to measure its cell") from error
            if isinstance(error, duckdb.FatalException | duckdb.InternalException):
                self._connection = None  # a damaged file can bring the whole database down; the next file gets a new one
                _database.cache_clear()
            why = str(error).partition("\n")[0]
            raise StoreError(f"{place} is damaged ({why}); delete it and run again") from error

    def names(self, folder: str, suffix: str) -> set[str]:
        """Names, without suffix, of the finished files of a folder."""
        place = self.root / folder
        return {file.name.removesuffix(suffix) for file in place.glob(f"*{suffix}") if not file.name.startswith(".")}

    def drop(self, path: str) -> None:
        """Remove a file or folder that is no longer needed; another run may be doing the same."""
        shutil.rmtree(self.root / path, ignore_errors=True)
        with suppress(OSError):
            (self.root / path).unlink(missing_ok=True)

    def tidy(self, folders: Iterable[str]) -> None:
        """Remove folders that an interrupted run left, and temporary files that nobody can be writing any more."""
        for folder in folders:
            self.drop(folder)
        with suppress(OSError):
            (self.root / "shards").rmdir()
        for file in self.root.rglob(f".*{_TEMPORARY}"):
            with suppress(OSError):
                if time.time() - file.stat().st_mtime > _LONG_AGO:
                    file.unlink()


def _duckdb_errors() -> tuple[type[Exception], ...]:
    """What DuckDB raises when it cannot write; nothing before it is in use."""
    duckdb = sys.modules.get("duckdb")
    return (duckdb.IOException,) if duckdb else ()


@cache
def _database(process: int) -> Any:
    """One in-memory database for all stores of a process: it takes longer to open than a cell takes to write."""
    import duckdb

    return duckdb.connect(":memory:", config={"threads": 1})


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _digest(tensors: Mapping[str, Tensor], about: str) -> str:
    state = hashlib.blake2b(about.encode(), digest_size=16)
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        state.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        state.update(value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return state.hexdigest()


def _columns_digest(columns: Mapping[str, np.ndarray]) -> str:
    state = hashlib.blake2b(digest_size=16)
    for name, value in columns.items():
        state.update(f"{name}\0{value.dtype}\0{value.shape}\0".encode())
        state.update(np.ascontiguousarray(value).tobytes())
    return state.hexdigest()


def _rows_digest(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """Of rows as they are read back: numbers of the columns' types, texts, and NULL."""
    types = {"DOUBLE": float, "BIGINT": int}
    plain = [[None if row[c] is None else types.get(TYPES.get(c, ""), str)(row[c]) for c in columns] for row in rows]
    return digest_of(json.dumps([columns if rows else (), plain]))


def _json_digest(value: dict[str, Any]) -> str:
    return digest_of(json.dumps(json.loads(json.dumps(value)), sort_keys=True))


def _signed(digest: str, beside: Mapping[str, str] | None = None) -> str:
    """Options of DuckDB's COPY: Parquet, with the digests in the metadata of the file, and a digest of those."""
    text = json.dumps(dict(beside or {}))
    return f"FORMAT parquet, KV_METADATA {{digest: '{digest}', beside: '{text}', seal: '{digest_of(digest, text)}'}}"


def _signature(entries: Iterable[tuple[str, bytes, bytes]]) -> Signature:
    """What `_signed` wrote; ValueError where it is something else. Files of older versions hold no seal, or nothing."""
    noted = {key.decode(): text.decode() for _, key, text in entries}
    if noted and {*noted} not in ({"digest", "beside"}, {"digest", "beside", "seal"}):
        raise ValueError(f"entries {', '.join(sorted(noted))}")
    digest, text = noted.get("digest", ""), noted.get("beside", "{}")
    if "seal" in noted and noted["seal"] != digest_of(digest, text):
        raise ValueError("its seal does not match")
    beside = json.loads(text)
    if not isinstance(beside, dict) or not all(isinstance(value, str) for value in beside.values()):
        raise ValueError(f"beside is {text[:60]}")
    return Signature(digest, beside)
