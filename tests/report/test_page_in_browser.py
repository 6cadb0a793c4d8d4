"""The page in a real browser, where there is one: it draws, stays quiet, asks for nothing, and obeys no name."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from brinell.core.lab import Table
from brinell.report.page import write_report

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs chromium, chromium-browser or google-chrome on the PATH"),
]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1280,900", "--virtual-time-budget=15000",
    "--enable-logging=stderr", "--allow-file-access-from-files", "--dump-dom",
)  # fmt: skip

PROBE = """<!doctype html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" src="report.html" style="width:WIDTHpx;height:3000px;border:0"></iframe>
<script>
const frame = document.getElementById("page");
frame.onload = () => setTimeout(() => {
  const view = frame.contentWindow, page = frame.contentDocument, count = (what) => page.querySelectorAll(what).length;
  const csv = [];
  view.Blob = function (parts) { csv.push(parts.join("")); };
  view.URL.createObjectURL = () => "#";
  page.querySelectorAll(".download").forEach((button) => button.click());
  const result = {
    charts: count(".chart"), drawn: count(".chart svg.main-svg:first-of-type"), marks: count(".chart .trace, .chart .hm, .chart image"),
    scripts: count("script"), strangers: count("img, iframe, object, embed, main b:not(.range b), svg a"),
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth, width: page.documentElement.clientWidth,
    requests: view.performance.getEntriesByType("resource").map((entry) => entry.name),
    dark: view.matchMedia("(prefers-color-scheme: dark)").matches,
    background: view.getComputedStyle(page.body).backgroundColor,
    ink: count(".chart .xtick text") ? view.getComputedStyle(page.querySelector(".chart .xtick text")).fill : "",
    csv,
  };
  const place = document.createElement("pre");
  place.id = "result";
  place.textContent = JSON.stringify(result);
  document.body.append(place);
}, 3000);
</script>"""


def looked_at(table: Table, folder: Path, *flags: str, width: int = 1280) -> tuple[dict[str, Any], list[str]]:
    """What a browser says of the page at a width, and what it wrote to its console."""
    write_report(table, folder / "report.html")
    (folder / "probe.html").write_text(PROBE.replace("WIDTH", str(width)), encoding="utf-8")
    command = [BROWSER or "", *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, (folder / "probe.html").as_uri()]
    said, told = folder / "said.html", folder / "told.txt"
    with (
        said.open("wb") as out,
        told.open("wb") as log,
        subprocess.Popen(command, stdout=out, stderr=log, start_new_session=True) as browser,
    ):
        try:
            until = time.monotonic() + 120  # a browser that has answered sometimes does not end by itself
            while browser.poll() is None and time.monotonic() < until and "</html>" not in said.read_text(encoding="utf-8"):
                time.sleep(0.1)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(browser.pid, signal.SIGKILL)
    answer, console = said.read_text(encoding="utf-8"), told.read_text(encoding="utf-8", errors="replace")
    found = re.search(r'<pre id="result">(.*?)</pre>', answer, re.DOTALL)
    assert found, f"the probe did not finish: {console[-2000:]}"
    return json.loads(unescape(found.group(1))), [line for line in console.splitlines() if "CONSOLE" in line]


def test_charts_are_drawn_quietly_and_without_a_request(audit: Callable[..., Table], tmp_path: Path):
    seen, console = looked_at(audit(), tmp_path)
    assert console == []
    assert seen["requests"] == []
    assert seen["charts"] == 11
    assert seen["drawn"] == seen["charts"]
    assert seen["marks"] >= seen["charts"]
    assert seen["scripts"] == 3


@pytest.mark.parametrize("name", ["audit", "torn", "hostile"])
def test_nothing_sticks_out_at_400_pixels(name: str, request: pytest.FixtureRequest, tmp_path: Path):
    table = request.getfixturevalue(name)
    seen, console = looked_at(table() if name == "audit" else table, tmp_path, width=400)
    assert seen["width"] == 400
    assert seen["overflow"] == 0
    assert console == []


def test_hostile_names_stay_text(hostile: Table, tmp_path: Path):
    seen, console = looked_at(hostile, tmp_path)
    assert console == []
    assert seen["scripts"] == 3
    assert seen["strangers"] == 0
    assert seen["requests"] == []
    assert seen["drawn"] == seen["charts"] > 0


def test_light_and_dark(audit: Callable[..., Table], tmp_path: Path):
    (tmp_path / "light").mkdir()
    (tmp_path / "dark").mkdir()
    light, _ = looked_at(audit("plain"), tmp_path / "light", "--blink-settings=preferredColorScheme=1")
    dark, console = looked_at(audit("plain"), tmp_path / "dark", "--blink-settings=preferredColorScheme=0")
    assert (light["dark"], dark["dark"]) == (False, True)
    assert _brightness(light["background"]) > 200 > 60 > _brightness(dark["background"])
    assert _brightness(light["ink"]) < 80 < 180 < _brightness(dark["ink"])
    assert console == []


def test_tables_come_as_csv_with_full_numbers_and_without_formulas(audit: Callable[..., Table], hostile: Table, tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    seen, _ = looked_at(audit("plain"), tmp_path / "a")
    assert len(seen["csv"]) == 10
    table = next(text for text in seen["csv"] if text.startswith("network,corruption,severity,value,low,high,n,status,reason\r\n"))
    assert table.splitlines()[1].startswith("plain,gaussian_noise,1,0.934,0.908557")
    seen, _ = looked_at(hostile, tmp_path / "b")
    cells = [cell for text in seen["csv"] for line in csv.reader(text.splitlines()) for cell in line]
    assert "'=1+1" in cells
    assert not any(cell.startswith(("=", "+", "@")) for cell in cells)


def _brightness(colour: str) -> float:
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3
