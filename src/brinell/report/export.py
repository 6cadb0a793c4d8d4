"""The tidy table as a file other programs read."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from brinell.core.errors import SpecError, StoreError
from brinell.core.interrupt import interruptible
from brinell.core.lab import Table
from brinell.core.measurement import COLUMNS
from brinell.core.place import written_to

FORMATS = ("csv", "parquet", "json")
_TYPES = {
    **dict.fromkeys(("value", "low", "high", "confidence", "seconds"), "DOUBLE"),
    **dict.fromkeys(("n", "seed", "forwards", "backwards"), "BIGINT"),
}


def export(table: Table, format: str, path: str | Path) -> Path:  # noqa: A002 - the word a reader expects
    """Write the rows of a table with the columns of `measurement.COLUMNS`, in their order: one row per measurement.

    A missing answer is an empty field in csv, null in json (a list of objects) and NULL in parquet; so is an infinite end of an
    interval, which csv and json cannot say. In csv a text that a spreadsheet would run as a formula (it starts with =, +, -, @, a tab
    or a carriage return) gets an apostrophe in front; the other formats hold texts as they are.

    Returns:
        The path.

    Raises:
        SpecError: the format is not one of csv, parquet, json. StoreError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> row = {"net": "a", "perturbation": "clean", "name": "accuracy", "value": 0.9}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(Table({}, [row]), "csv", folder + "/rows.csv").read_text().splitlines()[1][:20]
        'a,,clean,,,accuracy,'
    """
    if format not in FORMATS:
        raise SpecError(f"cannot export as {format!r}: the formats are {', '.join(FORMATS)}")
    place, rows = Path(path), [{column: _plain(row.get(column)) for column in COLUMNS} for row in table.rows]
    try:
        with written_to(place) as partial:
            _WRITERS[format](rows, partial)
    except OSError as error:
        raise StoreError(f"cannot write {place}: {error.strerror or error}. Choose another place") from error
    return place


def _csv(rows: list[dict[str, Any]], place: Path) -> None:
    with place.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list[str](COLUMNS))
        writer.writeheader()
        writer.writerows({column: _inert(value) for column, value in row.items()} for row in rows)


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _json(rows: list[dict[str, Any]], place: Path) -> None:
    place.write_text(json.dumps(rows, allow_nan=False, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _parquet(rows: list[dict[str, Any]], place: Path) -> None:
    import duckdb

    types = {column: _TYPES.get(column, "VARCHAR") for column in COLUMNS}
    select = ", ".join(f'unnest(${at}::{types[column]}[]) AS "{column}"' for at, column in enumerate(COLUMNS, 1))
    target = str(place).replace("'", "''")
    with interruptible(), duckdb.connect(":memory:") as connection:
        try:
            connection.execute(
                f"COPY (SELECT {select}) TO '{target}' (FORMAT parquet)", [[row[column] for row in rows] for column in COLUMNS]
            )
        except duckdb.IOException as error:
            raise OSError(str(error).splitlines()[0]) from error


_WRITERS = {"csv": _csv, "json": _json, "parquet": _parquet}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, sort_keys=True, default=str)
