"""Truncated gradient descent: its steps, its stages, its modes, and going on where it stopped."""

import math

import pytest
import torch

from brinell.core.draws import derive
from brinell.core.errors import DataError
from brinell.models.two_layer import initial_neurons
from brinell.models.two_layer_descent import Stage, descend, on_fresh_samples, on_population, on_samples, stages, truncated_step
from brinell.models.two_layer_loss import population_gradient, population_loss, sample_gradient
from brinell.models.two_layer_target import drawn_target


def problem(d=5, m=8):
    return initial_neurons(m, d, draws=derive(1, ids=[0, 1]), dtype=torch.float64), drawn_target(d, draws=derive(2, ids=[0]))


def test_a_neuron_above_the_cap_is_bitwise_unchanged():
    w, _ = problem()
    w[0, 3] *= 10 / w[0, 3].norm()
    gradient = torch.randn_like(w)
    moved = truncated_step(w, gradient, 0.1, cap=99.0)
    assert torch.equal(moved[0, 3], w[0, 3]) and bool((moved != w).any(-1).sum() == w[..., 0].numel() - 1)
    assert torch.equal(truncated_step(w, gradient, 0.1), w - 0.1 * gradient)
    at_cap = torch.tensor([[2.0, 0.0]])
    assert torch.equal(truncated_step(at_cap, torch.ones(1, 2), 0.5, cap=4.0), torch.tensor([[1.5, -0.5]])), "at the cap it still moves"


def test_the_stages_of_the_algorithm():
    first, second = stages(20, 3000, 0.5)
    assert (first.steps, first.cap, second.steps, second.cap) == (round(400 / (0.5 * math.log(20))), 80, 3000 - first.steps, 2000)
    assert [stage.steps for stage in stages(20, 100, 0.5)] == [100, 0] and sum(stage.steps for stage in stages(1, 7, 0.5)) == 7
    for fields in ((-1, 0.5, 1.0), (1, 0.0, 1.0), (1, math.inf, 1.0), (1, 0.5, 0.0), (1, math.nan, 1.0), (1, 0.5, math.nan)):
        with pytest.raises(DataError, match="a stage has"):
            Stage(*fields)


def test_steps_are_those_of_the_formula_and_stages_follow_each_other():
    w, target = problem()
    plan = [Stage(2, 0.5, 0.9), Stage(3, 0.25)]
    expected, walked = w, list(descend(w, on_population(target), plan))
    assert [step for step, _ in walked] == [0, 1, 2, 3, 4, 5] and torch.equal(walked[0][1], w)
    for step, found in walked[1:]:
        free = expected.square().sum(-1, keepdim=True) <= (0.9 if step <= 2 else math.inf)
        expected = expected - (0.5 if step <= 2 else 0.25) * population_gradient(expected, target) * free
        torch.testing.assert_close(found, expected)
    assert list(descend(w, on_population(target), [Stage(0, 0.5)]))[-1][0] == 0


def test_an_interrupted_descent_goes_on():
    w, target = problem()
    plan = [Stage(4, 0.5, 1.2), Stage(5, 0.25)]
    whole = [found for _, found in descend(w, on_population(target), plan)]
    for done in (0, 3, 4, 6, 9):
        rest = list(descend(whole[done], on_population(target), plan, done=done))
        assert rest[0][0] == done and rest[-1][0] == 9 and torch.equal(rest[-1][1], whole[-1])


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_small_steps_go_down(activation):
    w, target = problem()
    losses = torch.stack(
        [population_loss(v, target, activation) for _, v in descend(w, on_population(target, activation), [Stage(60, 0.1)])]
    )
    assert bool((losses.diff(dim=0) < 0).all()) and bool((losses[-1] < losses[0] / 2).all())


def test_the_three_kinds_of_gradient():
    w, target = problem()
    x = derive(0, "x", ids=range(30)).normal(5, dtype=torch.float64)
    assert torch.equal(on_population(target, "abs")(w), population_gradient(w, target, "abs"))
    assert torch.equal(on_samples(x, target(x))(w), sample_gradient(w, x, target(x)))
    draws = derive(0, "batches", ids=[0, 1])
    fresh = on_fresh_samples(target, 30, draws=draws)
    first, second = fresh(w), fresh(w)
    assert not torch.allclose(first, second), "every step has samples of its own"
    assert torch.equal(on_fresh_samples(target, 30, draws=draws)(w), first), "the caller's draws do not move"
    alone = on_fresh_samples(target, 30, draws=derive(0, "batches", ids=[1]))
    torch.testing.assert_close(alone(w[1:]), first[1:])
    mean = torch.stack([fresh(w) for _ in range(1000)])
    off = (mean.mean(0) - population_gradient(w, target)).abs()
    assert bool((off < 5 * mean.std(0) / math.sqrt(1000)).all())
    with pytest.raises(DataError, match="a batch of 0"):
        on_fresh_samples(target, 0, draws=draws)


def test_the_rate_does_not_depend_on_the_width():
    """Every neuron twice: the same network, and the same path."""
    w, target = problem()
    once = list(descend(w, on_population(target), [Stage(20, 0.5)]))[-1][1]
    twice = list(descend(torch.cat((w, w), -2), on_population(target), [Stage(20, 0.5)]))[-1][1]
    torch.testing.assert_close(twice, torch.cat((once, once), -2))
