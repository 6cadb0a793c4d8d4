"""Figures are data: the numbers in them are those that went in."""

from __future__ import annotations

from brinell.report.content import Answer
from brinell.report.figure import CHANCE, curves, dots, heat_map, label, ladder, matrix, profile, reliability, spectrum, stairs

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
    points = [
        (0.0, "0", Answer(0.9, 0.8, 1.0)),
        (0.1, "0.1", LOST),
        (0.2, "0.2", Answer(0.3, 0.25, 0.4)),
        (0.3, "0.3", Answer(0.2, 0.1, 0.3)),
    ]
    band, line, chance, bar = curves([(0, "pgd", points), (CHANCE, "noise", points[:1])], [(0.2, "R", 0.1, 0.3)], [(0.2, "0.2")], "eps")[
        "data"
    ]
    assert (line["x"], line["y"]) == ([0.0, 0.1, 0.2, 0.3], [0.9, None, 0.3, 0.2])  # the curve is broken there
    assert (band["x"], band["y"]) == ([0.2, 0.3, 0.3, 0.2], [0.4, 0.3, 0.1, 0.25])
    assert (bar["x"], bar["y"]) == ([0.2, 0.2], [0.1, 0.3])
    assert bar["marker"]["symbol"] == "line-ew"
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
    figure = profile(layers, [(0, "clean", [Answer(0.5)] * 50)], "selectivity", -0.1, 0.5)
    assert len(figure["data"][0]["x"]) == 50
    assert figure["layout"]["xaxis"]["tickvals"] == [*range(0, 50, 3)]
    low, top = figure["layout"]["yaxis"]["range"]
    assert low < -0.1 and top > 0.5


def test_reliability_is_drawn_as_confidence_against_accuracy():
    diagonal, curve = reliability([(0, "clean", [(0.6, 0.5, 0.25), (0.9, 0.8, 0.75)])])["data"]
    assert diagonal["x"] == diagonal["y"] == [0, 1]
    assert (curve["x"], curve["y"]) == ([0.6, 0.9], [0.5, 0.8])


def test_labels_are_cut_and_hold_no_markup():
    assert label("<a href='javascript:x'>") == "&lt;a href=&#x27;javascript:x&#x27;&gt;"
    assert label("x" * 100, 20) == "x" * 10 + "…" + "x" * 9
    assert label("a\u202eb\x1b") == "a�b�"


def test_a_rule_stands_between_families():
    clean = [[Answer(0.9)]] * 3
    shapes = heat_map(["a", "b", "c"], ["clean"], clean, [None] * 3, ["noise", "noise", "blur"])["layout"]["shapes"]
    assert [(line["y0"], line["y1"]) for line in shapes] == [(1.5, 1.5)]


def test_a_nearest_attack_is_drawn_as_steps_up_to_the_widest_tick():
    steps = [(1, "deepfool", [(0.0, 0.9), (0.1, 0.5), (0.5, 0.1)])]
    *_, line = curves([], [], [(0.0, "0"), (0.2, "0.2")], "eps", steps)["data"]
    assert (line["x"], line["y"], line["line"]["shape"]) == ([0.0, 0.1], [0.9, 0.5], "hv")
    alone = curves([], [], [(0.0, "0")], "eps", steps)
    assert alone["data"][0]["x"] == [0.0, 0.1, 0.5]
    assert "tickvals" not in alone["layout"]["xaxis"]


def test_severity_runs_from_clean_and_breaks_where_there_is_no_answer():
    figure = ladder(["clean", "1", "2"], [(0, "fog", [Answer(0.9, 0.8, 1.0), LOST, Answer(0.2, 0.1, 0.3)])], True)
    (line,) = figure["data"]
    assert (line["x"], line["y"], line["error_y"]["visible"]) == ([0, 1, 2], [0.9, None, 0.2], True)
    assert figure["layout"]["xaxis"]["ticktext"] == ["clean", "1", "2"]


def test_shares_of_samples_are_stairs():
    (line,) = stairs([(0, "<b>", [(0.5, 1.0), (1.0, 0.25)])])["data"]
    assert (line["x"], line["y"]) == ([0.5, 1.0], [1.0, 0.25])
    assert "&lt;b&gt;" in line["hovertext"][0] and "25.0 % fall to at least 100 %" in line["hovertext"][1]


def test_who_falls_to_the_row_falls_to_the_column():
    figure = matrix(["fog", "<i>"], [[1.0, 0.5], [0.25, 1.0]])
    assert figure["data"][0]["z"] == [[1.0, 0.5], [0.25, 1.0]]
    assert "fall to fog<br>50.0 % fall to &lt;i&gt;" in figure["data"][0]["hovertext"][0][1]
    assert figure["layout"]["yaxis"]["range"] == [1.5, -0.5]


def test_a_spectrum_has_the_constant_in_the_middle_and_gaps():
    figure = spectrum([[0.1, None, 0.3]], [0], [-1, 0, 1], "error", 1.0)
    (trace,) = figure["data"]
    assert (trace["x"], trace["y"], trace["z"]) == ([-1, 0, 1], [0], [[0.1, None, 0.3]])
    assert "not measured" in trace["hovertext"][0][1]
