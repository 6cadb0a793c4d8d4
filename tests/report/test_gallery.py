"""Pictures: what is kept of examples, and what the page says of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from brinell.core.lab import Table
from brinell.report.album import Album, grey_levels
from brinell.report.content import Content
from brinell.report.gallery import gallery, worst_cells


def picture(strip: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(strip))))


def test_a_strip_shows_the_examples_side_by_side(audit: Callable[..., Table]):
    content = Content(audit("plain"))
    album = Album(content)
    assert (album.tile, album.ids) == ((5, 4), [3, 40, 77, 250, 460, 495])
    number = album.strip("plain", content.grades[0])
    assert number is not None
    strip = picture(album.strips[number])
    assert strip.shape == (4, 30, 3)
    level = round(0.962 * 255)
    assert strip[:, :5].min() == strip[:, :5].max() == level
    assert strip[:, 5:10].max() == round(0.962 / 2 * 255)
    assert album.outcomes("plain", content.grades[0]) == [(3, 3), (0, 0), (7, 7), (0, 0), (0, 0), (5, 6)]


def test_equal_strips_are_stored_once(audit: Callable[..., Table]):
    content = Content(audit("plain"))
    album = Album(content)
    assert len(album.strips) == len({content.accuracy("plain", item.spec).value for item in content.grades})


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((2, 1, 8, 8), (2, 8, 8)),
        ((2, 2, 8, 8), (2, 8, 8)),
        ((2, 3, 8, 6), (2, 8, 6, 3)),
        ((1, 5, 8, 8), (1, 8, 8, 3)),
        ((1, 1, 200, 130), (1, 50, 32)),
    ],
)
def test_channels_and_sizes(shape: tuple[int, ...], shown: tuple[int, ...]):
    assert grey_levels(np.zeros(shape), (0.0, 1.0), 64).shape == shown


def test_levels_follow_the_domain_and_stay_within():
    values = np.array([[[[-1.0, 0.0, 1.0, 7.0, np.nan]]]])
    assert grey_levels(values, (-1.0, 1.0), 64).tolist() == [[[0, 128, 255, 255, 0]]]


def test_the_gallery_holds_numbers_and_texts_of_every_cell(audit: Callable[..., Table]):
    content = Content(audit())
    section = gallery(content, Album(content))
    assert section is not None and section.gallery is not None
    found = section.gallery
    assert found["networks"] == ["plain", "hardened"]
    assert len(found["cells"]) == len(content.grades) == len(found["strips"][1]) == len(found["said"][1])
    names = found["classes"]
    assert [names[which] for which in found["labels"]] == ["3", "0", "7", "0", "0", "5"]
    assert [names[which] for which in found["said"][0][found["clean"]]] == ["3", "0", "7", "0", "0", "6"]
    assert found["cells"][found["start"][0]]["title"] == "pgd(steps=40) at Linf eps 8/255"
    most, corruption, *_ = found["orders"]
    assert most["title"] == "Falls to most" and corruption["title"] == "First corruption"
    assert most["values"][0][0][1].startswith("falls to ") and most["values"][0][5][1] == "wrong when clean"
    assert corruption["values"][0][4] == (1, "first gaussian_blur at severity 1")


def test_worst_cells_are_the_worst_of_each_kind(audit: Callable[..., Table]):
    content = Content(audit("plain"))
    section = worst_cells(content, Album(content))
    assert section is not None
    assert [strip.title for strip in section.strips][:2] == ["contrast at severity 5", "brightness at severity 5"]
    assert "pgd(steps=40) at Linf eps 8/255" in [strip.title for strip in section.strips]
    values = [strip.answer.value or 0 for strip in section.strips[:4]]
    assert values == sorted(values)
    assert [shown.words for shown in section.strips[0].pictures[:2]] == ["3 seen as 3", "0 seen as 0"]
    assert section.strips[0].pictures[3].right is False


def test_a_run_without_examples_has_no_pictures(torn: Table, hostile: Table):
    for table in (torn, hostile, Table({}, [])):
        content = Content(table)
        album = Album(content)
        assert not album
        section = gallery(content, album)
        assert worst_cells(content, album) is None
        if content.data.get("shape"):
            assert section is not None and "This run kept no pictures" in section.lead[0] and section.gallery is None
        else:
            assert section is None


def test_samples_without_answers_still_have_pictures(audit: Callable[..., Table]):
    table = audit("plain")
    table.load_samples = None
    content = Content(table)
    album = Album(content)
    section = gallery(content, album)
    assert section is not None and section.gallery is not None
    assert section.gallery["labels"] == [] and section.gallery["said"][0][0] is None
    worst = worst_cells(content, album)
    assert worst is not None and worst.strips[0].pictures[0].right is None


@pytest.mark.parametrize(("nets", "side"), [(1, 32), (3, 96)])
def test_pictures_leave_room_in_the_page(audit: Callable[..., Table], nets: int, side: int, monkeypatch: pytest.MonkeyPatch):
    """Pure noise, which no file format makes smaller, in every cell."""
    monkeypatch.setattr("brinell.report.album.ROOM", 450_000)
    table = audit(*"abc"[:nets])
    noise = np.random.default_rng(0)
    table.load_array = lambda row: (
        np.arange(24) if row["name"] == "example_ids" else noise.random((24, 3, side, side)) if row["name"] == "examples" else None
    )
    album = Album(Content(table))
    cells = 33 + 11 * nets
    assert len(album.strips) == (cells if nets == 1 else 44 * nets)  # this noise is new in every cell
    assert 1 <= len(album.ids) < 24 and max(album.tile) <= 64
    assert len(album.ids) * cells * 3 * album.tile[0] * album.tile[1] <= 450_000
