import numpy as np
import pytest
import torch

from brinell.perturb.motion import MotionBlur, motion_blur


def smeared(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """(c, h, w) shifted tap by tap, pixel indices kept inside the image."""
    _, height, width = image.shape
    rows, columns = np.mgrid[:height, :width]
    taps = np.arange(2 * radius + 1)
    weights = np.exp(-(taps**2) / (2 * sigma**2))
    out = np.zeros_like(image)
    for i, weight in zip(taps, weights / weights.sum(), strict=True):
        down, right = (-np.ceil(i * part - 0.5) for part in (np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))))
        at = np.clip(rows - int(down), 0, height - 1), np.clip(columns - int(right), 0, width - 1)
        out += weight * image[:, at[0], at[1]]
    return out


@pytest.mark.parametrize(("low", "high"), [(-45, 45), (-135, -45), (-180, 180)])
@pytest.mark.parametrize(("radius", "sigma"), [(6, 1), (9, 2.5), (12, 12), (20, 15)])
def test_equals_the_shifts_one_by_one(low, high, radius, sigma):
    rng = np.random.default_rng(radius)
    x = rng.random((6, 3, 33, 41))
    angles = np.append(rng.uniform(low, high, 5), low)
    got = motion_blur(torch.from_numpy(x), radius, sigma, torch.from_numpy(angles)).numpy()
    for image, angle, out in zip(x, angles, got, strict=True):
        assert np.abs(out - smeared(image, radius, sigma, angle)).max() < 1e-12


def test_each_image_has_its_own_direction_within_45_degrees(ask):
    x = torch.zeros(400, 1, 41, 41)
    x[:, :, 20, 20] = 1
    z = ask(MotionBlur(severity=5, preset="cifar", quantize=False), x)[:, 0]
    place = torch.arange(41.0) - 20
    down, right = (z.sum(2) * place).sum(1), (z.sum(1) * place).sum(1)
    angle = torch.rad2deg(torch.atan2(down, -right)).abs().numpy()  # content moves to the left
    assert angle.max() < 50
    assert len(np.unique(angle.round(3))) > 20
    assert abs(np.mean(angle) - 22.5) < 3
    assert torch.allclose(z.sum((1, 2)), torch.ones(400), atol=1e-5)


@pytest.mark.parametrize("level", [0, 77, 128, 255])
def test_a_flat_image_stays_as_it_is(ask, level):
    x = torch.full((3, 3, 32, 32), level / 255)
    for severity in range(1, 6):
        assert torch.equal(ask(MotionBlur(severity=severity), x), x)


def test_channels_move_together(ask, photos):
    x = photos(32, 32, n=2)
    z = ask(MotionBlur(severity=5), x)
    assert torch.equal(ask(MotionBlur(severity=5), x[:, 1:2])[:, 0], z[:, 1])
