"""What every graded corruption promises."""

import pytest
import torch

from brinell.core.component import parse
from brinell.core.errors import DataError, SpecError
from brinell.perturb.blur import GaussianBlur
from brinell.perturb.digital import Contrast, JpegCompression
from brinell.perturb.noise import GaussianNoise
from brinell.perturb.severity import preset_of, truncate
from brinell.perturb.weather import Brightness

GRADED = [GaussianNoise, Brightness, Contrast, JpegCompression, GaussianBlur]
DETERMINISTIC = [Brightness, Contrast, JpegCompression, GaussianBlur]
every = pytest.mark.parametrize("graded", GRADED)


@every
@pytest.mark.parametrize(("severity", "preset"), [(0, "auto"), (6, "auto"), (3.0, "auto"), (True, "auto"), (3, "mnist")])
def test_refuses_unknown_severities_and_presets(graded, severity, preset):
    with pytest.raises(SpecError, match=graded.name):
        graded(severity=severity, preset=preset)


@every
def test_has_five_severities_of_one_form_for_three_sizes(graded):
    assert set(graded.ladder) == {"cifar", "tiny_imagenet", "imagenet"}
    for rows in graded.ladder.values():
        assert len(rows) == 5
        assert len({len(row) for row in rows}) == 1
        assert len(set(rows)) == 5


@every
def test_round_trips_as_text(graded):
    one = graded(severity=5, preset="imagenet", quantize=False)
    assert parse(one.spec()) == one
    assert parse(one.spec(full=True)) == one
    assert parse(graded.name) == graded()


@every
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 28, 28), (1, 3, 40, 33), (1, 4, 16, 130), (1, 2, 64, 64), (1, 3, 225, 130)])
def test_keeps_shape_type_range_and_the_input(ask, graded, shape):
    for dtype in (torch.float32, torch.float64, torch.float16):
        x = torch.rand(shape).to(dtype)
        before = x.clone()
        z = ask(graded(severity=5), x)
        assert z.shape == x.shape
        assert z.dtype == dtype
        assert torch.equal(x, before)
        assert float(z.min()) >= 0
        assert float(z.max()) <= 1
        assert not torch.equal(z, x)
        z.zero_()
        assert torch.equal(x, before)


@every
@pytest.mark.parametrize("quantize", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (29, 61), (224, 224)])
def test_does_not_depend_on_batch_mates(ask, photos, graded, quantize, size):
    x = photos(*size, n=7)
    corruption = graded(severity=4, quantize=quantize)
    together = ask(corruption, x, ids=[*range(10, 17)])
    for at in (0, 3, 6):
        alone = ask(corruption, x[at : at + 1], ids=[10 + at])
        assert torch.equal(alone[0], together[at])
    backwards = ask(corruption, x.flip(0), ids=[*range(16, 9, -1)])
    assert torch.equal(backwards.flip(0), together)


@every
def test_does_not_depend_on_the_memory_format(ask, photos, graded):
    x = photos(32, 32)
    assert torch.equal(ask(graded(), x), ask(graded(), x.to(memory_format=torch.channels_last)))


@every
@pytest.mark.parametrize("preset", ["cifar", "tiny_imagenet", "imagenet"])
def test_stronger_severities_move_images_further(ask, photos, graded, preset):
    side = {"cifar": 32, "tiny_imagenet": 64, "imagenet": 224}[preset]
    x = photos(side, side, n=100 if side < 200 else 12)
    distance = [float((ask(graded(severity=s, preset=preset), x) - x).flatten(1).norm(dim=1).mean()) for s in (1, 2, 3, 4, 5)]
    assert distance == sorted(distance)
    assert distance[4] > 1.3 * distance[0] > 0


@pytest.mark.parametrize("graded", DETERMINISTIC)
def test_deterministic_kinds_ignore_the_draws(ask, photos, graded):
    x = photos(32, 32)
    assert torch.equal(ask(graded(), x), ask(graded(), x, seed=1))


@every
def test_gives_whole_grey_levels_unless_told_not_to(ask, photos, graded):
    x = photos(48, 48)
    level = ask(graded(severity=2), x) * 255
    assert float((level - level.round()).abs().max()) < 1e-4
    if graded is not JpegCompression:
        exact = ask(graded(severity=2, quantize=False), x)
        assert float((exact * 255 - (exact * 255).round()).abs().max()) > 0.1
        assert torch.equal(truncate(exact), ask(graded(severity=2), x))


@pytest.mark.parametrize(
    ("side", "preset"), [(8, "cifar"), (47, "cifar"), (48, "tiny_imagenet"), (127, "tiny_imagenet"), (128, "imagenet")]
)
def test_auto_goes_by_the_smaller_side(ask, side, preset):
    assert preset_of(side) == preset
    x = torch.rand(1, 3, side, side + 70)
    assert torch.equal(ask(Contrast(), x), ask(Contrast(preset=preset), x))


def test_only_lengths_scale_and_only_below_32_pixels_of_the_cifar_ladder():
    assert GaussianBlur(severity=5).parameters(32) == (1.0,)
    assert GaussianBlur(severity=5).parameters(40) == (1.0,)
    assert GaussianBlur(severity=5).parameters(8) == (0.25,)
    assert GaussianBlur(severity=5, preset="imagenet").parameters(8) == (6.0,)
    assert GaussianNoise(severity=5).parameters(8) == (0.10,)
    assert JpegCompression(severity=5).parameters(8) == (40,)


@every
@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, float("nan"), float("inf")])
def test_refuses_other_domains_and_names_the_row(ask, graded, value):
    x = torch.rand(3, 1, 32, 32)
    x[2, 0, 5, 5] = value
    with pytest.raises(DataError, match=r"\[0, 1\]; row 2 holds"):
        ask(graded(), x)


@every
def test_refuses_what_are_no_images(ask, graded):
    with pytest.raises(DataError, match="floating-point"):
        ask(graded(), torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    for shape in ((2, 64), (2, 8, 8), (2, 3, 0, 8), (2, 0, 8, 8)):
        with pytest.raises(DataError, match="images of shape"):
            ask(graded(), torch.zeros(shape))


@every
def test_an_empty_batch_stays_empty(ask, graded):
    assert ask(graded(), torch.zeros(0, 3, 32, 32)).shape == (0, 3, 32, 32)


def test_truncation_keeps_every_grey_level_in_every_float_type():
    level = torch.arange(256.0)
    for dtype in (torch.float32, torch.float64):
        x = level.to(dtype) / 255
        assert torch.equal(truncate(x), x)
        assert torch.equal(truncate(x + 0.99 / 255)[:-1], x[:-1])
    assert truncate(torch.tensor([-3.0, 3.0])).tolist() == [0.0, 1.0]
