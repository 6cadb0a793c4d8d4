import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from brinell.core.component import parse
from brinell.core.errors import DataError
from brinell.data.imagenet import ImageNet, TinyImageNet

WNIDS = ["n03444034", "n01443537", "n02124075"]  # as in the published list, not sorted
ORDER = sorted(WNIDS)


def jpeg(picture, **options):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", **options)
    return stream.getvalue()


def picture(seed, height=64, width=64, colour=True):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)[: 3 if colour else 2], dtype=np.uint8)


def write(top, files):
    for name, body in files.items():
        file = Path(top, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body.encode() if isinstance(body, str) else body)
    return str(top)


VALID = [(f"val_{k}.JPEG", WNIDS[owner], picture(k, colour=k != 2)) for k, owner in enumerate((0, 2, 1, 0, 1))]
TINY = {
    "wnids.txt": "\n".join(WNIDS) + "\n",
    "words.txt": "n01443537\tgoldfish, Carassius auratus\nn02124075\tEgyptian cat\nn99999999\tunused\nn03444034\tgo-kart\n",
    "val/val_annotations.txt": "".join(f"{name}\t{owner}\t0\t32\t44\t62\n" for name, owner, _ in VALID),
    **{f"val/images/{name}": jpeg(array) for name, _, array in VALID},
    **{f"train/{key}/images/{key}_{k}.JPEG": jpeg(picture(9 * at + k)) for at, key in enumerate(WNIDS) for k in range(2)},
    **{f"train/{key}/{key}_boxes.txt": f"{key}_0.JPEG\t0\t0\t62\t63\n" for key in WNIDS},
    "test/images/test_0.JPEG": jpeg(picture(99)),
}


@pytest.fixture
def tiny(tmp_path):
    return write(tmp_path / "tiny-imagenet-200", TINY)


def decoded(body):
    array = np.asarray(Image.open(io.BytesIO(body)))
    array = np.repeat(array[:, :, None], 3, 2) if array.ndim == 2 else array
    return torch.from_numpy(array.transpose(2, 0, 1).astype(np.float32) / np.float32(255))


def test_tiny_imagenet_validation(tiny):
    data = TinyImageNet(path=tiny).load()
    assert (data.shape, data.classes) == ((3, 64, 64), ("goldfish", "Egyptian cat", "go-kart"))
    assert data.ids.tolist() == [0, 1, 2, 3, 4]
    assert [ORDER[label] for label in data.y] == [owner for _, owner, _ in VALID]
    assert torch.equal(data.x(), torch.stack([decoded(TINY[f"val/images/{name}"]) for name, *_ in VALID]))  # one of them is grey
    assert data.note == "3 classes, published are 200"
    assert torch.equal(TinyImageNet(path=str(Path(tiny).parent)).load().x([3]), data.x([3]))
    assert torch.equal(pickle.loads(pickle.dumps(data)).x([4, 2]), data.x([4, 2]))
    assert parse(data.source).load().digest == data.digest


def test_tiny_imagenet_training(tiny):
    data = TinyImageNet(path=tiny, split="train").load()
    assert (data.y.tolist(), data.ids.tolist()) == ([0, 0, 1, 1, 2, 2], [0, 1, 2, 3, 4, 5])
    assert torch.equal(data.x([5])[0], decoded(TINY["train/n03444034/images/n03444034_1.JPEG"]))


def test_tiny_imagenet_in_another_order_of_classes(tiny):
    for split in ("train", "valid"):
        data = TinyImageNet(path=tiny, split=split, classes=f"{tiny}/wnids.txt").load()
        plain = TinyImageNet(path=tiny, split=split).load()
        assert data.classes == ("go-kart", "goldfish", "Egyptian cat")
        assert [WNIDS[label] for label in data.y] == [ORDER[label] for label in plain.y]


def test_tiny_imagenet_without_words(tiny):
    Path(tiny, "words.txt").unlink()
    data = TinyImageNet(path=tiny).load()
    assert data.classes == tuple(ORDER)
    assert "words.txt is missing: classes are called by their WordNet ids" in data.note


@pytest.mark.parametrize(("files", "message"), [
    ({"val/val_annotations.txt": "val_9.JPEG\tn01443537\n"}, r"val_annotations\.txt, line 1: expected an image of .*found 'val_9\.JPEG'"),
    ({"val/val_annotations.txt": "../../words.txt\tn01443537\n"}, r"line 1: expected an image of .*words\.txt"),
    ({"val/val_annotations.txt": "\nval_0.JPEG\tn01443538\n"}, r"line 1: expected one of the 3 classes, found 'n01443538'"),
    ({"val/val_annotations.txt": "val_0.JPEG"}, "expected one of the 3 classes, found ''"),
    ({"val/val_annotations.txt": "val_0.JPEG\tn01443537\nval_0.JPEG\tn01443537"},
     r"line 2: expected every image once, found 'val_0\.JPEG' again"),
    ({"val/val_annotations.txt": b"\xff\xfe\x00"}, r"val_annotations\.txt cannot be read"),
    ({"wnids.txt": ""}, r"wnids\.txt: expected one class per line, found an empty file"),
    ({"wnids.txt": "n01443537\nn01443537"}, r"wnids\.txt, line 2: expected every class once"),
])  # fmt: skip
def test_tiny_imagenet_files_that_are_not_as_published(files, message, tiny):
    write(tiny, files)
    with pytest.raises(DataError, match=message):
        TinyImageNet(path=tiny).load()


def test_tiny_imagenet_parts_that_are_missing(tiny, tmp_path):
    with pytest.raises(DataError, match=r"expected wnids\.txt in it or in tiny-imagenet-200, found images, val_annotations"):
        TinyImageNet(path=f"{tiny}/val").load()
    write(tmp_path, {"c.txt": "n01443537\nn00000000"})
    with pytest.raises(DataError, match=r"c\.txt: expected classes of .*wnids\.txt, found 'n00000000'"):
        TinyImageNet(path=tiny, classes=f"{tmp_path}/c.txt").load()
    Path(tiny, "val/images/val_4.JPEG").unlink()
    with pytest.raises(DataError, match=r"line 5: expected an image of"):
        TinyImageNet(path=tiny).load()
    Path(tiny, "val/val_annotations.txt").unlink()
    with pytest.raises(DataError, match=r"val_annotations\.txt cannot be read"):
        TinyImageNet(path=tiny).load()
    Path(tiny, "wnids.txt").write_text("n01443537\nn11111111")
    with pytest.raises(DataError, match=r"n11111111/images: expected images, found none; unpack tiny-imagenet-200\.zip"):
        TinyImageNet(path=tiny, split="train").load()


def test_images_without_annotation_are_counted(tiny):
    write(tiny, {"val/images/val_7.JPEG": jpeg(picture(1)), "val/images/.hidden.JPEG": b"", "val/images/notes.txt": b""})
    data = TinyImageNet(path=tiny).load()
    assert (len(data), data.note) == (5, "3 classes, published are 200; 1 images without annotation left out")


KEYS = ["n01440764", "n01443537"]
SIDES = [(300, 400), (257, 300), (500, 256), (256, 256)]
LARGE = {f"{KEYS[k % 2]}/ILSVRC2012_val_{293 - 7 * k:08d}.JPEG": jpeg(picture(k, *SIDES[k])) for k in range(4)}


@pytest.fixture
def large(tmp_path):
    train = {f"train/{key}/{key}_{k}.JPEG": jpeg(picture(k, 64, 80)) for key in KEYS for k in (2, 10)}
    return write(tmp_path / "imagenet", {**{f"val/{name}": body for name, body in LARGE.items()}, **train})


def test_imagenet_validation(large):
    data = ImageNet(path=large).load()
    assert (data.shape, data.classes, data.ids.tolist(), data.y.tolist()) == (
        (3, 224, 224),
        tuple(KEYS),
        [279, 293, 272, 286],
        [0, 0, 1, 1],
    )
    plain = Image.open(io.BytesIO(LARGE[f"{KEYS[0]}/ILSVRC2012_val_00000293.JPEG"]))  # 400 wide, 300 high: made 341 x 256
    expected = np.asarray(plain.resize((341, 256), Image.Resampling.BILINEAR).crop((58, 16, 58 + 224, 16 + 224)))
    assert torch.equal(data.x([1])[0], torch.from_numpy(expected.transpose(2, 0, 1).astype(np.float32) / np.float32(255)))
    assert data.x().shape == (4, 3, 224, 224)
    assert data.note == "2 classes, published are 1000"


def test_imagenet_training_ids_are_positions(large):
    data = ImageNet(path=large, split="train", resize=8, crop=8).load()
    assert (data.ids.tolist(), data.y.tolist(), data.shape) == ([0, 1, 2, 3], [0, 0, 1, 1], (3, 8, 8))
    assert data.read.blobs.names[0] == "n01440764/n01440764_10.JPEG"


def test_a_class_file_gives_order_names_and_classes_without_images(large, tmp_path):
    write(tmp_path, {"map.txt": "n01443537 goldfish, Carassius auratus\nn00000001 nothing\nn01440764 tench, Tinca tinca\n"})
    data = ImageNet(path=large, classes=f"{tmp_path}/map.txt").load()
    assert (data.classes, data.y.tolist()) == (("goldfish", "nothing", "tench"), [2, 2, 0, 0])
    write(tmp_path, {"map.txt": "n01443537\n"})
    with pytest.raises(DataError, match=r"expected only the 1 classes of .*map\.txt, found 'n01440764'"):
        ImageNet(path=large, classes=f"{tmp_path}/map.txt").load()


def flat(top, labels, names=None):
    write(top, {f"val/{Path(name).name}": body for name, body in LARGE.items()})
    return ImageNet(path=write(top, {"labels.txt": labels}), labels=f"{top}/labels.txt")


NAMES = sorted(Path(name).name for name in LARGE)  # 272, 279, 286, 293


@pytest.mark.parametrize("labels", [
    "\n".join([KEYS[1], KEYS[0], KEYS[1], KEYS[0]]),
    "\n".join(f"{name} {key}" for name, key in zip(reversed(NAMES), [KEYS[0], KEYS[1]] * 2, strict=True)),
])  # fmt: skip
def test_a_flat_validation_directory_equals_the_sorted_one(labels, tmp_path, large):
    data, ordered = flat(tmp_path / "flat", labels).load(), ImageNet(path=large).load()
    assert data.ids.tolist() == [272, 279, 286, 293]
    at = np.argsort(ordered.ids)
    assert data.y.tolist() == ordered.y[at].tolist()
    assert torch.equal(data.x(), ordered.x(at))


@pytest.mark.parametrize(("labels", "message"), [
    ("490\n361\n171\n822", r"labels\.txt, line 1: expected a WordNet id such as n01440764, found '490'"),
    ("\n".join(KEYS), "expected 4 lines, one for each image of .*, found 2"),
    ("\n".join(f"{name} {KEYS[0]}" for name in [*NAMES[:3], "x.JPEG"]),
     r"expected every image of .* once, found '(x|ILSVRC2012_val_00000293).JPEG'"),
    ("\n".join(f"{name} {KEYS[0]}" for name in [*NAMES[:3], NAMES[0]]), "found 'ILSVRC2012_val_00000293.JPEG' only on one side"),
    ("\n".join(["a b n01440764"] * 4), "expected a WordNet id"),
])  # fmt: skip
def test_labels_that_do_not_fit(labels, message, tmp_path):
    with pytest.raises(DataError, match=message):
        flat(tmp_path, labels).load()


def test_imagenet_parts_that_are_missing(tmp_path, large):
    with pytest.raises(DataError, match="expected val in it or in ILSVRC/Data/CLS-LOC, found nothing; give the directory that holds"):
        (tmp_path / "empty").mkdir()
        ImageNet(path=str(tmp_path / "empty")).load()
    write(tmp_path / "flat", {"val/a_1.JPEG": jpeg(picture(0))})
    with pytest.raises(DataError, match=r"val: expected one directory per class, found none; .*flat val/ needs labels=FILE"):
        ImageNet(path=str(tmp_path / "flat")).load()
    Path(large, "val", "n09999999").mkdir()
    with pytest.raises(DataError, match="n09999999: expected images, found none"):
        ImageNet(path=large).load()


def test_file_names_without_distinct_numbers(tmp_path):
    bodies = {
        f"val/{key}/{name}": jpeg(picture(at))
        for at, (key, name) in enumerate((key, name) for key in KEYS for name in ("a_1.JPEG", "b.JPEG"))
    }
    data = ImageNet(path=write(tmp_path, bodies), resize=None, crop=None).load()
    assert data.ids.tolist() == [0, 1, 2, 3]
    assert "ids are positions" in data.note


def test_a_damaged_image_is_named_when_it_is_read(large):
    Path(large, "val", KEYS[1], "ILSVRC2012_val_00000286.JPEG").write_bytes(b"no image")
    data = ImageNet(path=large).load()
    with pytest.raises(DataError, match=r"ILSVRC2012_val_00000286\.JPEG: not a readable image"):
        data.x()
    Path(large, "val", KEYS[1], "ILSVRC2012_val_00000286.JPEG").unlink()
    with pytest.raises(DataError, match=r"ILSVRC2012_val_00000286\.JPEG cannot be read: No such file"):
        data.x([3])
