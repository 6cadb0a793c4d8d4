import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from brinell.perturb import snow as module
from brinell.perturb.snow import Snow

SIDE = {"cifar": 32, "tiny_imagenet": 64, "imagenet": 224}


@pytest.mark.parametrize("quantize", [True, False])
@pytest.mark.parametrize(("preset", "severity"), [("cifar", 1), ("cifar", 4), ("tiny_imagenet", 3), ("imagenet", 3), ("imagenet", 5)])
def test_equals_the_published_steps_on_the_same_layer_and_angle(ask, photos, monkeypatch, preset, severity, quantize):
    """What is drawn is caught on the way; all else is done again with numpy and scipy."""
    caught = {}
    enlarged, motion_blur = module.enlarged, module.motion_blur

    def see_layer(centre, *rest):
        caught["centre"] = centre.clone()
        return enlarged(centre, *rest)

    def see_angle(layer, radius, sigma, angle):
        caught["angle"] = angle.clone()
        return motion_blur(layer, radius, sigma, angle)

    monkeypatch.setattr(module, "enlarged", see_layer)
    monkeypatch.setattr(module, "motion_blur", see_angle)
    side = SIDE[preset]
    _, _, zoom, threshold, radius, sigma, mix = Snow.ladder[preset][severity - 1]
    x = photos(side, side, n=2)
    z = ask(Snow(severity=severity, quantize=quantize), x).double().numpy()
    assert caught["centre"].shape == (2, math.ceil(side / zoom), math.ceil(side / zoom))
    for image, got, centre, angle in zip(x.double().numpy(), z, caught["centre"].double().numpy(), caught["angle"].tolist(), strict=True):
        assert -135 <= angle <= -45
        layer = ndimage.zoom(centre, zoom, order=1)
        trim = (layer.shape[0] - side) // 2
        layer = layer[trim : trim + side, trim : trim + side]
        layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1)
        layer = np.floor(layer * 255 + 1e-4) / 255 if quantize else layer
        rows, columns = np.mgrid[:side, :side]
        taps = np.arange(2 * radius + 1)
        weights = np.exp(-(taps**2) / (2 * sigma**2))
        streaks = np.zeros_like(layer)
        for i, weight in zip(taps, weights / weights.sum(), strict=True):
            down, right = (int(np.ceil(i * part - 0.5)) for part in (np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))))
            streaks += weight * layer[np.clip(rows + down, 0, side - 1), np.clip(columns + right, 0, side - 1)]
        grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        twin = np.clip(mix * image + (1 - mix) * np.maximum(image, 1.5 * grey + 0.5) + streaks + np.rot90(streaks, 2), 0, 1)
        if quantize:
            assert np.abs(got * 255 - np.floor(twin * 255)).max() <= 1.01
        else:
            assert np.abs(got - twin).max() < 1e-5


def test_flakes_have_the_published_law(ask, monkeypatch):
    centres = []
    enlarged = module.enlarged
    monkeypatch.setattr(module, "enlarged", lambda centre, *rest: centres.append(centre.clone()) or enlarged(centre, *rest))
    ask(Snow(severity=3, preset="cifar"), torch.zeros(300, 3, 32, 32))
    values = torch.cat(centres).double()
    assert values.shape[0] == 300
    assert float(values.mean()) == pytest.approx(0.15, abs=0.005)
    assert float(values.std()) == pytest.approx(0.3, rel=0.01)


def test_grey_images_get_what_three_equal_channels_would_get(ask, digits):
    x = digits(4)
    z = ask(Snow(severity=4), x.expand(-1, 3, -1, -1))
    assert float((ask(Snow(severity=4), x) - z).abs().max()) < 1.01 / 255
