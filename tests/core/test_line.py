"""The line along the gradient: linear functions in closed form, planted sign changes, and a slow twin."""

import numpy as np
import pytest
import torch

from brinell.core.errors import DataError
from brinell.core.line import along, downhill, first_crossing, line_lengths, relative_step, value_and_gradient

W = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]], dtype=torch.float64)


def linear(z):
    """Sample i has the weights W[i] and the offset -1."""
    return torch.einsum("nmd,nd->nm", z.double(), W) - 1


def test_values_and_gradients_of_a_linear_function():
    x = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    f, g = value_and_gradient(linear, x)
    assert torch.equal(f, torch.tensor([6.0, -1.0], dtype=torch.float64)) and torch.equal(g, W)
    lin = relative_step(f, g, x)
    assert lin[0] == pytest.approx(6 / (5 * 3**0.5)) and lin[1].isnan()  # x = 0 has no relative step
    u = downhill(f, g)
    assert torch.allclose(u[0], -W[0] / 5) and torch.allclose(u[1], W[1] / 2)  # towards the zero from either side


def test_constants_and_broken_gradients():
    x = torch.ones(2, 3)
    f, g = value_and_gradient(lambda z: torch.full(z.shape[:2], 2.0), x)
    assert f.tolist() == [2.0, 2.0] and not g.any() and not downhill(f, g).any() and relative_step(f, g, x).isnan().all()
    _, g = value_and_gradient(lambda z: z.sum(-1).sqrt(), torch.zeros(1, 2))
    assert torch.equal(g, torch.zeros(1, 2)), "an infinite slope counts as none"
    assert not downhill(torch.zeros(1), torch.ones(1, 2)).any(), "f = 0 has no side to go to"
    with pytest.raises(DataError, match="one point for each of 2 samples"):
        value_and_gradient(lambda z: z.sum((1, 2)), x)


def test_lengths_of_the_line():
    lengths = line_lengths(torch.tensor([0.05, torch.nan, 0.2]), torch.tensor([2.0, 1.0, 1.0]), 0.5)
    assert lengths.shape == (3, 250) and bool((lengths.diff(dim=1) >= 0).all())
    assert lengths[0, 199] == pytest.approx(0.4) and lengths[0, -1] == pytest.approx(1.0)
    assert lengths[1, 199] == 0 and lengths[1, -1] == pytest.approx(0.5)  # no gradient: the whole line is far
    assert lengths[2, -1] == pytest.approx(0.8), "four linear steps are looked at even beyond the end"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_of_several_sign_changes_is_found(dtype):
    zeros = torch.tensor([0.313, 0.7, 0.9], dtype=dtype)
    x, u = torch.zeros(2, 1, dtype=dtype), torch.ones(2, 1, dtype=dtype)

    def output(z):
        t = z[..., 0]
        cubic = (zeros[0] - t) * (zeros[1] - t) * (zeros[2] - t)
        return torch.stack((cubic[0], torch.ones_like(cubic[1])))

    value = output(x[:, None])[:, 0]
    lengths = torch.linspace(0.01, 1, 100, dtype=torch.float64).expand(2, -1)
    before, beyond = first_crossing(output, x, value, u, lengths)
    assert before[0] <= 0.313 + 1e-6 and abs(float(beyond[0]) - 0.313) < 1e-5
    assert bool(output(along(x, u, beyond.nan_to_num(posinf=0)[:, None]))[0, 0] < 0), "the far end is known to have the other sign"
    assert beyond[1].isinf() and before[1] == 1
    coarse = first_crossing(output, x, value, u, lengths, rounds=0)
    assert (float(coarse[0][0]), float(coarse[1][0])) == pytest.approx((0.31, 0.32))


def test_blocks_agree_with_a_slow_twin():
    lot = np.random.default_rng(0)
    weights, phases = lot.normal(size=(20, 5)), lot.uniform(0, 6, size=20)

    def output(z):
        inside = torch.einsum("nmd,nd->nm", z, torch.from_numpy(weights))
        return torch.sin(3 * inside + torch.from_numpy(phases)[:, None])

    x = torch.from_numpy(lot.normal(size=(20, 5)))
    f, g = value_and_gradient(output, x)
    u, lengths = downhill(f, g), torch.linspace(0.005, 1, 200, dtype=torch.float64).expand(20, -1)
    before, beyond = first_crossing(output, x, f, u, lengths, rounds=0)
    for i in range(20):
        last = 0.0
        for t in lengths[i].tolist():
            value = np.sin(3 * weights[i] @ (x[i].numpy() + t * u[i].numpy()) + phases[i])
            if value * float(f[i]) < 0:
                assert (float(before[i]), float(beyond[i])) == (last, t)
                break
            last = t
        else:
            assert beyond[i].isinf()


def test_a_value_of_zero_never_flips():
    x, u = torch.zeros(1, 1), torch.ones(1, 1)
    _, beyond = first_crossing(lambda z: -z[..., 0], x, torch.zeros(1), u, torch.tensor([[0.5, 1.0]]))
    assert beyond.isinf().all()
