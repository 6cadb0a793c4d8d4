import numpy as np
import pytest
import torch
from scipy import sparse

from brinell.perturb.row_sums import columns, row_sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 3, 16, 33, 500])
def test_equals_a_matrix_product(dtype, width):
    rng = np.random.default_rng(width)
    matrix = sparse.random_array((40, 30), density=0.2, rng=rng, format="coo")
    table = rng.normal(size=(30, width))
    got = row_sums(matrix)(torch.from_numpy(table).to(dtype)).numpy()
    assert np.abs(got - matrix @ table).max() < (1e-12 if dtype == torch.float64 else 1e-5)
    planes = rng.normal(size=(3, 30, width))
    got = row_sums(matrix).planes(torch.from_numpy(planes).to(dtype)).numpy()
    assert np.abs(got - np.stack([matrix @ plane for plane in planes])).max() < (1e-12 if dtype == torch.float64 else 1e-5)


def test_a_column_does_not_depend_on_the_others():
    rng = np.random.default_rng(0)
    sums = row_sums(sparse.random_array((64, 64), density=0.5, rng=rng))
    table = torch.from_numpy(rng.normal(size=(64, 200))).float()
    whole = sums(table)
    for start, stop in ((0, 1), (7, 24), (199, 200), (30, 161)):
        assert torch.equal(sums(table[:, start:stop]), whole[:, start:stop])


def test_columns_are_picked_from_every_row():
    x = torch.rand(2, 3, 4, 5)
    index = torch.tensor([4, 0, 0, 2, 3, 1])
    assert torch.equal(columns(x, index), x[..., index])
