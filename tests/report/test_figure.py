"""Figures are data: the numbers in them are those that went in."""

from __future__ import annotations

from brinell.report.content import Answer
from brinell.report.figure import CHANCE, curves, dots, heat_map, label, profile, reliability

LOST = Answer(None, status="failed", reason="<b>no</b>")


def test_a_heat_map_has_gaps_where_there_is_no_answer_and_bars_where_it_yields():
    figure = heat_map(["fog", "fog"], ["clean", "1"], [[Answer(0.9), Answer(0.5, 0.4, 0.6, 0.95, 10)], [Answer(0.9), LOST]], [1, None])
    (trace,) = figure["data"]
    assert trace["z"] == [[0.9, 0.5], [0.9, None]]
    assert (trace["zmin"], trace["zmax"]) == (0, 1)
    assert trace["text"][1] == ["0.90", ""]
    assert "&lt;b&gt;no&lt;/b&gt;" in trace["hovertext"][1][1]
    assert [(note["x"], note["y"], note["text"]) for note in figure["layout"]["annotations"]] == [(1, 1, "failed")]
    assert [(line["x0"], line["y0"], line["y1"]) for line in figure["layout"]["shapes"]] == [(0.5, -0.5, 0.5)]
    assert figure["layout"]["yaxis"]["range"] == [1.5, -0.5]  # the first corruption on top
    assert figure["layout"]["yaxis"]["ticktext"] == ["fog", "fog"]  # equal names stay apart


def test_curves_leave_out_what_has_no_answer():
    points = [(0.0, "0", Answer(0.9, 0.8, 1.0)), (0.1, "0.1", LOST), (0.2, "0.2", Answer(0.3, 0.25, 0.4))]
    bar, band, line, chance = curves([(0, "pgd", points), (CHANCE, "noise", points[:1])], [(0.2, "R", 0.1, 0.3)], [(0.2, "0.2")], "eps")[
        "data"
    ]
    assert (line["x"], line["y"]) == ([0.0, 0.2], [0.9, 0.3])
    assert (band["x"], band["y"]) == ([0.0, 0.2, 0.2, 0.0], [1.0, 0.4, 0.25, 0.8])
    assert (bar["x"], bar["y"]) == ([0.2, 0.2], [0.1, 0.3])
    assert chance["line"]["color"] == "--chance"
    assert chance["error_y"]["array"] == [1.0 - 0.9]


def test_crowded_ticks_are_left_out():
    ticks = [(0.0, "0"), (0.001, "a"), (0.5, "b"), (1.0, "c")]
    assert curves([], [], ticks, "eps")["layout"]["xaxis"]["ticktext"] == ["0", "b", "c"]


def test_dots_stand_apart_and_skip_what_is_missing():
    first, second = dots(
        ["clean", "fog"], [(0, "a", [("clean", Answer(0.9)), None]), (1, "b", [("clean", Answer(0.8)), ("fog", LOST)])], "x"
    )["data"]
    assert (first["x"], second["x"]) == ([0.9], [0.8])
    assert first["y"][0] < 0 < second["y"][0]


def test_a_profile_thins_its_ticks_and_keeps_its_points():
    layers = [f"layer{k}" for k in range(50)]
    figure = profile(layers, [(0, "clean", [Answer(0.5)] * 50)], "selectivity", 0.5)
    assert len(figure["data"][0]["x"]) == 50
    assert figure["layout"]["xaxis"]["tickvals"] == [*range(0, 50, 3)]


def test_reliability_is_drawn_as_confidence_against_accuracy():
    diagonal, curve = reliability([(0, "clean", [(0.6, 0.5, 0.25), (0.9, 0.8, 0.75)])])["data"]
    assert diagonal["x"] == diagonal["y"] == [0, 1]
    assert (curve["x"], curve["y"]) == ([0.6, 0.9], [0.5, 0.8])


def test_labels_are_cut_and_hold_no_markup():
    assert label("<a href='javascript:x'>") == "&lt;a href=&#x27;javascript:x&#x27;&gt;"
    assert label("x" * 100, 20) == "x" * 10 + "…" + "x" * 9
    assert label("a\u202eb\x1b") == "a�b�"
