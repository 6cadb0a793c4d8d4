"""Ctrl-C that comes while a database is at work ends the program like any other, and no file is taken for damaged."""

import os
import signal
import threading

import duckdb
import numpy as np
import pytest

import brinell as br
from brinell.core.interrupt import interruptible
from brinell.core.measurement import COLUMNS
from brinell.data import parquet
from brinell.engine.store import Store
from brinell.report import export

LONG = "SELECT count(*) FROM range(100_000_000_000) t(i) WHERE hash(i) = 7"


def test_an_interrupt_within_a_query():
    connection = duckdb.connect(":memory:", config={"threads": 1})
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), interruptible():
            timer.start()
            connection.execute(LONG).fetchall()
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert connection.execute("SELECT 1").fetchall() == [(1,)]


@pytest.mark.parametrize("error", [RuntimeError("something else"), ValueError("Query interrupted"), MemoryError(), KeyError("interrupted")])
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, interruptible():
        raise error
    assert caught.value is error


class Interrupted:
    """A database in whose queries Ctrl-C comes."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def execute(self, *_):
        raise self.error

    def register(self, *_):
        pass

    unregister = register

    def cursor(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("error", [RuntimeError("Query interrupted"), duckdb.InterruptException("INTERRUPT Error: Interrupted!")])
def test_who_asks_a_database_hears_it(tmp_path, monkeypatch, error):
    store = Store(tmp_path)
    store.write_columns("sound.parquet", {"a": np.arange(3)})
    content = (tmp_path / "sound.parquet").read_bytes()
    interrupted = Interrupted(error)
    monkeypatch.setattr(Store, "duckdb", interrupted)
    monkeypatch.setattr(parquet, "_database", lambda process: interrupted)
    monkeypatch.setattr(duckdb, "connect", lambda *_, **__: interrupted)
    asked = [
        lambda: store.write_rows("rows.parquet", [dict.fromkeys(COLUMNS)]),
        lambda: store.write_columns("columns.parquet", {"a": np.arange(3)}),
        lambda: store.read_rows("sound.parquet"),
        lambda: store.read_columns("sound.parquet"),
        lambda: store.signature("sound.parquet"),
        lambda: br.load_dataset(f"parquet({str(tmp_path / 'sound.parquet')!r})"),
        lambda: export._parquet([], tmp_path / "exported.parquet"),
    ]
    for ask in asked:
        with pytest.raises(KeyboardInterrupt):
            ask()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"sound.parquet": content}
