"""The loss order by order: moment tensors written out, the series under the closed form, recovered neurons."""

import math

import numpy as np
import pytest
import torch

from brinell.core.draws import derive
from brinell.core.errors import DataError
from brinell.models.two_layer import ground_truth, initial_neurons
from brinell.models.two_layer_loss import population_loss
from brinell.models.two_layer_target import Target, drawn_target, rotation, uniform_target
from brinell.models.two_layer_tensors import linear_error, moment_errors, recovered_mass, series_gap, series_loss, tensor_errors


def problem(d=4, m=6, members=2):
    w = 2 * initial_neurons(m, d, draws=derive(1, "w", ids=range(members)), dtype=torch.float64)
    return w, drawn_target(d, draws=derive(1, ids=[0]), kappa=2.0)


def power(v, k):
    tensor = np.ones(())
    for _ in range(k):
        tensor = np.multiply.outer(tensor, v)
    return tensor


@pytest.mark.parametrize(("activation", "alpha"), [("relu", 0.5), ("abs", 1.0)])
@pytest.mark.parametrize("k", [0, 2, 4, 6])
def test_the_error_of_a_moment_tensor_written_out(activation, alpha, k):
    w, target = problem()
    wanted = sum(float(a) * power(v.numpy(), k) for a, v in zip(target.weights, target.directions, strict=True))
    for member, found in zip(w, tensor_errors(w, target, (k,), activation), strict=True):
        moment = sum(float(v @ v) * power((v / v.norm()).numpy(), k) for v in member) / len(member)
        assert found.item() == pytest.approx(np.square(alpha * moment - wanted).sum(), rel=1e-9)


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_the_series_rises_to_the_closed_form_within_its_bound(activation):
    w, target = problem(6, 9)
    loss, gaps = population_loss(w, target, activation), []
    for order in (2, 4, 8, 16, 58, 400):
        gap = loss - series_loss(w, target, order, activation)
        assert bool(((gap > 0) & (gap <= series_gap(w, target, order, activation))).all())
        gaps.append(gap)
    assert bool((torch.stack(gaps).diff(dim=0) < 0).all()) and float(gaps[-1].max()) < 1e-3


def test_the_linear_term_belongs_to_relu_alone():
    w, target = problem(6, 9)
    assert float(linear_error(w, "abs").abs().max()) == 0 < float(linear_error(w).min())
    both = torch.cat((w, -w), -2)  # opposite neurons cancel it
    assert float(linear_error(both).max()) < 1e-15
    torch.testing.assert_close(population_loss(both, target), population_loss(w, target) - linear_error(w))


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_the_ground_truth_has_no_error_and_all_its_mass_recovered(activation):
    target = drawn_target(5, draws=derive(4, ids=[0]), kappa=2.0)
    w = ground_truth(target, activation)
    assert float(tensor_errors(w, target, (0, 2, 4, 6, 20), activation).abs().max()) < 1e-14
    assert float(recovered_mass(w, target, activation=activation)) == 1
    trace, second = moment_errors(w, target, activation)
    assert float(trace) < 1e-14 and float(second) < 1e-14


def test_the_second_moment_of_a_relu_learner_reaches_twice_that_of_an_abs_learner():
    target = uniform_target(3)
    for activation, factor in (("relu", 2.0), ("abs", 1.0)):
        w = ground_truth(target, activation)
        torch.testing.assert_close(w.T @ w / len(w), factor * torch.diag(target.weights))


def test_moment_errors_by_numpy():
    w, target = problem(4, 6)
    trace, second = moment_errors(w, target)
    for k, member in enumerate(w.numpy()):
        off = 0.5 * member.T @ member / 6 - target.directions.numpy().T @ np.diag(target.weights) @ target.directions.numpy()
        assert trace[k].item() == pytest.approx(abs(np.trace(off))) and second[k].item() == pytest.approx(np.linalg.norm(off, 2))


def test_recovered_mass():
    target, q = uniform_target(3), rotation(3, draws=derive(0, ids=[0]))
    angle = math.acos(0.95)
    w = torch.tensor([[2.0, 0, 0], [math.cos(angle * 1.01), math.sin(angle * 1.01), 0], [0, 0, -1], [0, 0, 0]], dtype=torch.float64)
    assert float(recovered_mass(w, target)) == pytest.approx(5 / 6)
    assert float(recovered_mass(w @ q, Target(target.directions @ q, target.weights))) == pytest.approx(5 / 6)
    assert float(recovered_mass(w, target, above=0.94)) == pytest.approx(1)
    assert float(recovered_mass(torch.zeros(2, 3), target)) == 0


def test_refusals():
    w, target = problem()
    for orders in ((1,), (0, 3), (-2,)):
        with pytest.raises(DataError, match="has the even ones"):
            tensor_errors(w, target, orders)
    with pytest.raises(DataError, match="do not fit"):
        tensor_errors(w, uniform_target(3))
