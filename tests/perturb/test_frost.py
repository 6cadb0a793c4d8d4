import numpy as np
import pytest
import torch
from PIL import Image

from brinell.core.component import parse
from brinell.core.errors import DataError
from brinell.perturb.frost import Frost, frost_like, photographs


@pytest.fixture
def folder(tmp_path):
    """Six pictures of distinct sizes and distinct pixels, and a text that is no picture."""
    rng = np.random.default_rng(0)
    for at, size in enumerate(((300, 260), (250, 400), (420, 250), (301, 299), (260, 260), (400, 400)), 1):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / f"frost{at}.png")
    (tmp_path / "readme.txt").write_text("not a picture")
    return tmp_path


def place(window: np.ndarray, pictures: list[np.ndarray]) -> tuple[int, int, int] | None:
    """Picture, row and column where a (3, h, w) window was cut out."""
    _, height, width = window.shape
    for at, picture in enumerate(pictures):
        found = picture[0].tobytes().find(window[0, 0].tobytes())
        while found >= 0:
            top, left = divmod(found, picture.shape[2])
            if np.array_equal(picture[:, top : top + height, left : left + width], window):
                return at, top, left
            found = picture[0].tobytes().find(window[0, 0].tobytes(), found + 1)
    return None


@pytest.mark.parametrize("preset", ["cifar", "tiny_imagenet", "imagenet"])
@pytest.mark.parametrize("severity", [1, 5])
def test_adds_a_window_of_one_of_the_pictures(ask, preset, severity):
    _, more = Frost.ladder[preset][severity - 1]
    z = ask(Frost(severity=severity, preset=preset, quantize=False), torch.zeros(24, 3, 20, 28))
    shrink = {"cifar": 0.2 * 20 / 32, "tiny_imagenet": 0.3, "imagenet": 1.0}[preset]
    pictures = [picture.numpy() for picture in frost_like(shrink)]
    places = [place((window / more * 255).round().to(torch.uint8).numpy(), pictures) for window in z]
    assert None not in places
    assert len({at for at, _, _ in places}) == 5
    assert len({row for _, row, _ in places}) > 12
    assert len({column for _, _, column in places}) > 12


def test_is_the_sum_it_says_and_clips(ask):
    black, white = torch.zeros(8, 3, 32, 32), torch.ones(8, 3, 32, 32)
    frost = Frost(severity=4, quantize=False)
    texture = ask(frost, black) / 0.4
    assert 0 <= float(texture.min()) < 0.2
    assert 0.6 < float(texture.max()) <= 1 + 1e-6
    assert torch.allclose(ask(frost, white), (0.85 + 0.4 * texture).clamp(max=1), atol=1e-6)


def test_grey_images_get_the_mean_of_three_equal_channels(ask, digits):
    x = digits(4)
    colour = ask(Frost(severity=5, quantize=False), x.expand(-1, 3, -1, -1))
    assert torch.allclose(ask(Frost(severity=5, quantize=False), x), colour.mean(1, keepdim=True), atol=1e-6)
    assert not torch.allclose(colour[:, 0], colour[:, 2], atol=1e-3)


def test_textures_are_made_once_look_different_and_know_no_seed():
    pictures = frost_like(0.1)
    assert pictures is frost_like(0.1)
    assert len({float(picture.double().mean()) for picture in pictures}) == 5
    for picture in frost_like(1.0):
        assert picture.shape == (3, 1024, 1024)
        assert picture.dtype == torch.uint8
        assert 0.15 < float(picture[1].double().std()) / 255 < 0.35
        assert abs(float((picture[:, 0].double() - picture[:, -1].double()).abs().mean())) < 15  # they go on at the edges


def test_large_images_see_the_textures_repeated(ask):
    z = ask(Frost(severity=5, preset="cifar", quantize=False), torch.zeros(2, 3, 40, 500))
    assert torch.allclose(z[..., :205], z[..., 205:410], atol=1e-6)  # 0.2 of 1024


@pytest.mark.parametrize(("preset", "shrink", "side"), [("imagenet", 1.0, 224), ("tiny_imagenet", 0.3, 64), ("cifar", 0.2, 32)])
def test_photographs_are_shrunk_and_cut_at_random(ask, folder, preset, shrink, side):
    pictures = photographs(str(folder), shrink)
    assert len(pictures) == 5  # of six
    assert [picture.shape[1] for picture in pictures] == [round(side * shrink) for side in (300, 250, 420, 301, 260)]
    if preset == "imagenet":
        first = np.asarray(Image.open(folder / "frost1.png")).transpose(2, 0, 1)
        assert np.array_equal(pictures[0].numpy(), first)
    frost = Frost(severity=3, preset=preset, textures=str(folder), quantize=False)
    assert parse(frost.spec()) == frost
    z = ask(frost, torch.zeros(30, 3, side, side))
    keep, more = Frost.ladder[preset][2]
    corner = (z[:, :, 0, :4] / more * 255).round().to(torch.uint8)
    found = {
        at
        for row in corner
        for at, picture in enumerate(pictures)
        if bool((picture.unfold(2, 4, 1) == row[:, None, None]).all(0).all(2).any())
    }
    assert len(found) >= 3
    assert keep <= 1


def test_the_name_tells_procedural_textures_from_photographs(folder):
    assert Frost(severity=2).spec() == "frost(severity=2, textures=procedural)"
    assert parse("frost(severity=2)") == Frost(severity=2)
    assert Frost().departures(224) == Frost(preset="imagenet").departures(16) == ("procedural textures",)
    assert Frost().departures(16) == ("procedural textures", "lengths x 0.5")
    assert Frost(textures=str(folder)).departures(32) == ()
    assert Frost(textures=str(folder)).departures(8) == ("lengths x 0.25",)


def test_refuses_folders_without_pictures_and_pictures_too_small(ask, folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for place in (empty, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="no images"):
            ask(Frost(textures=str(place)), torch.zeros(1, 3, 32, 32))
    with pytest.raises(DataError, match="larger than the 260x300"):
        ask(Frost(textures=str(folder), preset="imagenet"), torch.zeros(60, 3, 260, 300))
