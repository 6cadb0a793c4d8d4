"""The tensor codec against Pillow (libjpeg-turbo): every bit of every pixel."""

import io

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from brinell.perturb import jpeg
from brinell.perturb.jpeg import recompress


@pytest.fixture(autouse=True)
def tensor_code(monkeypatch):
    """Large images too go through the tensor code, not through Pillow itself."""
    monkeypatch.setattr(jpeg, "_PILLOW", 1 << 62)


def pillow(image: np.ndarray, quality: int) -> np.ndarray:
    """(c, h, w) uint8, 1 or 3 channels, written to and read from a JPEG file in memory."""
    file = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "JPEG", quality=quality)
    back = np.asarray(Image.open(file))
    return back[None] if back.ndim == 2 else back.transpose(2, 0, 1)


def ours(images: np.ndarray, quality: int) -> np.ndarray:
    levels = recompress(torch.from_numpy(images).float() / 255, quality) * 255
    assert float((levels - levels.round()).abs().max()) < 1e-4
    return levels.round().byte().numpy()


def check(images: np.ndarray, quality: int) -> None:
    for got, image in zip(ours(images, quality), images, strict=True):
        assert np.array_equal(got, pillow(image, quality))


@pytest.mark.parametrize("quality", [*range(7, 100, 6), 1, 3, 25, 40, 50, 58, 65, 80, 100])
@pytest.mark.parametrize("size", [(32, 32), (8, 8), (33, 47), (9, 100)])
def test_photographs(photos, size, quality):
    images = (photos(*size, n=4) * 255).round().byte().numpy()
    check(images, quality)
    check(images[:, :1], quality)


@pytest.mark.slow
@pytest.mark.parametrize("quality", range(1, 101))
def test_photographs_at_every_quality(photos, quality):
    for size in ((224, 224), (64, 61), (17, 300), (96, 512)):
        check((photos(*size, n=2) * 255).round().byte().numpy(), quality)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(1, 100), st.integers(0, 2**32 - 1),
    st.sampled_from(["noise", "extremes", "dark", "stripes"]),
)  # fmt: skip
def test_any_image_of_any_size(height, width, channels, quality, seed, kind):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, channels, height, width), dtype=np.uint8)
    if kind == "extremes":
        images = (images >> 7) * np.uint8(255)
    elif kind == "dark":
        images //= 16
    elif kind == "stripes":
        images[:] = images[:, :, :1]
    check(images, quality)


@pytest.mark.parametrize("level", range(0, 256, 5))
def test_a_flat_grey_survives_at_high_quality_as_in_pillow(level):
    flat = np.full((1, 3, 16, 16), level, np.uint8)
    check(flat, 95)
    assert np.abs(ours(flat, 95).astype(int) - level).max() <= 1


def test_grey_is_what_three_equal_channels_would_give(digits):
    x = digits(4)
    assert torch.equal(recompress(x.expand(-1, 3, -1, -1), 30), recompress(x, 30).expand(-1, 3, -1, -1))


def test_other_numbers_of_channels_are_coded_one_by_one(photos):
    x = photos(24, 30, n=1)
    five = torch.cat((x, x[:, :2]), 1)
    for at in range(5):
        assert torch.equal(recompress(five, 40)[:, at : at + 1], recompress(five[:, at : at + 1], 40))


def test_does_not_depend_on_the_batch_size_or_the_float_type(photos):
    x = photos(64, 64, n=40)  # more than one chunk
    whole = recompress(x, 50)
    assert torch.equal(whole[25:26], recompress(x[25:26], 50))
    assert torch.equal(recompress(x.double(), 50).float(), whole)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pillow_serves_large_images_with_the_same_bits(photos, monkeypatch, channels):
    x = photos(64, 90, n=3)
    x = torch.cat((x, x.flip(2)), 1)[:, :channels]
    by_tensors = recompress(x, 40)
    monkeypatch.setattr(jpeg, "_PILLOW", 64 * 64)
    monkeypatch.setattr(jpeg, "_coded", None)
    assert torch.equal(recompress(x, 40), by_tensors)
    assert torch.equal(recompress(x.double(), 40).float(), by_tensors)
