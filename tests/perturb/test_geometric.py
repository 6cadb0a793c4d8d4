import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from brinell.core.component import parse
from brinell.core.errors import DataError, SpecError
from brinell.perturb.geometric import Affine, Rotation, Scale, Translation, moved

MODE = {"black": {"mode": "constant", "cval": 0.0}, "repeat": {"mode": "nearest"}, "mirror": {"mode": "mirror"}}


@pytest.mark.parametrize("border", MODE)
@pytest.mark.parametrize("size", [(32, 32), (21, 40)])
def test_equals_scipy_with_the_matrix_written_out(border, size):
    rng = np.random.default_rng(0)
    x = rng.random((6, 2, *size))
    amounts = np.column_stack([rng.uniform(-5, 5, (6, 2)), rng.uniform(-2, 2, 6), rng.uniform(-0.4, 0.4, 6), rng.uniform(-0.5, 0.5, 6)])
    got = moved(torch.from_numpy(x), torch.from_numpy(amounts), border).numpy()
    centre = (np.array(size) - 1) / 2
    for image, (right, down, turn, log, shear), out in zip(x, amounts, got, strict=True):
        # (row, column) of the result from that of the image: shear, then factor and turn, then shift; rows grow downwards
        turned = math.exp(log) * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        matrix = turned @ np.array([[1, 0], [-math.tan(shear), 1]])
        inverse = np.linalg.inv(matrix)
        rows = np.stack(np.mgrid[: size[0], : size[1]], 2) - centre - (down, right)
        where = np.moveaxis(rows @ inverse.T + centre, 2, 0)
        if border == "black":  # scipy fades nothing in beyond the border; a frame of zeros does
            image, where = np.pad(image, ((0, 0), (1, 1), (1, 1))), where + 1
        twin = np.stack([ndimage.map_coordinates(plane, where, order=1, **MODE[border]) for plane in image])
        assert np.abs(out - twin).max() < 1e-9


def test_fixed_amounts_move_all_images_alike(ask):
    x = torch.rand(4, 3, 32, 32)
    z = ask(Translation(right=5, down=-2, fixed=True), x)
    assert torch.allclose(z[:, :, :-2, 5:], x[:, :, 2:, :-5], atol=1e-5)
    assert float(z[:, :, -2:].abs().max()) < 1e-5
    assert float(z[..., :5].abs().max()) < 1e-5
    assert torch.allclose(ask(Rotation(degrees=90, fixed=True), x), x.rot90(1, (2, 3)), atol=1e-4)
    assert torch.allclose(ask(Rotation(degrees=-180, fixed=True), x), x.flip(2, 3), atol=1e-4)
    for nothing in (
        Translation(right=0, down=0),
        Rotation(degrees=0),
        Scale(factor=1),
        Affine(degrees=0, factor=1, shear=0, right=0, down=0),
    ):
        assert torch.allclose(ask(nothing, x), x, atol=1e-5)


def test_a_spot_lands_where_the_map_says(ask):
    x = torch.zeros(1, 1, 41, 41)
    x[..., 10, 30] = 1  # 10 right of and 10 above the centre
    large = ask(Scale(factor=2, fixed=True), x)[0, 0]
    assert (int(large.argmax()) // 41, int(large.argmax()) % 41) == (0, 40)
    sheared = ask(Affine(degrees=0, factor=1, shear=45, right=0, down=0, fixed=True), x)[0, 0]
    assert (int(sheared.argmax()) // 41, int(sheared.argmax()) % 41) == (10, 40)


def test_drawn_amounts_fill_their_range(ask):
    x = torch.zeros(500, 1, 41, 41)
    x[:, :, 20, 20] = 1
    z = ask(Translation(right=6, down=3), x)[:, 0]
    place = torch.arange(41.0) - 20
    right, down = (z.sum(1) * place).sum(1), (z.sum(2) * place).sum(1)
    for shift, most in ((right, 6), (down, 3)):
        assert most * 0.95 < float(shift.abs().max()) <= most + 1e-4
        assert abs(float(shift.mean())) < 0.2 * most
    assert abs(float(np.corrcoef(right.numpy(), down.numpy())[0, 1])) < 0.2
    x[:, :, 20, 20], x[:, :, 20, 30] = 0, 1
    z = ask(Rotation(degrees=30), x)[:, 0]
    angle = torch.rad2deg(torch.atan2(-(z.sum(2) * place).sum(1), (z.sum(1) * place).sum(1)))
    assert 28 < float(angle.abs().max()) < 31
    z = ask(Scale(factor=1.5), x)[:, 0]
    factor = (z.sum(1) * place).sum(1) / z.sum((1, 2)) / 10
    assert 1.4 < float(factor.max()) < 1.55
    assert 0.64 < float(factor.min()) < 0.72
    assert abs(float(factor.log().mean())) < 0.05


@pytest.mark.parametrize("kind", [Translation, Rotation, Scale, Affine])
def test_each_sample_is_moved_by_its_own_draws(ask, photos, kind):
    x = photos(40, 33, n=6)
    z = ask(kind(), x)
    assert torch.equal(ask(kind(), x[3:4], ids=[3])[0], z[3])
    assert torch.equal(ask(kind(), x.flip(0), ids=[5, 4, 3, 2, 1, 0]).flip(0), z)
    assert not torch.equal(ask(kind(), x, seed=1), z)
    one = kind(border="mirror", fixed=True)
    assert parse(one.spec()) == one
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        ask(kind(), x + 1)


def test_refuses_amounts_that_are_none():
    for make in (lambda: Scale(factor=0), lambda: Affine(shear=90), lambda: Rotation(degrees=math.inf), lambda: Rotation(border="wrap")):
        with pytest.raises(SpecError):
            make()
