"""Images and folders from strangers: each is refused with its place and reason, or read as the table of what is refused says."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from brinell.core.dataset import load_dataset
from brinell.core.errors import DataError
from brinell.data.folder import Folder
from brinell.data.images import decode

LEVELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def encoded(picture, form="PNG", **options) -> bytes:
    stream = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(stream, form, **options)
    return stream.getvalue()


def animated(form) -> bytes:
    frames = [Image.fromarray(np.roll(LEVELS, k, 0)) for k in range(3)]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:])


GOOD = encoded(LEVELS)
REFUSED = {
    "no bytes": (b"", "a.png", "0 bytes; unknown format"),
    "text": (b"hello", "a.png", "unknown format"),
    "half a JPEG": (encoded(LEVELS, "JPEG")[:200], "a.jpg", "not a readable image"),
    "half a PNG": (GOOD[: len(GOOD) // 2], "a.png", "not a readable image"),
    "a PNG with wrong checksums": (GOOD[:45] + b"\0\0\0\0" + GOOD[49:], "a.png", "not a readable image"),
    "a header alone": (b"GIF89a", "a.gif", "unknown format"),
    "an SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.png", "unknown format"),
    "an EPS, which would start Ghostscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "a.png", "unknown format"),
    "an animated GIF": (animated("GIF"), "a.gif", "holds 3 frames"),
    "an animated PNG": (animated("PNG"), "a.png", "holds 3 frames"),
    "an animated WebP": (animated("WEBP"), "a.webp", "holds 3 frames"),
    "a decompression bomb": (encoded(Image.new("1", (20_000, 20_000))), "a.png", "too large to unpack"),
    "a long thin bomb": (encoded(Image.new("1", (1_000_000, 400))), "a.png", "too large to unpack"),
    "floating-point pixels": (encoded(np.ones((8, 8), np.float32), "TIFF"), "a.tif", "have no known range"),
    "32-bit pixels": (encoded(np.full((8, 8), 10**6, np.int32), "TIFF"), "a.tif", "exceed 16 bits"),
    "another size": (encoded(LEVELS[:7]), "a.png", "give resize= .* and crop="),
    "a turned image of another shape": (encoded(LEVELS[:4], "JPEG", exif=b"Exif\0\0" + b"\xff" * 20), "a.jpg", "8 wide and 4 high"),
}
READ = {
    "palette": (encoded(Image.fromarray(LEVELS).convert("P")), "a.png"),
    "palette with transparency": (encoded(Image.fromarray(LEVELS).convert("P"), transparency=0), "a.png"),
    "grey in a colour set": (encoded(LEVELS[:, :, 0]), "a.png"),
    "grey and alpha": (encoded(Image.new("LA", (8, 8), (100, 0))), "a.png"),
    "colour and alpha": (encoded(Image.new("RGBA", (8, 8), (9, 8, 7, 0))), "a.png"),
    "CMYK": (encoded(Image.new("CMYK", (8, 8), (0, 90, 0, 9)), "JPEG"), "a.jpg"),
    "YCbCr": (encoded(Image.new("YCbCr", (8, 8), (90, 8, 7)), "JPEG"), "a.jpg"),
    "one bit": (encoded(Image.new("1", (8, 8), 1)), "a.png"),
    "16-bit grey": (encoded(np.full((8, 8), 40_000, np.uint16)), "a.png"),
    "damaged EXIF": (encoded(LEVELS, "JPEG", exif=b"Exif\0\0" + b"\xff" * 20), "a.jpg"),
    "another ending than its format": (encoded(LEVELS, "JPEG"), "a.png"),
    "something after its end": (GOOD + b"<script>alert(1)</script>", "a.png"),
}


@pytest.fixture
def folder(tmp_path):
    """A folder of two classes with a good image each; the second image of the first class is given."""

    def made(content=None, name="b.png"):
        for label in ("x", "y"):
            (tmp_path / "set" / label).mkdir(parents=True)
            (tmp_path / "set" / label / "0.png").write_bytes(GOOD)
        if content is not None:
            (tmp_path / "set" / "x" / name).write_bytes(content)
        return tmp_path / "set"

    return made


@pytest.mark.parametrize("case", REFUSED)
def test_an_image_is_refused_by_place_and_reason(case, folder):
    content, name, said = REFUSED[case]
    data = Folder(path=str(folder(content, name))).load()
    with pytest.raises(DataError, match=said) as caught:
        data.x()
    assert f"x/{name}, row 1" in str(caught.value) and len(str(caught.value)) < 500
    assert data.x([0, 2]).shape == (2, 3, 8, 8)  # the others are read


@pytest.mark.parametrize("case", READ)
def test_an_image_of_another_kind_becomes_what_is_documented(case, folder):
    data = Folder(path=str(folder(*READ[case]))).load()
    x = data.x()
    assert x.shape == (3, 3, 8, 8) and float(x.min()) >= 0 and float(x.max()) <= 1


def test_alpha_is_dropped_and_16_bits_are_kept_in_a_grey_set():
    assert decode(encoded(Image.new("LA", (2, 2), (100, 0))), "a")[0, 0].tolist() == [100]
    assert decode(encoded(np.full((2, 2), 40_000, np.uint16)), "a")[0, 0, 0] == np.float32(40_000) / np.float32(65_535)


def link(target):
    return lambda place: (place / "b.png").symlink_to(target)


def mkdir(place):
    (place / "b.png").mkdir()


def loop(place):
    (place / "b").symlink_to(place)


def pipe(place):
    os.mkfifo(place / "b.png")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (link("/nonexistent"), "cannot be read"), (link("/dev/zero"), "no regular file"), (link("b.png"), "cannot be read"),
        (pipe, "no regular file"),
    ],
    ids=["dangling link", "link to a device", "link to itself", "pipe"],
)  # fmt: skip
def test_what_is_no_file_is_never_waited_for(spoil, said, folder):
    root = folder()
    spoil(root / "x")
    with pytest.raises(DataError, match=said):
        Folder(path=str(root)).load()
    (root / "x" / "0.png").unlink()  # now it is the first image, which is opened before the others
    with pytest.raises(DataError):
        Folder(path=str(root)).load()


@pytest.mark.parametrize("spoil", [mkdir, loop], ids=["directory named like an image", "link to the class itself"])
def test_directories_and_loops_are_no_images(spoil, folder):
    root = folder()
    spoil(root / "x")
    assert len(Folder(path=str(root)).load()) == 2


@pytest.mark.parametrize(
    "name", [b"b\n\x1b[2J.png", b"<script>alert(1).png", b"\xff\xfe.png", b"';drop table.png", b"$(touch was_run).png"]
)
def test_hostile_file_names_are_names(name, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = folder()
    with open(os.path.join(os.fsencode(root / "x"), name), "wb") as file:  # noqa: PTH118, PTH123 - bytes that are no text
        file.write(GOOD)
    assert Folder(path=str(root)).load().x().shape == (3, 3, 8, 8)
    assert not (tmp_path / "was_run").exists()


def test_class_names_that_are_no_text_are_spelled_out(folder):
    root = folder()
    place = os.path.join(os.fsencode(root), b"z\xff")  # noqa: PTH118 - bytes that are no text
    os.mkdir(place)  # noqa: PTH102
    with open(os.path.join(place, b"0.png"), "wb") as file:  # noqa: PTH118, PTH123
        file.write(GOOD)
    data = Folder(path=str(root)).load()
    assert data.classes == ("x", "y", "z\\udcff") and data.x().shape == (3, 3, 8, 8)
    assert data.digest


@pytest.mark.parametrize("lines", ["../x\ny", "/etc\nx", "x\0\ny", "x\nx\ny", "x", "\udcff\nx\ny"])
def test_a_class_file_never_leads_elsewhere(lines, folder, tmp_path):
    (tmp_path / "classes.txt").write_bytes(lines.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match="class file"):
        Folder(path=str(folder()), classes=str(tmp_path / "classes.txt")).load()


@pytest.mark.parametrize("source", ["folder", "parquet", "npz", "cifar10", "mnist", "tiny_imagenet", "imagenet"])
@pytest.mark.parametrize("path", ["", "a\\x00b", "a" * 5000, "~nobody-of-that-name/x", "/dev/null", "\\udcff", "/proc/self/mem"])
def test_a_path_that_holds_no_data_is_refused_at_once(source, path):
    with pytest.raises(DataError):
        load_dataset(f"{source}('{path}')")


def test_a_pattern_that_would_take_for_ever_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds \*\* more than once"):
        load_dataset(f"parquet('{tmp_path}/**/**/*')")
