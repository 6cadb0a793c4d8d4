"""Surfaces on the page: what is packed, the still picture, and the image at a clicked point in a real browser."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brinell.core.lab import Table
from brinell.core.measurement import Reading
from brinell.report.content import Content
from brinell.report.page import render, write_report
from brinell.report.surface import surfaces
from brinell.report.surface_picture import SCALES, colours, limits
from report.chromium import PROGRAM, Browser
from report.conftest import HOSTILE, accuracy, plan, row

IN_BROWSER = pytest.mark.skipif(PROGRAM is None, reason="needs chromium, chromium-browser or google-chrome on the PATH")
G = 5
T = np.linspace(-0.2, 0.2, G)
PROBE = "surface(ball=ball(eps=0.2, norm=inf), grid=5, images=2)"
WEIGHTS = "parameter_surface(grid=5)"


def arrays_of(steep: float) -> dict[tuple[str, str], np.ndarray]:
    """Two images over a plane: S = 1 - steep * a, so that S = 0 stands upright at 1 / steep; a brightens the left half of an image."""
    heights = np.repeat((1 - steep * T)[None, None], G, 1).repeat(2, 0)
    image = np.stack([np.full((1, 4, 6), 0.5), np.full((1, 4, 6), 0.25)]).astype(np.float16)
    ways = np.zeros((2, 2, 1, 4, 6), np.float16)
    ways[:, 0, :, :, :3], ways[:, 1] = 1, -0.5
    found = {("surface", name): heights * k for name, k in (("margin", 1), ("cross_entropy", -1), ("dlr", -0.1), ("kl", 0.3))}
    segments = [[at, 1 / steep, T[k], 1 / steep, T[k + 1]] for at in range(2) for k in range(G - 1)]
    return {
        **found, ("surface_axis", ""): T, ("surface_boundary", ""): np.array(segments), ("surface_image", ""): image,
        ("surface_directions", ""): ways, ("surface_classes", ""): np.where(heights < 0, 7, 3).astype(np.int16),
        ("surface_ids", ""): np.array([12, 40]), ("surface_labels", ""): np.array([3, 3]),
        ("parameter_surface", "cross_entropy"): heights[0] ** 2, ("parameter_surface", "error"): np.abs(heights[0]) / 9,
        ("parameter_surface_axis", ""): T,
    }  # fmt: skip


def table_of(*names: str, more: tuple[str, ...] = ()) -> Table:
    steeps = {net: 8.0 * (at + 1) for at, net in enumerate(names)}
    rows = [row(net, "clean", accuracy(450)) for net in names]
    for net in names:
        for name, layer in arrays_of(1.0):
            probe = WEIGHTS if name.startswith("parameter") else PROBE
            rows.append(row(net, "clean", Reading(name, 1.0, layer, n=2), probe))
        rows.append(row(net, "clean", Reading("surface_lost", 0.25, n=2), PROBE))
    made = plan(names, ["clean", *more])
    return Table(made, rows, load_array=lambda found: arrays_of(steeps[found["net"]]).get((found["name"], found["layer"])))


def test_a_run_without_surfaces_has_no_section(audit: Callable[..., Table]):
    assert surfaces(Content(audit("plain"))) is None
    page = render(audit("plain"))
    assert "surfaces-data" not in page and "drawRelief" not in page


def test_all_networks_share_one_scale():
    section = surfaces(Content(table_of("a", "b")))
    assert section is not None and section.surfaces is not None
    plane, weights = section.surfaces["planes"]
    assert (plane["title"], plane["axes"]) == ("gradient × random, Linf", ("gradient, Linf", "random, Linf"))
    assert plane["items"] == ["sample 12: 3", "sample 40: 3"]
    assert [land["net"] for land in plane["lands"]] == ["a", "b"]
    assert plane["limits"]["margin"] == pytest.approx((-4.2, 4.2))  # the steeper one reaches 1 + 16 * 0.2
    assert plane["limits"]["kl"][0] == 0
    assert weights["items"] == ["mean of 2 samples"] and weights["limits"]["error"] == (0.0, 1.0)
    assert "images" not in weights["lands"][0]


def test_what_is_packed_is_what_was_measured():
    section = surfaces(Content(table_of("a")))
    assert section is not None and section.surfaces is not None
    land = section.surfaces["planes"][0]["lands"][0]
    low, high, text = land["heights"]["margin"][0]
    steps = np.frombuffer(base64.b64decode(text), "<u2").astype(float)
    np.testing.assert_allclose(low + (high - low) * steps / 65535, np.tile(1 - 8 * T, G), atol=1e-4)
    assert np.frombuffer(base64.b64decode(land["images"][1]), np.uint8).tolist() == [64] * 24
    most, text = land["directions"][0][1]
    assert most == 127.5 and set(np.frombuffer(base64.b64decode(text), np.int8)) == {-127}
    assert np.frombuffer(base64.b64decode(land["lines"][0]), "<f4").reshape(-1, 4)[:, 0].tolist() == pytest.approx([0.125] * 4)


def test_the_still_picture_shows_every_map_and_the_boundary():
    section = surfaces(Content(table_of("a", "b")))
    assert section is not None
    picture = section.stills[0]
    assert picture.count("<image ") == 4 and picture.count("</svg>") == 5
    data = re.search(r'base64,([^"]+)"', picture)
    assert data is not None
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))))
    expected = colours(1 - 8 * T, SCALES["diverging"], -4.2, 4.2)
    assert pixels.shape == (G, G, 3) and (pixels[0] == expected).all()
    (x, *_) = re.findall(r'd="M([\d.]+) ', picture)
    assert float(x) == pytest.approx(42 + 190 * 0.8125, abs=0.06)  # S = 0 at 0.125 of -0.2 to 0.2


def test_colours_end_where_99_of_100_heights_lie():
    values = np.concatenate((np.linspace(-1, 1, 999), [1e6]))
    assert limits("margin", [values])[1] < 1.01
    assert limits("dlr", [np.zeros((2, 2))]) == (-1.0, 1.0)


def test_hostile_names_stay_text():
    page = render(table_of(f"{HOSTILE}<b>", "b"))
    assert "<script>alert" not in page and "&lt;/script&gt;" in page
    data = re.search(r'<script type="application/json" id="surfaces-data">(.*?)</script>', page, re.DOTALL)
    assert data is not None and json.loads(data[1])["planes"][0]["lands"][0]["net"] == f"{HOSTILE}<b>"


def test_a_page_stays_small():
    table = table_of(*"abcdef")
    whole = len(render(table))
    table.rows = [found for found in table.rows if "surface" not in found["probe"]]
    assert whole - len(render(table)) < 1.2e5


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path) as opened:
        opened.look()
        yield opened


def pixel(browser: Browser, which: int, x: int) -> list[int]:
    return browser.ask(f"[...document.querySelectorAll('canvas.point')[{which}].getContext('2d').getImageData({x}, 1, 1, 1).data]")


def click(browser: Browser, which: int, across: float, up: float) -> None:
    browser.ask(f"document.querySelectorAll('canvas.map')[{which}].scrollIntoView({{ block: 'center', behavior: 'instant' }})")
    box: Any = browser.ask(
        f"(({{ x, y, width, height }}) => [x, y, width, height])(document.querySelectorAll('canvas.map')[{which}].getBoundingClientRect())"
    )
    spot = {"x": box[0] + across * box[2], "y": box[1] + (1 - up) * box[3], "button": "left", "clickCount": 1}
    for what in ("mouseMoved", "mousePressed", "mouseReleased"):
        browser.command("Input.dispatchMouseEvent", type=what, **spot)


@IN_BROWSER
@pytest.mark.slow
def test_a_click_composes_the_image_at_that_point(browser: Browser, tmp_path: Path):
    browser.open(write_report(table_of("a", "b"), tmp_path / "report.html"))
    assert browser.console == []
    assert [address.rpartition("/")[2] for address in browser.requests] == ["report.html"]
    assert pixel(browser, 0, 0) == pixel(browser, 0, 5) == [128, 128, 128, 255]  # the image itself
    click(browser, 0, 0.75, 1.0)  # a = 0.1, b = 0.2
    left, right = 128 + 255 * (0.1 - 0.1), 128 - 255 * 0.1
    for which in (0, 1):  # the point is chosen for every network
        assert pixel(browser, which, 0)[0] == pytest.approx(left, abs=1)
        assert pixel(browser, which, 5)[0] == pytest.approx(right, abs=1)
    words = browser.ask("[...document.querySelectorAll('.surface .said')].map((said) => said.textContent)")
    assert words == ["0.200, says 3", "-0.600, says 7"]
    assert "Chosen: 0.100 along gradient, Linf" in browser.ask("document.getElementById('surface-status').textContent")


@IN_BROWSER
@pytest.mark.slow
def test_the_controls_and_the_keyboard(browser: Browser, tmp_path: Path):
    browser.open(write_report(table_of("a", "b"), tmp_path / "report.html"))
    choose = """((id, at) => {
      const select = document.getElementById(id);
      select.value = String(at);
      select.dispatchEvent(new Event("change"));
      return [...select.options].map((option) => option.textContent);
    })"""
    assert browser.ask(f"{choose}('surface-item', 1)") == ["sample 12: 3", "sample 40: 3"]
    assert pixel(browser, 0, 0)[0] == 64
    browser.ask("document.querySelector('canvas.map').focus()")
    browser.press("ArrowRight", 39)
    assert pixel(browser, 0, 0)[0] == pytest.approx(64 + 25.5, abs=1)
    drawn = "document.querySelector('canvas.relief').toDataURL()"
    before = browser.ask(drawn)
    browser.ask("document.querySelector('canvas.relief').focus()")
    browser.press("ArrowRight", 39)
    assert browser.ask(drawn) != before
    assert browser.ask(f"{choose}('surface-height', 3)")[3] == "KL from the clean answer (nats)"
    assert browser.ask(f"{choose}('surface-plane', 1)")[1] == "random directions of the weights, filter by filter"
    assert browser.ask("document.querySelectorAll('canvas.point').length") == 0
    assert [line for line in browser.console if "getImageData" not in line] == []  # what this test itself reads back


@IN_BROWSER
@pytest.mark.slow
def test_print_shows_the_still_picture_and_screens_the_live_one(browser: Browser, tmp_path: Path):
    page = write_report(table_of("a", "b"), tmp_path / "report.html")
    browser.open(page)
    shown = "[document.querySelector('.still svg'), document.getElementById('surface-views')].map((e) => getComputedStyle(e).display)"
    assert browser.ask(shown) == ["none", "grid"]
    browser.look(794, 1123, media="print")
    assert browser.ask(shown) == ["block", "none"]
    assert browser.ask("Math.max(...[...document.querySelectorAll('.still svg')].map((e) => e.getBoundingClientRect().right))") <= 794
    browser.look(400, 800)
    browser.ask("new Promise((done) => setTimeout(done, 200))")
    assert browser.ask("document.documentElement.scrollWidth") == 400
