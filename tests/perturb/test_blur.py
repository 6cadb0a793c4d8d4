import numpy as np
import pytest
import torch
from scipy import ndimage

from brinell.perturb.blur import DefocusBlur, GaussianBlur, correlate, defocus_kernel, gaussian_blur

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


DEFOCUS = {
    "cifar": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "tiny_imagenet": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
    "imagenet": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
}


def published_disk(radius: float, alias: float) -> np.ndarray:
    line, reach = (np.arange(-8, 9), 1) if radius <= 8 else (np.arange(-radius, radius + 1), 2)
    x, y = np.meshgrid(line, line)
    disk = np.float64(x**2 + y**2 <= radius**2)
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * alias**2))
    taps /= taps.sum()
    return ndimage.correlate(disk / disk.sum(), np.outer(taps, taps), mode="mirror")  # the border of cv2.GaussianBlur


@pytest.mark.parametrize("preset", DEFOCUS)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_defocus_blur_equals_the_published_disk(ask, photos, preset, severity):
    radius, alias = DEFOCUS[preset][severity - 1]
    kernel, side = published_disk(radius, alias), SIDE[preset]
    assert np.abs(defocus_kernel(radius, alias) - kernel).max() < 1e-15
    for x in (photos(side, side, n=2), photos(side, side + 33, n=1)[:, :1]):
        image = (x.double() * 255).round().numpy() / 255
        twin = np.stack([[ndimage.correlate(plane, kernel, mode="mirror") for plane in planes] for planes in image])
        exact = ask(DefocusBlur(severity=severity, quantize=False), x).numpy()
        assert np.abs(exact - np.clip(twin, 0, 1)).max() < 1e-5
        level = (ask(DefocusBlur(severity=severity), x) * 255).round().numpy()
        assert np.abs(level - np.floor(np.clip(twin, 0, 1) * 255)).max() <= 1


@pytest.mark.parametrize(("severity", "weights"), [(1, (0.040, 0.919, 0.040)), (2, (0.107, 0.787, 0.107)), (3, (0.166, 0.667, 0.166))])
def test_the_first_defocus_kernels_of_cifar_are_small_gaussians(severity, weights):
    kernel = defocus_kernel(*DEFOCUS["cifar"][severity - 1])
    assert kernel[7:10, 7:10] == pytest.approx(np.outer(weights, weights), abs=1e-3)
    assert kernel.sum() == pytest.approx(kernel[7:10, 7:10].sum())


def test_defocus_kernels_add_up_to_one_except_where_the_disk_fills_its_grid():
    sums = {pair: defocus_kernel(*pair).sum() for rows in DEFOCUS.values() for pair in rows}
    assert sums.pop((8, 0.5)) == pytest.approx(1.013, abs=1e-3)
    assert sums.pop((10, 0.5)) == pytest.approx(1.011, abs=1e-3)
    assert list(sums.values()) == pytest.approx([1] * len(sums))


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 2, 1, 9), (1, 3, 8, 12), (3, 4, 30, 2)])
@pytest.mark.parametrize("pair", [(0.3, 0.4), (3, 0.1), (10, 0.5)])
def test_correlation_takes_any_sides(shape, pair):
    x = torch.rand(shape, dtype=torch.float64)
    kernel = defocus_kernel(*pair)
    twin = np.stack([[ndimage.correlate(plane, kernel, mode="mirror") for plane in image] for image in x.numpy()])
    assert np.abs(correlate(x, kernel).numpy() - twin).max() < 1e-8


@pytest.mark.parametrize("level", range(0, 256, 15))
def test_a_flat_image_out_of_focus_stays_as_it_is(ask, level):
    x = torch.full((1, 3, 32, 32), level / 255)
    for preset in DEFOCUS:
        for severity in (1, 2, 3) if preset == "imagenet" else (1, 2, 3, 4, 5):
            assert torch.equal(ask(DefocusBlur(severity=severity, preset=preset), x), x)
