"""The chain of reads against the loop it stands for."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from brinell.perturb import glass as module
from brinell.perturb.glass import GlassBlur, copied, exchanged


def one_pass(values: np.ndarray, down: np.ndarray, right: np.ndarray, reach: int, swap: str) -> np.ndarray:
    """(h, w) changed pixel by pixel, last row and column first."""
    values = values.copy()
    height, width = values.shape
    for h in range(height - reach, reach, -1):
        for w in range(width - reach, reach, -1):
            at = h + down[h - reach - 1, w - reach - 1], w + right[h - reach - 1, w - reach - 1]
            values[h, w], values[at] = values[at], values[h, w] if swap == "true" else values[at]
    return values


@pytest.mark.parametrize("swap", ["published", "true"])
@pytest.mark.parametrize(("reach", "passes"), [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2), (4, 2)])
@pytest.mark.parametrize("size", [(32, 32), (23, 40), (64, 21)])
def test_equals_the_loop_over_pixels(swap, reach, passes, size):
    rng = np.random.default_rng(reach * 10 + passes)
    height, width = size
    shape = (passes, 4, height - 2 * reach, width - 2 * reach)
    down, right = rng.integers(-reach, reach, shape), rng.integers(-reach, reach, shape)
    source = torch.arange(height * width).repeat(4, 1)
    for k in range(passes):
        made = (copied if swap == "published" else exchanged)(torch.from_numpy(down[k]), torch.from_numpy(right[k]), reach, height, width)
        source = source.gather(1, made)
    for row in range(4):
        values = np.arange(height * width).reshape(height, width)
        for k in range(passes):
            values = one_pass(values, down[k, row], right[k, row], reach, swap)
        assert np.array_equal(source[row].numpy().reshape(height, width), values)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (8, 8), (9, 8), (5, 30)])
def test_images_smaller_than_the_reach_are_left_to_the_blurs(ask, size):
    x = torch.rand(1, 1, *size)
    for severity in (1, 5):
        for swap in ("published", "true"):
            z = ask(GlassBlur(severity=severity, preset="imagenet", swap=swap, quantize=False), x)
            if min(size) <= 8 and severity == 5:
                twin = x[0, 0].double().numpy()
                for _ in range(2):
                    twin = ndimage.gaussian_filter(twin, 1.5, mode="nearest", truncate=4)
                assert np.abs(z[0, 0].numpy() - twin).max() < 1e-5


def test_draws_every_offset_equally_often(ask):
    """Without blur each pixel shows one from {-1, 0}^2 away, all four alike."""
    x = torch.arange(1024.0).reshape(1, 1, 32, 32).expand(60, -1, -1, -1) / 1023
    z = ask(GlassBlur(severity=1, quantize=False), x)
    offset = ((x - z) * 1023).round()[:, 0, 2:, 2:].numpy().ravel()
    counts = [(offset == value).sum() for value in (0, 1, 32, 33)]
    assert sum(counts) == len(offset)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("preset", GlassBlur.ladder)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_cuts_to_levels_as_the_published_float64_arithmetic_does(ask, photos, monkeypatch, preset, severity):
    """Every level of an even image, and a photograph whose pixels stay in place: all bits, where rounding errors cost a level too."""
    monkeypatch.setattr(module, "copied", lambda down, right, reach, height, width: torch.arange(height * width).repeat(len(down), 1))
    sigma = GlassBlur.ladder[preset][severity - 1][0]
    even = (torch.arange(256.0) / 255)[:, None, None, None].expand(-1, 1, 32, 32)
    for x in (even, photos(32, 48, n=3)):
        image = (x * 255).round().byte().numpy() / 255.0
        image = np.uint8(ndimage.gaussian_filter(image, (0, 0, sigma, sigma), mode="nearest", truncate=4) * 255)
        blurred = ndimage.gaussian_filter(image / 255.0, (0, 0, sigma, sigma), mode="nearest", truncate=4)
        twin = np.uint8(np.clip(blurred, 0, 1) * 255)
        got = (ask(GlassBlur(severity=severity, preset=preset), x) * 255).round().numpy()
        assert np.array_equal(got, twin)


def test_swapping_keeps_all_pixels_and_copying_does_not(ask):
    x = torch.arange(1024.0).reshape(1, 1, 32, 32) / 1023
    for swap, distinct in (("true", True), ("published", False)):
        z = ask(GlassBlur(severity=1, swap=swap, quantize=False), x)
        assert (len(z.unique()) == 1024) == distinct
