"""Balls: what they contain, and the points they give."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError, UndefinedReading
from brinell.core.threat import Ball, Threat

NORMS = [1, 2, math.inf]
every = pytest.mark.parametrize("norm", NORMS)
BOXES = [(0.0, 1.0), (-1.0, 2.0), (-math.inf, math.inf), (0.0, math.inf), (-math.inf, 1.0)]


def inside_the_domain(count: int, low: float, high: float, d: int = 20) -> torch.Tensor:
    x = torch.randn(count, d).clamp(max(low, -5), min(high, 5))
    x[0] = max(low, -5)
    x[-1] = min(high, 5)
    return x


@pytest.mark.parametrize(
    ("fields", "fact"),
    [({"norm": 3}, "not one of 1, 2, inf"), ({"norm": 0}, "not one of"), ({"norm": -1}, "not one of"), ({"eps": -1e-9}, "eps"),
     ({"eps": math.nan}, "eps"), ({"low": 1.0, "high": 1.0}, "must lie below"), ({"low": 2}, "must lie below"),
     ({"eps": "8/255"}, "eps"), ({"norm": "two"}, "norm"), ({"radius": 1}, "radius")],
)  # fmt: skip
def test_refuses_what_is_no_ball(fields, fact):
    with pytest.raises(SpecError, match=fact):
        Ball(**fields)


def test_text_forms():
    for ball in (Ball(norm=2, eps=0.5), Ball(eps=1 / 255), Ball(norm=1, low=-math.inf, high=math.inf), Ball(low=-1, high=2.5)):
        assert parse(ball.spec()) == ball
        assert parse(ball.spec(full=True)) == ball
    assert Ball(norm="inf") == Ball(norm=math.inf) == Ball(norm="Linf") == parse("ball(norm=inf)")


def test_default_is_eight_grey_levels_in_linf():
    assert (Ball().norm, Ball().eps, Ball().low, Ball().high) == (math.inf, 8 / 255, 0, 1)


@every
@pytest.mark.parametrize(("low", "high"), BOXES)
@pytest.mark.parametrize("eps", [0.0, 1e-3, 0.7, 50.0])
def test_projection_lands_inside_and_stays_put_the_second_time(norm, low, high, eps):
    ball = Ball(norm=norm, eps=eps, low=low, high=high)
    x = inside_the_domain(30, low, high)
    z = ball.project(x, x + 3 * torch.randn_like(x))
    assert bool(ball.contains(x, z).all())
    assert z.dtype == x.dtype
    again = ball.project(x, z)
    assert float((again - z).abs().max()) <= ball.slack(x)
    assert bool(ball.contains(x, again).all())


@every
@pytest.mark.parametrize(("low", "high"), BOXES)
def test_projection_leaves_points_inside_bit_for_bit(norm, low, high):
    ball = Ball(norm=norm, eps=0.8, low=low, high=high)
    x = inside_the_domain(50, low, high)
    z = x + ball.eps * 0.999 * torch.nn.functional.normalize(torch.randn_like(x), p=norm)
    z = z.clamp(low, high)
    assert torch.equal(ball.project(x, z), z)
    assert torch.equal(ball.project(x, x), x)


@every
@pytest.mark.parametrize("seed", range(5))
def test_projection_is_the_nearest_point_by_a_general_solver(norm, seed):
    """min |z - target| over low <= z <= high and |z - x| <= eps: SLSQP on the epigraph of the ball, in float64."""
    rng = np.random.default_rng(seed)
    d, eps = 5, float(rng.choice([0.1, 0.6]))
    x, target = rng.uniform(size=d), rng.normal(size=d)
    ball = Ball(norm=norm, eps=eps)
    got = ball.project(torch.from_numpy(x)[None], torch.from_numpy(target)[None])[0].numpy()
    limits = {
        1: [{"type": "ineq", "fun": lambda w: eps - w[d:].sum()}],
        2: [{"type": "ineq", "fun": lambda w: eps**2 - ((w[:d] - x) ** 2).sum()}],
        math.inf: [{"type": "ineq", "fun": lambda w: eps - w[d:]}],
    }[norm]
    limits += [{"type": "ineq", "fun": lambda w: w[d:] - (w[:d] - x)}, {"type": "ineq", "fun": lambda w: w[d:] + (w[:d] - x)}]
    start = np.concatenate((x, np.full(d, eps / (2 * d))))
    answer = optimize.minimize(
        lambda w: ((w[:d] - target) ** 2).sum(), start, bounds=[(0, 1)] * d + [(0, None)] * d, constraints=limits, method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-14},
    )  # fmt: skip
    assert got == pytest.approx(answer.x[:d], abs=1e-4)
    assert ((got - target) ** 2).sum() <= answer.fun + 1e-6


@every
@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(-3, 3, width=32)), min_size=1, max_size=10),
    st.sampled_from([0.0, 1 / 255, 0.25, 3.0]), st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_projection_of_any_point_is_contained(norm, pairs, eps, dtype):
    x = torch.tensor([[a for a, _ in pairs]], dtype=dtype)
    target = torch.tensor([[b for _, b in pairs]], dtype=dtype)
    ball = Ball(norm=norm, eps=eps)
    z = ball.project(x, target)
    assert bool(ball.contains(x, z).all())
    assert torch.equal(ball.project(x, x), x)
    if bool(ball.contains(x, target).all()) and float(ball.distance(x, target)) <= eps * (1 - 1e-6):
        assert torch.equal(z, target)


@every
def test_contains_forgives_rounding_only(norm):
    x = torch.full((1, 100), 0.5, dtype=torch.float64)
    ball = Ball(norm=norm, eps=0.2)
    step = ball.eps * ball.steepest(torch.randn_like(x))
    for factor, held in ((0.0, True), (1 - 1e-9, True), (1.0, True), (1 + 1e-4, False), (2.0, False)):
        assert ball.contains(x, x + factor * step).item() is held


def test_contains_is_strict_about_the_domain_and_about_nan():
    x = torch.full((4, 2), 0.5)
    z = x.clone()
    z[0, 0], z[1, 0], z[2, 0] = 1 + 1e-6, -1e-7, math.nan
    assert Ball(eps=1.0).contains(x, z).tolist() == [False, False, False, True]
    assert Ball(eps=1.0, low=-math.inf, high=math.inf).contains(x, z).tolist() == [True, True, False, True]


@every
def test_distance_is_numpys(norm):
    x, z = torch.rand(4, 3, 5), torch.rand(4, 3, 5)
    want = [np.linalg.norm(row.ravel(), ord=norm) for row in (z.double() - x.double()).numpy()]
    got = Ball(norm=norm).distance(x, z)
    assert got.dtype == torch.float64
    assert got.numpy() == pytest.approx(want)


@every
def test_steepest_does_not_push_through_walls(norm):
    z = torch.tensor([[0.0, 1.0, 0.5, 0.0, 1.0]])
    g = torch.tensor([[-9.0, 9.0, 1.0, 2.0, -3.0]])
    u = Ball(norm=norm).steepest(g, z)
    assert u[0, :2].tolist() == [0, 0]
    assert u[0, 4] < 0
    free = Ball(norm=norm).steepest(g)
    assert bool((free[0, :2] != 0).any())


def test_box_holds_the_ball():
    x = torch.tensor([[0.0, 0.5, 1.0]])
    low, high = Ball(eps=0.25).box(x)
    assert low.tolist() == [[0.0, 0.25, 0.75]]
    assert high.tolist() == [[0.25, 0.75, 1.0]]


@every
@pytest.mark.parametrize(("low", "high"), BOXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_lie_inside_and_reach_far(norm, low, high, dtype):
    ball = Ball(norm=norm, eps=0.4, low=low, high=high)
    x = inside_the_domain(400, low, high).to(dtype)
    z = ball.sample(x, derive(0, ids=range(400)))
    assert z.dtype == dtype
    assert bool(ball.contains(x, z).all())
    assert float(ball.distance(x, z).max()) > 0.35  # walls cost some
    assert torch.equal(z, ball.sample(x, derive(0, ids=range(400))))


def test_a_threat_that_does_not_say_cannot_be_used():
    class Mute(Threat, name="mute_for_a_test"):
        pass

    with pytest.raises(TypeError, match="contains"):
        Mute().contains(torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(TypeError, match="sampled"):
        Mute().sample(torch.zeros(1, 2), derive(0, ids=[0]))


def test_a_ball_without_end_is_the_domain():
    ball, x = Ball(norm=2, eps=math.inf), torch.tensor([[0.25, 0.5]])
    assert parse(ball.spec()) == ball and ball.spec() == "ball(eps=inf, norm=2)"
    assert ball.contains(x, torch.tensor([[1.0, 0.0]])).all() and not ball.contains(x, torch.tensor([[1.01, 0.0]])).any()
    assert ball.project(x, torch.tensor([[3.0, -2.0]])).tolist() == [[1.0, 0.0]]
    with pytest.raises(UndefinedReading, match="no uniform distribution"):
        ball.sample(x, derive(0, ids=[0]))


@pytest.mark.parametrize("norm", NORMS)
def test_radii_of_their_own_project_like_balls_of_their_own(norm):
    x, far = torch.full((3, 6), 0.5), torch.tensor([[0.9, 0.1, 0.6, 0.5, 1.4, -0.3]]).expand(3, 6)
    radii = torch.tensor([0.05, 0.3, 9.0], dtype=torch.float64)
    together = Ball(norm=norm).project(x, far, radii)
    alone = torch.cat([Ball(norm=norm, eps=float(eps)).project(x[:1], far[:1]) for eps in radii])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_the_shortest_step_across_a_plane(norm):
    """At (1, 1/2) with gradient (3, 4): the first entry stands at a wall, so the second goes alone."""
    ball, z, g = Ball(norm=norm, eps=math.inf), torch.tensor([[1.0, 0.5]]), torch.tensor([[3.0, 4.0]])
    assert ball.across(z, g, torch.tensor([1.0]))[0].tolist() == pytest.approx([0.0, 0.25])
    back = {1: [0.0, -0.25], 2: [-0.12, -0.16], math.inf: [-1 / 7, -1 / 7]}[norm]
    assert ball.across(z, g, torch.tensor([-1.0]))[0].tolist() == pytest.approx(back)
    assert ball.across(z, g, torch.tensor([9.0]))[0].tolist() == pytest.approx([0.0, 0.5])  # as far as the domain goes
    assert ball.free(g, z).tolist() == [[False, True]]
