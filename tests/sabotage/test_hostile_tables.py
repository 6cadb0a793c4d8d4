"""Arrays and tables from strangers: archives, headers, columns and values that are not what they say."""

import io
import struct
import zipfile

import duckdb
import numpy as np
import pytest
import torch
from PIL import Image

from brinell.core.dataset import Dataset, load_dataset
from brinell.core.errors import DataError, SpecError

X, Y = np.random.default_rng(0).random((6, 1, 4, 4), dtype=np.float32), np.arange(6) % 3
OBJECTS = np.array([{}] * 6, dtype=object)

ARRAYS = {
    "pickled inputs": ({"x": OBJECTS, "y": Y}, "pickled Python objects, which are never loaded"),
    "pickled labels": ({"x": X, "y": OBJECTS}, "pickled Python objects, which are never loaded"),
    "pickled names": ({"x": X, "y": Y, "classes": np.array(["a", 3, None], dtype=object)}, "pickled Python objects"),
    "records": ({"x": np.zeros(6, dtype=[("a", "f4")]), "y": Y}, "expected uint8 images, or floats"),
    "no samples": ({"x": X[:0], "y": Y[:0]}, "no samples"),
    "one number": ({"x": np.float32(1), "y": Y}, r"expected \(n, \*shape\)"),
    "no entries": ({"x": np.zeros((6, 0, 4, 4), np.float32), "y": Y}, "are empty"),
    "fewer labels": ({"x": X, "y": Y[:4]}, "has 6 rows but 'y' has 4"),
    "NaN": ({"x": X * np.nan, "y": Y}, "row 0 holds NaN"),
    "infinity": ({"x": np.full_like(X, np.inf), "y": Y}, "row 0 holds the value inf"),
    "floats up to 255": ({"x": X * 255, "y": Y}, r"inputs must lie in \[0, 1\]"),
    "floats below 0": ({"x": X - 0.5, "y": Y}, r"inputs must lie in \[0, 1\]"),
    "whole numbers": ({"x": (X * 255).astype(int), "y": Y}, "expected uint8 images, or floats"),
    "complex numbers": ({"x": X.astype(complex), "y": Y}, "expected uint8 images, or floats"),
    "negative labels": ({"x": X, "y": Y - 1}, "has label -1"),
    "fractional labels": ({"x": X, "y": Y + 0.5}, "label of row 0 is 0.5, not a whole number"),
    "labels that are NaN": ({"x": X, "y": np.array([0, 1, np.nan, 0, 1, 2])}, "label of row 2 is nan"),
    "labels too large": ({"x": X, "y": Y + 10**9}, "labels number the classes"),
    "labels above 64 bits": ({"x": X, "y": Y.astype(np.uint64) + np.uint64(2**63)}, "above 2\\^63 - 1"),
    "labels of text": ({"x": X, "y": np.array(list("abcdef"))}, "labels have type <U1"),
    "nested labels": ({"x": X, "y": np.stack([Y, Y], 1)}, "expected one whole number per row"),
    "ids twice": ({"x": X, "y": Y, "ids": np.zeros(6, int)}, "sample ids must be unique"),
    "too few names": ({"x": X, "y": Y, "classes": np.array(["a"])}, "outside 0..0"),
    "names that are no text": ({"x": X, "y": Y, "classes": np.array([b"\xff", b"a", b"b"])}, "bytes that are no UTF-8"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_no_labelled_samples_are_refused(case, tmp_path):
    arrays, said = ARRAYS[case]
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(DataError, match=said) as caught:
        load_dataset(f"npz('{tmp_path}/set.npz')").x()
    assert len(str(caught.value)) < 500


HEADERS = {
    "code": "__import__('os').system('touch was_run')",
    "a power tower": "{'descr':'<f4','fortran_order':False,'shape':(9**9**9,)}",
    "parentheses": "{'descr':'<f4','fortran_order':False,'shape':(" + "(" * 5000,
    "minus signs": "{'descr':'<f4','fortran_order':False,'shape':(" + "-" * 5000 + "1,)}",
    "an endless text": "{'descr':'" + "'" * 3 + "<f4",
    "a negative size": "{'descr':'<f4','fortran_order':False,'shape':(6,-1,4,4)}",
    "objects": "{'descr':'O','fortran_order':False,'shape':(6,)}",
    "more than there is": "{'descr':'<f4','fortran_order':False,'shape':(1099511627776,1,4,4)}",
    "an unknown type": "{'descr':'<q99','fortran_order':False,'shape':(6,)}",
    "no shape": "{'descr':'<f4'}",
}


def numpy_bytes(header: str, body: bytes = bytes(400)) -> bytes:
    text = header.encode()
    text += b" " * (63 - (10 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


@pytest.mark.parametrize("case", HEADERS)
def test_a_hostile_header_of_an_array_is_a_literal_or_nothing(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = io.BytesIO()
    np.save(labels, Y)
    with zipfile.ZipFile("set.npz", "w") as archive:
        archive.writestr("x.npy", numpy_bytes(HEADERS[case]))
        archive.writestr("y.npy", labels.getvalue())
    with pytest.raises(DataError, match=r"array 'x' cannot be read|expected"):
        load_dataset("npz('set.npz')").x()
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "..\\escaped", "x\0"])
def test_members_of_an_archive_never_become_files(name, tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    np.savez("set.npz", x=X, y=Y)
    with zipfile.ZipFile("set.npz", "a") as archive:
        archive.writestr(f"{name}.npy", b"escaped")
    assert load_dataset("npz('set.npz')").x().shape == X.shape
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["set.npz"]


def test_archives_that_are_locked_directories_or_pipes(tmp_path):
    np.savez(tmp_path / "locked.npz", x=X, y=Y)
    body = bytearray((tmp_path / "locked.npz").read_bytes())
    body[6] |= 1
    body[body.find(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.npz").write_bytes(body)
    (tmp_path / "folder.npz").mkdir()
    for name, said in (("locked", "is encrypted"), ("folder", "no regular file")):
        with pytest.raises(DataError, match=said):
            load_dataset(f"npz('{tmp_path}/{name}.npz')")


LIVE = {
    "ragged lists": ([[1.0], [1.0, 2.0]], [0, 1]),
    "objects": (np.array([None, None]), [0, 1]),
    "texts": (["a", "b"], [0, 1]),
    "nothing": (None, [0, 1]),
    "a tensor without data": (torch.empty(2, 4, device="meta"), [0, 1]),
    "one axis": ([0.1, 0.2], [0, 1]),
    "no labels": (X, None),
    "labels of text": (X, list("abcdef")),
    "labels of NaN": (X, [float("nan")] * 6),
    "labels of two axes": (X, Y[:, None]),
}


@pytest.mark.parametrize("case", LIVE)
def test_live_arrays_that_are_no_labelled_samples_are_refused(case):
    with pytest.raises(DataError):
        Dataset.from_arrays(*LIVE[case])


@pytest.mark.parametrize("classes", [0, -1, 10**12, "abc"])
def test_a_number_of_classes_that_is_none(classes):
    with pytest.raises(DataError, match="give the class names in a list, or their number"):
        Dataset.from_arrays(X, Y, classes=classes)


def test_what_is_allowed_is_read_as_documented():
    one = Dataset.from_arrays(X, np.zeros(6, int))
    assert one.classes == ("0",) and len(Dataset.from_arrays(np.repeat(X[:1], 6, 0), Y)) == 6  # one class; duplicates
    assert torch.equal(Dataset.from_arrays(torch.eye(6).to_sparse(), Y).x(), torch.eye(6))


def blob() -> str:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "PNG")
    return "'" + "".join(f"\\x{byte:02x}" for byte in stream.getvalue()) + "'::blob"


IMAGE = blob()
COLUMNS = {
    "no image": ("select 1 as label", "has no column 'image'"),
    "no label": (f"select {IMAGE} as image", "has no column 'label'"),
    "no rows": (f"select {IMAGE} as image, 0 as label where false", "hold no rows"),
    "null label": (f"select {IMAGE} as image, null::int as label", "'label' is null"),
    "null image": ("select null::blob as image, 0 as label", "is null"),
    "text as image": ("select 'abc' as image, 0 as label", "expected binary"),
    "a path instead of an image": ("select {'path': '/etc/passwd'} as image, 0 as label", "expected binary, or a struct"),
    "a path beside no image": ("select {'bytes': null::blob, 'path': '/etc/passwd'} as image, 0 as label", "is not followed"),
    "an image of no bytes": ("select ''::blob as image, 0 as label", "not a readable image"),
    "text labels": (f"select {IMAGE} as image, 'a' as label", "expected whole numbers"),
    "nested labels": (f"select {IMAGE} as image, [0] as label", "expected whole numbers"),
    "labels in a struct": (f"select {IMAGE} as image, {{'a': 0}} as label", "expected whole numbers"),
    "fractional labels": (f"select {IMAGE} as image, 0.5::double as label", "not a whole number"),
    "labels of NaN": (f"select {IMAGE} as image, 'nan'::double as label", "not a whole number"),
    "negative labels": (f"select {IMAGE} as image, -1 as label", "has label -1"),
    "huge labels": (f"select {IMAGE} as image, 10000000000 as label", "labels number the classes"),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_that_are_no_labelled_images_are_refused(case, tmp_path):
    query, said = COLUMNS[case]
    duckdb.sql(f"copy ({query}) to '{tmp_path}/set.parquet' (format parquet)")
    with pytest.raises(DataError, match=said) as caught:
        load_dataset(f"parquet('{tmp_path}/set.parquet')").x()
    assert len(str(caught.value)) < 500


def test_names_of_columns_are_never_part_of_a_query(tmp_path):
    duckdb.sql(f"copy (select {IMAGE} as image, 0 as label) to '{tmp_path}/set.parquet' (format parquet)")
    (tmp_path / "secret.csv").write_text("a\n1\n")
    for field in ("image", "label", "group", "cluster"):
        name = f"x\" from read_csv(\\'{tmp_path}/secret.csv\\')--"
        with pytest.raises((DataError, SpecError), match="has no column"):
            load_dataset(f"parquet('{tmp_path}/set.parquet', {field}='{name}')")
