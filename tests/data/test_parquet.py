import contextlib
import functools
import json
import pickle

import duckdb
import numpy as np
import pytest
import torch

from brinell.core.component import parse
from brinell.core.errors import DataError
from brinell.data import parquet
from brinell.data.parquet import Parquet


def quoted(column):
    return '"' + column.replace('"', '""') + '"'


@pytest.fixture
def written(tmp_path, encode):
    """Writes a Parquet file of images and labels in the published layout; further columns and SQL types by name."""

    def made(arrays, labels, name="a.parquet", names=None, kind="bigint", layout="struct", group_size=2, **columns):
        blobs = [array if isinstance(array, bytes) or array is None else encode(array) for array in arrays]
        table = duckdb.connect()
        extra = "".join(f", {quoted(column)} {sql}" for column, (sql, _) in columns.items())
        table.execute(f"create table t (r int, image blob, label {kind}{extra})")
        for row, (blob, label) in enumerate(zip(blobs, labels, strict=True)):
            values = [row, blob, label, *(values[row] for _, values in columns.values())]
            table.execute(f"insert into t values ({', '.join('?' * len(values))})", values)
        image = "{'bytes': image, 'path': '/etc/passwd'}" if layout == "struct" else "image"
        metadata = ""
        if names is not None:
            text = (
                names if isinstance(names, str) else json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": names}}}})
            )
            metadata = f", kv_metadata {{huggingface: '{text}'}}"
        path = tmp_path / name
        query = f"select {image} as image, * exclude (r, image) from t order by r"
        table.execute(f"copy ({query}) to '{path}' (format parquet, row_group_size {group_size}{metadata})")
        return path

    return made


def tensor(arrays):
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("layout", ["struct", "binary"])
def test_round_trip(layout, written, pictures):
    arrays = pictures(7)
    path = written(arrays, [0, 2, 1, 0, 1, 2, 2], names=["cat", "dog", "owl"], layout=layout)
    data = Parquet(path=str(path)).load()
    assert (data.shape, data.classes, data.note) == ((3, 6, 6), ("cat", "dog", "owl"), "")
    assert data.y.tolist() == [0, 2, 1, 0, 1, 2, 2]
    assert data.ids.tolist() == list(range(7))
    assert torch.equal(data.x(), tensor(arrays))
    assert torch.equal(data.x([6, 0, 6, 3]), tensor(arrays[[6, 0, 6, 3]]))
    assert data.x([]).shape == (0, 3, 6, 6)


def test_without_metadata_classes_are_numbers(written, pictures):
    data = Parquet(path=str(written(pictures(3, colour=False), [0, 4, 1]))).load()
    assert (data.shape, data.classes, data.note) == ((1, 6, 6), tuple("01234"), "the files name no classes")


@pytest.mark.parametrize("metadata", ["{", "[]", '{"info": 3}', '{"info": {"features": {"label": {"names": [1, 2]}}}}'])
def test_metadata_of_another_form_is_passed_over(metadata, written, pictures):
    assert Parquet(path=str(written(pictures(2), [0, 1], names=metadata))).load().classes == ("0", "1")


def test_many_files_are_one_set_with_ids_counted_through(written, pictures, tmp_path):
    arrays = pictures(6)
    paths = [written(arrays[2 * k : 2 * k + 2], [k, 0], name=f"part-{k}.parquet") for k in range(3)]
    for path in (str(tmp_path / "part-*.parquet"), str(tmp_path), tuple(map(str, paths))):
        data = Parquet(path=path).load()
        assert data.y.tolist() == [0, 0, 1, 0, 2, 0]
        assert torch.equal(data.x([5, 0, 3]), tensor(arrays[[5, 0, 3]]))
    backwards = Parquet(path=tuple(map(str, reversed(paths)))).load()
    assert torch.equal(backwards.x([0]), tensor(arrays[[4]]))
    with pytest.raises(DataError, match="is named twice"):
        Parquet(path=(str(paths[0]), str(tmp_path / "part-*.parquet"))).load()


def test_a_name_that_looks_like_a_pattern_is_that_file(written, pictures):
    brackets, plain = pictures(1, side=3), pictures(1, side=4)
    path = written(brackets, [0], name="x[1].parquet")
    written(plain, [0], name="x1.parquet")
    data = Parquet(path=str(path)).load()
    assert torch.equal(data.x(), tensor(brackets))


def test_group_and_cluster_columns(written, pictures):
    columns = {"site": ("varchar", ["b", "a", "b"]), 'the "patient"': ("integer", [7, 7, 9])}
    data = Parquet(path=str(written(pictures(3), [0, 1, 0], **columns)), group="site", cluster='the "patient"').load()
    assert data.columns["group"].tolist() == ["b", "a", "b"]
    assert data.columns["cluster"].tolist() == [7, 7, 9]
    assert data.columns["group"].dtype.kind == "U"


def test_columns_of_other_names(written, pictures):
    path = written(pictures(2), [1, 0], fine=("utinyint", [5, 6]))
    assert Parquet(path=str(path), label="fine").load().y.tolist() == [5, 6]


@pytest.mark.parametrize(("kind", "labels"), [("double", [1.0, 0.0]), ("boolean", [True, False]), ("uhugeint", [1, 0])])
def test_labels_may_be_any_whole_numbers(kind, labels, written, pictures):
    assert Parquet(path=str(written(pictures(2), labels, kind=kind))).load().y.tolist() == [1, 0]


@pytest.mark.parametrize(("kind", "labels", "message"), [
    ("bigint", [0, None, None], r"a\.parquet, row 1: 'label' is null \(2 such rows\)"),
    ("double", [0, 1, 0.5], r"a\.parquet: 'label' of row 2 is 0.5, not a whole number"),
    ("varchar", ["a", "b", "c"], r"a\.parquet: label column 'label' is VARCHAR, expected whole numbers"),
    ("bigint", [0, 1, 5], r"a\.parquet.*: row 2 has label 5, outside 0\.\.1"),
    ("bigint", [-1, -1, 0], r"a\.parquet.*: row 0 has label -1, outside 0\.\.1 \(2 such rows\)"),
])  # fmt: skip
def test_wrong_labels_name_the_file_and_the_row(kind, labels, message, written, pictures):
    with pytest.raises(DataError, match=message):
        Parquet(path=str(written(pictures(3), labels, kind=kind, names=["a", "b"]))).load()


def test_a_null_group_names_the_file_and_the_row(written, pictures):
    path = written(pictures(2), [0, 1], site=("varchar", ["a", None]))
    with pytest.raises(DataError, match=r"a\.parquet, row 1: 'site' is null"):
        Parquet(path=str(path), group="site").load()


def test_groups_may_be_dates_but_not_blobs(written, pictures):
    path = written(
        pictures(2), [0, 1], day=("date", ["2020-01-01", "2021-01-01"]), blob=("blob", [b"a", b"b"]), many=("int[]", [[1], [2, 3]])
    )
    assert Parquet(path=str(path), group="day").load().columns["group"].tolist() == ["2020-01-01", "2021-01-01"]
    with pytest.raises(DataError, match="group column 'blob' is BLOB, expected numbers or text"):
        Parquet(path=str(path), group="blob").load()
    with pytest.raises(DataError, match=r"cluster column 'many' is INTEGER\[\]"):
        Parquet(path=str(path), cluster="many").load()


class Broken:
    """A database that a damaged file has brought down."""

    def cursor(self):
        raise duckdb.FatalException("database has been invalidated")


def test_a_file_that_brings_the_database_down_does_not_harm_the_next_one(written, pictures, monkeypatch):
    path = written(pictures(2), [0, 1])
    databases = [Broken(), duckdb.connect()]
    monkeypatch.setattr(parquet, "_database", functools.cache(lambda process: databases.pop(0)))
    with pytest.raises(DataError, match="database has been invalidated"):
        Parquet(path=str(path)).load()
    assert len(Parquet(path=str(path)).load().x()) == 2


def test_damaged_files_give_a_data_error_or_data(written, pictures, tmp_path):
    path = written(pictures(2), [0, 1])
    body = path.read_bytes()
    for place in range(0, len(body), 31):
        damaged = bytearray(body)
        damaged[place] ^= 255
        (tmp_path / "b.parquet").write_bytes(damaged)
        with contextlib.suppress(DataError):
            assert len(Parquet(path=str(tmp_path / "b.parquet")).load().x()) > 0
        assert len(Parquet(path=str(path)).load().x()) == 2


@pytest.mark.parametrize(("fields", "message"), [
    ({"image": "img"}, r"no column 'img' \(columns: image, label\); say which with image="),
    ({"label": "y"}, "no column 'y'"),
    ({"group": "site"}, "no column 'site'"),
    ({"image": "label"}, "column 'label' is BIGINT, expected binary, or a struct with binary `bytes`"),
])  # fmt: skip
def test_missing_and_wrong_columns(fields, message, written, pictures):
    with pytest.raises(DataError, match=message):
        Parquet(path=str(written(pictures(1), [0])), **fields).load()


def test_missing_damaged_and_empty_files(written, tmp_path):
    with pytest.raises(DataError, match=r"no Parquet file at '.*none-\*\.parquet'"):
        Parquet(path=str(tmp_path / "none-*.parquet")).load()
    with pytest.raises(DataError, match="no Parquet file"):
        Parquet(path=str(tmp_path)).load()
    (tmp_path / "b.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match=r"b\.parquet cannot be read as Parquet: .*Is it complete"):
        Parquet(path=str(tmp_path / "b.parquet")).load()
    with pytest.raises(DataError, match="the files hold no rows"):
        Parquet(path=str(written([], []))).load()


def test_files_that_name_other_classes_are_not_one_set(written, pictures, tmp_path):
    written(pictures(1), [0], name="a.parquet", names=["a", "b"])
    written(pictures(1), [0], name="b.parquet", names=["b", "a"])
    with pytest.raises(DataError, match=r"b\.parquet names other classes than .*a\.parquet"):
        Parquet(path=str(tmp_path)).load()


def test_a_damaged_or_missing_image_matters_only_when_its_row_is_read(written, pictures):
    arrays = [*pictures(4), b"damaged", None]
    data = Parquet(path=str(written(arrays, [0, 1, 0, 1, 0, 1]))).load()
    assert torch.equal(data.x([0, 1, 2, 3]), tensor(arrays[:4]))
    with pytest.raises(DataError, match=r"a\.parquet, row 4: not a readable image \(7 bytes"):
        data.x([3, 4])
    with pytest.raises(DataError, match=r"a\.parquet, row 5: .* is null \(a path beside it is not followed\)"):
        data.x([5])


def test_rows_are_named_within_their_file(written, pictures, tmp_path):
    written(pictures(3), [0, 1, 0], name="a.parquet")
    written([*pictures(1), b"bad"], [0, 1], name="b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet, row 1: not a readable image"):
        Parquet(path=str(tmp_path)).load().x()


def test_images_of_other_sizes_need_resize_and_crop(written, pictures):
    path = str(written([pictures(1, side=6)[0], pictures(1, side=9)[0]], [0, 1]))
    with pytest.raises(DataError, match=r"a\.parquet, row 1: the image is 9 wide and 9 high, the first one 6 and 6; give resize="):
        Parquet(path=path).load().x()
    data = Parquet(path=path, resize=5, crop=4, interpolation="box").load()
    assert data.shape == (3, 4, 4)
    assert data.x().shape == (2, 3, 4, 4)


def test_a_file_that_vanished_or_shrank_is_a_data_error(written, pictures):
    path = written(pictures(4), [0, 1, 0, 1])
    data = Parquet(path=str(path)).load()
    written(pictures(2), [0, 1])
    with pytest.raises(DataError, match=r"a\.parquet, row 3"):
        data.x([3])
    path.unlink()
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        data.x([0])


def test_the_digest_follows_the_bytes(written, pictures, tmp_path):
    first = Parquet(path=str(written(pictures(2), [0, 1], name="a.parquet"))).load()
    copied = tmp_path / "other.parquet"
    copied.write_bytes((tmp_path / "a.parquet").read_bytes())
    assert Parquet(path=str(copied)).load().digest == first.digest
    changed = pictures(2).copy()
    changed[1, 0, 0, 0] ^= 1
    assert Parquet(path=str(written(changed, [0, 1], name="a.parquet"))).load().digest != first.digest


def test_it_can_be_pickled_and_its_text_brings_it_back(written, pictures):
    data = Parquet(path=str(written(pictures(4), [0, 1, 0, 1]))).load()
    twin = pickle.loads(pickle.dumps(data))
    assert torch.equal(twin.x([3, 1]), data.x([3, 1]))
    assert parse(data.source).load().digest == data.digest
