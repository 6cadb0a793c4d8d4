"""What every graded corruption promises."""

import numpy as np
import pytest
import torch

from brinell.core.component import items, parse
from brinell.core.errors import DataError, SpecError
from brinell.perturb import severity as module
from brinell.perturb.severity import Graded, preset_of, truncate

MAIN = {
    "noise": {"gaussian_noise", "shot_noise", "impulse_noise"},
    "blur": {"defocus_blur", "glass_blur", "motion_blur", "zoom_blur"},
    "weather": {"snow", "frost", "fog", "brightness"},
    "digital": {"contrast", "elastic_transform", "pixelate", "jpeg_compression"},
}
VALIDATION = {"noise": {"speckle_noise"}, "blur": {"gaussian_blur"}, "weather": {"spatter"}, "digital": {"saturate"}}
PUBLISHED = {name: items(Graded)[name] for kinds in (MAIN, VALIDATION) for names in kinds.values() for name in sorted(names)}
DETERMINISTIC = {
    "brightness", "contrast", "saturate", "pixelate", "jpeg_compression", "gaussian_blur", "defocus_blur", "zoom_blur",
}  # fmt: skip
GROWS_ON_PHOTOGRAPHS = set(PUBLISHED) - {"saturate", "glass_blur", "elastic_transform", "snow", "frost", "spatter"}
SIDE = {"cifar": 32, "tiny_imagenet": 64, "imagenet": 224}
every = pytest.mark.parametrize("graded", PUBLISHED.values(), ids=PUBLISHED)


def test_fifteen_main_types_and_four_for_validation_in_four_families():
    kinds = [cls for name, cls in items(Graded).items() if cls.__module__.startswith("brinell.")]
    for family in MAIN:
        assert {cls.name for cls in kinds if cls.family == family and cls.main} == MAIN[family]
        assert {cls.name for cls in kinds if cls.family == family and not cls.main} == VALIDATION[family]
    assert len(kinds) == 19


@every
@pytest.mark.parametrize(("severity", "preset"), [(0, "auto"), (6, "auto"), (3.0, "auto"), (True, "auto"), (3, "mnist")])
def test_refuses_unknown_severities_and_presets(graded, severity, preset):
    with pytest.raises(SpecError, match=graded.name):
        graded(severity=severity, preset=preset)


@every
def test_has_five_severities_of_one_form_for_three_sizes(graded):
    assert set(graded.ladder) == set(SIDE)
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
@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 28, 28), (1, 3, 40, 33), (1, 4, 16, 130), (1, 2, 64, 64), (1, 3, 9, 512)])
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
        unchanged = graded.name == "spatter" or (graded.name == "saturate" and shape[1] == 1)  # no drop fell; no colour
        assert unchanged or not torch.equal(z, x)
        z.zero_()
        assert torch.equal(x, before)


@every
@pytest.mark.parametrize("preset", SIDE)
@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (1, 3, 2, 3), (1, 3, 5, 11)])
def test_takes_the_smallest_images_under_every_preset(ask, graded, preset, shape):
    x = torch.rand(shape)
    for severity in (1, 3, 5):
        z = ask(graded(severity=severity, preset=preset), x)
        assert z.shape == x.shape
        assert bool(torch.isfinite(z).all())


@every
@pytest.mark.parametrize("quantize", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (29, 61), (224, 224)])
def test_does_not_depend_on_batch_mates(ask, photos, graded, quantize, size):
    n = 7 if size[0] < 200 else 4
    x = photos(*size, n=n)
    corruption = graded(severity=4, quantize=quantize)
    together = ask(corruption, x, ids=[*range(10, 10 + n)])
    for at in (0, n // 2, n - 1):
        alone = ask(corruption, x[at : at + 1], ids=[10 + at])
        assert torch.equal(alone[0], together[at])
    backwards = ask(corruption, x.flip(0), ids=[*range(9 + n, 9, -1)])
    assert torch.equal(backwards.flip(0), together)


@every
def test_does_not_depend_on_how_many_images_are_worked_on_at_a_time(ask, photos, graded, monkeypatch):
    x = photos(40, 33, n=50)
    whole = ask(graded(), x)
    for chunk in (1, 10_000, 100_000):
        monkeypatch.setattr(module, "_CHUNK", chunk)
        assert torch.equal(ask(graded(), x), whole)


@every
def test_does_not_depend_on_the_memory_format(ask, photos, graded):
    x = photos(32, 32)
    assert torch.equal(ask(graded(), x), ask(graded(), x.to(memory_format=torch.channels_last)))


@pytest.mark.parametrize("name", sorted(GROWS_ON_PHOTOGRAPHS))
@pytest.mark.parametrize("preset", SIDE)
def test_stronger_severities_move_photographs_further(ask, photos, name, preset):
    x = photos(SIDE[preset], SIDE[preset], n=100 if SIDE[preset] < 200 else 8)
    graded = PUBLISHED[name]
    distance = [float((ask(graded(severity=s, preset=preset), x) - x).flatten(1).norm(dim=1).mean()) for s in (1, 2, 3, 4, 5)]
    assert distance == sorted(distance)
    assert distance[4] > 1.2 * distance[0] > 0


@every
def test_only_the_random_kinds_heed_the_draws(ask, photos, graded):
    x = photos(32, 32)
    z = ask(graded(severity=4), x)
    assert torch.equal(z, ask(graded(severity=4), x))
    assert torch.equal(z, ask(graded(severity=4), x, seed=1)) == (graded.name in DETERMINISTIC)


@every
def test_gives_whole_grey_levels_unless_told_not_to(ask, photos, graded):
    x = photos(48, 48)
    level = ask(graded(severity=2), x) * 255
    assert float((level - level.round()).abs().max()) < 1e-4
    if graded.name in ("jpeg_compression", "impulse_noise"):  # made of whole levels
        return
    exact = ask(graded(severity=2, quantize=False), x)
    assert float((exact * 255 - (exact * 255).round()).abs().max()) > 0.1
    if graded.name not in ("glass_blur", "snow", "pixelate"):  # these quantise on the way too
        assert torch.equal(truncate(exact), ask(graded(severity=2), x))


@pytest.mark.parametrize(
    ("side", "preset"), [(8, "cifar"), (47, "cifar"), (48, "tiny_imagenet"), (127, "tiny_imagenet"), (128, "imagenet")]
)
def test_auto_goes_by_the_smaller_side(ask, side, preset):
    assert preset_of(side) == preset
    x = torch.rand(1, 3, side, side + 70)
    for name in ("contrast", "fog", "frost"):
        assert torch.equal(ask(PUBLISHED[name](), x), ask(PUBLISHED[name](preset=preset), x))


LENGTHS = {
    "gaussian_blur": (0,), "defocus_blur": (0, 1), "motion_blur": (0, 1), "glass_blur": (0,), "snow": (4, 5),
    "elastic_transform": (0, 1, 2),
}  # fmt: skip


@every
def test_only_lengths_scale_and_only_below_32_pixels_of_the_cifar_ladder(graded):
    for severity in range(1, 6):
        corruption = graded(severity=severity)
        for side, preset in ((32, "cifar"), (40, "cifar"), (64, "tiny_imagenet"), (224, "imagenet"), (500, "imagenet")):
            assert corruption.parameters(side) == graded.ladder[preset][severity - 1]
        assert graded(severity=severity, preset="imagenet").parameters(8) == graded.ladder["imagenet"][severity - 1]
        lengths = {2, 4} if graded.name == "spatter" and severity > 3 else {2} if graded.name == "spatter" else LENGTHS.get(graded.name, ())
        told = () if not LENGTHS.keys() & {graded.name} and graded.name not in ("spatter", "frost") else ("lengths x 0.25",)
        assert corruption.departures(8)[graded.name == "frost" :] == told  # frost says first that its textures are procedural
        assert corruption.departures(32)[graded.name == "frost" :] == ()
        scaled = [value / (4 if at in lengths else 1) for at, value in enumerate(graded.ladder["cifar"][severity - 1])]
        assert corruption.parameters(8) == pytest.approx(scaled)


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


@every
def test_leaves_random_state_alone(ask, graded):
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    ask(graded(), torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_truncation_keeps_every_grey_level_in_every_float_type():
    level = torch.arange(256.0)
    for dtype in (torch.float32, torch.float64):
        x = level.to(dtype) / 255
        assert torch.equal(truncate(x), x)
        assert torch.equal(truncate(x + 0.99 / 255)[:-1], x[:-1])
    assert truncate(torch.tensor([-3.0, 3.0])).tolist() == [0.0, 1.0]
