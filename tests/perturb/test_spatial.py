"""The spatial attack: complete on its grid, by enumeration."""

import math

import pytest
import torch
from torch import nn

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import DataError
from brinell.core.network import Counted
from brinell.perturb.geometric import moved
from brinell.perturb.spatial import Spatial


class Bar(nn.Module):
    """Class 0 while the mass lies left of the middle."""

    def forward(self, x):
        mass = x.sum((1, 2))
        half = x.shape[3] // 2
        return torch.stack((mass[:, :half].sum(1), mass[:, half:].sum(1)), 1)


def bars(column: int) -> torch.Tensor:
    x = torch.zeros(1, 1, 8, 8)
    x[..., column] = 1.0
    return x


def ask(attack, net, x, y=None):
    y = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    return attack(net, x, y, draws=derive(0, ids=range(len(x))))


@pytest.mark.parametrize(("column", "pixels", "flips"), [(3, 1, True), (2, 1, False), (2, 2, True), (0, 3, False), (1, 3, True)])
def test_a_bar_crosses_the_middle_where_the_shift_is_long_enough(column, pixels, flips):
    z = ask(Spatial(pixels=pixels, turns=1, shifts=2 * pixels + 1), Bar(), bars(column))
    assert bool(Bar()(z).argmax(1)) == flips


def test_it_is_the_minimum_over_the_whole_grid():
    torch.manual_seed(0)
    x, net = torch.rand(40, 1, 8, 8), nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    with torch.no_grad():
        y = net(x).argmax(1)
        attack = Spatial(degrees=4, pixels=0.2, turns=5, shifts=3)
        kept = torch.ones(len(x), dtype=torch.bool)
        for right in (-0.2, 0.0, 0.2):
            for down in (-0.2, 0.0, 0.2):
                for turn in (-4, -2, 0, 2, 4):
                    amounts = torch.tensor([[right, down, math.radians(turn), 0, 0]], dtype=torch.float64).expand(len(x), 5)
                    kept &= net(moved(x, amounts)).argmax(1) == y
    z = ask(attack, net, x, y)
    assert torch.equal(net(z).argmax(1) == y, kept) and 0 < int(kept.sum()) < len(x)


def test_the_grid_starts_small_and_leaves_out_the_identity():
    grid = Spatial(turns=3, shifts=3).grid()
    assert grid.shape == (26, 5) and not (grid.abs().sum(1) == 0).any()
    assert (grid[:6].ne(0).sum(1) == 1).all() and (grid[-8:].ne(0).sum(1) == 3).all()
    assert Spatial(turns=1, shifts=1).grid().shape == (0, 5)
    assert Spatial().cost == (31 * 25 + 1, 0)


def test_who_falls_early_costs_little():
    counted = Counted(Bar())
    ask(Spatial(turns=1, pixels=1, shifts=3), counted, torch.cat((bars(3), bars(0))))
    assert 2 + 2 <= counted.forwards <= 2 + 4 + 8


def test_only_images_can_be_turned():
    with pytest.raises(DataError):
        ask(parse("spatial"), nn.Linear(4, 2), torch.rand(2, 4))
