import pickle

import numpy as np
import pytest
import torch

from brinell.core.component import parse
from brinell.core.errors import DataError
from brinell.data.folder import Folder


@pytest.fixture
def tree(tmp_path, encode, pictures):
    """Writes images, `{relative path: array or bytes}`, below a directory."""

    def made(files, root="set"):
        base = tmp_path / root
        base.mkdir(exist_ok=True)
        for name, content in files.items():
            path = base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else encode(content))
        return base

    return made


@pytest.fixture
def animals(tree, pictures):
    a, b, c, d = pictures(4)
    return tree({"owl/2.png": c, "cat/b.png": b, "cat/a.PNG": a, "owl/deep/9.png": d}), (a, b, c, d)


def tensor(arrays):
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def test_round_trip_in_sorted_order(animals):
    root, arrays = animals
    data = Folder(path=str(root)).load()
    assert (data.shape, data.classes, data.note) == ((3, 6, 6), ("cat", "owl"), "")
    assert data.y.tolist() == [0, 0, 1, 1]
    assert data.ids.tolist() == [0, 1, 2, 3]
    assert torch.equal(data.x(), tensor(arrays))
    assert torch.equal(data.x([3, 0]), tensor([arrays[3], arrays[0]]))


def test_a_class_file_gives_the_order_and_leaves_the_ids(animals, tmp_path):
    root, arrays = animals
    names = tmp_path / "names.txt"
    names.write_text("\ufeffowl\n\n cat \n", encoding="utf-8")
    data = Folder(path=str(root), classes=str(names)).load()
    assert (data.classes, data.y.tolist(), data.ids.tolist()) == (("owl", "cat"), [1, 1, 0, 0], [0, 1, 2, 3])
    assert torch.equal(data.x(), tensor(arrays))


@pytest.mark.parametrize(("text", "message"), [
    ("cat\nowl\ndog\n", r"names 'dog' \(name 3\), but .*set has no such class directory"),
    ("cat\n../secret\n", "names '../secret'"),
    ("/etc\n", "names '/etc'"),
    ("cat\nowl/deep\n", "names 'owl/deep'"),
    ("cat\nowl\ncat\n", "names 'cat' twice"),
    ("cat\n", r"leaves out 'owl' \(1 directories"),
    ("", "leaves out 'cat'"),
])  # fmt: skip
def test_class_files_only_name_directories_that_exist(text, message, animals, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "names.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        Folder(path=str(animals[0]), classes=str(tmp_path / "names.txt")).load()


def test_an_unreadable_class_file(animals, tmp_path):
    with pytest.raises(DataError, match=r"class file .*none\.txt cannot be read"):
        Folder(path=str(animals[0]), classes=str(tmp_path / "none.txt")).load()
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match="in UTF-8"):
        Folder(path=str(animals[0]), classes=str(tmp_path / "latin.txt")).load()


def test_missing_and_empty_directories(tmp_path, tree, pictures):
    with pytest.raises(DataError, match="is no directory"):
        Folder(path=str(tmp_path / "none")).load()
    with pytest.raises(DataError, match="holds no class directory"):
        Folder(path=str(tree({"loose.png": pictures(1)[0], ".hidden/a.png": b""}, "flat"))).load()
    with pytest.raises(DataError, match=r"empty/dog holds no image \(\.bmp"):
        Folder(path=str(tree({"cat/a.png": pictures(1)[0], "dog/a.txt": b""}, "empty"))).load()


def test_other_files_are_counted_and_hidden_ones_passed_over(tree, pictures):
    image = pictures(1)[0]
    root = tree({"a/x.png": image, "a/notes.txt": b"", "a/.x.png": b"", "a/.cache/y.png": b"", "a/z/list.csv": b"", ".git/b.png": b""})
    data = Folder(path=str(root)).load()
    assert (len(data), data.note) == (1, "2 files with other endings left out")


def test_a_damaged_image_matters_only_when_its_row_is_read(tree, pictures):
    a, b = pictures(2)
    data = Folder(path=str(tree({"c/0.png": a, "c/1.png": b"damaged", "c/2.png": b}))).load()
    assert torch.equal(data.x([0, 2]), tensor([a, b]))
    with pytest.raises(DataError, match=r"set/c/1\.png, row 1: not a readable image \(7 bytes"):
        data.x([2, 1])


def test_a_damaged_first_image_is_met_at_loading(tree):
    with pytest.raises(DataError, match=r"c/0\.png, row 0: not a readable image"):
        Folder(path=str(tree({"c/0.png": b""}))).load()


def test_a_file_that_vanished_is_named(animals):
    root, _ = animals
    data = Folder(path=str(root)).load()
    (root / "owl" / "2.png").unlink()
    with pytest.raises(DataError, match=r"owl/2\.png, row 2, cannot be read: No such file"):
        data.x()


def test_sizes_resize_crop_and_interpolation(tree, pictures):
    small, wide = pictures(1, side=4)[0], np.concatenate(pictures(2, side=8), 1)
    root = str(tree({"c/0.png": small, "c/1.png": wide}))
    with pytest.raises(DataError, match=r"c/1\.png, row 1: the image is 16 wide and 8 high, the first one 4 and 4; give resize="):
        Folder(path=root).load().x()
    x = Folder(path=root, resize=4, crop=4, interpolation="box").load().x()
    blocks = wide.reshape(4, 2, 8, 2, 3).mean((1, 3))[:, 2:6]
    assert np.abs(x[1].permute(1, 2, 0).numpy() * 255 - blocks).max() <= 1.0001  # Pillow rounds after each of two passes
    with pytest.raises(DataError, match="smaller than crop=5"):
        Folder(path=root, crop=5).load()


def test_the_digest_follows_bytes_and_names(tree, pictures, encode):
    a, b = pictures(2)
    digests = [
        Folder(path=str(tree(files, root))).load().digest
        for files, root in [
            ({"c/0.png": a, "c/1.png": b}, "one"), ({"c/0.png": a, "c/1.png": b}, "same"), ({"c/0.png": b, "c/1.png": a}, "swapped"),
            ({"c/0.png": a, "c/2.png": b}, "renamed"), ({"c/0.png": a, "c/1.png": encode(b, "BMP")}, "recoded"),
            ({"d/0.png": a, "d/1.png": b}, "class"),
        ]
    ]  # fmt: skip
    assert digests[0] == digests[1]
    assert len(set(digests)) == 5


def test_a_changed_file_is_seen_by_the_next_load(animals, encode, pictures):
    root, _ = animals
    before = Folder(path=str(root)).load().content
    (root / "owl" / "2.png").write_bytes(encode(pictures(1, side=6)[0]))
    assert Folder(path=str(root)).load().content != before


def test_it_can_be_pickled_and_its_text_brings_it_back(animals):
    data = Folder(path=str(animals[0]), mode="grey").load()
    twin = pickle.loads(pickle.dumps(data))
    assert data.shape == (1, 6, 6)
    assert torch.equal(twin.x([3, 1]), data.x([3, 1]))
    assert parse(data.source).load().digest == data.digest
