"""The page in a real browser, where there is one: it draws, stays quiet, asks for nothing, and obeys no name."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from brinell.core.lab import Table
from brinell.report.page import write_report
from report.chromium import PROGRAM, Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs chromium, chromium-browser or google-chrome on the PATH"),
]

TAB, ENTER, SPACE = ("Tab", 9), ("Enter", 13, "\r"), (" ", 32, " ")

CATCH_CSV = """(() => {
  window.caught = [];
  window.Blob = function (parts) { window.caught.push(parts.join("")); };
  URL.createObjectURL = () => "#";
})()"""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path) as opened:
        opened.look()
        yield opened


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Callable[[Table], Browser]:
    """Write a table's page and open it."""

    def shown(table: Table) -> Browser:
        browser.open(write_report(table, tmp_path / "report.html"))
        return browser

    return shown


Show = Callable[[Table], Browser]


def count(browser: Browser, what: str) -> int:
    return browser.ask(f"document.querySelectorAll({what!r}).length")


def asked_only_for_itself(browser: Browser) -> bool:
    return [address.rpartition("/")[2] for address in browser.requests] == ["report.html"]


def test_charts_are_drawn_quietly_and_without_a_request(audit: Callable[..., Table], show: Show):
    browser = show(audit())
    assert browser.console == []
    assert asked_only_for_itself(browser)
    assert count(browser, ".chart") == count(browser, ".chart svg.main-svg:first-of-type") == 18
    assert count(browser, ".chart .trace, .chart .hm, .chart image") >= 18
    assert count(browser, "script") == 5


@pytest.mark.parametrize("name", ["audit", "torn", "hostile"])
def test_nothing_sticks_out_at_400_pixels(name: str, request: pytest.FixtureRequest, show: Show, browser: Browser):
    table = request.getfixturevalue(name)
    browser.look(400, 800)
    show(table() if name == "audit" else table)
    assert browser.ask("document.documentElement.clientWidth") == 400
    assert browser.ask("document.documentElement.scrollWidth") == 400
    assert browser.console == []


def test_hostile_names_stay_text(hostile: Table, show: Show):
    browser = show(hostile)
    assert browser.console == []
    assert asked_only_for_itself(browser)
    assert count(browser, "script") == 3
    assert count(browser, "img, iframe, object, embed, main b:not(.range b), svg a") == 0
    assert count(browser, ".chart") == count(browser, ".chart svg.main-svg:first-of-type") > 0


def test_hostile_class_names_stay_text_in_the_gallery(audit: Callable[..., Table], show: Show):
    table = audit("plain")
    table.plan["data"]["classes"] = [f"<img src=x onerror=alert({k})>" for k in range(10)]
    browser = show(table)
    assert "<img src=x onerror=alert(3)>" in browser.ask("document.querySelector('.shots').textContent")
    assert count(browser, "img") == 0
    assert browser.console == [] and asked_only_for_itself(browser)


def test_the_policy_forbids_other_scripts_and_the_network(audit: Callable[..., Table], show: Show):
    browser = show(audit("plain"))
    tried = """(async () => {
      const script = document.createElement("script");
      script.textContent = "window.intruder = true";
      document.body.append(script);
      const image = new Image();
      image.src = "https://example.invalid/x.png";
      const fetched = await fetch("https://example.invalid/").then(() => "fetched", () => "refused");
      let evaluated = "evaluated";
      try { Function("return 1")(); } catch { evaluated = "refused"; }
      return [window.intruder ?? "refused", fetched, evaluated];
    })()"""
    assert browser.ask(tried) == ["refused"] * 3
    assert len(browser.console) >= 3 and all("Content Security Policy" in line for line in browser.console)


def test_light_and_dark(audit: Callable[..., Table], show: Show, browser: Browser):
    show(audit("plain"))
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('.chart .xtick text')).fill"
    light = (browser.ask(paper), browser.ask(ink))
    browser.look(dark=True)  # the page follows without being loaded again
    browser.ask("new Promise((done) => setTimeout(done, 300))")
    dark = (browser.ask(paper), browser.ask(ink))
    assert brightness(light[0]) > 200 > 60 > brightness(dark[0])
    assert brightness(light[1]) < 80 < 180 < brightness(dark[1])
    assert browser.console == []


def test_tables_come_as_csv_with_full_numbers_and_without_formulas(audit: Callable[..., Table], hostile: Table, show: Show):
    def tables(table: Table) -> list[str]:
        browser = show(table)
        browser.ask(CATCH_CSV)
        browser.ask("document.querySelectorAll('.download').forEach((button) => button.click())")
        return browser.ask("window.caught")

    seen = tables(audit("plain"))
    assert len(seen) == 13
    table = next(text for text in seen if text.startswith("network,corruption,family,severity,value,low,high,n,status,reason\r\n"))
    assert table.splitlines()[1].startswith("plain,gaussian_noise,noise,1,0.934,0.908557")
    cells = [cell for text in tables(hostile) for line in csv.reader(text.splitlines()) for cell in line]
    assert "'=1+1" in cells
    assert not any(cell.startswith(("=", "+", "@")) for cell in cells)


def test_everything_is_reached_and_used_by_keyboard(audit: Callable[..., Table], show: Show):
    browser = show(audit())
    browser.ask(CATCH_CSV)
    reached = []
    for _ in range(120):
        browser.press(*TAB)
        about = "(({ tagName, className, id, hash }) => [tagName, String(className || id || hash || '')])(document.activeElement)"
        place = browser.ask(about)
        reached.append(tuple(place))
        if place == ["BUTTON", "download"] and not browser.ask("window.caught.length"):
            assert browser.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            browser.press(*ENTER)
        if place[0] == "SUMMARY" and not count(browser, "details[open]"):
            browser.press(*SPACE)
    assert reached[0] == ("A", "skip")
    assert {("A", "#verdict"), ("BUTTON", "download"), ("SELECT", "gallery-cell"), ("SELECT", "gallery-order")} <= set(reached)
    assert {("INPUT", "gallery-fallen"), ("DIV", "scroll")} <= set(reached)
    assert len(browser.ask("window.caught")) == 1
    assert count(browser, "details[open]") == 1


def test_the_gallery_follows_its_controls(audit: Callable[..., Table], show: Show):
    browser = show(audit())
    choose = """((id, text) => {
      const select = document.getElementById(id);
      select.value = [...select.options].find((option) => option.textContent === text).value;
      select.dispatchEvent(new Event("change"));
      return [...document.querySelectorAll(".shot h3 small")].map((name) => name.textContent);
    })"""
    assert browser.ask(f"{choose}('gallery-cell', 'contrast at severity 3')")[0] == "sample 495"  # wrong when clean: falls first of all
    assert browser.ask(f"{choose}('gallery-order', 'Sample number')") == [f"sample {k}" for k in (3, 40, 77, 250, 460, 495)]
    assert browser.ask("document.querySelector('#gallery-status').textContent").startswith("contrast at severity 3: accuracy ")
    assert count(browser, ".shot.fell") == 1
    browser.ask("document.getElementById('gallery-fallen').click()")
    assert count(browser, ".shot") == 1
    browser.ask("new Promise((done) => setTimeout(done, 300))")
    pixel = """((canvas) => [...canvas.getContext("2d").getImageData(2, 2, 1, 1).data])(document.querySelectorAll(".shot canvas")[%d])"""
    clean, corrupted, difference = (browser.ask(pixel % at) for at in range(3))
    assert clean[0] == round(0.962 * 255) > corrupted[0]
    assert difference[0] == 0  # the largest change is full black
    assert browser.console == []


def test_a_click_on_the_heat_map_shows_its_pictures(audit: Callable[..., Table], show: Show):
    browser = show(audit())
    second = "document.querySelectorAll('#corruptions .chart')[1]"
    browser.ask(f"{second}.scrollIntoView({{ block: 'center', behavior: 'instant' }})")
    x, y, wide, high = browser.ask(
        f"(({{ x, y, width, height }}) => [x, y, width, height])({second}.querySelector('.hm image').getBoundingClientRect())"
    )
    spot = {"x": x + wide * 5.5 / 6, "y": y + high * 3.5 / 5, "button": "left", "clickCount": 1}  # severity 5 of contrast
    for what in ("mouseMoved", "mousePressed", "mouseReleased"):
        browser.command("Input.dispatchMouseEvent", type=what, **spot)
    browser.ask("new Promise((done) => setTimeout(done, 500))")
    assert browser.ask("document.querySelector('#gallery-status').textContent").startswith("contrast at severity 5: ")
    assert browser.ask("document.querySelector('#gallery-network').selectedOptions[0].textContent") == "hardened"


def test_worst_cells_are_painted(audit: Callable[..., Table], show: Show):
    browser = show(audit("plain"))
    painted = "[...document.querySelectorAll('canvas[data-strip]')].map((canvas) => [canvas.width, canvas.height])"
    sizes = browser.ask(painted)
    assert len(sizes) >= 16 and all(size == [5, 4] for size in sizes)


def test_it_prints_with_charts_inside_the_paper(audit: Callable[..., Table], show: Show, browser: Browser):
    show(audit())
    browser.look(794, 1123, media="print")
    browser.ask("new Promise((done) => setTimeout(done, 300))")
    assert browser.ask("getComputedStyle(document.querySelector('.side')).display") == "none"
    assert browser.ask("Math.max(...[...document.querySelectorAll('.chart svg')].map((svg) => svg.getBoundingClientRect().right))") <= 794
    assert browser.pages_of_print() >= 3


def brightness(colour: str) -> float:
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3
