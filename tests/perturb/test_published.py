"""The random corruptions against the published ones, written with numpy and scipy, image by image, with random numbers of their own.

Each image gives one statistic, its mean absolute change, whose distributions over many images are compared; means, variances and the
power of the change in rings of frequencies are compared on average.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats
from sklearn.datasets import load_sample_images

from brinell.core.component import items
from brinell.perturb.severity import Graded
from drops import shaded

IMAGES = 500
Rng = np.random.Generator


def cut(image: np.ndarray) -> np.ndarray:
    return np.uint8(np.clip(image, 0, 1) * 255)


def gaussian_noise(x: np.ndarray, rng: Rng, c: float) -> np.ndarray:
    return cut(x + rng.normal(size=x.shape, scale=c))


def shot_noise(x: np.ndarray, rng: Rng, c: float) -> np.ndarray:
    return cut(rng.poisson(x * c) / c)


def impulse_noise(x: np.ndarray, rng: Rng, c: float) -> np.ndarray:
    hit, salt = rng.random(x.shape) <= c, rng.random(x.shape) <= 0.5
    return cut(np.where(hit, salt.astype(float), x))


def speckle_noise(x: np.ndarray, rng: Rng, c: float) -> np.ndarray:
    return cut(x + x * rng.normal(size=x.shape, scale=c))


def glass_blur(x: np.ndarray, rng: Rng, sigma: float, reach: int, passes: int) -> np.ndarray:
    x = np.uint8(ndimage.gaussian_filter(x, (0, sigma, sigma), mode="nearest", truncate=4) * 255)
    _, height, width = x.shape
    for _ in range(passes):
        for h in range(height - reach, reach, -1):
            for w, (dx, dy) in zip(range(width - reach, reach, -1), rng.integers(-reach, reach, (width, 2)).tolist(), strict=False):
                x[:, h, w] = x[:, h + dy, w + dx]
    return cut(ndimage.gaussian_filter(x / 255, (0, sigma, sigma), mode="nearest", truncate=4))


def smeared(x: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    _, height, width = x.shape
    rows, columns = np.mgrid[:height, :width]
    taps = np.arange(2 * radius + 1)
    weights = np.exp(-(taps**2) / (2 * sigma**2))
    out = np.zeros_like(x)
    for i, weight in zip(taps, weights / weights.sum(), strict=True):
        down, right = (int(np.ceil(i * part - 0.5)) for part in (np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))))
        out += weight * x[:, np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)]
    return out


def motion_blur(x: np.ndarray, rng: Rng, radius: int, sigma: float) -> np.ndarray:
    return cut(smeared(x, radius, sigma, rng.uniform(-45, 45)))


def snow(
    x: np.ndarray, rng: Rng, mean: float, std: float, zoom: float, threshold: float, radius: int, sigma: float, mix: float
) -> np.ndarray:
    side = x.shape[1]
    layer, kept = rng.normal(mean, std, (side, side)), int(np.ceil(side / zoom))
    top = (side - kept) // 2
    layer = ndimage.zoom(layer[top : top + kept, top : top + kept], zoom, order=1)
    top = (layer.shape[0] - side) // 2
    layer = layer[top : top + side, top : top + side]
    layer = cut(np.where(layer < threshold, 0, layer)) / 255
    layer = smeared(layer[None], int(radius), sigma, rng.uniform(-135, -45))[0]
    grey = np.tensordot([0.299, 0.587, 0.114], x, 1)
    return cut(mix * x + (1 - mix) * np.maximum(x, grey * 1.5 + 0.5) + layer + np.rot90(layer, 2))


def fog(x: np.ndarray, rng: Rng, amount: float, decay: float) -> np.ndarray:
    side = 2 ** int(np.ceil(np.log2(max(x.shape[1:]))))
    grid, step, amplitude = np.zeros((side, side)), side, 100.0

    def means(*parts: np.ndarray) -> np.ndarray:
        return np.sum(parts, 0) / 4 + amplitude * rng.uniform(-amplitude, amplitude, parts[0].shape)

    while step >= 2:
        half = step // 2
        corner = grid[::step, ::step]
        right, below = np.roll(corner, -1, 1), np.roll(corner, -1, 0)
        middle = grid[half::step, half::step] = means(corner, right, below, np.roll(right, -1, 0))
        grid[::step, half::step] = means(corner, right, middle, np.roll(middle, 1, 0))
        grid[half::step, ::step] = means(corner, below, middle, np.roll(middle, 1, 1))
        step, amplitude = half, amplitude / decay
    grid = (grid - grid.min()) / (grid.max() - grid.min())
    most = x.max()
    return cut((x + amount * grid[: x.shape[1], : x.shape[2]]) * most / (most + amount))


def elastic_transform(x: np.ndarray, rng: Rng, alpha: float, sigma: float, aff: float) -> np.ndarray:
    side = x.shape[1]
    middle, s = side // 2, side // 3
    before = middle + np.array([[s, s], [s, -s], [-s, -s]])
    inverse = np.linalg.solve(np.column_stack((before + rng.uniform(-aff, aff, (3, 2)), np.ones(3))), before)
    rows, columns = np.mgrid[:side, :side]
    source = np.stack((columns, rows, np.ones_like(rows)), 2) @ inverse
    x = np.stack([ndimage.map_coordinates(plane, (source[..., 1], source[..., 0]), order=1, mode="mirror") for plane in x])
    if alpha:
        force = ndimage.gaussian_filter(rng.uniform(-1, 1, (2, side, side)), (0, sigma, sigma), mode="reflect", truncate=3) * alpha
        where = rows + force[0], columns + force[1]
        x = np.stack([ndimage.map_coordinates(plane, where, order=1, mode="reflect") for plane in x])
    return cut(x)


def spatter(x: np.ndarray, rng: Rng, mean: float, std: float, blur: float, threshold: float, strength: float, mud: int) -> np.ndarray:
    layer = ndimage.gaussian_filter(rng.normal(mean, std, x.shape[1:]), blur, mode="nearest", truncate=4)
    if mud:
        mask = ndimage.gaussian_filter(np.float64(layer > threshold), strength, mode="nearest", truncate=4)
        mask[mask < 0.8] = 0
        return cut(x * (1 - mask) + mask * (np.array([63, 42, 20]) / 255)[:, None, None])
    level = np.floor(np.clip(np.where(layer < threshold, 0, layer) * 255, 0, 255))
    mask = level * shaded(level)
    mask *= strength / max(mask.max(), 1)
    return cut(x + mask * (np.array([175, 238, 238]) / 255)[:, None, None])


def frost(x: np.ndarray, rng: Rng, keep: float, more: float, *, pictures: list[np.ndarray]) -> np.ndarray:
    picture, (_, height, width) = pictures[rng.integers(5)], x.shape
    top, left = rng.integers(picture.shape[1] - height), rng.integers(picture.shape[2] - width)
    return np.uint8(np.clip(keep * x * 255 + more * picture[:, top : top + height, left : left + width], 0, 255))


def frost_pictures(folder: Path, shrink: float) -> list[np.ndarray]:
    """Six photographs, written into a folder; returned as `cv2.resize` shrinks them, (3, h, w)."""
    shrunk = []
    for at, (picture, step) in enumerate((picture, step) for step in ((1, 1), (-1, 1), (1, -1)) for picture in load_sample_images().images):
        levels = np.ascontiguousarray(picture[:: step[0], :: step[1]])
        Image.fromarray(levels).save(folder / f"frost{at}.png")
        size = [round(side * shrink) for side in levels.shape[:2]]
        places = [np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1) for new, old in zip(size, levels.shape[:2], strict=True)]
        grid = np.meshgrid(*places, indexing="ij")
        shrunk.append(
            np.stack([np.round(ndimage.map_coordinates(plane.astype(float), grid, order=1)) for plane in levels.transpose(2, 0, 1)])
        )
    return shrunk


TWINS = {
    twin.__name__: twin
    for twin in (
        gaussian_noise, shot_noise, impulse_noise, speckle_noise, glass_blur, motion_blur, snow, frost, fog, elastic_transform, spatter,
    )
}  # fmt: skip
SHRINK = {"cifar": 0.2, "tiny_imagenet": 0.3, "imagenet": 1.0}


def rings(change: np.ndarray, count: int = 6) -> np.ndarray:
    """(n, count) mean power of the change in rings of equal width up to half a cycle a pixel."""
    power = (np.abs(np.fft.fft2(change)) ** 2).mean(1)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(change.shape[2]), np.fft.fftfreq(change.shape[3]), indexing="ij"))
    ring = np.minimum((radius * 2 * count).astype(int), count - 1)
    return np.stack([power[:, ring == k].mean(1) for k in range(count)], 1)


def agree(a: np.ndarray, b: np.ndarray) -> bool:
    """Means of two samples within 3 % or 4 standard errors."""
    error = np.sqrt(a.var() / len(a) + b.var() / len(b))
    return abs(a.mean() - b.mean()) <= max(4 * error, 0.03 * abs(b.mean()))


@pytest.mark.slow
@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(
    ("preset", "side", "severity"),
    [
        *(("cifar", 32, severity) for severity in range(1, 6)),
        ("tiny_imagenet", 64, 3),
        ("tiny_imagenet", 64, 5),
        ("imagenet", 64, 2),
        ("imagenet", 64, 4),
    ],
)
def test_changes_images_as_the_published_corruption_does(ask, photos, tmp_path, name, preset, side, severity):
    kind, fields, twin = items(Graded)[name], {}, TWINS[name]
    if name == "frost":
        twin, fields = partial(frost, pictures=frost_pictures(tmp_path, SHRINK[preset])), {"textures": str(tmp_path)}
    values, x = kind.ladder[preset][severity - 1], photos(side, side, n=IMAGES)
    level = (x * 255).round().numpy().astype(float)
    ours = (ask(kind(severity=severity, preset=preset, **fields), x) * 255).round().numpy() - level
    rng = np.random.default_rng([severity, side, *name.encode()])
    theirs = np.stack([twin(image / 255, rng, *values) for image in level]) - level
    absolute = [np.abs(change).mean((1, 2, 3)) for change in (ours, theirs)]
    assert stats.ks_2samp(*absolute).pvalue > 1e-3
    assert agree(ours.mean((1, 2, 3)), theirs.mean((1, 2, 3)))
    assert agree(ours.var((1, 2, 3)), theirs.var((1, 2, 3)))
    for mine, other in zip(rings(ours).T, rings(theirs).T, strict=True):
        assert agree(mine, other)


def test_the_comparison_sees_a_small_difference(ask, photos):
    """The statistics tell severity 3 of the noise from severity 4 (0.08 and 0.09)."""
    x = photos(32, 32, n=IMAGES)
    level = (x * 255).round().numpy().astype(float)
    ours = (ask(items(Graded)["gaussian_noise"](severity=3), x) * 255).round().numpy() - level
    rng = np.random.default_rng(0)
    theirs = np.stack([gaussian_noise(image / 255, rng, 0.09) for image in level]) - level
    assert stats.ks_2samp(np.abs(ours).mean((1, 2, 3)), np.abs(theirs).mean((1, 2, 3))).pvalue < 1e-3
    assert not agree(ours.var((1, 2, 3)), theirs.var((1, 2, 3)))
    assert not agree(*(rings(change)[:, 3] for change in (ours, theirs)))
