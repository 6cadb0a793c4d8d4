import colorsys

import numpy as np
import pytest
import torch

from brinell.perturb.weather import Brightness

LADDER = {
    "cifar": (0.05, 0.10, 0.15, 0.20, 0.30),
    "tiny_imagenet": (0.1, 0.2, 0.3, 0.4, 0.5),
    "imagenet": (0.1, 0.2, 0.3, 0.4, 0.5),
}


def published(image: np.ndarray, c: float) -> np.ndarray:
    """(3, h, w) grey levels through HSV and back, pixel by pixel."""
    out = np.empty_like(image)
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            h, s, v = colorsys.rgb_to_hsv(*(image[:, row, column] / 255.0))
            rgb = np.array(colorsys.hsv_to_rgb(h, s, min(max(v + c, 0), 1)))
            out[:, row, column] = (np.clip(rgb, 0, 1) * 255).astype(np.uint8)
    return out


@pytest.mark.parametrize("preset", LADDER)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_equals_the_round_trip_through_hsv(ask, photos, preset, severity):
    x = photos(24, 40, n=2)
    x[0, :, :4] = 0  # black, and pure colours
    x[1, 0, :4], x[1, 1:, :4] = 1, 0
    z = (ask(Brightness(severity=severity, preset=preset), x) * 255).round().numpy()
    levels = (x * 255).round().numpy()
    for got, image in zip(z, levels, strict=True):
        assert np.abs(got - published(image, LADDER[preset][severity - 1])).max() <= 1


def test_agrees_on_whole_photographs(ask, photos):
    """The same formula over whole arrays, for sizes too large for a loop."""
    for side, preset in ((32, "cifar"), (64, "tiny_imagenet"), (224, "imagenet")):
        x = photos(side, side, n=2)
        level = (x.double() * 255).round().numpy() / 255
        for severity, c in enumerate(LADDER[preset], 1):
            value = level.max(1, keepdims=True)
            saturation = np.where(value > 0, 1 - level / np.where(value > 0, value, 1), 0)  # share of V each channel lacks
            twin = np.floor(np.clip(np.clip(value + c, 0, 1) * (1 - saturation), 0, 1) * 255)
            got = (ask(Brightness(severity=severity), x) * 255).round().numpy()
            assert np.abs(got - twin).max() <= 1


def test_grey_images_are_their_own_value(ask, digits):
    x = digits(4)
    z = ask(Brightness(severity=3, preset="cifar", quantize=False), x)
    assert torch.allclose(z, (x + 0.15).clamp(max=1), atol=1e-6)
    colour = ask(Brightness(severity=3, preset="cifar", quantize=False), x.expand(-1, 3, -1, -1))
    assert torch.allclose(colour.mean(1, keepdim=True), z, atol=1e-6)


def test_keeps_the_ratios_of_the_channels(ask):
    x = torch.tensor([0.4, 0.2, 0.1]).reshape(1, 3, 1, 1)
    z = ask(Brightness(severity=1, preset="cifar", quantize=False), x).flatten()
    assert z.tolist() == pytest.approx([0.45, 0.225, 0.1125])
    tiny = torch.tensor([1e-38, 0.0, 0.0]).reshape(1, 3, 1, 1)
    assert ask(Brightness(severity=1, preset="cifar", quantize=False), tiny).flatten().tolist() == pytest.approx([0.05, 0, 0])
