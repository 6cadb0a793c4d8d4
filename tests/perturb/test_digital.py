import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image

from brinell.perturb.digital import Contrast, JpegCompression, Pixelate, Saturate

CONTRAST = {
    "cifar": (0.75, 0.5, 0.4, 0.3, 0.15),
    "tiny_imagenet": (0.4, 0.3, 0.2, 0.1, 0.05),
    "imagenet": (0.4, 0.3, 0.2, 0.1, 0.05),
}
JPEG = {"cifar": (80, 65, 58, 50, 40), "tiny_imagenet": (65, 58, 50, 40, 25), "imagenet": (25, 18, 15, 10, 7)}
SIDE = {"cifar": 32, "tiny_imagenet": 64, "imagenet": 224}


@pytest.mark.parametrize("preset", CONTRAST)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_contrast_equals_the_published_formula(ask, photos, digits, preset, severity):
    c, side = CONTRAST[preset][severity - 1], SIDE[preset]
    for x in (photos(side, side, n=2), photos(side, side + 9, n=1), digits(side // 8, n=2)):
        image = (x.double() * 255).round().numpy() / 255
        means = image.mean((2, 3), keepdims=True)
        twin = np.uint8(np.clip((image - means) * c + means, 0, 1) * 255)
        got = (ask(Contrast(severity=severity), x) * 255).round().numpy()
        assert np.abs(got - twin).max() <= 1
        assert x.shape[1] == 1 or (got == twin).mean() > 0.99


def test_contrast_of_one_half_halves_every_deviation(ask, photos):
    x = photos(32, 32).double()
    z = ask(Contrast(severity=2, preset="cifar", quantize=False), x)
    mean = x.mean((2, 3), keepdim=True)
    assert torch.allclose(z - mean, (x - mean) / 2, atol=1e-12)


@pytest.mark.parametrize("level", range(0, 256, 15))
def test_a_flat_image_stays_as_it_is(ask, level):
    x = torch.full((2, 3, 33, 40), level / 255)
    x[1] = torch.rand(3, 1, 1).mul(255).round().div(255)  # every channel its own level
    for severity in (1, 5):
        assert torch.equal(ask(Contrast(severity=severity), x), x)
    assert float(ask(JpegCompression(severity=5), x).std((2, 3)).max()) == 0


@pytest.mark.parametrize("preset", JPEG)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_jpeg_compression_is_pillow_at_the_published_quality(ask, photos, preset, severity):
    side = SIDE[preset]
    x = photos(side, side, n=2)
    z = (ask(JpegCompression(severity=severity), x) * 255).round().numpy()
    for got, image in zip(z, (x * 255).round().byte().numpy(), strict=True):
        file = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=JPEG[preset][severity - 1])
        assert np.array_equal(got, np.asarray(Image.open(file)).transpose(2, 0, 1))
    assert torch.equal(ask(JpegCompression(severity=severity, quantize=False), x), ask(JpegCompression(severity=severity), x))


PIXELATE = {"cifar": (30, 28, 27, 24, 20), "tiny_imagenet": (57, 51, 44, 38, 32), "imagenet": (134, 112, 89, 67, 56)}


@pytest.mark.parametrize("preset", PIXELATE)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_pixelate_is_the_box_filter_of_pillow(ask, photos, preset, severity):
    side, small = SIDE[preset], PIXELATE[preset][severity - 1]
    (share,) = Pixelate.ladder[preset][severity - 1]
    for x, size in ((photos(side, side, n=2), (small, small)), (photos(side, side + 21, n=1), (int((side + 21) * share), small))):
        z = (ask(Pixelate(severity=severity), x) * 255).round().numpy()
        for got, image in zip(z, (x * 255).round().byte().numpy(), strict=True):
            picture = Image.fromarray(image.transpose(1, 2, 0))
            back = picture.resize(size, Image.Resampling.BOX).resize(picture.size, Image.Resampling.BOX)
            assert np.array_equal(got, np.asarray(back).transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(8, 8), (29, 29), (96, 96), (9, 31), (33, 50), (100, 17)])
def test_pixelate_equals_pillow_at_other_sizes(ask, photos, size):
    x = photos(*size, n=2)
    for preset in PIXELATE:
        for severity in (1, 3, 5):
            (share,) = Pixelate.ladder[preset][severity - 1]
            z = (ask(Pixelate(severity=severity, preset=preset), x) * 255).round().numpy()
            for got, image in zip(z, (x * 255).round().byte().numpy(), strict=True):
                picture = Image.fromarray(image.transpose(1, 2, 0))
                small = picture.resize((int(size[1] * share), int(size[0] * share)), Image.Resampling.BOX)
                twin = np.asarray(small.resize(picture.size, Image.Resampling.BOX)).transpose(2, 0, 1)
                assert np.abs(got - twin).max() <= (0 if size[0] == size[1] else 1)  # which axis is rounded first may differ


def test_pixelate_without_rounding_takes_exact_means(ask):
    x = torch.rand(1, 1, 64, 64, dtype=torch.float64)
    z = ask(Pixelate(severity=5, quantize=False), x)  # 32 pixels: means of 2x2
    means = x.reshape(1, 1, 32, 2, 32, 2).mean((3, 5))
    assert torch.allclose(z[..., ::2, ::2], means, atol=1e-12)
    assert torch.equal(z[..., ::2, ::2], z[..., 1::2, 1::2])


SATURATE = {
    "cifar": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    "tiny_imagenet": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
    "imagenet": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
}


@pytest.mark.parametrize("preset", SATURATE)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_saturate_equals_the_round_trip_through_hsv(ask, photos, preset, severity):
    times, more = SATURATE[preset][severity - 1]
    x = photos(24, 40, n=2)
    x[0, :, :4], x[0, :, 4:6] = 0, 0.5  # black, grey, and pure colours
    x[1, 0, :4], x[1, 1:, :4] = 1, 0
    z = (ask(Saturate(severity=severity, preset=preset), x) * 255).round().numpy()
    for got, image in zip(z, (x * 255).round().numpy(), strict=True):
        for row, column in np.ndindex(image.shape[1:]):
            h, s, v = colorsys.rgb_to_hsv(*(image[:, row, column] / 255))
            rgb = np.array(colorsys.hsv_to_rgb(h, min(max(s * times + more, 0), 1), v))
            assert np.abs(got[:, row, column] - np.floor(np.clip(rgb, 0, 1) * 255)).max() <= 1


def test_saturate_agrees_on_whole_photographs(ask, photos):
    for preset, side in SIDE.items():
        x = photos(side, side, n=2)
        level = (x.double() * 255).round().numpy() / 255
        value, least = level.max(1, keepdims=True), level.min(1, keepdims=True)
        old = (value - least) / np.maximum(value, 1e-9)
        for severity, (times, more) in enumerate(SATURATE[preset], 1):
            new = np.clip(old * times + more, 0, 1)
            twin = value - (value - level) * new / np.maximum(old, 1e-9)
            red = np.concatenate((value, value * (1 - new), value * (1 - new)), 1)
            twin = np.floor(np.where(old > 0, twin, red) * 255 + 1e-6)
            assert np.abs((ask(Saturate(severity=severity), x) * 255).round().numpy() - twin).max() <= 1


def test_saturate_leaves_images_without_colour(ask, digits):
    x = digits(4)
    for severity in range(1, 6):
        assert torch.equal(ask(Saturate(severity=severity), x), x)
        four = x.expand(-1, 4, -1, -1).clone()
        assert torch.equal(ask(Saturate(severity=severity), four), four)
    z = ask(Saturate(severity=5, preset="cifar", quantize=False), torch.full((1, 3, 4, 4), 0.5))
    assert z[0, :, 0, 0].tolist() == pytest.approx([0.5, 0.4, 0.4])  # hue 0 is red
