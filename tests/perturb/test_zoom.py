import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from brinell.perturb.zoom import ZoomBlur, enlarged

CIFAR = ((1.06, 0.01, 7), (1.11, 0.01, 12), (1.16, 0.01, 16), (1.21, 0.01, 21), (1.26, 0.01, 26))
ZOOMS = {"cifar": CIFAR, "tiny_imagenet": CIFAR}
ZOOMS["imagenet"] = ((1.11, 0.01, 12), (1.16, 0.01, 16), (1.21, 0.02, 11), (1.26, 0.02, 13), (1.31, 0.03, 11))
SIDE = {"cifar": 32, "tiny_imagenet": 64, "imagenet": 224}


def crop_zoom(plane: np.ndarray, factor: float) -> np.ndarray:
    """(h, w): the centre enlarged by scipy, trimmed."""
    height, width = plane.shape
    tall, wide = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - tall) // 2, (width - wide) // 2
    grown = ndimage.zoom(plane[top : top + tall, left : left + wide], factor, order=1)
    top, left = (grown.shape[0] - height) // 2, (grown.shape[1] - width) // 2
    return grown[top : top + height, left : left + width]


@pytest.mark.parametrize("preset", ZOOMS)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_equals_the_mean_of_the_zoomed_images(ask, photos, preset, severity):
    stop, step, count = ZOOMS[preset][severity - 1]
    factors = np.arange(1, stop, step)
    assert len(factors) == count
    x = photos(SIDE[preset], SIDE[preset], n=2 if SIDE[preset] < 200 else 1)
    twin = np.stack([[sum((crop_zoom(p, z) for z in factors), p) / (count + 1) for p in image] for image in x.double().numpy()])
    exact = ask(ZoomBlur(severity=severity, quantize=False), x).numpy()
    assert np.abs(exact - twin).max() < 1e-5
    level = (ask(ZoomBlur(severity=severity), x) * 255).round().numpy()
    assert np.abs(level - np.floor(twin * 255)).max() <= 1


@pytest.mark.parametrize("shape", [(2, 1, 28, 40), (1, 4, 9, 8), (1, 3, 65, 33)])
def test_zooms_any_sides(ask, shape):
    x = torch.rand(shape, dtype=torch.float64)
    twin = np.stack([[sum((crop_zoom(p, z) for z in np.arange(1, 1.11, 0.01)), p) / 13 for p in image] for image in x.numpy()])
    assert np.abs(ask(ZoomBlur(severity=2, preset="cifar", quantize=False), x).numpy() - twin).max() < 1e-12


def test_large_images_are_mapped_part_by_part(ask):
    x = torch.rand(1, 1, 300, 270)
    twin = sum((crop_zoom(x[0, 0].double().numpy(), z) for z in np.arange(1, 1.31, 0.03)), x[0, 0].double().numpy()) / 12
    assert np.abs(ask(ZoomBlur(severity=5, quantize=False), x)[0, 0].numpy() - twin).max() < 1e-5


@pytest.mark.parametrize("level", range(0, 256, 15))
def test_a_flat_image_stays_as_it_is(ask, level):
    x = torch.full((1, 3, 32, 32), level / 255)
    for severity in range(1, 6):
        for preset in ZOOMS:
            assert torch.equal(ask(ZoomBlur(severity=severity, preset=preset), x), x)


@pytest.mark.parametrize(
    ("size", "factor"), [((32, 32), 1.75), ((32, 32), 2.25), ((64, 64), 1.25), ((224, 224), 4.5), ((50, 70), 3), ((33, 20), 1)]
)
def test_a_plane_is_enlarged_from_its_centre(size, factor):
    full = np.random.default_rng(1).normal(size=size)
    tall, wide = (math.ceil(side / factor) for side in size)
    top, left = (size[0] - tall) // 2, (size[1] - wide) // 2
    centre = torch.from_numpy(full[None, top : top + tall, left : left + wide])
    assert np.abs(enlarged(centre, factor, *size)[0].numpy() - crop_zoom(full, factor)).max() < 1e-12
