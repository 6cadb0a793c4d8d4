import io

import numpy as np
import pytest
import torch
from PIL import Image

from brinell.perturb.digital import Contrast, JpegCompression

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
