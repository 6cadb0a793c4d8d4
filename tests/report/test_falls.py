"""Who falls to what: joins over samples whose outcome is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from brinell.core.lab import Table
from brinell.report.accuracy import standing
from brinell.report.content import Content
from brinell.report.falls import falls, who_falls

SPECS = (
    "clean",
    "fog(severity=1)",
    "fog(severity=2)",
    "fgsm(threat=ball(eps=1/255, norm=inf))",
    "uniform_noise(threat=ball(eps=1/255, norm=inf))",
)
CORRECT = {  # samples 10, 20, 30, 40; the last is wrong when clean
    "clean": (1, 1, 1, 0), SPECS[1]: (1, 0, 1, 1), SPECS[2]: (1, 0, 0, 0), SPECS[3]: (1, 1, 0, 0), SPECS[4]: (1, 1, 1, 0),
}  # fmt: skip


def joined_table(**more: dict[str, np.ndarray]) -> Table:
    ids = np.array([10, 20, 30, 40])
    cells = {
        spec: {"id": ids, "label": np.array([0, 1, 2, 0]), "prediction": np.array([0, 1, 2, 1]), "correct": np.array(flags, dtype=bool)}
        for spec, flags in CORRECT.items()
    } | more
    rows = [
        {"net": "a", "perturbation": spec, "probe": "accuracy", "name": "accuracy", "layer": "", "value": float(np.mean(flags)), "n": 4}
        for spec, flags in CORRECT.items()
    ]
    plan = {"networks": {"a": {}}, "perturbations": [*cells], "data": {"classes": ["cat", "<b>dog</b>", "owl"]}}
    return Table(plan, rows, load_samples=lambda net, spec: cells.get(spec, {}))


def test_a_sample_falls_where_it_was_right_and_is_wrong():
    found = falls(Content(joined_table()), "a")
    assert found is not None
    assert [item.spec for item in found.items] == [*SPECS[1:]]
    assert found.fell.astype(int).tolist() == [[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert found.count().tolist() == [0, 2, 2, 0]
    assert found.count("attack").tolist() == [0, 0, 1, 0]
    assert [first and first.shown for first in found.first("corruption", "severity")] == [None, "1", "2", None]
    assert [first and first.shown for first in found.first("attack", "Linf")] == [None, None, "1/255", None]


def test_the_section_counts_and_joins():
    section = who_falls(Content(joined_table()))
    assert section is not None
    assert section.lead[1] == (
        "In all: of 3 samples that are right when clean, 1 stand everything, 1 fall to corruptions only and 1 fall to corruptions and to "
        "attacks."
    )
    stairs, matrix = (panel.figure["data"][0] for panel in section.panels)
    assert (stairs["x"], stairs["y"]) == ([0.25, 0.5, 0.75, 1.0], [2 / 3, 2 / 3, 0.0, 0.0])
    assert matrix["z"] == [[1.0, 0.5], [1.0, 1.0]]  # of those that fall to fog (2) half fall to fgsm, all the other way round
    weakest, every = section.grids[:2]
    assert weakest.rows[0] == ("20", "<b>dog</b>", "<b>dog</b>", 2, 4, "fog (1)", "none")
    assert [row[1] for row in every.rows] == ["20", "30", "10", "40"]


def test_cells_with_other_samples_are_left_out():
    other = {"id": np.array([1, 2]), "label": np.zeros(2), "prediction": np.zeros(2), "correct": np.ones(2, dtype=bool)}
    found = falls(Content(joined_table(**{SPECS[1]: other})), "a")
    assert found is not None and SPECS[1] not in [item.spec for item in found.items]


def test_without_samples_there_is_no_section(torn: Table):
    assert who_falls(Content(torn)) is None
    assert who_falls(Content(Table({}, []))) is None


def test_samples_of_another_version_are_left_alone():
    table = joined_table()
    table.load_samples = lambda net, spec: {"id": np.array([1]), "right": np.array([True])}
    content = Content(table)
    assert falls(content, "a") is None and who_falls(content) is None
    assert standing(content, "a", content.grades[0]) == []


def test_many_samples_are_cut_and_said_to_be(audit: Callable[..., Table]):
    section = who_falls(Content(audit()))
    assert section is not None
    every = next(grid for grid in section.grids if grid.tidy)
    assert every.caption == "Every sample, weakest first, the first 500 of 1000" and len(every.rows) == 500
    assert "stand everything" in section.lead[1]


def test_a_nearest_attack_stands_at_every_eps():
    spec = "deepfool(threat=ball(eps=inf, norm=2))"
    cell = {"id": np.array([10, 20, 30, 40]), "correct": np.array([0, 0, 1, 0], dtype=bool), "l2": np.array([0.5, 0.2, 9.0, 0.0])}
    content = Content(joined_table(**{spec: cell}))
    item = next(found for found in content.grades if found.spec == spec)
    # three of four are right; two of them are reached, at 0.2 and 0.5
    assert standing(content, "a", item) == [(0.0, 0.75), (0.2, 0.5), (0.5, 0.25)]
