"""Distances to near neighbours: brute force, hard scales, and what the two estimates read off them."""

import numpy as np
import pytest
import torch

from brinell.core.errors import UndefinedReading
from brinell.probe.intrinsic import nearest_distances, nearest_neighbour_dimension, two_nn

LOT = np.random.default_rng(0)


def brute(points: np.ndarray, k: int) -> np.ndarray:
    """All differences, sorted."""
    distinct = np.unique(points.astype(np.float64), axis=0)
    distances = np.sqrt(((distinct[:, None] - distinct[None]) ** 2).sum(2))
    return np.sort(distances, axis=1)[:, 1 : k + 1]


CLOUDS = {
    "normal": LOT.normal(size=(150, 6)),
    "far from 0": LOT.normal(size=(150, 6)) + 1e6,
    "an outlier": np.vstack([LOT.normal(size=(120, 3)) * 1e-4, [[1e3, 0, 0]]]),
    "near pairs": np.repeat(LOT.normal(size=(60, 4)), 2, axis=0) + LOT.normal(size=(120, 4)) * 1e-9,
    "tiny": LOT.normal(size=(90, 4)) * 1e-200,
    "huge": LOT.normal(size=(90, 4)) * 1e150,
    "one dimension": np.sort(LOT.uniform(size=(700, 1)), axis=0),
    "twice": np.vstack([CLOUD := LOT.normal(size=(50, 2)), CLOUD[:20]]),
    "few": LOT.normal(size=(5, 2)),
}


@pytest.mark.parametrize("name", CLOUDS)
def test_distances_are_those_of_brute_force(name):
    power = int(np.log2(np.abs(CLOUDS[name]).max()))
    expected = np.ldexp(brute(np.ldexp(CLOUDS[name], -power), 7), power)
    found = nearest_distances(torch.tensor(CLOUDS[name]), 7).numpy()
    assert found.shape == expected.shape
    assert np.sort(found, axis=0) == pytest.approx(np.sort(expected, axis=0), rel=1e-9, abs=0)


def test_single_precision_points():
    points = CLOUDS["normal"].astype(np.float32)
    assert nearest_distances(torch.tensor(points), 3).numpy() == pytest.approx(
        brute(points, 3)[np.argsort(np.lexsort(points.T[::-1]))], rel=1e-9
    )


def test_two_nn_falls_short_in_ten_dimensions():
    assert two_nn(torch.tensor(LOT.uniform(size=(2000, 10)))) == pytest.approx(8.6, abs=0.5)


@pytest.mark.parametrize("points", [torch.zeros(0, 3), torch.rand(1, 3), torch.ones(9, 3), torch.rand(2, 1)])
def test_too_few_points(points):
    for estimate in (two_nn, nearest_neighbour_dimension):
        with pytest.raises(UndefinedReading, match="different points"):
            estimate(points)
