import numpy as np
import pytest
import torch

from brinell.core.component import parse
from brinell.core.errors import DataError, SpecError
from brinell.perturb.frequency import FourierBasis, LowPass, fourier_basis, low_pass


def wave(height: int, width: int, row: int, column: int) -> torch.Tensor:
    rows, columns = np.mgrid[:height, :width]
    return torch.from_numpy(np.cos(2 * np.pi * (row * rows / height + column * columns / width) + 0.3))


@pytest.mark.parametrize("size", [(32, 32), (31, 48)])
@pytest.mark.parametrize(("kind", "order"), [("ideal", 2), ("gaussian", 2), ("butterworth", 1), ("butterworth", 4)])
def test_every_wave_is_weakened_by_the_stated_gain(size, kind, order):
    for row, column in ((0, 0), (3, 0), (0, 7), (-5, 9), (10, 10), (15, 1)):
        x, f = wave(*size, row, column), np.hypot(row / size[0], column / size[1])
        for cutoff in (0.1, 0.25, 0.5):
            gain = {
                "ideal": float(f <= cutoff),
                "gaussian": np.exp(-(f**2) / (2 * cutoff**2)),
                "butterworth": 1 / (1 + (f / cutoff) ** (2 * order)),
            }
            assert torch.allclose(low_pass(x, cutoff, kind, order), x * gain[kind], atol=1e-10)


def test_equals_numpy(ask, photos):
    x = photos(33, 50, n=2).double()
    radius = np.hypot(np.fft.fftfreq(33)[:, None], np.fft.fftfreq(50))
    twin = np.fft.ifft2(np.fft.fft2(x.numpy()) * (radius <= 0.2)).real
    assert np.abs(ask(LowPass(cutoff=0.2), x).numpy() - np.clip(twin, 0, 1)).max() < 1e-12
    assert torch.allclose(ask(LowPass(cutoff=0.5**0.5), x), x, atol=1e-12)
    assert torch.allclose(ask(LowPass(cutoff=0.01), x), x.mean((2, 3), keepdim=True).expand_as(x), atol=1e-12)


def test_filters_do_not_depend_on_batch_mates(ask, photos):
    for size in ((32, 32), (29, 61), (224, 224)):
        x = photos(*size, n=5)
        for kind in ("ideal", "gaussian", "butterworth"):
            z = ask(LowPass(cutoff=0.1, kind=kind), x)
            for at in (0, 2, 4):
                assert torch.equal(ask(LowPass(cutoff=0.1, kind=kind), x[at : at + 1])[0], z[at])


@pytest.mark.parametrize("fields", [{"cutoff": 0.0}, {"cutoff": 0.8}, {"kind": "box"}, {"order": 0}])
def test_refuses_filters_that_are_none(fields):
    with pytest.raises(SpecError, match="low_pass"):
        LowPass(**fields)


@pytest.mark.parametrize("size", [(32, 32), (31, 48), (8, 8)])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 4), (-2, 4), (4, 0), (0, -4), (4, 4)])
def test_a_basis_function_has_one_frequency_and_length_one(size, row, column):
    basis = fourier_basis(*size, row, column).numpy()
    assert np.linalg.norm(basis) == pytest.approx(1)
    power = np.abs(np.fft.fft2(basis))
    here = {(row % size[0], column % size[1]), (-row % size[0], -column % size[1])}
    assert {(int(a), int(b)) for a, b in np.argwhere(power > 1e-9 * power.max())} == here


def test_fourier_noise_moves_each_channel_by_eps_with_a_sign_of_its_own(ask):
    x = torch.full((200, 3, 32, 32), 0.5, dtype=torch.float64)
    z = ask(FourierBasis(row=5, column=-3, eps=2.0), x)
    assert np.linalg.norm((z - x).flatten(2).numpy(), axis=2) == pytest.approx(np.full((200, 3), 2.0))
    signs = ((z - x) * fourier_basis(32, 32, 5, -3)).sum((2, 3)) / 2
    assert torch.allclose(signs.abs(), torch.ones_like(signs))
    assert abs(float(signs.mean())) < 5 / np.sqrt(600)
    assert np.abs(np.corrcoef(signs.numpy().T)[np.triu_indices(3, 1)]).max() < 5 / np.sqrt(200)
    assert float(ask(FourierBasis(eps=100.0), x).max()) == 1


def test_fourier_noise_needs_room_for_its_waves(ask):
    noise = FourierBasis(row=0, column=16)
    assert parse(noise.spec()) == noise
    assert ask(noise, torch.rand(1, 1, 4, 32)).shape == (1, 1, 4, 32)
    with pytest.raises(DataError, match="two pixels a wave"):
        ask(noise, torch.rand(1, 1, 32, 31))
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        ask(noise, torch.full((1, 1, 32, 32), 3.0))
