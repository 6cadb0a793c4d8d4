import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from brinell.core.component import parse
from brinell.core.errors import DataError
from brinell.data.mnist import Mnist

rng = np.random.default_rng(0)
SET = {"train": (rng.integers(0, 256, (6, 5, 4), dtype=np.uint8), np.array([5, 0, 4, 1, 9, 2], dtype=np.uint8)),
       "t10k": (rng.integers(0, 256, (3, 5, 4), dtype=np.uint8), np.array([7, 2, 1], dtype=np.uint8))}  # fmt: skip


def idx(array, kind=8, sizes=None):
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *(sizes or array.shape)) + array.tobytes()


@pytest.fixture
def written(tmp_path):
    def made(style="{}-{}-idx{}-ubyte", folder="", **changes):
        place = tmp_path / folder
        place.mkdir(parents=True, exist_ok=True)
        for prefix, (images, labels) in SET.items():
            for what, array in (("images", images), ("labels", labels)):
                name = style.format(prefix, what, array.ndim)
                body = changes.get(f"{prefix}_{what}", idx(array))
                (place / name).write_bytes(gzip.compress(body) if name.endswith(".gz") and body[:2] != b"\x1f\x8b" else body)
        return str(tmp_path)

    return made


@pytest.mark.parametrize("folder", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("style", ["{}-{}-idx{}-ubyte", "{}-{}.idx{}-ubyte", "{}-{}-idx{}-ubyte.gz", "{}-{}.idx{}-ubyte.gz"])
def test_every_name_and_packing(style, folder, written):
    path = written(style, folder)
    for split, prefix, published in (("train", "train", "60,000"), ("test", "t10k", "10,000")):
        data = Mnist(path=path, split=split).load()
        images, labels = SET[prefix]
        assert (data.shape, data.classes, data.y.tolist()) == ((1, 5, 4), tuple("0123456789"), labels.tolist())
        assert torch.equal(data.x(), torch.from_numpy(images[:, None].astype(np.float32)) / 255)
        assert torch.equal(data.x([2, 0]), data.x()[[2, 0]])
        assert data.note.startswith(f"{len(labels)} samples, published are {published}; no checksum")


def test_unpacked_files_are_mapped_and_sent_small(written):
    data = Mnist(path=written()).load()
    assert isinstance(data.read.opened, np.memmap)
    expected = data.x()
    assert torch.equal(pickle.loads(pickle.dumps(data)).x(), expected)
    assert vars(pickle.loads(pickle.dumps(data)).read)["opened"] is None
    assert parse(data.source).load().digest == data.digest
    assert Mnist(path=data.source.split("'")[1], split="train").load().digest != data.digest


def test_more_than_ten_classes(written):
    data = Mnist(path=written(t10k_labels=idx(np.array([26, 1, 2], dtype=np.uint8)))).load()
    assert (len(data.classes), data.y[0]) == (27, 26)


images, labels = SET["t10k"]


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize(("changes", "message"), [
    ({"t10k_images": idx(images, kind=9)},
     r"images-idx3-ubyte\S*: expected the magic number 00000803 and 3 lengths, found 00000903 in 16 bytes"),
    ({"t10k_images": idx(labels)}, "expected the magic number 00000803 .* found 00000801"),
    ({"t10k_labels": idx(images)}, "labels-idx1-ubyte.*expected the magic number 00000801 .* found 00000803"),
    ({"t10k_images": idx(images)[:10]}, "found 00000803 in 10 bytes"), ({"t10k_images": b""}, "found  in 0 bytes"),
    ({"t10k_images": idx(images)[:-1]}, r"expected 60 bytes after its header \(3 x 5 x 4\), found 59"),
    ({"t10k_images": idx(images) + b"x"}, "expected 60 bytes .* found 61"),
    ({"t10k_images": idx(images, sizes=(2**32 - 1, 2**32 - 1, 2**32 - 1))}, "found 60"),
    ({"t10k_images": idx(images, sizes=(0, 5, 4))}, "expected 0 bytes after its header"),
    ({"t10k_labels": idx(labels[:2])}, "labels-idx1-ubyte.*expected 3 labels, one for each image of t10k-images-idx3-ubyte.*, found 2"),
])  # fmt: skip
def test_files_that_are_not_as_published(changes, message, end, written):
    with pytest.raises(DataError, match=message):
        Mnist(path=written("{}-{}-idx{}-ubyte" + end, **changes)).load()


def test_a_packing_that_holds_more_than_its_header_says_is_not_unpacked_whole(written):
    bomb = gzip.compress(idx(images) + bytes(50_000_000))
    with pytest.raises(DataError, match=r"expected 60 bytes .* found 61 or more"):
        Mnist(path=written("{}-{}-idx{}-ubyte.gz", t10k_images=bomb)).load()


@pytest.mark.parametrize("damage", [lambda body: body[:-10], lambda body: body[:12] + b"\xff" * 8 + body[20:], lambda body: b"\x1f\x8bno"])
def test_damaged_packings(damage, written):
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz cannot be read"):
        Mnist(path=written("{}-{}-idx{}-ubyte.gz", t10k_images=damage(gzip.compress(idx(images))))).load()


def test_what_is_missing_is_named(tmp_path, written):
    with pytest.raises(DataError, match="none: expected a directory"):
        Mnist(path=str(tmp_path / "none")).load()
    path = written()
    Path(path, "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(
        DataError, match=r"expected t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte\.gz, found neither; get the four files"
    ):
        Mnist(path=path).load()
    Path(path, "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match=r"expected t10k-images-idx3-ubyte or .*, found train-images-idx3-ubyte, train"):
        Mnist(path=path).load()
