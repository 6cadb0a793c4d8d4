import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from brinell.core.component import parse
from brinell.core.errors import DataError
from brinell.data import cifar
from brinell.data.cifar import Cifar10

NAMES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


def batch(n, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.integers(0, 10, n)


SET = {name: batch(2 + at, at) for at, name in enumerate(NAMES)}
TRAIN = tuple(np.concatenate([SET[name][part] for name in NAMES[:5]]) for part in (0, 1))


def old(pixels, labels, fortran=False):
    """A batch as Python 2 wrote it, instruction by instruction."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    body = pixels.T.tobytes() if fortran else pixels.tobytes()
    return (
        b"\x80\x02}q\x01(" + text(b"batch_label") + text(b"testing batch 1 of 1") + text(b"labels")
        + b"](" + b"".join(b"K%c" % k for k in labels) + b"e" + text(b"data")
        + b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K"
        + bytes([len(pixels)]) + b"M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03"
        + b"U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + (b"\x88" if fortran else b"\x89") + b"T" + struct.pack("<i", len(body)) + body + b"tb" + text(b"filenames") + b"](U\x05a.pngeu."
    )  # fmt: skip


def binary(pixels, labels):
    return b"".join(bytes([label]) + row.tobytes() for row, label in zip(pixels, labels, strict=True))


def new(pixels, labels, protocol=4):
    return pickle.dumps({b"data": pixels, b"labels": labels.tolist()}, protocol)


FORMS = {
    "python 2": ("cifar-10-batches-py", "", old),
    "columns first": ("cifar-10-batches-py", "", lambda *part: old(*part, fortran=True)),
    "protocol 2": ("cifar-10-batches-py", "", lambda *part: new(*part, 2)),
    "protocol 5": ("cifar-10-batches-py", "", lambda *part: new(*part, 5)),
    "binary": ("cifar-10-batches-bin", ".bin", binary),
}


def files(form):
    directory, end, write = FORMS[form]
    return {f"{directory}/{name}{end}": write(*part) for name, part in SET.items()} | {f"{directory}/readme.html": b"<a>"}


@pytest.fixture
def unpacked(tmp_path):
    def made(form, **changes):
        for name, body in {**files(form), **changes}.items():
            file = tmp_path / "set" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)
        return str(tmp_path / "set")

    return made


def pack(path, members, prefix=""):
    with tarfile.open(path, "w:gz") as archive:
        for name, body in members.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return str(path)


def matches(data, pixels, labels):
    assert data.y.tolist() == labels.tolist()
    assert data.ids.tolist() == list(range(len(labels)))
    assert torch.equal(data.x(), torch.from_numpy(pixels.reshape(-1, 3, 32, 32).astype(np.float32) / np.float32(255)))
    assert torch.equal(data.x([1, 0]), data.x()[[1, 0]])


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form(form, unpacked, tmp_path):
    top = unpacked(form)
    archive = pack(tmp_path / "a.tar.gz", files(form), "./" if form == "binary" else "")
    for path in (top, f"{top}/{FORMS[form][0]}", archive):
        source = Cifar10(path=path, verify=False)
        matches(source.load(), *SET["test_batch"])
        train = source.replace(split="train").load()
        matches(train, *TRAIN)
        assert (train.shape, train.classes[:2], len(train.classes)) == ((3, 32, 32), ("airplane", "automobile"), 10)
        assert "20 samples, published are 50,000" in train.note
        assert ("no checksum was checked" in train.note) == (path != archive or form == "binary")


def test_the_digest_names_the_bytes_and_the_text_brings_it_back(unpacked):
    path = unpacked("binary")
    data = Cifar10(path=path).load()
    assert parse(data.source).load().digest == data.digest
    expected, sent = data.x([3, 1]), pickle.dumps(data)
    assert len(sent) < 5000
    assert torch.equal(pickle.loads(sent).x([3, 1]), expected)
    pixels, labels = SET["test_batch"]
    unpacked("binary", **{"cifar-10-batches-bin/test_batch.bin": binary(255 - pixels, labels)})
    assert Cifar10(path=path).load().digest != data.digest


def test_the_archive_is_checked_against_the_published_sum(tmp_path, monkeypatch):
    path = pack(tmp_path / "a.tar.gz", files("python 2"))
    with pytest.raises(DataError, match=r"a\.tar\.gz: expected 170,498,071 bytes, found .*verify=False"):
        Cifar10(path=path).load()
    body = Path(path).read_bytes()
    monkeypatch.setattr(cifar, "ARCHIVE_BYTES", len(body))
    with pytest.raises(DataError, match=r"expected MD5 c58f30108f718f92721af3b95e74349a, found [0-9a-f]{32}; get cifar"):
        Cifar10(path=path).load()
    monkeypatch.setattr(cifar, "ARCHIVE_MD5", hashlib.md5(body).hexdigest())
    assert Cifar10(path=path).load().note == "7 samples, published are 10,000"


class Hostile:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_hostile_batch_is_refused_and_nothing_runs(unpacked, tmp_path):
    body = pickle.dumps({b"data": Hostile(tmp_path / "made"), b"labels": [1]}, 2)
    path = unpacked("python 2", **{"cifar-10-batches-py/test_batch": body})
    with pytest.raises(DataError, match=r"test_batch: the pickle asks for 'posix\.mkdir'.*Do not trust this file"):
        Cifar10(path=path).load()
    archive = pack(tmp_path / "b.tar.gz", {"cifar-10-batches-py/test_batch": body})
    with pytest.raises(DataError, match=r"b\.tar\.gz: cifar-10-batches-py/test_batch: the pickle asks for 'posix\.mkdir'"):
        Cifar10(path=archive, verify=False).load()
    assert not (tmp_path / "made").exists()


def damaged(**entries):
    pixels, labels = SET["test_batch"]
    return pickle.dumps({key: value for key, value in {"data": pixels, "labels": labels.tolist(), **entries}.items() if value is not None})


@pytest.mark.parametrize(("body", "message"), [
    (damaged(labels=[0, 1, 2, 3, 4, 5, 10]), r"test_batch, row 6: expected a label from 0 to 9, found 10"),
    (damaged(labels=[0, 1, 2, -3, 4, 5, 6]), "row 3: expected a label from 0 to 9, found -3"),
    (damaged(labels=[0, 1, 2, 3, 4, 5, 10**300]), "row 6: expected a label"),
    (damaged(labels=[0, 1]), "expected labels as a list of 7 whole numbers, found 2 entries"),
    (damaged(labels=[0.5] * 7), "expected labels as a list"), (damaged(labels=[True] * 7), "expected labels as a list"),
    (damaged(labels="0123456"), "found a str"), (damaged(labels=None), "expected an entry 'labels', found only data"),
    (damaged(data=None), "expected an entry 'data'"), (damaged(data=[1]), "expected an array of bytes"),
    (damaged(data=np.zeros((7, 3072))), "expected an array of bytes .* found numbers of type 'f8'"),
    (damaged(data=np.zeros((7, 3071), np.uint8)), r"expected data of shape \(n, 3072\), found shape \(7, 3071\)"),
    (damaged(data=np.zeros(7 * 3072, np.uint8)), "expected data of shape"),
    (pickle.dumps([1, 2]), "expected a pickled dict, found a list"), (old(*SET["test_batch"])[:5000], "no whole pickle"),
    (b"", "no whole pickle"),
])  # fmt: skip
def test_batches_that_are_not_as_published(body, message, unpacked):
    with pytest.raises(DataError, match=message) as caught:
        Cifar10(path=unpacked("python 2", **{"cifar-10-batches-py/test_batch": body})).load()
    assert "cifar-10-batches-py/test_batch" in str(caught.value)


@pytest.mark.parametrize(("body", "message"), [
    (binary(*SET["test_batch"])[:-1], r"test_batch\.bin: expected records of 3073 bytes, found 21,510 bytes, 3072 too many"),
    (b"", "found 0 bytes"), (bytes([10]) + bytes(3072), "row 0: expected a label from 0 to 9, found 10"),
])  # fmt: skip
def test_binary_batches_that_are_not_as_published(body, message, unpacked):
    with pytest.raises(DataError, match=message):
        Cifar10(path=unpacked("binary", **{"cifar-10-batches-bin/test_batch.bin": body})).load()


def test_what_is_missing_is_named(unpacked, tmp_path):
    with pytest.raises(DataError, match=r"none: expected a directory, found none .*cifar-10-python\.tar\.gz"):
        Cifar10(path=str(tmp_path / "none")).load()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: expected data_batch_1 or .*cifar-10-batches-bin, found nothing"):
        Cifar10(path=str(tmp_path / "empty")).load()
    path = unpacked("python 2")
    Path(path, "cifar-10-batches-py", "data_batch_4").unlink()
    with pytest.raises(DataError, match=r"data_batch_4: expected a batch, found no such file \(there: data_batch_1,"):
        Cifar10(path=path, split="train").load()
    with pytest.raises(DataError, match=r"expected a file cifar-10-batches-py/data_batch_2 in it, found cifar-10-batches-py/data_batch_1"):
        Cifar10(
            path=pack(tmp_path / "c.tar.gz", {"cifar-10-batches-py/data_batch_1": old(*batch(2, 0))}), split="train", verify=False
        ).load()
    with pytest.raises(DataError, match=r"d\.tar\.gz: expected cifar-10-batches-py or cifar-10-batches-bin in it, found neither"):
        Cifar10(path=pack(tmp_path / "d.tar.gz", {"data_batch_1": b""}), verify=False).load()


def test_archives_that_are_damaged(tmp_path):
    whole = Path(pack(tmp_path / "a.tar.gz", files("python 2"))).read_bytes()
    for at, body in enumerate(
        [b"hello", b"", whole[: len(whole) // 2], whole[:20] + bytes(40) + whole[60:], gzip.compress(b"hello" * 200)]
    ):
        file = tmp_path / f"{at}.tar.gz"
        file.write_bytes(body)
        with pytest.raises(DataError, match=rf"{at}\.tar\.gz"):
            Cifar10(path=str(file), verify=False).load()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_links_in_an_archive_are_not_followed(kind, tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        real = tarfile.TarInfo("cifar-10-batches-py/other")
        body = old(*SET["test_batch"])
        real.size = len(body)
        archive.addfile(real, io.BytesIO(body))
        link = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        link.type, link.linkname = kind, "cifar-10-batches-py/other"
        archive.addfile(link)
    with pytest.raises(DataError, match="expected a file cifar-10-batches-py/test_batch in it"):
        Cifar10(path=str(tmp_path / "a.tar.gz"), verify=False).load()


@pytest.mark.parametrize("prefix", ["../", "/tmp/", "x/../"])
def test_no_member_becomes_a_file(prefix, tmp_path):
    path = pack(tmp_path / "a.tar.gz", {**files("python 2"), f"{prefix}brinell-evil": b"x"})
    before = sorted(tmp_path.parent.rglob("*"))
    assert len(Cifar10(path=path, verify=False).load()) == 7
    assert sorted(tmp_path.parent.rglob("*")) == before
    assert not Path("/tmp/brinell-evil").exists()


def test_a_member_too_large_to_be_a_batch_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "LARGEST_BATCH", 1000)
    with pytest.raises(DataError, match="expected a batch of at most 1,000 bytes"):
        Cifar10(path=pack(tmp_path / "a.tar.gz", files("binary"))).load()
