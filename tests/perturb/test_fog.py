import numpy as np
import pytest
import torch

from brinell.core.draws import derive
from brinell.perturb.fog import Fog, plasma


class Told:
    """Draws that give what they are told: one row of numbers in (-1, 1)."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def uniform(self, count: int, low: float, high: float) -> torch.Tensor:
        assert (count, low, high) == (len(self.values), -1, 1)
        return torch.from_numpy(self.values[None])


def diamond_square(side: int, decay: float, values: np.ndarray) -> np.ndarray:
    """Point by point on the full grid, indices modulo the side; `values` are used level by level: middles, tops, lefts."""
    grid, step, amplitude, used = np.zeros((side, side)), side, 100.0, 1
    while step > 1:
        half, spots = step // 2, range(0, side, step)
        for rows, columns, around in (
            (half, half, ((-half, -half), (-half, half), (half, -half), (half, half))),
            (0, half, ((-half, 0), (half, 0), (0, -half), (0, half))),
            (half, 0, ((-half, 0), (half, 0), (0, -half), (0, half))),
        ):
            made = {}
            for top in spots:
                for left in spots:
                    row, column = top + rows, left + columns
                    mean = sum(grid[(row + dy) % side, (column + dx) % side] for dy, dx in around) / 4
                    made[row, column] = mean + amplitude * (amplitude * values[used])
                    used += 1
            for at, value in made.items():
                grid[at] = value
        step, amplitude = half, amplitude / decay
    return (grid - grid.min()) / (grid.max() - grid.min())


@pytest.mark.parametrize("side", [2, 8, 32, 64])
@pytest.mark.parametrize("decay", [1.4, 2, 3])
def test_plasma_equals_diamond_square_point_by_point(side, decay):
    values = np.random.default_rng(side).uniform(-1, 1, side * side)
    got = plasma(Told(values), side, decay)[0].numpy()  # type: ignore[arg-type]
    assert np.abs(got - diamond_square(side, decay, values)).max() < 1e-12


def test_plasmas_of_samples_differ_and_one_pixel_is_no_trouble():
    clouds = plasma(derive(0, ids=range(5)), 32, 2)
    assert len({float(part.sum()) for part in clouds}) == 5
    assert plasma(derive(0, ids=[0]), 1, 2).tolist() == [[[0.0]]]


@pytest.mark.parametrize("preset", Fog.ladder)
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_fog_is_the_published_blend(ask, photos, preset, severity):
    amount, decay = Fog.ladder[preset][severity - 1]
    for size, side in (((28, 32), 32), ((64, 40), 64), ((130, 224), 256)):
        x = photos(*size, n=2) * 0.8
        z = ask(Fog(severity=severity, preset=preset, quantize=False), x).double().numpy()
        most = x.double().amax((1, 2, 3)).numpy()[:, None, None, None]
        veil = (z * (most + amount) / most - x.double().numpy()) / amount
        assert np.abs(veil - veil[:, :1]).max() < 1e-4  # one veil for all channels
        assert veil.min() > -1e-4
        assert veil.max() < 1 + 1e-4
        twin = plasma(derive(0, "test", ids=[0, 1]), side, decay)[:, : size[0], : size[1]].numpy()
        assert np.abs(veil[:, 0] - twin).max() < 1e-4
        assert np.all(z.max((1, 2, 3)) <= most[:, 0, 0, 0] + 1e-6)


def test_without_a_cloud_fog_only_dims(ask, monkeypatch):
    monkeypatch.setattr("brinell.perturb.fog.plasma", lambda draws, side, decay: torch.zeros(len(draws), side, side))
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    most = x.amax((1, 2, 3), keepdim=True)
    assert torch.allclose(ask(Fog(severity=5, quantize=False), x), x * most / (most + 1.5), atol=1e-12)


def test_black_stays_black(ask):
    assert float(ask(Fog(severity=5), torch.zeros(1, 3, 32, 32)).max()) == 0
