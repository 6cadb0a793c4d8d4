import numpy as np
import pytest
import torch
from scipy import ndimage

from brinell.perturb import elastic as module
from brinell.perturb.elastic import ElasticTransform, affine

SIDE = {"cifar": 32, "tiny_imagenet": 64, "imagenet": 224}


def tilted(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(c, h, w) resampled by the inverse of the map of the three anchors, found by solving for it."""
    _, height, width = image.shape
    middle, s = np.array([width // 2, height // 2]), min(height, width) // 3
    before = middle + np.array([[s, s], [s, -s], [-s, -s]])
    inverse = np.linalg.solve(np.column_stack((before + shift, np.ones(3))), before)  # (3, 2): moved to original
    rows, columns = np.mgrid[:height, :width]
    source = np.stack((columns, rows, np.ones_like(rows)), 2) @ inverse
    return np.stack([ndimage.map_coordinates(plane, (source[..., 1], source[..., 0]), order=1, mode="mirror") for plane in image])


@pytest.mark.parametrize(("size", "reach"), [((32, 32), 2.56), ((64, 64), 5.12), ((60, 41), 4), ((224, 224), 48.8), ((9, 8), 0.7)])
def test_affine_maps_three_points(size, reach):
    rng = np.random.default_rng(0)
    x = ndimage.gaussian_filter(rng.random((4, 2, *size)), (0, 0, 1, 1))
    shift = rng.uniform(-reach, reach, (4, 3, 2))
    shift[0] = 0
    got = affine(torch.from_numpy(x), torch.from_numpy(shift)).numpy()
    for image, by, out in zip(x, shift, got, strict=True):
        assert np.abs(out - tilted(image, by)).max() < 1e-9
    assert np.abs(got[0] - x[0]).max() < 1e-12


def test_three_anchors_on_a_line_are_no_error():
    x = torch.rand(1, 1, 32, 32)
    shift = torch.tensor([[[-20.0, -20.0], [-20.0, 0.0], [0.0, 0.0]]])  # all on one place
    assert bool(torch.isfinite(affine(x, shift)).all())


@pytest.mark.parametrize("preset", SIDE)
@pytest.mark.parametrize("severity", [1, 2, 3, 5])
def test_equals_both_published_steps_on_the_same_draws(ask, photos, monkeypatch, preset, severity):
    alpha, sigma, aff = ElasticTransform.ladder[preset][severity - 1]
    side, caught = SIDE[preset], {}
    grid_sample = module.F.grid_sample

    def see(x, place, **rest):
        caught["field"] = place
        return grid_sample(x, place, **rest)

    monkeypatch.setattr(module, "affine", lambda x, shift: caught.update(shift=shift) or affine(x, shift))
    monkeypatch.setattr(module.F, "grid_sample", see)
    x = photos(side, side, n=2)
    z = ask(ElasticTransform(severity=severity, quantize=False), x).double().numpy()
    assert float(caught["shift"].abs().max()) <= aff
    place = (caught["field"].double().numpy() + 1) * side / 2 - 0.5
    rows, columns = np.mgrid[:side, :side]
    for at, image in enumerate(x.double().numpy()):
        twin = tilted(image, caught["shift"][at].double().numpy())
        if alpha:
            where = place[at, ..., 1], place[at, ..., 0]
            twin = np.stack([ndimage.map_coordinates(plane, where, order=1, mode="reflect") for plane in twin])
        assert np.abs(z[at] - np.clip(twin, 0, 1)).max() < (1e-4 if side < 200 else 1e-3)
    if alpha and sigma < side / 10:  # then a few fields tell how large they are
        moved = np.stack([place[..., 0] - columns, place[..., 1] - rows])
        noise = np.random.default_rng(0).uniform(-1, 1, (40, side, side))
        twins = alpha * ndimage.gaussian_filter(noise, (0, sigma, sigma), mode="reflect", truncate=3)
        assert moved.std() == pytest.approx(twins.std(), rel=0.25)


@pytest.mark.parametrize(("size", "sigma"), [(32, 6.4), (64, 19.2), (224, 170.8), (224, 2.44), (8, 0.24), (5, 40.0)])
def test_fields_are_smoothed_as_by_scipy(size, sigma):
    noise = np.random.default_rng(0).uniform(-1, 1, (2, size, 7))
    got = module._smoothing(size, sigma, "cpu").planes(torch.from_numpy(noise)).numpy()
    twin = ndimage.gaussian_filter1d(noise, sigma, axis=1, mode="reflect", truncate=3)
    assert np.abs(got - twin).max() < 1e-12


def test_a_flat_image_stays_as_it_is(ask):
    x = torch.full((3, 3, 32, 32), 77 / 255)
    for severity in range(1, 6):
        assert torch.equal(ask(ElasticTransform(severity=severity), x), x)
