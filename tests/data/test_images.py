import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from brinell.core.errors import DataError
from brinell.data import images
from brinell.data.images import Decoder, decode

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)


def decoder(mode="rgb", strict=False, shape=(3, 3, 4)):
    return Decoder(shape, mode, strict, None, None, "bilinear")


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_come_back_exactly(form, encode):
    options = {"lossless": True} if form == "WEBP" else {}
    assert np.array_equal(decode(encode(COLOUR, form, **options), "p"), COLOUR)
    if form != "WEBP":  # which has no grey mode
        assert np.array_equal(decode(encode(GREY, form), "p"), GREY[..., None])


def test_jpeg_equals_pillow(encode):
    data = encode(COLOUR, "JPEG")
    assert np.array_equal(decode(data, "p"), np.asarray(Image.open(io.BytesIO(data))))


def test_alpha_is_dropped_and_not_blended(encode):
    alpha = np.zeros((3, 4, 1), dtype=np.uint8)
    assert np.array_equal(decode(encode(np.concatenate((COLOUR, alpha), 2)), "p"), COLOUR)
    both = np.stack((GREY, GREY // 2), 2)
    assert np.array_equal(decode(encode(Image.fromarray(both)), "p"), GREY[..., None])


@pytest.mark.parametrize("transparency", [None, 0, bytes(range(256))])
def test_palette_images_become_rgb(transparency, encode):
    indexed = Image.fromarray(GREY).convert("P")
    palette = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    indexed.putpalette(palette.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    assert np.array_equal(decode(encode(indexed, **options), "p"), palette[np.asarray(indexed)])


def test_one_bit_is_black_and_white(encode):
    bits = GREY > 100
    assert np.array_equal(decode(encode(Image.fromarray(bits)), "p")[..., 0], bits * np.uint8(255))


def test_cmyk_becomes_rgb(encode):
    ink = np.zeros((2, 2, 4), dtype=np.uint8)
    ink[0, 0] = (255, 0, 0, 0)  # cyan
    ink[1, 1] = (0, 0, 0, 255)  # black
    found = decode(encode(Image.frombytes("CMYK", (2, 2), ink.tobytes()), "TIFF"), "p")
    assert found[0, 0].tolist() == [0, 255, 255]
    assert found[1, 1].tolist() == [0, 0, 0]
    assert found[0, 1].tolist() == [255, 255, 255]


def test_sixteen_bit_grey_is_divided_by_65535(encode):
    deep = np.array([[0, 1, 257], [65535, 32768, 12345]], dtype=np.uint16)
    for form in ("PNG", "TIFF", "PPM"):
        found = decode(encode(deep, form), "p")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found[..., 0], deep / 65535, atol=1e-7)
    x = decoder("grey", shape=(1, 2, 3))([encode(deep), encode((deep // 257).astype(np.uint8))], ["a", "b"])
    np.testing.assert_allclose(x[0, 0].numpy(), deep / 65535, atol=1e-7)
    np.testing.assert_allclose(x[1, 0].numpy(), deep // 257 / 255, atol=1e-7)
    assert np.array_equal(decode(encode(deep), "p", mode="rgb"), np.repeat(np.round(deep / 257)[..., None], 3, 2))


def test_thirty_two_bit_and_float_images_are_refused(encode):
    with pytest.raises(DataError, match=r"a\.tif, row 3: pixels from 0 to 70000 exceed 16 bits"):
        decode(encode(np.array([[0, 70000]], dtype=np.int32), "TIFF"), "a.tif, row 3")
    with pytest.raises(DataError, match="floating-point pixels"):
        decode(encode(np.zeros((2, 2), dtype=np.float32), "TIFF"), "p")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(form, encode):
    picture = np.zeros((16, 32, 3), dtype=np.uint8)
    picture[:, :16] = 255  # the left half is white; orientation 6 turns it clockwise: the upper half
    exif = Image.Exif()
    exif[0x0112] = 6
    found = decode(encode(picture, form, exif=exif), "p")
    assert found.shape == (32, 16, 3)
    assert found[:15].min() > 240
    assert found[17:].max() < 15


@pytest.mark.parametrize("form", ["GIF", "PNG", "TIFF", "WEBP"])
def test_files_of_several_frames_are_refused(form, encode):
    first, second = Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)
    with pytest.raises(DataError, match=r"x\.gif, row 1: the file holds 2 frames"):
        decode(encode(first, form, save_all=True, append_images=[second]), "x.gif, row 1")


def test_of_a_multi_picture_jpeg_the_first_is_read(encode):
    first = Image.new("RGB", (8, 8), "white")
    found = decode(encode(first, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), "black")]), "p")
    assert found.min() > 250


def test_modes(encode):
    luma = decode(encode(COLOUR), "p", mode="grey")[..., 0]
    assert np.abs(luma - COLOUR @ np.array([0.299, 0.587, 0.114])).max() <= 0.51
    assert np.array_equal(decode(encode(GREY), "p", mode="rgb"), np.repeat(GREY[..., None], 3, 2))


def test_resize_is_the_shorter_side_and_crop_the_centre(encode):
    wide = np.arange(6 * 10, dtype=np.uint8).reshape(6, 10)
    assert np.array_equal(decode(encode(wide), "p", crop=4)[..., 0], wide[1:5, 3:7])
    assert decode(encode(wide), "p", resize=3).shape == (3, 5, 1)
    assert decode(encode(wide.T.copy()), "p", resize=3).shape == (5, 3, 1)
    blocks = np.kron(wide, np.ones((2, 2), dtype=np.uint8))
    for method in ("box", "nearest"):
        assert np.array_equal(decode(encode(blocks), "p", resize=6, interpolation=method)[..., 0], wide)
    enlarged = [decode(encode(COLOUR), "p", resize=8, interpolation=name) for name in ("nearest", "bilinear", "bicubic", "lanczos", "box")]
    assert len({array.tobytes() for array in enlarged}) == 5
    with pytest.raises(DataError, match="10 wide and 6 high, smaller than crop=7; give resize=7"):
        decode(encode(wide), "p", crop=7)


def test_resized_sixteen_bit_images_stay_in_the_unit_interval(encode):
    step = np.zeros((8, 8), dtype=np.uint16)
    step[:, 4:] = 65535
    found = decode(encode(step), "p", resize=20, interpolation="lanczos")
    assert (found.min(), found.max()) == (0.0, 1.0)


@pytest.mark.parametrize(("data", "message"), [
    (b"", "not a readable image \\(0 bytes; unknown format\\); formats read: PNG"),
    (b"hello", "unknown format"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "unknown format"),
])  # fmt: skip
def test_bytes_that_are_no_image_are_refused(data, message):
    with pytest.raises(DataError, match=f"f.parquet, row 7: .*{message}"):
        decode(data, "f.parquet, row 7")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
def test_truncated_images_are_refused(form, encode):
    data = encode(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8), form)
    with pytest.raises(DataError, match="row 7: not a readable image"):
        decode(data[: len(data) // 2], "row 7")


def bomb(side):
    """A few bytes of PNG that claim side x side pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", b"")
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 100_000])
def test_decompression_bombs_are_refused_by_name(side):
    with pytest.raises(DataError, match=r"sets/x\.png, row 2: too large to unpack .*MAX_IMAGE_PIXELS"):
        decode(bomb(side), "sets/x.png, row 2")


def test_the_pixel_limit_holds_where_the_warning_is_off(monkeypatch, encode):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    monkeypatch.setattr(Image, "_decompression_bomb_check", lambda size: None)
    with pytest.raises(DataError, match="12 pixels, the limit is 8"):
        decode(encode(GREY), "p")
    with pytest.raises(DataError, match="resize=4 makes it 16 wide and 4 high"):
        decode(encode(GREY[:1]), "p", resize=4)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "TIFF"]), st.integers(0, 10**6), st.integers(0, 255), st.integers(1, 3))
def test_damaged_bytes_give_an_image_or_a_data_error(form, place, value, repeats):
    stream = io.BytesIO()
    Image.fromarray(COLOUR).save(stream, form)
    data = bytearray(stream.getvalue())
    for k in range(repeats):
        data[(place * (k + 1)) % len(data)] = value
    try:
        found = decode(bytes(data), "row 5")
    except DataError as error:
        assert "row 5" in str(error)
    else:
        assert found.ndim == 3


def test_a_grey_image_in_a_colour_set_is_repeated_and_a_colour_image_in_a_grey_set_refused(encode):
    x = decoder()([encode(COLOUR), encode(GREY)], ["a", "b"])
    assert torch.equal(x[1], torch.from_numpy(GREY).float().div(255).expand(3, 3, 4))
    assert x.is_contiguous()
    with pytest.raises(DataError, match="b: a colour image in a set whose first image is grey; use mode=rgb"):
        decoder("grey", True, (1, 3, 4))([encode(GREY), encode(COLOUR)], ["a", "b"])


def test_another_size_is_refused_with_the_remedy(encode):
    with pytest.raises(DataError, match="second: the image is 3 wide and 2 high, the first one 4 and 3; give resize="):
        decoder()([encode(COLOUR), encode(COLOUR[:2, :3])], ["first", "second"])


def test_threads_change_nothing(encode, monkeypatch):
    blobs = [encode(np.roll(COLOUR, k, 0)) for k in range(9)]
    places = [f"row {k}" for k in range(9)]
    plain = decoder()(blobs, places)
    monkeypatch.setattr(images, "THREADED_BYTES", 0)
    monkeypatch.setattr(images.os, "cpu_count", lambda: 4)
    assert torch.equal(decoder()(blobs, places), plain)
    with pytest.raises(DataError, match="row 2"):
        decoder()([*blobs[:2], b"bad", *blobs[3:8], b"bad"], places)
