"""The input-output Jacobian: linear networks, projections, finite differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from brinell.core.draws import derive
from brinell.probe.jacobian import Jacobian, jacobian_norms, projected_squares

WEIGHT = derive(0, ids=[0, 1, 2]).normal(5, dtype=torch.float64)


def test_a_linear_network_has_the_norm_of_its_weights():
    sizes = jacobian_norms(lambda x: x @ WEIGHT.T, torch.rand(6, 5, dtype=torch.float64))
    assert sizes.numpy() == pytest.approx(np.full(6, float(WEIGHT.norm())), rel=1e-12)


def test_projections_estimate_the_square_without_bias():
    x = torch.rand(200, 5, dtype=torch.float64)
    squares = projected_squares(lambda x: x @ WEIGHT.T, x, derive(0, ids=range(200)), 100)
    assert float(squares.mean()) == pytest.approx(float(WEIGHT.square().sum()), rel=0.01)
    assert len(squares.unique()) > 150, "every sample has directions of its own"


def test_probabilities_against_the_closed_form(make_view, measure):
    """J of softmax is (diag p - p p') W."""
    net, x = lambda z: z @ WEIGHT.T, torch.rand(4, 5, dtype=torch.float64)
    view = replace(make_view(net(x), np.zeros(4, int)), x=x, z=x, net=net)
    p = net(x).softmax(1)
    expected = [float(((torch.diag(row) - torch.outer(row, row)) @ WEIGHT).norm()) for row in p]
    norm, rms = measure(Jacobian(of="probabilities"), view)
    assert norm.value == pytest.approx(np.mean(expected), rel=1e-9)
    assert rms.value == pytest.approx(np.sqrt(np.mean(np.square(expected))), rel=1e-9)
    (estimate,) = measure(Jacobian(of="probabilities", projections=400), view)
    assert estimate.name == "jacobian_rms" and estimate.value == pytest.approx(rms.value, rel=0.1)


def test_a_network_that_ignores_its_input(make_view, measure):
    def net(z):
        return torch.ones(len(z), 3)

    view = replace(make_view(net(torch.zeros(4, 2)), np.zeros(4, int)), x=torch.zeros(4, 2), z=torch.zeros(4, 2), net=net)
    assert [r.value for r in measure(Jacobian(), view)] == [0, 0]
    assert [r.value for r in measure(Jacobian(projections=2), view)] == [0]


def test_autograd_agrees_on_a_convolutional_network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 4)).double()
    x = torch.rand(3, 1, 5, 5, dtype=torch.float64)
    full = torch.autograd.functional.jacobian(net, x)
    expected = [float(full[i, :, i].norm()) for i in range(3)]
    assert jacobian_norms(net, x).numpy() == pytest.approx(expected, rel=1e-9)
