"""Geometry of the p-norms, against numpy and a general-purpose solver."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from brinell.core import norms
from brinell.core.draws import derive

NORMS = [1, 2, math.inf]
every = pytest.mark.parametrize("p", NORMS)
unit = st.floats(-2, 2, allow_nan=False, width=32)


def length(v: np.ndarray, p: float) -> np.ndarray:
    return np.array([np.linalg.norm(row.ravel(), ord=p) for row in v])


def solved(v: np.ndarray, eps: float, p: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """argmin |z - v|_2 over the ball and the box, by SLSQP on z = a - b with a, b >= 0 (so that |z|_1 = sum(a + b))."""
    d = len(v)
    jacobian = np.concatenate((np.eye(d), -np.eye(d)), 1)
    limit = {1: lambda w: eps - w.sum(), 2: lambda w: eps**2 - ((w[:d] - w[d:]) ** 2).sum()}.get(p)
    bounds = [(0, min(b, eps)) for b in high] + [(0, min(-a, eps)) for a in low]
    answer = optimize.minimize(
        lambda w: 0.5 * ((w[:d] - w[d:] - v) ** 2).sum(), np.zeros(2 * d), jac=lambda w: jacobian.T @ (w[:d] - w[d:] - v), bounds=bounds,
        method="SLSQP", constraints=[{"type": "ineq", "fun": limit}] if limit else [], options={"maxiter": 500, "ftol": 1e-14},
    )  # fmt: skip
    return answer.x[:d] - answer.x[d:]


@pytest.mark.parametrize("p", [0, 1, 2, math.inf])
def test_length_is_numpys_norm(p):
    v = torch.randn(5, 3, 4, 2, dtype=torch.float64)
    v[v.abs() < 0.5] = 0
    assert norms.length(v, p).numpy() == pytest.approx(length(v.numpy(), p))
    assert norms.length(torch.zeros(2, 0), p).tolist() == [0, 0]


def test_dual_exponents():
    assert [norms.dual(p) for p in NORMS] == [math.inf, 2, 1]


@every
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e20])
def test_steepest_attains_the_dual_norm(p, scale):
    g = torch.randn(20, 3, 4, dtype=torch.float64) * scale
    u = norms.steepest(g, p)
    gain = (g * u).flatten(1).sum(1).numpy()
    assert gain == pytest.approx(length(g.numpy(), norms.dual(p)))
    assert length(u.numpy(), p) == pytest.approx(np.ones(20))


@every
def test_steepest_is_zero_where_the_gradient_is_and_moves_only_what_is_free(p):
    g = torch.randn(6, 10)
    g[0] = 0
    free = torch.rand(6, 10) > 0.5
    free[1] = False
    u = norms.steepest(g, p, free)
    assert not u[~free].any()
    assert not u[:2].any()
    assert norms.length(u[2:], p).numpy() == pytest.approx(np.ones(4), abs=1e-6)
    gain = (g * u).sum(1).numpy()
    assert gain == pytest.approx(length((g * free).numpy(), norms.dual(p)), rel=1e-5)
    assert torch.equal(norms.steepest(torch.full((1, 3), 1e-44), math.inf), torch.ones(1, 3))
    assert norms.length(norms.steepest(torch.full((1, 3), 1e-30), 2), 2).item() == pytest.approx(1)


@every
@pytest.mark.parametrize("seed", range(12))
def test_projection_is_the_nearest_point_by_a_general_solver(p, seed):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 9))
    v = rng.normal(size=(4, d)) * rng.choice([0.1, 1, 5])
    eps = float(rng.choice([0.05, 0.5, 2]))
    low, high = -rng.uniform(size=v.shape) * rng.integers(0, 2, v.shape), rng.uniform(size=v.shape) * rng.integers(0, 2, v.shape)
    for a, b in ((low, high), (np.full(v.shape, -1e3), np.full(v.shape, 1e3)), (np.full(v.shape, -0.3), np.full(v.shape, 0.6))):
        got = norms.project(torch.from_numpy(v), eps, p, torch.from_numpy(a), torch.from_numpy(b)).numpy()
        want = np.stack([solved(row, eps, p, lo, hi) for row, lo, hi in zip(v, a, b, strict=True)])
        assert (length(got, p) <= eps * (1 + 1e-9)).all()
        assert (got >= a).all()
        assert (got <= b).all()
        assert np.abs(got - want).max() < 2e-5
        near, best = (np.linalg.norm(z - v, axis=1) for z in (got, want))
        assert (near <= best + 1e-6).all()


@every
@settings(deadline=None, max_examples=80)
@given(st.lists(unit, min_size=1, max_size=12), st.sampled_from([0.0, 1e-3, 0.3, 1.0, 7.0]), st.floats(-1, 0), st.floats(0, 1))
def test_projection_lands_inside_is_idempotent_and_keeps_what_is_inside(p, values, eps, low, high):
    v = torch.tensor([values], dtype=torch.float64)
    z = norms.project(v, eps, p, low, high)
    assert float(norms.length(z, p)) <= eps + 1e-12
    assert float(z.min()) >= low
    assert float(z.max()) <= high
    assert torch.allclose(norms.project(z, eps, p, low, high), z, atol=1e-12)
    inside = z * 0.5
    assert torch.equal(norms.project(inside, eps, p, low, high), inside)
    assert not bool((z * v < 0).any())
    assert not bool((z.abs() > v.abs() + 1e-12).any())


@every
def test_projection_satisfies_its_variational_inequality_at_image_size(p):
    """z is the projection of v if and only if <v - z, w - z> <= 0 for every w of the set."""
    eps = {1: 30.0, 2: 2.0, math.inf: 0.03}[p]
    x = torch.rand(6, 3, 32, 32, dtype=torch.float64)
    v = torch.randn_like(x) * 0.5
    z = norms.project(v, eps, p, -x, 1 - x)
    assert bool((norms.length(z, p) <= eps * (1 + 1e-9)).all())
    assert norms.length(z, p).numpy() == pytest.approx(eps)
    best = torch.empty_like(x)  # the point of ball and box that maximises <v - z, w>, greedily for p = 1
    away = v - z
    for w in (norms.project(away * scale, eps, p, -x, 1 - x) for scale in (0.01, 1.0, 100.0)):
        best.copy_(w)
        assert bool(((away * (best - z)).flatten(1).sum(1) <= 1e-8).all())


@pytest.mark.parametrize("d", [1, 2, 50, 4000])
def test_l1_projection_without_a_box_is_the_sorted_soft_threshold(d):
    """Duchi et al. (2008), figure 1, in numpy."""
    rng = np.random.default_rng(d)
    for heavy in (1, 5):
        v = rng.normal(size=(5, d)) ** heavy
        eps = 0.3 * np.abs(v).sum(1).min()
        got = norms.project(torch.from_numpy(v), float(eps), 1).numpy()
        for row, z in zip(v, got, strict=True):
            mu = np.sort(np.abs(row))[::-1]
            rho = np.nonzero(mu - (np.cumsum(mu) - eps) / np.arange(1, d + 1) > 0)[0][-1]
            theta = (mu[: rho + 1].sum() - eps) / (rho + 1)
            assert z == pytest.approx(np.sign(row) * np.maximum(np.abs(row) - theta, 0), abs=1e-12)


@pytest.mark.parametrize("p", [1, 2])
def test_projection_ends_on_geometric_ladders_ties_and_hostile_numbers(p):
    ladder = 2.0 ** -torch.arange(60, dtype=torch.float64)
    cases = [ladder, ladder.flip(0), torch.ones(60, dtype=torch.float64), torch.zeros(60, dtype=torch.float64), ladder**8]
    v = torch.stack(cases)
    for room in (ladder / 3, ladder.sqrt(), torch.full_like(ladder, 1e-3), torch.zeros_like(ladder)):
        for eps in (1e-9, 0.01, 1.0, 30.0):
            z = norms.project(v, eps, p, -room.expand_as(v), room.expand_as(v))
            reach = norms.length(v.minimum(room), p).clamp(max=eps)
            assert norms.length(z, p).numpy() == pytest.approx(reach.numpy(), rel=1e-12, abs=60e-15)  # s is that fine next to v = 1
    bad = torch.tensor([[math.inf, 1.0, 2.0], [math.nan, 1.0, 2.0], [3.0, 1.0, 2.0]])
    z = norms.project(bad, 1.0, p, -0.5, 0.5)
    assert torch.equal(z[2:], norms.project(bad[2:], 1.0, p, -0.5, 0.5))


@every
def test_a_projected_row_does_not_depend_on_its_batch_mates(p):
    x, v = torch.rand(9, 3, 20, 21), torch.randn(9, 3, 20, 21)
    whole = norms.project(v, 0.5, p, -x, 1 - x)
    for row in (0, 5, 8):
        one = slice(row, row + 1)
        assert torch.equal(norms.project(v[one], 0.5, p, -x[one], 1 - x[one]), whole[one])


@every
@pytest.mark.parametrize("d", [1, 2, 3, 12])
def test_uniform_in_ball_has_the_radial_law_and_symmetry(p, d):
    v = norms.uniform_in_ball(torch.Size((4000, d)), p, derive(0, ids=range(4000)), torch.float64)
    radius = length(v.numpy(), p)
    assert radius.max() <= 1
    assert stats.kstest(radius**d, "uniform").pvalue > 1e-3  # P(|v| <= r) = r^d
    assert np.abs(v.mean(0).numpy() / v.std(0).numpy()).max() < 5 / math.sqrt(4000)
    spread = v.std(0).numpy()
    assert spread.max() < 1.15 * spread.min()


@every
def test_uniform_in_ball_agrees_with_rejection_from_the_cube(p):
    """The share of points in a smaller corner region is that of points drawn in the cube and kept if inside the ball."""
    v = norms.uniform_in_ball(torch.Size((20_000, 3)), p, derive(1, ids=range(20_000)), torch.float64).numpy()
    cube = np.random.default_rng(0).uniform(-1, 1, (200_000, 3))
    kept = cube[length(cube, p) <= 1]
    for look in (lambda w: w[:, 0], lambda w: w[:, 0] * w[:, 1], lambda w: np.abs(w).max(1), lambda w: w.sum(1)):
        assert stats.ks_2samp(look(v), look(kept)).pvalue > 1e-3


def test_uniform_in_ball_keeps_shape_and_type():
    for dtype in (torch.float32, torch.float64):
        v = norms.uniform_in_ball(torch.Size((2, 3, 4, 5)), 2, derive(0, ids=[0, 1]), dtype)
        assert v.shape == (2, 3, 4, 5)
        assert v.dtype == dtype


def test_slack_grows_with_the_entries_that_can_round():
    assert norms.slack(math.inf, 3072, 1.0) == 2 * np.finfo(np.float32).eps
    assert norms.slack(2, 100, 1.0) == pytest.approx(10 * norms.slack(math.inf, 1, 1.0))
    assert norms.slack(1, 100, 3.0) == pytest.approx(300 * norms.slack(math.inf, 1, 1.0))
    assert norms.slack(2, 4, 1.0, torch.float64) < 1e-14


def test_scaled_multiplies_each_sample_by_its_own_number():
    v = torch.rand(3, 2, 2)
    assert torch.equal(norms.scaled(v, torch.tensor([0.0, 1.0, 2.0])), torch.stack((v[0] * 0, v[1], v[2] * 2)))
