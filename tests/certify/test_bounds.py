"""Interval and linear bounds: never violated, exact where they must be, and the same however the samples are grouped."""

import itertools
import math

import pytest
import torch
from torch import nn

from brinell.certify.interval import interval_bounds
from brinell.certify.linear_relaxation import linear_bounds
from brinell.certify.problem import margin_rows
from brinell.core.draws import derive
from brinell.core.errors import DataError
from brinell.core.goal import Maximise, margin
from brinell.core.threat import Ball
from brinell.models.reference import linear_network
from brinell.perturb.pgd import PGD

BOTH = [interval_bounds, linear_bounds]
BALLS = [Ball(eps=0.02), Ball(norm=2, eps=0.2), Ball(norm=1, eps=0.5)]
NAMES = ["mlp", "two classes", "small_cnn", "strides", "normalised", "option A", "option B", "parts"]


def cases():
    """Every network in one ball; all balls and both types are slow."""
    for number, (name, dtype) in enumerate(itertools.product(NAMES, (torch.float32, torch.float64))):
        for place, ball in enumerate(BALLS):
            fast = dtype == torch.float32 and place == number // 2 % len(BALLS) and name != "option B"
            yield pytest.param(name, ball, dtype, id=f"{name}-{ball}-{dtype}", marks=() if fast else pytest.mark.slow)


@pytest.mark.parametrize(("name", "ball", "dtype"), list(cases()))
def test_no_point_of_the_ball_leaves_the_bounds_and_linear_lie_within_boxes(name, ball, dtype, make_net, samples, inside):
    net, shape = make_net(name, dtype)
    x = samples(2, shape, dtype)
    boxes, lines = (bounds(net, x, ball) for bounds in BOTH)
    assert (lines[0] >= boxes[0] - 1e-9).all() and (lines[1] <= boxes[1] + 1e-9).all()
    assert (lines[1] - lines[0]).mean() < (boxes[1] - boxes[0]).mean()
    z = torch.stack([inside(ball, x, seed) for seed in range(30)])
    far = torch.stack([ball.distance(x, points) for points in z])
    assert far.max() <= ball.eps + ball.slack(x) + 1e-9 and z.min() >= 0 and z.max() <= 1
    logits = net(z.flatten(0, 1)).unflatten(0, z.shape[:2])
    assert (logits >= lines[0]).all() and (logits <= lines[1]).all()


@pytest.mark.parametrize(
    "name", ["mlp", pytest.param("small_cnn", marks=pytest.mark.slow), pytest.param("option A", marks=pytest.mark.slow)]
)
def test_ten_thousand_points_and_a_strong_attack_stay_above_the_floor(name, make_net, samples, inside):
    net, shape = make_net(name)
    x, ball = samples(2, shape), Ball(eps=0.01)
    y = net(x).argmax(1)
    rows = margin_rows(y, net(x).shape[1])
    floor = linear_bounds(net, x, ball, rows)[0].amin(1)
    for seed in range(50):
        z = inside(ball, x.repeat_interleave(100, 0), seed)
        assert (-margin(net(z), y.repeat_interleave(100)) >= floor.repeat_interleave(100)).all()
    z = PGD(steps=60, restarts=3, threat=ball, goal=Maximise(quantity="margin"))(net, x, y, draws=derive(0, ids=range(2)))
    reached = -margin(net(z), y)
    assert (reached >= floor).all() and (reached < -margin(net(x), y)).all()


@pytest.mark.parametrize("bounds", BOTH)
@pytest.mark.parametrize("ball", [Ball(eps=0.1), Ball(norm=2, eps=0.4), Ball(norm=1, eps=0.7)], ids=str)
def test_affine_networks_are_exact_in_every_norm(bounds, ball, samples):
    lot = torch.Generator().manual_seed(0)
    w, b = torch.randn(3, 12, generator=lot, dtype=torch.float64), torch.randn(3, generator=lot, dtype=torch.float64)
    x = 0.45 + 0.1 * samples(4, (12,), torch.float64) if ball.norm == math.inf else samples(4, (12,), torch.float64) * 0
    wide = ball.replace(low=-50.0, high=50.0)
    lower, upper = bounds(linear_network(w, b), x, wide)
    q = {1: math.inf, 2: 2, math.inf: 1}[ball.norm]
    reach = ball.eps * torch.linalg.vector_norm(w, ord=q, dim=1)
    assert torch.allclose(lower, x @ w.T + b - reach, atol=1e-9) and torch.allclose(upper, x @ w.T + b + reach, atol=1e-9)


@pytest.mark.parametrize("bounds", BOTH)
@pytest.mark.parametrize("ball", [Ball(eps=0.3), Ball(norm=2, eps=0.9), Ball(norm=1, eps=1.5)], ids=str)
def test_the_domain_cuts_the_ball_exactly_on_affine_networks(bounds, ball, samples):
    """The point of a convex set that is nearest to one far along a slope is where the slope is climbed highest."""
    lot = torch.Generator().manual_seed(4)
    deep = nn.Sequential(nn.Linear(6, 5, dtype=torch.float64), nn.Identity(), nn.Linear(5, 2, dtype=torch.float64))
    for p in deep.parameters():
        p.data = torch.randn(p.shape, generator=lot, dtype=torch.float64)
    x = samples(5, (6,), torch.float64)
    row = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    lower, upper = bounds(deep, x, ball, row)
    slope = (row @ deep[2].weight @ deep[0].weight).expand_as(x)
    for sign, found in ((1, upper), (-1, lower)):
        best = deep(ball.project(x, x + sign * slope * 100)) @ row[0]
        assert torch.allclose(found.squeeze(1), best, atol=1e-6) and (sign * (found.squeeze(1) - best) >= -1e-9).all()


def test_convolutions_without_a_nonlinearity_are_exact(samples):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 2))
    net = net.double().eval().requires_grad_(False)
    x, ball = samples(2, (2, 6, 6), torch.float64), Ball(eps=0.05)
    jacobian = torch.autograd.functional.jacobian(lambda z: net(z).sum(0), x).movedim(0, 1).flatten(2)
    low, high = ball.box(x)
    start, room = net(low), (high - low).flatten(1)[:, None]
    least = start + (jacobian.clamp(max=0) * room).sum(2)
    most = start + (jacobian.clamp(min=0) * room).sum(2)
    for bounds in BOTH:
        lower, upper = bounds(net, x, ball)
        assert torch.allclose(lower, least, atol=1e-9) and torch.allclose(upper, most, atol=1e-9)


@pytest.mark.parametrize("ball", [ball.replace(eps=0.0) for ball in BALLS], ids=str)
@pytest.mark.parametrize("bounds", BOTH)
def test_no_radius_leaves_rounding_alone(bounds, ball, make_net, samples):
    net, shape = make_net("small_cnn")
    x = samples(2, shape)
    lower, upper = bounds(net, x, ball)
    logits = net(x)
    assert (lower <= logits).all() and (logits <= upper).all() and (upper - lower).max() < 1e-3


@pytest.mark.parametrize("name", ["mlp", "small_cnn", "parts", pytest.param("option B", marks=pytest.mark.slow)])
def test_samples_do_not_depend_on_their_batch_mates(name, make_net, samples):
    net, shape = make_net(name)
    x, ball = samples(5, shape), Ball(eps=0.02)
    together = linear_bounds(net, x, ball)
    for rows in ([0], [3, 1], [4, 2, 0]):
        alone = linear_bounds(net, x[rows], ball)
        for a, b in zip(alone, together, strict=True):
            assert torch.allclose(a, b[rows], rtol=1e-9, atol=1e-9)


def test_more_memory_or_less_gives_the_same(make_net, samples, monkeypatch):
    net, shape = make_net("small_cnn")
    x, ball = samples(5, shape), Ball(eps=0.02)
    expected = linear_bounds(net, x, ball)
    monkeypatch.setattr("brinell.certify.problem.AT_ONCE", 2000)
    monkeypatch.setattr("brinell.certify.linear_relaxation.ROWS_AT_ONCE", 3000)
    monkeypatch.setattr("brinell.certify.linear_relaxation.FEW", 4)
    for a, b in zip(linear_bounds(net, x, ball), expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_passes_trade_tightness_for_work(make_net, samples):
    net, shape = make_net("option A")
    x, ball = samples(2, shape), Ball(eps=0.002)
    widths = [(upper - lower).mean() for lower, upper in (linear_bounds(net, x, ball, passes=k) for k in (0, 100, None))]
    assert widths[0] >= widths[1] >= widths[2] and widths[0] > 10 * widths[2]


def test_without_rounding_the_bounds_come_in_the_samples_own_type_and_are_narrower(make_net, samples):
    net, shape = make_net("small_cnn")
    x, ball = samples(3, shape), Ball(eps=0.02)
    for bounds in BOTH:
        slack, plain = bounds(net, x, ball), bounds(net, x, ball, rounding=False)
        assert plain[0].dtype == torch.float32 and slack[0].dtype == torch.float64
        assert (slack[0] < plain[0]).all() and (slack[1] > plain[1]).all()
        assert torch.allclose(slack[0].float(), plain[0], atol=0.02)


def test_rows_may_differ_from_sample_to_sample(make_net, samples):
    net, shape = make_net("mlp")
    x, ball = samples(3, shape), Ball(eps=0.02)
    rows = margin_rows(torch.tensor([0, 1, 2]), 4)
    for bounds in BOTH:
        lower, _ = bounds(net, x, ball, rows)
        for k in range(3):
            assert torch.allclose(lower[k], bounds(net, x[k : k + 1], ball, rows[k])[0][0], atol=1e-9)
        apart = bounds(net, x, ball)
        loose = rows.double().clamp(min=0) @ apart[0][..., None] + rows.double().clamp(max=0) @ apart[1][..., None]
        assert (lower >= loose.squeeze(2) - 1e-9).all() and (lower > loose.squeeze(2) + 1e-6).any()


def test_an_empty_batch_has_empty_bounds(make_net):
    net, shape = make_net("mlp")
    assert [tuple(ends.shape) for ends in linear_bounds(net, torch.zeros(0, *shape), Ball())] == [(0, 4), (0, 4)]


def test_a_ball_without_end_holds_the_whole_domain(make_net, samples):
    net, shape = make_net("mlp")
    x = samples(2, shape)
    for norm in (1, 2, math.inf):
        lower, upper = linear_bounds(net, x, Ball(norm=norm, eps=math.inf))
        assert torch.allclose(lower, linear_bounds(net, x, Ball(eps=1.0))[0]) and upper.isfinite().all()
    assert linear_bounds(net, x, Ball(eps=math.inf, low=-math.inf, high=math.inf))[0].isneginf().all()


@pytest.mark.parametrize("bounds", BOTH)
@pytest.mark.parametrize(
    "x, C, said",
    [
        (torch.zeros(2, 7).long(), None, "got torch.int64 of shape (2, 7)"),
        (torch.zeros(7), None, "float32 or float64 inputs of shape (n, *d)"),
        (torch.full((1, 7), 1.5), None, "need inputs in [0, 1]"),
        (torch.full((1, 7), math.nan), None, "need inputs in [0, 1]"),
        (torch.zeros(2, 7), torch.zeros(3, 5), "functions of 2 logits as (r, 2), or as (2, r, 2)"),
        (torch.zeros(2, 7), torch.zeros(3, 1, 2), "got (3, 1, 2)"),
    ],
)
def test_what_cannot_be_bounded_is_said(bounds, x, C, said, make_net):
    net, _ = make_net("two classes")
    with pytest.raises(DataError) as caught:
        bounds(net, x, Ball(), C)
    assert said in str(caught.value)
