"""Kernel ridge regression: closed forms, its limits in the ridge, the choice on validation."""

import numpy as np
import pytest
import torch

from brinell.core.draws import derive
from brinell.core.errors import DataError, UndefinedReading
from brinell.models.kernel import NTK, Polynomial, gram
from brinell.models.kernel_ridge import RIDGES, RidgePath, ridge_fit, ridge_path
from brinell.models.two_layer_target import drawn_target

DRAWS = derive(0, "kernel", ids=[0])


def samples(n, d=4, name="train"):
    x = derive(2, name, ids=range(n)).normal(d, dtype=torch.float64)
    return x, drawn_target(d, draws=derive(2, ids=[0]))(x)


def test_a_path_by_numpy():
    train, valid, test = samples(25), samples(9, name="valid"), samples(12, name="test")
    found = ridge_path(NTK(), train, valid, test, draws=DRAWS, ridges=(0.01, 1.0))
    k = gram(NTK(), train[0], train[0], draws=DRAWS).numpy()
    for at, ridge in enumerate((0.01, 1.0)):
        weights = np.linalg.solve(k + ridge * np.trace(k) / 25 * np.eye(25), train[1].numpy())
        for (x, y), losses in ((train, found.train), (valid, found.valid), (test, found.test)):
            errors = gram(NTK(), x, train[0], draws=DRAWS).numpy() @ weights - y.numpy()
            assert losses[at] == pytest.approx(np.square(errors).mean(), rel=1e-8)


def test_the_ends_of_the_path():
    """A large ridge predicts 0; a vanishing one interpolates."""
    train = samples(60)
    found = ridge_path(NTK(), train, samples(30, name="valid"), samples(30, name="test"), draws=DRAWS, ridges=(1e-12, 1e12))
    assert found.train[0] < 1e-8 * float(train[1].var())
    assert found.train[1] == pytest.approx(float(train[1].square().mean()), rel=1e-6)
    assert float((train[1] - train[1].mean()).square().mean()) > 100 * found.train[0]


def test_the_choice_is_made_on_validation_alone():
    path = RidgePath((1.0, 2.0, 3.0), train=(0.0, 1.0, 2.0), valid=(5.0, 3.0, 4.0), test=(0.5, 0.9, 0.1))
    assert path.chosen == 1 and path.best == 2
    assert RIDGES[0] == 1e-8 and RIDGES[-1] == 100 and len(RIDGES) == 11


def test_a_target_in_the_span_is_learnt():
    x = derive(0, ids=range(80)).normal(3, dtype=torch.float64)
    parts = [(x[rows], x[rows, 0] * x[rows, 1] - x[rows, 2] + 2) for rows in (slice(0, 40), slice(40, 60), slice(60, 80))]
    path = ridge_path(Polynomial(degree=2), *parts, draws=DRAWS)
    assert path.test[path.chosen] < 1e-8


def test_no_ridge_that_is_large_enough():
    x = torch.ones(4, 2)
    part = (x, torch.ones(4))
    found = ridge_path(Polynomial(degree=1), part, part, part, draws=DRAWS, ridges=(1e-30, 1.0))
    assert found.valid[0] == float("inf") and found.chosen == 1
    with pytest.raises(UndefinedReading, match="no ridge of"):
        ridge_path(Polynomial(degree=1), part, part, part, draws=DRAWS, ridges=(1e-30,))


def test_the_matrix_is_left_alone_and_refusals():
    matrix = torch.eye(3)
    ridge_fit(matrix, torch.ones(3), 1.0)
    assert torch.equal(matrix, torch.eye(3))
    for bad in (0.0, -1.0):
        with pytest.raises(DataError, match="a ridge > 0"):
            ridge_fit(matrix, torch.ones(3), bad)
    with pytest.raises(DataError, match=r"\(n, n\) matrix"):
        ridge_fit(torch.ones(3, 2), torch.ones(3), 1.0)
    one, none = samples(5), (torch.ones(0, 4), torch.ones(0))
    for parts in ((none, one, one), (one, none, one), (one, one, none), (one, one, (one[0], one[1][:2]))):
        with pytest.raises(DataError, match="of one length in each part"):
            ridge_path(NTK(), *parts, draws=DRAWS)
    with pytest.raises(DataError, match="needs ridges"):
        ridge_path(NTK(), one, one, one, draws=DRAWS, ridges=())
    assert ridge_path(NTK(), samples(1), samples(1), samples(1), draws=DRAWS).chosen >= 0
