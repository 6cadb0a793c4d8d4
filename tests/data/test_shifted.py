import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brinell.core.component import parse
from brinell.core.errors import DataError, SpecError
from brinell.data.imagenet import ImageNet
from brinell.data.shifted import Cifar10C, ImageNetC, TinyImageNetC

N = 6
PIXELS = np.random.default_rng(0).integers(0, 256, (5 * N, 32, 32, 3), dtype=np.uint8)
LABELS = np.array([3, 8, 8, 0, 6, 9], dtype=np.uint8)


@pytest.fixture
def cifar(tmp_path):
    def made(pixels=PIXELS, labels=None, allow_pickle=False):
        top = tmp_path / "CIFAR-10-C"
        top.mkdir(exist_ok=True)
        np.save(top / "fog.npy", pixels, allow_pickle=allow_pickle)
        np.save(top / "labels.npy", np.tile(LABELS, 5) if labels is None else labels, allow_pickle=allow_pickle)
        return str(top)

    return made


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_a_severity_is_its_fifth_of_the_file(severity, cifar):
    data = Cifar10C(path=cifar(), corruption="fog", severity=severity).load()
    block = PIXELS[(severity - 1) * N : severity * N].transpose(0, 3, 1, 2)
    assert (data.shape, data.y.tolist(), data.ids.tolist()) == ((3, 32, 32), LABELS.tolist(), list(range(N)))
    assert torch.equal(data.x(), torch.from_numpy(block.astype(np.float32)) / 255)
    assert torch.equal(data.x([4, 0]), data.x()[[4, 0]])
    assert data.classes[3] == "cat"
    assert data.note == "6 samples, published are 10,000; no checksum was checked"
    assert isinstance(data.read.opened, np.memmap)


def test_cells_pair_and_differ(cifar):
    path = cifar()
    cells = [Cifar10C(path=str(Path(path).parent), corruption="fog", severity=s).load() for s in range(1, 6)]
    assert len({cell.digest for cell in cells}) == 5
    assert all(np.array_equal(cell.ids, cells[0].ids) for cell in cells)
    sent = pickle.dumps(cells[1])
    assert len(sent) < 4000
    assert torch.equal(pickle.loads(sent).x(), cells[1].x())
    assert parse(cells[1].source).load().digest == cells[1].digest


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


@pytest.mark.parametrize(("changes", "message"), [
    ({"pixels": PIXELS[:-1]}, r"fog\.npy: expected uint8 of shape \(5 n, 32, 32, 3\), found uint8 of shape \(29, 32, 32, 3\)"),
    ({"pixels": PIXELS.astype(np.float32)}, "found float32 of shape"), ({"pixels": PIXELS.transpose(0, 3, 1, 2)}, r"\(30, 3, 32, 32\)"),
    ({"labels": LABELS}, r"labels\.npy: expected 30 labels, one for each image of fog\.npy, found 6"),
    ({"labels": np.arange(30) % 7}, r"expected the same labels at every severity, found 6 at severity 2 and 0 at severity 1 for image 0"),
    ({"labels": np.tile([0, 1, 2, 3, 4, 10], 5)}, r"row 5 has label 10, outside 0\.\.9"),
    ({"labels": np.full(30, 0.5)}, r"labels\.npy: label of row 0 is 0\.5"), ({"labels": np.zeros((30, 1))}, r"labels have shape \(30, 1\)"),
    ({"labels": np.array([{}] * 30), "allow_pickle": True}, r"labels\.npy cannot be read as a plain array .*Python objects"),
])  # fmt: skip
def test_arrays_that_are_not_as_published(changes, message, cifar):
    with pytest.raises(DataError, match=message):
        Cifar10C(path=cifar(**changes), corruption="fog", severity=2).load()


def test_nothing_is_unpickled_and_cut_files_are_refused(cifar, tmp_path):
    path = Path(cifar())
    (path / "evil.npy").write_bytes(pickle.dumps(Hostile(str(tmp_path / "made"))))
    np.save(path / "worse.npy", np.array([Hostile(str(tmp_path / "made"))] * 5, dtype=object), allow_pickle=True)
    (path / "cut.npy").write_bytes((path / "fog.npy").read_bytes()[:-1])
    (path / "empty.npy").write_bytes(b"")
    np.savez(path / "zip.npz", np.zeros(5))
    (path / "zip.npz").rename(path / "zip.npy")
    for name in ("evil", "worse", "cut", "empty", "zip"):
        with pytest.raises(DataError, match=rf"{name}\.npy cannot be read as a plain array .*unpack CIFAR-10-C\.tar"):
            Cifar10C(path=str(path), corruption=name, severity=1).load()
    assert not (tmp_path / "made").exists()


def test_what_is_missing_is_named(cifar, tmp_path):
    path = cifar()
    with pytest.raises(DataError, match=r"snow\.npy: expected an array, found no such file \(there: fog\.npy, labels\.npy\)"):
        Cifar10C(path=path, corruption="snow", severity=1).load()
    with pytest.raises(DataError, match="none: expected a directory"):
        Cifar10C(path=str(tmp_path / "none"), corruption="snow", severity=1).load()
    for fields in ({"corruption": "../fog", "severity": 1}, {"corruption": "fog", "severity": 6}, {"corruption": "fog", "severity": 0}):
        with pytest.raises(SpecError):
            Cifar10C(path=path, **fields)


def jpeg(seed, side):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(stream, "JPEG", quality=85)
    return stream.getvalue()


KEYS = ["n01440764", "n01443537", "n02124075"]


def folders(top, side, kinds=("fog", "frost"), numbers=(5, 3, 40)):
    for at, kind in enumerate(kinds):
        for severity in (1, 5):
            for key, number in zip(KEYS, numbers, strict=True):
                file = top / kind / str(severity) / key / f"ILSVRC2012_val_{number:08d}.JPEG"
                file.parent.mkdir(parents=True)
                file.write_bytes(jpeg(100 * at + 10 * severity + number, side))
    return str(top)


@pytest.mark.parametrize(("source", "side", "folder"), [(TinyImageNetC, 64, "Tiny-ImageNet-C"), (ImageNetC, 224, "ImageNet-C")])
def test_folders_of_corrupted_images(source, side, folder, tmp_path):
    path = folders(tmp_path / folder, side)
    data = source(path=path, corruption="frost", severity=5).load()
    assert (data.shape, data.classes, data.y.tolist(), data.ids.tolist()) == ((3, side, side), tuple(KEYS), [0, 1, 2], [5, 3, 40])
    expected = np.asarray(Image.open(io.BytesIO(jpeg(100 + 50 + 3, side)))).transpose(2, 0, 1)
    assert torch.equal(data.x([1])[0], torch.from_numpy(expected.astype(np.float32) / np.float32(255)))
    other = source(path=str(tmp_path), corruption="fog", severity=1).load()
    assert np.array_equal(other.ids, data.ids)
    assert other.digest != data.digest
    assert "3 classes, published are" in data.note
    (tmp_path / "order.txt").write_text("\n".join(reversed(KEYS)))
    assert source(path=path, corruption="fog", severity=1, classes=str(tmp_path / "order.txt")).load().y.tolist() == [2, 1, 0]


def test_cells_of_imagenet_c_pair_with_imagenet(tmp_path):
    data = ImageNetC(path=folders(tmp_path / "c", 64), corruption="fog", severity=1).load()
    for key, number in zip(KEYS, (5, 3, 40), strict=True):
        file = tmp_path / "i" / "val" / key / f"ILSVRC2012_val_{number:08d}.JPEG"
        file.parent.mkdir(parents=True)
        file.write_bytes(jpeg(number, 64))
    clean = ImageNet(path=str(tmp_path / "i"), resize=None, crop=None).load()
    assert (clean.ids.tolist(), clean.y.tolist()) == (data.ids.tolist(), data.y.tolist())


def test_the_faulty_frost_is_named(tmp_path):
    top = tmp_path / "Tiny-ImageNet-C"
    folders(top, 64)
    for k in range(1000 - len(KEYS)):
        (top / "frost" / "1" / f"n1{k:07d}").mkdir()
    with pytest.raises(
        DataError, match=r"frost/1: expected 200 class directories, found 1000; take the corrected .*8206060.*2536630, has a faulty `frost`"
    ):
        TinyImageNetC(path=str(top), corruption="frost", severity=1).load()
    assert len(TinyImageNetC(path=str(top), corruption="fog", severity=1).load()) == 3


def test_folders_that_are_missing(tmp_path):
    path = folders(tmp_path / "Tiny-ImageNet-C", 64)
    with pytest.raises(DataError, match="fog: expected the directory 3, found 1, 5"):
        TinyImageNetC(path=path, corruption="fog", severity=3).load()
    with pytest.raises(DataError, match="expected snow in it or in Tiny-ImageNet-C, found fog, frost"):
        TinyImageNetC(path=path, corruption="snow", severity=1).load()
    (tmp_path / "Tiny-ImageNet-C" / "dust" / "1").mkdir(parents=True)
    with pytest.raises(DataError, match="1: expected one directory per class, found none"):
        TinyImageNetC(path=path, corruption="dust", severity=1).load()
