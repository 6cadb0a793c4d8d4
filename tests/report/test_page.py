"""The page as a file: what it says, that it is valid, alone and inert."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brinell.core.errors import StoreError
from brinell.core.lab import Table
from brinell.report.content import Content
from brinell.report.page import render, sections, write_report

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Tree(HTMLParser):
    """Collects elements, texts and what is inside scripts; notes tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.text.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.text))


def figures(tree: Tree) -> list[dict[str, Any]]:
    return json.loads(tree.scripts[0], parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))


@pytest.fixture(params=["audit", "single", "bare", "torn", "hostile", "empty"])
def page(request: pytest.FixtureRequest) -> Tree:
    audit = request.getfixturevalue("audit")
    tables: dict[str, Callable[[], Table]] = {
        "audit": audit, "single": lambda: audit("plain"), "bare": lambda: audit("plain", findings=False),
        "torn": lambda: request.getfixturevalue("torn"), "hostile": lambda: request.getfixturevalue("hostile"),
        "empty": lambda: Table({}, []),
    }  # fmt: skip
    return Tree(render(tables[request.param]()))


def test_every_page_is_whole_alone_and_inert(page: Tree):
    assert page.open == []
    assert page.count("h1") == 1
    names = {name for name, _ in page.elements}
    assert names.isdisjoint({"img", "link", "iframe", "object", "embed", "form", "base"})
    for name, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes), (name, attributes)
        assert "src" not in attributes and "srcset" not in attributes
        assert name != "a" or (attributes["href"] or "").startswith("#")
    drawn = figures(page)
    charts = [attributes for name, attributes in page.elements if name == "div" and attributes.get("class") == "chart"]
    assert [int(chart["data-figure"] or -1) for chart in charts] == list(range(len(drawn)))
    assert all(chart["role"] == "img" and len(chart["aria-label"] or "") > 20 for chart in charts)
    assert "nan" not in page.words.lower().replace("nan among", "").split()


def test_links_lead_somewhere_and_places_are_unique(page: Tree):
    places = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(places) == len(set(places))
    assert {(a["href"] or "")[1:] for name, a in page.elements if name == "a"} <= set(places)


def test_only_the_pages_own_scripts_may_run(page: Tree):
    policy = next(a["content"] or "" for name, a in page.elements if name == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    kinds = [a.get("type") for name, a in page.elements if name == "script"]
    code = [text for text, kind in zip(page.scripts, kinds, strict=True) if kind != "application/json"]
    found = {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in code}
    assert set(rules["script-src"].split()) == found
    assert "unsafe" not in rules["script-src"] and "http" not in policy
    assert rules.keys() == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    assert rules["img-src"] == "data:"


def test_plotly_comes_only_with_charts(audit: Callable[..., Table]):
    assert len(render(audit())) < 6e6
    assert len(render(Table({}, []))) < 1e5


def test_hostile_text_is_shown_and_nothing_else(hostile: Table):
    page = render(hostile)
    tree = Tree(page)
    assert tree.count("script") == 3
    assert "<script>alert(1)" not in page
    assert "<script>alert(1)</script>" in tree.words and "<img src=x onerror=alert(2)>" in tree.words
    assert not any(mark in page for mark in ("\x1b", "\x07", "\u202e", "\u2028"))
    shown = json.dumps(figures(tree))
    assert "<img" not in shown and "&lt;img" in shown  # Plotly reads a small markup language


def test_the_verdict_is_in_words(audit: Callable[..., Table]):
    words = Tree(render(audit())).words
    assert "2 networks on digits, side by side" in words
    assert "Right on 96.2 % of 500 clean samples; 94.1 % to 97.7 % in the population they were drawn from (at 95 %)." in words
    assert "Corruptions: contrast at severity 2, accuracy 0.730 [0.663, 0.791]." in words
    assert "Linf attacks: pgd(steps=40) at Linf eps 2/255, accuracy 0.674 [0.604, 0.739]." in words
    assert "0.312 <= R(T) <= 0.458 (in doubt: contradiction failed) for T = ball(eps=8/255, norm=inf)" in words
    assert "randomly initialised" in words
    assert words.index("contradiction") < words.index("saturation") < words.index("gradient_masking")
    assert "3 against a threshold of 0" in words


def test_no_finding_is_said_to_be_no_check(audit: Callable[..., Table]):
    assert "No check was run, so nothing is known" in Tree(render(audit(findings=False))).words


def test_a_torn_table_names_what_is_missing(torn: Table):
    words = Tree(render(torn)).words
    assert "out of memory at sample 17" in words and "3 of 500 samples have NaN among their logits" in words
    assert "Without an answer" in words and "Cells without an accuracy: 7 of 8." in words


def test_all_sections_of_a_whole_audit(audit: Callable[..., Table], torn: Table):
    found = {section.anchor: section for section in sections(Content(audit()))}
    assert [*found] == [
        "glance", "corruptions", "severity", "attacks-Linf", "attacks-L2", "worst", "gallery", "falls", "classes", "layers", "calibration",
        "summaries", "cost", "provenance",
    ]  # fmt: skip
    for anchor in ("corruptions", "attacks-Linf", "attacks-L2", "layers", "calibration"):
        assert [panel.title.partition(":")[0] for panel in found[anchor].panels] == ["plain", "hardened"]
        assert any(grid.tidy for grid in found[anchor].grids)
    assert "classes" not in {section.anchor for section in sections(Content(torn))}


def test_the_cost_of_a_cell_is_counted_once(audit: Callable[..., Table]):
    cost = next(section for section in sections(Content(audit("plain"))) if section.anchor == "cost")
    # 11 attacks of 20000 passes each, 33 other perturbations of 500; every reading of a cell repeats its cost
    assert cost.grids[0].rows[0][1:3] == (33 * 500 + 11 * 20_000, 11 * 20_000)
    assert cost.grids[0].rows[0][3] == pytest.approx(33 * 0.4 + 11 * 12.3)


def test_the_worst_class_is_pointed_at(audit: Callable[..., Table]):
    classes = next(section for section in sections(Content(audit("plain"))) if section.anchor == "classes")
    grid = classes.grids[0]
    assert [grid.rows[at][0] for at in grid.marked] == ["8"]


def test_groups_have_a_table_of_their_own(audit: Callable[..., Table]):
    table = audit("plain")
    rows = [row for row in table.rows if row["name"] in ("class_accuracy", "worst_class_accuracy")]
    table.rows += [
        {**row, "name": row["name"].replace("class", "group"), "layer": row["layer"].replace("class", "group site")} for row in rows
    ]
    groups = next(section for section in sections(Content(table)) if section.anchor == "groups")
    assert groups.grids[0].header[0] == "group" and groups.grids[0].rows[8][0] == "site 8"
    assert groups.grids[0].marked == frozenset({8})


def test_a_plan_of_another_format_is_still_read():
    rows = [{"net": "a", "perturbation": "clean", "name": "accuracy", "value": 0.5}]
    words = Tree(render(Table({"networks": ["a"], "data": "old.npz", "environment": None}, rows))).words
    assert "a on old.npz" in words and "The plan of this run does not say its perturbations and seed." in words


def test_the_whole_page_stays_below_15_megabytes(audit: Callable[..., Table]):
    """Three networks, pictures of pure noise, 500 samples: more than the standard suite asks for, but for the number of cells."""
    table, noise = audit("a", "b", "c"), np.random.default_rng(0)
    load = table.load_array
    assert load is not None
    table.load_array = lambda row: (
        np.arange(24) if row["name"] == "example_ids" else noise.random((24, 3, 32, 32)) if row["name"] == "examples" else load(row)
    )
    assert 8e6 < len(render(table)) < 13e6


def test_writing_makes_folders_and_names_a_place_that_fails(tmp_path: Path, torn: Table):
    path = write_report(torn, tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(StoreError, match="cannot write the report"):
        write_report(torn, path / "below")


def test_a_name_that_is_no_text_of_unicode_is_written(tmp_path: Path):
    row = {"net": "a\ud800", "perturbation": "clean", "name": "accuracy", "value": 0.5}
    assert write_report(Table({"perturbations": ["clean"]}, [row]), tmp_path / "x.html").stat().st_size > 1e6
