import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.component import parse
from brinell.core.measurement import Status
from brinell.perturb.frequency import FourierBasis, fourier_basis, fourier_grid
from brinell.summary.fourier import FourierHeatMap, heat_map
from ladders import flags, graded_table, read

SIDE, EPS = 8, 1.0


def specimen(row: int, column: int, side: int = SIDE) -> nn.Module:
    """Sees an image through one Fourier basis function alone: class 1 if it holds more of it than not."""
    wave = fourier_basis(side, side, row, column).flatten().float()
    net = nn.Sequential(nn.Flatten(), nn.Linear(side * side, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack((-wave, wave)))
        net[1].bias.copy_(torch.tensor([0.5, -0.5]) * float(wave.sum()))  # grey 1/2 lies on the boundary
    return net


def images(row: int, column: int, n: int = 200, side: int = SIDE, amount: float = 0.5 * EPS) -> br.Dataset:
    """Grey plus or minus so much of the basis function, labelled by the sign."""
    wave, y = fourier_basis(side, side, row, column).float(), np.arange(n) % 2

    def made(ids: np.ndarray) -> torch.Tensor:
        return 0.5 + amount * (2 * torch.from_numpy(y[ids]).float() - 1)[:, None, None, None] * wave

    return br.Dataset("waves", (1, side, side), y, np.arange(n), ("less", "more"), made, content=f"waves {row} {column} {side} {amount}")


@pytest.mark.parametrize(("row", "column"), [(2, -1), (0, 3), (4, 0), (4, 2), (0, 0)])
def test_a_net_that_sees_one_frequency_errs_there_alone(row, column):
    """Noise against the sign, half of all samples, flips it; noise along it and every other frequency does nothing."""
    data = images(row, column)
    table = br.Lab().measure(specimen(row, column), data, fourier_grid(SIDE, SIDE, eps=EPS), summaries=["fourier_heat_map"])
    mean = table.row("fourier_error", perturbation="", layer="eps 1")
    heat = table.array(mean)
    assert heat.shape == (SIDE, SIDE)
    here = {(row % SIDE, column % SIDE), (-row % SIDE, -column % SIDE)}
    for i, j in np.ndindex(heat.shape):
        if ((i - 4) % SIDE, (j - 4) % SIDE) in here:
            assert abs(heat[i, j] - 0.5) < 4 * 0.5 / np.sqrt(200)
            assert heat[i, j] == heat[(row + 4) % SIDE, (column + 4) % SIDE]
        else:
            assert heat[i, j] == 0
    assert mean["value"] == pytest.approx(heat.max() / 34)  # 34 = (64 - 4) / 2 + 4 functions
    assert mean["low"] < mean["value"] < mean["high"]
    (worst,) = table.select(name="fourier_error_worst")
    found = parse(worst["layer"])
    assert (found.row % SIDE, found.column % SIDE) in here
    assert worst["value"] == heat.max()
    assert table.value("accuracy", perturbation=found.spec()) == pytest.approx(1 - worst["value"])


def test_noise_weaker_than_the_margin_changes_nothing():
    table = br.Lab().measure(
        specimen(1, 2), images(1, 2, amount=0.6), fourier_grid(SIDE, SIDE, eps=0.5, most=2), summaries=["fourier_heat_map"]
    )
    mean = table.row("fourier_error", perturbation="", layer="eps 0.5")
    assert (mean["value"], table.array(mean).shape, float(table.array(mean).max())) == (0, (5, 5), 0)
    assert mean["high"] > 0


def test_each_eps_has_a_map_of_its_own_and_what_is_not_measured_is_nan():
    cells = {FourierBasis(row=0, column=0, eps=1.0): 0.2, FourierBasis(row=2, column=-1, eps=1.0): 0.6, FourierBasis(row=0, column=1): 0.9}
    got = read(FourierHeatMap(resamples=100), graded_table({"net": {"clean": 0.1, **cells}}, shape=(3, 32, 48)))
    heat = got["net", "fourier_error", "eps 1"].array
    assert heat.shape == (5, 3)
    assert [heat[at] for at in ((4, 0), (2, 1), (0, 2))] == pytest.approx([0.6, 0.2, 0.6])
    assert int(np.isnan(heat).sum()) == 12
    assert got["net", "fourier_error", "eps 1"].value == pytest.approx(0.4)
    assert got["net", "fourier_error", "eps 1"].reason.startswith("over 2 frequencies")
    assert got["net", "fourier_error_worst", "fourier_basis(column=-1, eps=1, row=2)"].value == pytest.approx(0.6)
    assert got["net", "fourier_error", "eps 4"].array.tolist() == [[0.9, pytest.approx(np.nan, nan_ok=True), 0.9]]


def test_a_frequency_measured_twice_counts_once_with_its_mean():
    cells = {FourierBasis(row=1, column=2): 0.2, FourierBasis(row=-1, column=-2): 0.4, FourierBasis(row=0, column=0): 0.9}
    got = read(FourierHeatMap(resamples=100), graded_table({"net": {"clean": 0.1, **cells}}))["net", "fourier_error", "eps 4"]
    assert got.value == pytest.approx((0.3 + 0.9) / 2)
    assert got.array[0, 0] == got.array[2, 4] == pytest.approx(0.3)


def test_a_failed_cell_leaves_its_map_undefined_and_the_others_alone():
    lost, kept = FourierBasis(row=0, column=1, eps=2.0), FourierBasis(row=0, column=1)
    got = read(FourierHeatMap(resamples=100), graded_table({"net": {"clean": 0.1, lost: None, kept: 0.5}}))
    assert got["net", "fourier_error", "eps 2"].status is Status.UNDEFINED
    assert got["net", "fourier_error", "eps 2"].reason == f"the cell {lost.spec()} failed"
    assert ("net", "fourier_error_worst", lost.spec()) not in got
    assert got["net", "fourier_error", "eps 4"].value == 0.5
    assert read(FourierHeatMap(), graded_table({"net": {"clean": 0.1}})) == {}


def test_the_interval_draws_samples_with_all_their_cells():
    wave, other = FourierBasis(row=0, column=1), FourierBasis(row=1, column=0)
    together = read(FourierHeatMap(), graded_table({"net": {wave: 0.3, other: 0.3}}))["net", "fourier_error", "eps 4"]
    apart = read(FourierHeatMap(), graded_table({"net": {wave: 0.5, other: ~flags(0.5)}}))["net", "fourier_error", "eps 4"]
    ends = np.quantile(np.random.default_rng(0).binomial(100, 0.3, 20_000) / 100, (0.025, 0.975))
    assert (together.low, together.high) == (pytest.approx(ends[0], abs=0.025), pytest.approx(ends[1], abs=0.025))
    assert (apart.value, apart.low) == (0.5, None)  # every sample is wrong in one of its two cells
    assert apart.reason.endswith("no interval: the samples do not vary")


@pytest.mark.parametrize(("size", "count"), [((8, 8), 34), ((7, 9), 32), ((8, 5), 21), ((1, 6), 4)])
def test_the_grid_holds_every_function_once(size, count):
    grid = fourier_grid(*size)
    waves = np.stack([fourier_basis(*size, item.row, item.column).numpy().ravel() for item in grid])
    gram = waves @ waves.T
    assert len(grid) == count
    assert np.abs(gram - np.eye(count)).max() < 1e-9  # orthogonal, hence no two alike
    everywhere = heat_map({(item.row, item.column): 1.0 for item in grid}, size)
    assert everywhere.shape == size
    assert not np.isnan(everywhere).any()
    assert all(2 * abs(item.row) <= size[0] and 2 * abs(item.column) <= size[1] for item in grid)


def test_a_coarse_grid_steps_from_zero():
    assert {item.row for item in fourier_grid(32, 32, step=4)} == {0, 4, 8, 12, 16}
    assert {item.column for item in fourier_grid(32, 32, step=5, most=12)} == {-10, -5, 0, 5, 10}
    assert {item.eps for item in fourier_grid(32, 32, eps=15.7, most=1)} == {15.7}
