"""The files of a run directory: whole or not there, the same when read again, and named when damaged."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from brinell.core.errors import StoreError
from brinell.engine.store import Store, digest_of


def test_tensors_of_every_type_come_back(tmp_path):
    store = Store(tmp_path)
    tensors = {
        "a": torch.rand(3, 2), "b": torch.arange(4), "c": torch.tensor([True, False]), "d": torch.rand(2, dtype=torch.float64),
        "empty": torch.zeros(0, 3), "scalar": torch.tensor(5), "transposed": torch.rand(3, 4).T, "with\ttab": torch.ones(1),
    }  # fmt: skip
    store.write_tensors("sub/x.safetensors", tensors, {"note": "é", "list": [1, None]})
    back, about = store.read_tensors("sub/x.safetensors")
    assert back.keys() == tensors.keys() and about == {"note": "é", "list": [1, None]}
    assert all(back[name].dtype == value.dtype and torch.equal(back[name], value) for name, value in tensors.items())
    with pytest.raises(FileNotFoundError):
        store.read_tensors("sub/y.safetensors")


def test_every_bit_of_a_tensor_file_counts(tmp_path):
    store = Store(tmp_path)
    store.write_tensors("x", {"a": torch.arange(20.0)}, {"k": 1})
    content = (tmp_path / "x").read_bytes()
    for place in [0, 9, *range(20, len(content), 37), len(content) - 1]:
        (tmp_path / "x").write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(StoreError, match=r"x is damaged .*delete it and run again"):
            store.read_tensors("x")
    (tmp_path / "x").write_bytes(content)
    assert torch.equal(store.read_tensors("x")[0]["a"], torch.arange(20.0))


def test_rows_come_back_in_their_order_with_missing_answers(tmp_path):
    store = Store(tmp_path / "it's a run")
    columns = ("name", "value", "n", "place")
    rows = [
        {"name": f"é '{k}'", "value": None if k % 3 else k / 7, "n": 10**15 + k, "place": k} for k in range(50)
    ]  # fmt: skip
    store.write_rows("a.parquet", rows, columns)
    assert store.read_rows("a.parquet") == rows
    store.write_rows("b.parquet", [], columns)
    assert store.read_rows("b.parquet") == []


def test_columns_come_back(tmp_path):
    store = Store(tmp_path)
    columns = {"id": np.arange(5), "correct": np.array([True, False, True, True, False]), "l2": np.linspace(0, 1, 5)[::-1]}
    store.write_columns("s.parquet", columns)
    back = store.read_columns("s.parquet")
    assert list(back) == list(columns)
    assert all(np.array_equal(back[name], value) and back[name].dtype == value.dtype for name, value in columns.items())


def test_json_refuses_what_json_cannot_say(tmp_path):
    store = Store(tmp_path)
    store.write_json("a.json", {"x": [1, "é", None]})
    assert store.read_json("a.json") == {"x": [1, "é", None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.write_json("a.json", {"x": float("nan")})
    assert store.read_json("a.json") == {"x": [1, "é", None]} and [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    store = Store(tmp_path)
    store.write_json("a.json", 1)
    with pytest.raises(KeyboardInterrupt), store._new("a.json") as place:
        place.write_text("half")
        raise KeyboardInterrupt
    assert store.read_json("a.json") == 1 and [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("kind", ["json", "tensors", "rows", "columns"])
def test_places_that_cannot_be_written_are_named(tmp_path, kind):
    store = Store(tmp_path)
    (tmp_path / "sub").write_text("a file, not a folder")
    write = {
        "json": lambda: store.write_json("sub/a", 1),
        "tensors": lambda: store.write_tensors("sub/a", {}, {}),
        "rows": lambda: store.write_rows("sub/a", [{"n": 1}], ("n",)),
        "columns": lambda: store.write_columns("sub/a", {"n": np.arange(2)}),
    }
    with pytest.raises(StoreError, match=r"cannot write .*sub.*What was finished before is kept"):
        write[kind]()


def test_a_full_disk_is_said_in_one_line(tmp_path):
    """A limit on the size of files stands in for the disk; it is set in a process of its own."""
    script = (
        "import resource, signal, sys, numpy as np\nfrom brinell.engine.store import Store\nfrom brinell.core.errors import StoreError\n"
        "store = Store(sys.argv[1]); store.duckdb\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "noise = {'n': np.random.default_rng(0).random(9999)}\n"
        "for write in (lambda: store.write_json('a', 'x' * 500), lambda: store.write_columns('b', noise)):\n"
        "    try:\n        write()\n    except StoreError as error:\n        sys.stdout.write(f'{error}\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [f"cannot write {tmp_path}/{name}" for name in "ab"]
    assert list(tmp_path.iterdir()) == []


def test_tidying_removes_only_what_nobody_needs(tmp_path):
    store = Store(tmp_path)
    store.write_tensors("shards/one/0", {}, {})
    store.write_json("plan.json", 1)
    old, new, strange = tmp_path / ".a.json.12345678.unfinished", tmp_path / ".b.json.12345678.unfinished", tmp_path / ".gitignore"
    for file in (old, new, strange):
        file.write_text("")
    for file in (old, strange):
        os.utime(file, (0, 0))
    store.tidy(["shards/one", "shards/two"])
    assert {file.name for file in tmp_path.iterdir()} == {"plan.json", new.name, strange.name}
    store.write_tensors("shards/other/0", {}, {})
    store.tidy(["shards/one"])
    assert store.has("shards/other/0")


def test_names_are_those_of_finished_files(tmp_path):
    store = Store(tmp_path)
    store.write_json("readings/a.parquet", 1)
    (tmp_path / "readings" / ".b.parquet").write_text("")
    (tmp_path / "readings" / "c.txt").write_text("")
    assert store.names("readings", ".parquet") == {"a"} and store.names("nowhere", ".parquet") == set()


def test_digests_tell_texts_apart():
    assert digest_of("a", "b") == digest_of("a", "b") != digest_of("ab") != digest_of("b", "a")
    assert len({digest_of(str(k)) for k in range(1000)}) == 1000
