"""Normalisation inside the network."""

import math

import numpy as np
import pytest
import torch

from brinell.core.component import parse
from brinell.core.errors import NetworkError
from brinell.core.network import Network
from brinell.models.normalize import Normalize, normalizing


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 6)])
def test_equals_numpy(shape):
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    mean, std = np.array([0.1, 0.5, 0.9], np.float32), np.array([0.2, 1.0, 3.0], np.float32)
    expected = np.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    np.testing.assert_array_equal(Normalize(mean.tolist(), std.tolist())(torch.from_numpy(x)).numpy(), expected)


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.5,), (0.5, 0.5)), ((), ()), ((0.5,), (0.0,)), ((0.5,), (-1.0,)), ((math.nan,), (1.0,)), ((0.0,), (math.inf,))],
)
def test_wrong_statistics(mean, std):
    with pytest.raises(NetworkError, match="Normalize needs"):
        Normalize(mean, std)


def test_wrong_channels():
    with pytest.raises(NetworkError, match=r"holds 3 channel\(s\), but the inputs have shape \(2, 1, 8, 8\)"):
        Normalize((0, 0, 0), (1, 1, 1))(torch.rand(2, 1, 8, 8))
    with pytest.raises(NetworkError, match=r"1 mean\(s\), but the data has 3 channel"):
        parse("normalized(mlp, mean=(0.5,), std=(0.5,))").build((3, 8, 8), 10)


def test_the_statistics_are_state():
    a, b = (Network(normalizing(torch.nn.Linear(1, 2, bias=False), (mean,), (1.0,))) for mean in (0.0, 0.5))
    b.module[1].load_state_dict(a.module[1].state_dict())
    assert a.digest != b.digest
    assert set(a.module.state_dict()) == {"normalize.mean", "normalize.std", "net.weight"}


def test_an_architecture_behind_its_normalisation():
    module = parse("normalized(small_cnn, mean=(0.5,), std=(0.25,))").build((1, 8, 8), 10).eval()
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(module(x), module.net((x - 0.5) / 0.25))
