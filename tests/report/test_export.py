"""Exports, read back by programs that are not ours."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from brinell.core.errors import SpecError, StoreError
from brinell.core.lab import Table
from brinell.core.measurement import COLUMNS
from brinell.report.export import FORMATS, export

NUMBERS = ("value", "low", "high", "confidence", "seconds", "n", "seed", "forwards", "backwards")


def expected(table: Table) -> list[dict[str, Any]]:
    return [dict(row) for row in table.rows]


def read(format_: str, path: Path) -> list[dict[str, Any]]:
    if format_ == "json":
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    if format_ == "parquet":
        found = duckdb.execute("SELECT * FROM read_parquet(?)", [str(path)])
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: (float(v) if v else None) if k in NUMBERS else v for k, v in row.items()} for row in rows]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("name", ["audit", "torn", "hostile"])
def test_every_row_comes_back(format_: str, name: str, request: pytest.FixtureRequest, tmp_path: Path):
    table: Any = request.getfixturevalue(name)
    table = table() if name == "audit" else table
    path = export(table, format_, tmp_path / "new folder" / f"it's {name}.{format_}")
    found = read(format_, path)
    assert found == expected(table)
    assert all(tuple(row) == COLUMNS for row in found)


@pytest.mark.parametrize("format_", FORMATS)
def test_no_row_and_no_answer_at_all(format_: str, tmp_path: Path):
    assert read(format_, export(Table({}, []), format_, tmp_path / "none")) == []
    row = dict.fromkeys(COLUMNS) | {"value": math.nan, "high": math.inf, "versions": {"torch": "2"}, "net": "a"}
    (found,) = read(format_, export(Table({}, [row]), format_, tmp_path / "one"))
    assert found["value"] is None and found["high"] is None and found["n"] is None
    assert (found["net"], found["versions"]) == ("a", '{"torch": "2"}')


def test_parquet_has_types(audit: Callable[..., Table], tmp_path: Path):
    path = export(audit(), "parquet", tmp_path / "rows.parquet")
    types = dict(duckdb.execute("SELECT name, type FROM parquet_schema(?) WHERE type IS NOT NULL", [str(path)]).fetchall())
    assert (types["value"], types["n"], types["net"]) == ("DOUBLE", "INT64", "BYTE_ARRAY")


def test_csv_has_a_header(tmp_path: Path):
    assert export(Table({}, []), "csv", tmp_path / "x.csv").read_text().strip() == ",".join(COLUMNS)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x","y")'])
def test_a_text_is_no_formula(text: str, tmp_path: Path):
    row = dict.fromkeys(COLUMNS) | {"value": -0.5, "net": text, "reason": f"an {text}"}
    for format_, shown in (("csv", f"'{text}"), ("json", text), ("parquet", text)):
        (found,) = read(format_, export(Table({}, [row]), format_, tmp_path / format_))
        assert (found["net"], found["value"], found["reason"]) == (shown, -0.5, f"an {text}")


def test_an_unknown_format_is_refused(tmp_path: Path):
    with pytest.raises(SpecError, match=r"'xml'.*csv, parquet, json"):
        export(Table({}, []), "xml", tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format_", FORMATS)
def test_a_place_that_cannot_be_written_is_named(format_: str, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write"):
        export(Table({}, []), format_, tmp_path / "file" / "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="cannot write"):
        export(Table({}, []), format_, tmp_path / "folder")
