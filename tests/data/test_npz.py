import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brinell.core.component import parse
from brinell.core.errors import DataError, SpecError
from brinell.data.npz import Npz

SAVE = {"plain": np.savez, "compressed": np.savez_compressed}


@pytest.fixture
def saved(tmp_path):
    """Writes arrays into an archive; returns its path as text."""

    def made(how="plain", **arrays):
        path = tmp_path / "a.npz"
        SAVE[how](path, **arrays)
        return str(path)

    return made


def uniform(*shape):
    return np.random.default_rng(0).random(shape)


@pytest.mark.parametrize("how", SAVE)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floats_round_trip(how, dtype, saved):
    x = uniform(5, 2, 4, 6).astype(dtype)
    data = Npz(path=saved(how, x=x, y=np.array([0, 1, 2, 1, 0], dtype=np.uint8))).load()
    assert (data.shape, data.classes, data.domain, data.note) == ((2, 4, 6), ("0", "1", "2"), (0.0, 1.0), "")
    assert torch.equal(data.x(), torch.from_numpy(x.astype(np.float32)))
    assert torch.equal(data.x([4, 0, 4]), torch.from_numpy(x[[4, 0, 4]].astype(np.float32)))


@pytest.mark.parametrize("how", SAVE)
def test_uint8_images_of_every_layout(how, saved):
    last = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
    first = last.transpose(0, 3, 1, 2)
    expected = torch.from_numpy(first.astype(np.float32)) / 255
    moved = Npz(path=saved(how, x=last, y=[0, 1, 0])).load()
    assert (moved.shape, moved.note) == ((3, 5, 4), "uint8 divided by 255; channels moved from the last axis to the first")
    assert torch.equal(moved.x(), expected)
    assert moved.x().is_contiguous()
    plain = Npz(path=saved(how, x=first, y=[0, 1, 0])).load()  # not contiguous, saved in Fortran order where numpy prefers it
    assert (plain.shape, plain.note) == ((3, 5, 4), "uint8 divided by 255")
    assert torch.equal(plain.x([2, 1]), expected[[2, 1]])
    grey = Npz(path=saved(how, x=last[..., 0], y=[0, 1, 0])).load()
    assert (grey.shape, grey.note) == ((1, 5, 4), "uint8 divided by 255; grey images given one channel")
    assert torch.equal(grey.x(), expected[:, :1])


def test_fortran_order_is_mapped_rightly(saved):
    x = np.asfortranarray(uniform(4, 3))
    assert torch.equal(Npz(path=saved(x=x, y=[0, 1, 0, 1])).load().x([3, 1]), torch.from_numpy(x[[3, 1]].astype(np.float32)))


def test_ambiguous_channels_need_a_layout(saved):
    path = saved(x=uniform(2, 3, 5, 1), y=[0, 1])
    with pytest.raises(DataError, match=r"a\.npz: 'x' of shape \(2, 3, 5, 1\).*say which with layout=first or layout=last"):
        Npz(path=path).load()
    assert Npz(path=path, layout="first").load().shape == (3, 5, 1)
    assert Npz(path=path, layout="last").load().shape == (1, 3, 5)
    with pytest.raises(DataError, match="layout=last needs"):
        Npz(path=saved(x=uniform(2, 3), y=[0, 1]), layout="last").load()


def test_what_belongs_to_the_samples_is_read_along(saved):
    data = Npz(path=saved(
        a=uniform(3, 2) * 4 - 2, b=[[1], [0], [1]], ids=[30, 10, 20], classes=["cat", "dog"],
        group=np.array([b"x", b"y", b"x"]), cluster=[1.5, 2, 2],
    ), x="a", y="b", low=-2, high=2).load()  # fmt: skip
    assert (data.classes, data.domain, data.ids.tolist()) == (("cat", "dog"), (-2.0, 2.0), [30, 10, 20])
    assert (data.columns["group"].tolist(), data.columns["cluster"].tolist()) == (["x", "y", "x"], [1.5, 2.0, 2.0])
    assert torch.equal(data.x([1]), torch.from_numpy((uniform(3, 2) * 4 - 2)[[1]].astype(np.float32)))


@pytest.mark.parametrize(("arrays", "message"), [
    ({"x": uniform(2, 3)}, r"a\.npz holds no array 'y' \(arrays: x\); say which with x= and y="),
    ({"y": [0, 1]}, "no array 'x'"),
    ({"x": uniform(2, 3), "y": [0, 1, 0]}, "'x' has 2 rows but 'y' has 3"),
    ({"x": uniform(2), "y": [0, 1]}, "one row per sample"),
    ({"x": np.zeros((0, 3)), "y": np.zeros(0, dtype=int)}, "no samples"),
    ({"x": np.zeros((2, 3), dtype=np.int32), "y": [0, 1]}, "type int32: expected uint8 images, or floats"),
    ({"x": uniform(2, 3) + 1j, "y": [0, 1]}, "type complex128"),
    ({"x": uniform(2, 3), "y": [0, 0.5]}, r"a\.npz: label of row 1 is 0.5"),
    ({"x": uniform(2, 3), "y": ["a", "b"]}, r"a\.npz: labels have type <U1"),
    ({"x": uniform(2, 3), "y": np.eye(2)}, r"a\.npz: labels have shape \(2, 2\)"),
    ({"x": uniform(2, 3), "y": [0, -1]}, "row 1 has label -1"),
    ({"x": uniform(2, 3), "y": [0, 2], "classes": ["a", "b"]}, r"row 1 has label 2, outside 0\.\.1"),
    ({"x": uniform(2, 3), "y": [0, 1], "ids": [3, 3]}, "id 3 occurs 2 times"),
    ({"x": uniform(2, 3), "y": [0, 1], "group": ["a"]}, r"another number of rows in group \(1\)"),
    ({"x": uniform(2, 3), "y": [0, 1], "cluster": np.eye(2)}, r"a\.npz: 'cluster' has shape \(2, 2\)"),
    ({"x": np.array([{}, 1], dtype=object), "y": [0, 1]}, "'x' cannot be read .*pickled Python objects"),
    ({"x": uniform(2, 3), "y": np.array([0, None], dtype=object)}, "'y' cannot be read .*pickled Python objects"),
    ({"x": np.zeros(2, dtype=[("é", "f4")]), "y": [0, 1]}, "'x' of shape|'x' cannot be read"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:Stored array in format 3.0:UserWarning")
def test_wrong_contents_are_refused(arrays, message, saved):
    with pytest.raises(DataError, match=message):
        Npz(path=saved(**arrays)).load()


@pytest.mark.parametrize("how", SAVE)
def test_wrong_values_matter_only_when_their_row_is_read(how, saved):
    x = uniform(4, 3).astype(np.float32)
    x[1, 2], x[3, 0] = np.nan, 1.5
    data = Npz(path=saved(how, x=x, y=[0, 1, 0, 1], ids=[10, 11, 12, 13])).load()
    assert torch.equal(data.x([0, 2]), torch.from_numpy(x[[0, 2]]))
    with pytest.raises(DataError, match=r"a\.npz.*: row 11 holds NaN"):
        data.x([0, 1])
    with pytest.raises(DataError, match=r"a\.npz.*: row 13 holds the value 1.5"):
        data.x([3])


def test_files_that_are_no_archive(tmp_path, saved):
    with pytest.raises(DataError, match=r"no file at '.*none\.npz'"):
        Npz(path=str(tmp_path / "none.npz")).load()
    (tmp_path / "b.npz").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"b\.npz is no \.npz archive"):
        Npz(path=str(tmp_path / "b.npz")).load()
    np.save(tmp_path / "c.npy", uniform(2, 2))
    with pytest.raises(DataError, match=r"c\.npy is no \.npz archive"):
        Npz(path=str(tmp_path / "c.npy")).load()
    (tmp_path / "d.npz").write_bytes(Path(saved(x=uniform(9, 9), y=np.zeros(9))).read_bytes()[:300])
    with pytest.raises(DataError, match=r"d\.npz is no \.npz archive"):
        Npz(path=str(tmp_path / "d.npz")).load()


def test_a_header_that_promises_more_than_the_file_holds(tmp_path, saved):
    path = saved(x=uniform(2, 3), y=[0, 1])
    with zipfile.ZipFile(path) as archive:
        body, labels = archive.read("x.npy"), archive.read("y.npy")
    lie = body.replace(b"(2, 3), }       ", b"(2, 30000000), }")
    assert lie != body
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", lie)
        archive.writestr("y.npy", labels)
    with pytest.raises(DataError, match=r"'x' cannot be read .* but its header says"):
        Npz(path=path).load()


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil"])
def test_names_in_the_archive_are_keys_and_never_paths(name, tmp_path, saved):
    path = saved(x=uniform(2, 3), y=[0, 1])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", archive.read("x.npy"))
    assert len(Npz(path=path, x=name).load().x()) == 2
    assert sorted(tmp_path.parent.rglob("*evil*.npy")) == []


def test_only_the_rows_asked_for_are_read_from_a_plain_archive(saved):
    data = Npz(path=saved(x=uniform(100, 8), y=np.zeros(100))).load()
    data.x([5])
    assert isinstance(vars(data.read)["opened"], np.memmap)


@pytest.mark.parametrize("how", SAVE)
def test_it_can_be_pickled_small_and_its_text_brings_it_back(how, saved):
    x = uniform(500, 64)
    data = Npz(path=saved(how, x=x, y=np.arange(500) % 3)).load()
    expected = data.x([3, 1])
    sent = pickle.dumps(data)
    assert len(sent) < x.nbytes / 4
    assert torch.equal(pickle.loads(sent).x([3, 1]), expected)
    assert parse(data.source).load().digest == data.digest


def test_low_must_lie_below_high():
    with pytest.raises(SpecError, match="low=1 must lie below high=1"):
        Npz(path="a.npz", low=1)


@pytest.mark.parametrize("how", SAVE)
@given(st.integers(0, 10**6), st.integers(0, 255))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_archives_give_a_data_error_or_data(how, tmp_path, saved, place, value):
    body = bytearray(Path(saved(how, x=uniform(3, 4), y=[0, 1, 0])).read_bytes())
    body[place % len(body)] = value
    (tmp_path / "b.npz").write_bytes(body)
    try:
        Npz(path=str(tmp_path / "b.npz")).load().x()
    except DataError as error:
        assert "b.npz" in str(error)
