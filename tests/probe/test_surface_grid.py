"""The grid under a surface: heights against a slow twin, refinement against the full grid, the boundary in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from brinell.core.draws import derive
from brinell.probe.surface_boundary import contour, first_below
from brinell.probe.surface_grid import HEIGHTS, heights, interpolate, refine


def twin(z: np.ndarray, y: int, clean: np.ndarray) -> list[float]:
    """margin, cross-entropy, DLR and KL of one sample, from their definitions."""
    others = [z[k] for k in range(len(z)) if k != y]
    log_q, log_p = (v - math.log(sum(math.exp(float(w)) for w in v)) for v in (z, clean))
    ranked = sorted(z.tolist(), reverse=True)
    spread = ranked[0] - ranked[2] if len(z) >= 4 else 1.0
    lead = z[y] - max(others)
    return [lead, -log_q[y], -lead / spread, sum(math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True))]


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_heights_are_those_of_a_slow_twin(classes: int):
    z, clean = (derive(0, name, ids=range(7)).normal(classes, dtype=torch.float64) * 3 for name in ("z", "clean"))
    y = torch.arange(7) % classes
    found = heights(z, y, clean)
    for row in range(7):
        assert found[row].tolist() == pytest.approx(twin(z[row].numpy(), int(y[row]), clean[row].numpy()), rel=1e-9, abs=1e-9)


def test_an_affine_network_is_known_from_few_points():
    weight = derive(0, ids=range(5)).normal(2, dtype=torch.float64)

    def evaluate(image, column, row):
        logits = torch.stack([column, row], 1).double() @ weight.T / 9 - torch.arange(5) / 3
        return torch.cat((logits, torch.zeros(len(column), 1)), 1)

    y, clean = torch.tensor([0, 3]), torch.zeros(2, 5, dtype=torch.float64)
    few, all_ = (refine(evaluate, y, clean, 41, adaptive=adaptive) for adaptive in (True, False))
    assert all_.known.all() and all_.error.max() == 0
    assert few.known.flatten(1).sum(1).max() == 121  # every fourth point is enough
    assert few.error[:, [0, 1, 3]].max() < 1e-9
    torch.testing.assert_close(few.heights, all_.heights, rtol=1e-9, atol=1e-9)


def bumps(seed: int, classes: int = 4):
    """Logits that are sums of random waves over the grid, one list of them for each of three images."""
    draws = derive(seed, "bumps", ids=range(3 * classes))
    wave, phase = draws.uniform(6, 2, low=-0.35, high=0.35), draws.uniform(6, high=6.28)

    def evaluate(image, column, row):
        at = image[:, None] * classes + torch.arange(classes)
        angle = wave[at, :, 0] * column[:, None, None] + wave[at, :, 1] * row[:, None, None] + phase[at]
        return torch.cat((angle.sin().sum(2), torch.zeros(len(column), 1)), 1)

    return evaluate


@pytest.mark.parametrize("grid", [41, 47, 83])
def test_adaptive_is_the_full_grid_within_the_stated_error(grid: int):
    kept, saved = [], []
    for seed in range(8 if grid < 80 else 3):
        evaluate, y, clean = bumps(seed), torch.tensor([0, 1, 2]), torch.zeros(3, 4)
        few, all_ = (refine(evaluate, y, clean, grid, adaptive=adaptive) for adaptive in (True, False))
        kept.append(((few.heights - all_.heights).abs().flatten(2).amax(2) <= few.error + 1e-9).flatten())
        saved.append(grid**2 / few.known.flatten(1).sum(1).double())
        known = few.known[:, None].expand_as(few.heights)
        assert torch.equal(few.heights[known], all_.heights[known])  # what was evaluated is not interpolated
        wrong = (few.heights[:, 0] < 0) != (all_.heights[:, 0] < 0)
        assert wrong.double().mean() < 0.02
    assert torch.cat(kept).all()
    assert torch.cat(saved).min() > 1


@pytest.mark.parametrize("turned", [False, True])
def test_a_fall_that_hides_between_the_points_seen_first_is_found(turned: bool):
    places, levels = [0, 20, 21, 24, 40], [26.0, 2.0, -2.6, -2.8, -3.8]  # at every other point of the first grid nothing bends

    def evaluate(image, column, row):
        margin = torch.from_numpy(np.interp(row if turned else column, places, levels))
        return torch.stack([margin, torch.zeros_like(margin), torch.zeros_like(margin)], 1)

    relief = refine(evaluate, torch.tensor([0]), torch.zeros(1, 2), 41)
    margins, t = relief.heights[0, 0].numpy(), np.arange(41.0)
    segments = contour(margins.T if turned else margins, t, t)
    assert np.abs(segments[:, 0::2] - (20 + 2 / 4.6)).max() < 1e-9
    assert relief.known.double().mean() < 0.4


def test_a_small_grid_is_seen_whole():
    relief = refine(bumps(0), torch.tensor([0, 1, 2]), torch.zeros(3, 4), 19)
    assert relief.known.all() and relief.error.max() == 0


def test_interpolation_is_linear_along_rows_and_then_columns():
    ticks, finer = torch.tensor([0, 4, 8, 11]), torch.arange(12)
    values = derive(0, ids=range(4)).normal(4, dtype=torch.float64)
    rows = np.stack([np.interp(finer, ticks, line) for line in values.numpy()])
    expected = np.stack([np.interp(finer, ticks, line) for line in rows.T]).T
    np.testing.assert_allclose(interpolate(values, ticks, finer).numpy(), expected, rtol=1e-12, atol=1e-12)


def test_heights_have_names():
    assert HEIGHTS == ("margin", "cross_entropy", "dlr", "kl")


def test_the_contour_of_a_circle():
    t = np.linspace(-1, 1, 81)
    segments = contour(0.5 - np.hypot(t[:, None], t), t, t)
    radius = np.hypot(segments[:, 0::2], segments[:, 1::2])
    assert np.abs(radius - 0.5).max() < 5e-4
    length = np.hypot(segments[:, 2] - segments[:, 0], segments[:, 3] - segments[:, 1]).sum()
    assert length == pytest.approx(np.pi, rel=1e-3)


@pytest.mark.parametrize(("values", "cut_off"), [([[1.0, -1.0], [-1.0, 2.0]], (1, 0)), ([[1.0, -2.0], [-1.0, 1.0]], (0, 0))])
def test_a_saddle_follows_the_mean_of_its_corners(values: list[list[float]], cut_off: tuple[int, int]):
    segments = contour(np.array(values), np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    assert len(segments) == 2
    middles = (segments[:, :2] + segments[:, 2:]) / 2
    distance = np.hypot(middles[:, 0] - cut_off[0], middles[:, 1] - cut_off[1]).min()
    assert distance < 0.5  # a line passes close by the corner that stands alone


def test_contours_of_flat_and_of_broken_surfaces_are_empty():
    t = np.arange(4.0)
    assert contour(np.ones((4, 4)), t, t).shape == (0, 4)
    assert contour(np.full((4, 4), np.nan), t, t).shape == (0, 4)


def test_the_first_fall_below_zero():
    heights_ = torch.tensor([[2.0, 1.0, -3.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    found = first_below(heights_, torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]))
    assert found[0] == pytest.approx(0.125) and found[1].isnan()
