"""The target of two-layer learners: Hermite coefficients by quadrature, best polynomials, drawn directions, refusals."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from brinell.core.draws import derive
from brinell.core.errors import DataError
from brinell.models.two_layer_target import Target, drawn_target, hermite_coefficient, rotation, uniform_target


def density(t):
    return math.exp(-t * t / 2) / math.sqrt(2 * math.pi)


def normalised_hermite(k, t):
    return np.polynomial.hermite_e.hermeval(t, [0] * k + [1]) / math.sqrt(math.factorial(k))


@pytest.mark.parametrize("k", range(13))
def test_a_hermite_coefficient_is_the_square_of_a_projection(k):
    """c_k = (E |t| h_k(t))^2 by quadrature over both half lines."""
    ends = [quad(lambda t: abs(t) * normalised_hermite(k, t) * density(t), *half, epsabs=1e-13)[0] for half in ((-40, 0), (0, 40))]
    assert hermite_coefficient(k) == pytest.approx(sum(ends) ** 2, abs=1e-11)


def test_hermite_coefficients_as_published():
    known = {0: 0.636620, 2: 0.318310, 4: 0.026526, 6: 0.007958, 8: 0.003553, 1: 0.0, 3: 0.0, 7: 0.0}
    for k, value in known.items():
        assert hermite_coefficient(k) == pytest.approx(value, abs=5e-7)
    total = sum(hermite_coefficient(k) for k in range(0, 20_001, 2))
    assert 0 < 1 - total < 0.508 / 1.5 / 20_000**1.5 * 1.01  # the rest of a sum of 0.508 k^-2.5 over even k is half an integral
    assert sum(hermite_coefficient(k) for k in range(4, 20_001, 2)) == pytest.approx(1 - 3 / math.pi, abs=1e-6)
    assert hermite_coefficient(1000) * 1000**2.5 == pytest.approx(0.508, abs=0.002)
    with pytest.raises(DataError, match="no negative order"):
        hermite_coefficient(-2)


@pytest.mark.parametrize(("degree", "share"), [(0, 1 - 2 / math.pi), (1, 1 - 2 / math.pi), (2, 1 - 3 / math.pi), (3, 1 - 3 / math.pi),
                                               (4, 1 - 3 / math.pi - 1 / (12 * math.pi))])  # fmt: skip
def test_the_best_polynomial_of_a_degree(degree, share):
    """In one dimension: what is left of |t| after its projections; in more, the sum over independent directions."""

    def rest(t):
        fitted = sum(math.sqrt(hermite_coefficient(k)) * (-1) ** (k // 2 + 1 if k else 0) * normalised_hermite(k, t)
                     for k in range(0, degree + 1, 2))  # fmt: skip
        return (abs(t) - fitted) ** 2 * density(t)

    assert 2 * quad(rest, 0, 40, epsabs=1e-12)[0] == pytest.approx(share, abs=1e-9)
    target = Target(torch.eye(3, 5), torch.tensor([0.5, 0.3, 0.2]))
    assert target.best_polynomial(degree) == pytest.approx(share * 0.38, rel=1e-6)
    assert target.floor == pytest.approx((1 - 3 / math.pi) * 0.38, rel=1e-6)


def test_variance_and_floor_on_samples():
    """With a = 1/d the degree-2 part is (||x||^2 - d) / (sqrt(2 pi) d): a fit on the norm alone reaches the floor."""
    d, n = 5, 400_000
    target = drawn_target(d, draws=derive(3, ids=[0]))
    x = derive(0, "x", ids=range(n)).normal(d, dtype=torch.float64)
    centred = target(x) - math.sqrt(2 / math.pi)  # the best constant, sum a = 1
    radial = (x.square().sum(1) - d) / (math.sqrt(2 * math.pi) * d)
    for values, loss in ((centred, (1 - 2 / math.pi) / d), (centred - radial, (1 - 3 / math.pi) / d)):
        squares = values.square()
        assert abs(float(squares.mean()) - loss) < 4 * float(squares.std()) / math.sqrt(n)
    assert target.best_polynomial(0) == pytest.approx(0.3634 / d, abs=1e-5)


@pytest.mark.parametrize("d", [1, 2, 7, 20])
def test_a_rotation_is_orthogonal_and_uniform(d):
    q = rotation(d, draws=derive(1, d, ids=[0]))
    torch.testing.assert_close(q @ q.T, torch.eye(d, dtype=torch.float64))
    corners = torch.stack([rotation(d, draws=derive(seed, d, ids=[0]))[0, 0] for seed in range(400)])
    assert abs(float(corners.mean())) < 4 / math.sqrt(400 * d)  # without the signs of the factorisation it would lean to one side
    assert float(corners.square().mean()) == pytest.approx(1 / d, abs=4 * math.sqrt(2 / 400) / d)


def test_drawn_targets():
    for kappa in (1.0, 2.0):
        target = drawn_target(12, draws=derive(5, ids=[0]), kappa=kappa)
        assert float(target.weights.sum()) == pytest.approx(1)
        assert bool(((target.weights >= 1 / (kappa * 12) - 1e-15) & (target.weights <= kappa / 12 + 1e-15)).all())
    assert drawn_target(12, draws=derive(5, ids=[0])).weights.unique().numel() == 1
    same, other = (drawn_target(12, draws=derive(seed, ids=[0])).directions for seed in (5, 6))
    assert torch.equal(target.directions, same) and not torch.allclose(same, other)


@pytest.mark.parametrize(("d", "block"), [(8, 2), (20, 4), (64, 8), (3, 1)])
def test_a_hadamard_instance(d, block):
    target = drawn_target(d, draws=derive(2, ids=[0]), kappa=2.0, block=block)
    v = target.directions
    torch.testing.assert_close(v @ v.T, torch.eye(d, dtype=torch.float64))
    assert bool(((v == 0) | ((v.abs() - block**-0.5).abs() < 1e-15)).all())
    assert bool(((v != 0).sum(1) == block).all()) and bool(((v != 0).sum(0) == block).all())
    supports = {tuple(row.nonzero()[:, 0].tolist()) for row in v}
    assert len(supports) == d // block, "each block has coordinates of its own"
    if block > 1:
        assert supports != {tuple(range(k, k + block)) for k in range(0, d, block)}, "the coordinates are parted at random"


def test_what_is_no_target():
    with pytest.raises(DataError, match="orthonormal; their Gram matrix is off the identity by 1"):
        Target(torch.ones(2, 2) / math.sqrt(2), torch.ones(2))
    with pytest.raises(DataError, match=r"1 <= k <= d"):
        Target(torch.eye(3)[:, :2], torch.ones(3))
    for weights in ([1.0, 0.0], [1.0, -1.0], [1.0, math.nan], [1.0, math.inf]):
        with pytest.raises(DataError, match="positive"):
            Target(torch.eye(2), torch.tensor(weights))
    for block in (3, 16, -2):
        with pytest.raises(DataError, match="power of 2"):
            drawn_target(8 if block == 16 else 9, draws=derive(0, ids=[0]), block=block)
    with pytest.raises(DataError, match="kappa"):
        drawn_target(8, draws=derive(0, ids=[0]), kappa=0.5)
    with pytest.raises(DataError, match="dimension 0"):
        uniform_target(0)


def test_precision_and_shapes():
    target = uniform_target(4)
    assert target.to(torch.float64) is target and target.to(torch.float32).weights.dtype == torch.float32
    assert target(torch.ones(2, 3, 4, dtype=torch.float64)).tolist() == [[1.0] * 3] * 2
    assert Target(torch.eye(1), torch.ones(1))(torch.tensor([[-2.0]])).tolist() == [2.0]
