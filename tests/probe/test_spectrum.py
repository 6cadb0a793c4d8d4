"""Spectra and dimensions: closed forms and numpy twins."""

import numpy as np
import pytest
import torch

from brinell.core.errors import UndefinedReading
from brinell.probe.intrinsic import nearest_neighbour_dimension, two_nn
from brinell.probe.spectrum import components, effective_rank, participation_ratio, participation_ratio_of, spectrum

HARMONIC = 1 / torch.arange(1, 101, dtype=torch.float64)
HALVES = 0.5 ** torch.arange(10, dtype=torch.float64)


@pytest.mark.parametrize(
    ("values", "share", "count"),
    [
        (torch.ones(20), 0.9, 18),
        (HALVES, 0.9, 4),
        (HARMONIC, 0.9, 60),
        (HARMONIC, 0.95, 78),
        (torch.zeros(5), 0.9, 0),
        (torch.ones(7), 1.0, 7),
    ],
)
def test_components(values, share, count):
    assert components(values, share) == count
    assert components(values.flip(0), share) == count


def test_ratios():
    assert participation_ratio_of(torch.ones(20)) == pytest.approx(20)
    assert participation_ratio_of(torch.tensor([3.0, 1.0])) == pytest.approx(1.6)
    assert participation_ratio_of(HALVES) == pytest.approx(2.994, abs=1e-3)
    assert participation_ratio_of(HARMONIC) == pytest.approx(16.458, abs=1e-3)
    assert participation_ratio_of(HARMONIC * 1e-200) == pytest.approx(16.458, abs=1e-3)
    assert participation_ratio_of(torch.zeros(3)) == 0
    assert effective_rank(torch.ones(20)) == pytest.approx(20)
    assert effective_rank(torch.zeros(3)) == 0
    p = np.array([3, 1]) / 4
    assert effective_rank(torch.tensor([3.0, 1.0])) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_the_spectrum_is_that_of_numpy():
    a = np.random.default_rng(0).normal(size=(60, 9)) @ np.diag(np.arange(9)) + 100
    expected = np.linalg.svd(a - a.mean(0), compute_uv=False) ** 2 / 60
    assert spectrum(torch.tensor(a)).numpy() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_isotropic_points():
    """PR is about n d / (n + d)."""
    a = torch.tensor(np.random.default_rng(1).normal(size=(1000, 50)))
    assert participation_ratio(a) == pytest.approx(47.6, rel=0.02)


def in_space(points: np.ndarray, d: int = 50) -> torch.Tensor:
    """Rotated into d dimensions."""
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(d, d)))[0]
    return torch.tensor(points @ rotation[: points.shape[1]])


def test_two_nn_finds_the_dimension_of_a_flat_sheet():
    lot = np.random.default_rng(3)
    assert two_nn(in_space(lot.uniform(size=(2000, 2)))) == pytest.approx(2.0, abs=0.15)
    assert two_nn(in_space(lot.uniform(size=(2000, 5)))) == pytest.approx(4.8, abs=0.3)


def test_both_see_a_curved_line_as_one_dimension():
    t = np.random.default_rng(4).uniform(0, 3, 1500)[:, None]
    curve = in_space(np.hstack([np.sin(t), np.cos(2 * t), t**2, np.sin(3 * t)]))
    assert components(spectrum(curve), 0.99) > 2
    assert two_nn(curve) == pytest.approx(1, abs=0.1)
    assert nearest_neighbour_dimension(curve) == pytest.approx(1, abs=0.1)


def test_two_nn_against_a_twin():
    points = np.random.default_rng(5).normal(size=(80, 3))
    distances = np.sort(np.sqrt(((points[:, None] - points[None]) ** 2).sum(2)), axis=1)
    mu = np.sort(np.log(distances[:, 2] / distances[:, 1]))[:72]
    y = -np.log(1 - np.arange(1, 73) / 80)
    assert two_nn(torch.tensor(points)) == pytest.approx((mu * y).sum() / (mu**2).sum(), rel=1e-9)


def test_the_likelihood_estimate_against_a_twin():
    points = np.random.default_rng(6).normal(size=(90, 4))
    distances = np.sort(np.sqrt(((points[:, None] - points[None]) ** 2).sum(2)), axis=1)[:, 1:11]
    inverse = np.log(distances[:, -1:] / distances[:, :-1]).sum(1) / 9
    assert nearest_neighbour_dimension(torch.tensor(points), 10) == pytest.approx(1 / inverse.mean(), rel=1e-9)
    sheet = in_space(np.random.default_rng(7).uniform(size=(2000, 2)))
    assert nearest_neighbour_dimension(sheet) == pytest.approx(2, abs=0.15)


def test_points_that_occur_twice_count_once():
    points = torch.tensor(np.random.default_rng(8).uniform(size=(300, 2)))
    assert two_nn(torch.cat([points, points[:100]])) == pytest.approx(two_nn(points), rel=1e-12)


@pytest.mark.parametrize("bad", [torch.zeros(10, 3), torch.rand(3, 2), torch.full((9, 2), torch.nan), torch.rand(9)])
def test_points_without_an_answer(bad):
    with pytest.raises(UndefinedReading):
        two_nn(bad)


GRID = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0))
BAD_REQUESTS = {
    "grid": lambda: two_nn(GRID),
    "discard": lambda: two_nn(GRID, discard=1),
    "share": lambda: components(torch.ones(3), 0),
    "maps": lambda: spectrum(torch.rand(2, 2, 2)),
    "signed": lambda: components(torch.tensor([-1.0])),
    "neighbours": lambda: nearest_neighbour_dimension(torch.rand(50, 2), 2),
}


@pytest.mark.parametrize("what", BAD_REQUESTS)
def test_bad_requests(what):
    with pytest.raises(UndefinedReading):
        BAD_REQUESTS[what]()
