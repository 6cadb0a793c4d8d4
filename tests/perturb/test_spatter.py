"""Each step against a slow one of another kind: loops, graphs and scipy."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from brinell.perturb import spatter as module
from brinell.perturb.spatter import Spatter, distance, edges, equalised
from drops import canny, chamfer, shaded


def layers(n: int, height: int, width: int) -> np.ndarray:
    """(n, h, w) uint8 layers of drops of several kinds."""
    rng = np.random.default_rng(height)
    kinds = [(0.62, 0.1, 0.7, 0.7), (0.65, 0.3, 1, 0.69), (0.65, 0.3, 3, 0.68)]
    out = np.empty((n, height, width), np.uint8)
    for at in range(n):
        mean, std, blur, threshold = kinds[at % 3]
        layer = ndimage.gaussian_filter(rng.normal(mean, std, (height, width)), blur, mode="nearest")
        out[at] = np.clip(np.where(layer < threshold, 0, layer) * 255, 0, 255)
    return out


@pytest.mark.parametrize("size", [(32, 32), (20, 47)])
def test_edges_are_those_of_canny(size):
    level = layers(6, *size)
    got = edges(torch.from_numpy(level).float()).numpy()
    for image, found in zip(level, got, strict=True):
        twin = canny(image, 50, 150)
        assert twin.any()
        assert np.array_equal(found, twin)


@pytest.mark.parametrize("size", [(32, 32), (50, 21)])
@pytest.mark.parametrize("share", [0.002, 0.02, 0.3])
def test_distances_are_shortest_paths(size, share):
    target = np.random.default_rng(1).random((4, *size)) < share
    target[:, 3, 5] = True
    got = distance(torch.from_numpy(target), 20).numpy() / 10000
    for image, far in zip(target, got, strict=True):
        assert np.abs(far - np.minimum(chamfer(image), 20)).max() < 1e-9
    assert float(distance(torch.zeros(1, 9, 9, dtype=torch.bool), 20).min()) == 200000


def test_histograms_become_even():
    level = layers(5, 40, 40) // 12
    level[3] = 7  # one level
    got = equalised(torch.from_numpy(level).double()).numpy()
    for image, even in zip(level, got, strict=True):
        values, counts = np.unique(image, return_counts=True)
        upto = np.cumsum(counts)
        if len(values) == 1:
            assert np.array_equal(even, image)
        else:
            twin = dict(zip(values, np.round(255 * (upto - upto[0]) / (image.size - upto[0])), strict=True))
            assert np.array_equal(even, np.vectorize(twin.get)(image))


@pytest.mark.parametrize("preset", ["cifar", "tiny_imagenet", "imagenet"])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_equals_the_published_steps_on_the_same_layer(ask, photos, monkeypatch, preset, severity):
    mean, std, blur, threshold, strength, mud = Spatter.ladder[preset][severity - 1]
    side = 64 if preset == "tiny_imagenet" else 40
    x, caught = photos(side, side + 3, n=2), []
    gaussian_blur = module.gaussian_blur
    monkeypatch.setattr(module, "gaussian_blur", lambda layer, sigma: caught.append(layer.clone()) or gaussian_blur(layer, sigma))
    z = ask(Spatter(severity=severity, preset=preset, quantize=False), x).double().numpy()
    noise = caught[0][:, 0].double().numpy()
    assert noise.mean() == pytest.approx(mean, abs=5 * std / side)
    assert noise.std() == pytest.approx(std, rel=0.1)
    for image, got, drawn in zip(x.double().numpy(), z, noise, strict=True):
        layer = ndimage.gaussian_filter(drawn, blur, mode="nearest", truncate=4)
        layer = np.where(layer < threshold, 0, layer)
        if mud:
            mask = ndimage.gaussian_filter(np.float64(layer > threshold), strength, mode="nearest", truncate=4)
            mask = np.where(mask < 0.8, 0, mask)
            twin = image * (1 - mask) + mask * (np.array([63, 42, 20]) / 255)[:, None, None]
        else:
            level = np.floor(np.clip(layer * 255, 0, 255))
            mask = level * shaded(level.astype(np.uint8))
            twin = image + strength * mask / mask.max() * (np.array([175, 238, 238]) / 255)[:, None, None]
        difference = np.abs(got - np.clip(twin, 0, 1))
        assert np.quantile(difference, 0.99) < 1e-4
        assert difference.mean() < 1e-3  # float32 may turn a level of the layer or a threshold


def test_an_image_without_drops_stays_as_it_is(ask, monkeypatch):
    monkeypatch.setattr(module, "gaussian_blur", lambda layer, sigma: torch.zeros_like(layer))
    x = torch.rand(2, 3, 24, 24)
    for severity in range(1, 6):
        assert torch.equal(ask(Spatter(severity=severity, quantize=False), x), x)
