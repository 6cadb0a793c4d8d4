import numpy as np
import pytest
import torch
from scipy import ndimage

from brinell.perturb.blur import GaussianBlur, gaussian_blur

LADDER = {"cifar": (0.4, 0.6, 0.7, 0.8, 1), "tiny_imagenet": (0.5, 0.75, 1, 1.25, 1.5), "imagenet": (1, 2, 3, 4, 6)}
SIDE = {"cifar": 32, "tiny_imagenet": 64, "imagenet": 224}


def published(x: torch.Tensor, sigma: float) -> np.ndarray:
    image = (x.double() * 255).round().numpy() / 255
    return ndimage.gaussian_filter(image, sigma=(0, 0, sigma, sigma), mode="nearest", truncate=4)


@pytest.mark.parametrize("preset", LADDER)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_equals_scipy(ask, photos, digits, preset, severity):
    sigma, side = LADDER[preset][severity - 1], SIDE[preset]
    for x in (photos(side, side, n=2), photos(side, side + 33, n=1), digits(side // 8, n=2)):
        twin = published(x, sigma)
        exact = ask(GaussianBlur(severity=severity, quantize=False), x).numpy()
        assert np.abs(exact - twin).max() < 1e-5
        level = (ask(GaussianBlur(severity=severity), x) * 255).round().numpy()
        assert np.abs(level - np.floor(np.clip(twin, 0, 1) * 255)).max() <= 1


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 2, 1, 9), (1, 3, 8, 12), (3, 4, 5, 2)])
@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.7, 3.0, 20.0])
def test_equals_scipy_for_any_sides_and_widths(shape, sigma):
    x = torch.rand(shape, dtype=torch.float64)
    twin = ndimage.gaussian_filter(x.numpy(), sigma=(0, 0, sigma, sigma), mode="nearest", truncate=4)
    assert np.abs(gaussian_blur(x, sigma).numpy() - twin).max() < 1e-12


@pytest.mark.parametrize("level", range(0, 256, 15))
def test_a_flat_image_stays_as_it_is(ask, level):
    x = torch.full((1, 3, 64, 64), level / 255)
    for severity in (1, 5):
        for preset in LADDER:
            assert torch.equal(ask(GaussianBlur(severity=severity, preset=preset), x), x)


def test_channels_do_not_mix(ask):
    x = torch.zeros(1, 3, 32, 32)
    x[:, 1] = torch.rand(32, 32)
    z = ask(GaussianBlur(severity=5), x)
    assert float(z[:, 0].max()) == float(z[:, 2].max()) == 0
