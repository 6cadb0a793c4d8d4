import numpy as np
import pytest
import torch
from scipy import stats

from brinell.perturb.occlusion import Occlusion


@pytest.mark.parametrize("size", [1, 5, 8])
@pytest.mark.parametrize("shape", [(1, 3, 16, 24), (1, 1, 8, 8)])
def test_hides_one_square_everywhere_equally_often(ask, size, shape):
    n, height, width = 3000, *shape[2:]
    x = torch.ones(n, *shape[1:])
    hidden = (ask(Occlusion(size=size, value=0.0), x) == 0).numpy()
    assert np.all(hidden == hidden[:, :1])
    hidden = hidden[:, 0]
    assert np.all(hidden.sum((1, 2)) == size**2)
    top, left = hidden.any(2).argmax(1), hidden.any(1).argmax(1)
    for at in range(0, n, 100):
        assert hidden[at, top[at] : top[at] + size, left[at] : left[at] + size].all()
    for start, side in ((top, height), (left, width)):
        counts = np.bincount(start, minlength=side - size + 1)
        assert len(counts) == side - size + 1
        assert len(counts) == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_fills_with_a_value_the_mean_or_noise(ask, photos):
    x = photos(32, 32)
    same = {fill: ask(Occlusion(size=12, fill=fill, value=0.25), x) for fill in ("value", "mean", "noise")}
    hidden = same["value"] != x
    for row in range(len(x)):
        for channel in range(3):
            inside = hidden[row].any(0)
            assert set(same["value"][row, channel][inside].tolist()) == {0.25}
            mean = float(x[row, channel].double().mean())
            assert same["mean"][row, channel][inside].tolist() == pytest.approx([mean] * int(inside.sum()), abs=1e-6)
            assert len(same["noise"][row, channel][inside].unique()) > 100
    noise = same["noise"][hidden]
    assert stats.kstest(noise.numpy(), "uniform").pvalue > 1e-4


def test_many_patches_and_patches_larger_than_the_image(ask):
    x = torch.ones(20, 1, 16, 16)
    shares = [float((ask(Occlusion(size=4, count=count, value=0.0), x) == 0).double().mean()) for count in (1, 4, 40)]
    assert shares[0] == 1 / 16
    assert 3 / 16 < shares[1] <= 4 / 16
    assert 0.8 < shares[2] < 1
    assert float(ask(Occlusion(size=99, value=0.0), x).max()) == 0
