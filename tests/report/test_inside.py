"""Severity by family, layers and frequencies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from brinell.core.confidence import mean_interval
from brinell.core.lab import Table
from brinell.report.content import Content
from brinell.report.corruption import corruptions, severity
from brinell.report.inside import fourier, profiles


def test_families_stand_in_the_published_order(audit: Callable[..., Table]):
    content = Content(audit("plain"))
    heat, lines = corruptions(content), severity(content)
    assert heat is not None and lines is not None
    assert heat.panels[0].figure["layout"]["yaxis"]["ticktext"] == [
        "gaussian_noise", "gaussian_blur", "brightness", "contrast", "jpeg_compression",
    ]  # fmt: skip
    assert [panel.title for panel in lines.panels] == ["Noise", "Blur", "Weather", "Digital"]
    assert [key.name for key in lines.panels[3].keys] == ["contrast", "jpeg_compression"]
    digital = lines.panels[3].figure["data"][0]
    assert digital["x"] == [0, 1, 2, 3, 4, 5] and digital["y"][0] == pytest.approx(0.962)


def test_several_networks_are_means_with_the_interval_of_a_mean(audit: Callable[..., Table]):
    table = audit()
    content = Content(table)
    section = severity(content)
    assert section is not None
    digital = section.panels[3]
    assert [key.name for key in digital.keys] == ["plain", "hardened"]
    flags = [content.samples("plain", f"{kind}(severity=5)")["correct"] for kind in ("contrast", "jpeg_compression")]
    assert digital.figure["data"][0]["y"][5] == pytest.approx(np.mean(flags))
    low, high = mean_interval(np.mean(flags, axis=0), 0.95, within=(0.0, 1.0))
    row = next(row for row in section.grids[0].rows if row[:3] == ("plain", "digital", "5"))
    assert row[3:6] == pytest.approx((np.mean(flags), low, high))


def test_one_severity_is_no_curve(hostile: Table):
    assert severity(Content(hostile)) is None
    assert severity(Content(Table({}, []))) is None


def test_layers_of_any_probe_are_profiles(audit: Callable[..., Table]):
    table = audit("plain")
    table.rows += [
        {**row, "name": "sparsity", "value": -row["value"]} for row in table.rows if row["name"] == "selectivity" and row["layer"]
    ]
    table.rows += [{**table.rows[0], "name": "zero_gradients", "layer": loss} for loss in ("margin", "cross_entropy")]
    section = profiles(Content(table))
    assert section is not None
    assert [panel.title for panel in section.panels] == ["selectivity", "sparsity"]
    low, top = section.panels[1].figure["layout"]["yaxis"]["range"]
    assert low < -0.7 < top
    assert section.panels[0].figure["data"][0]["x"] == [0, 1, 2, 3, 4, 5]
    assert "from 0.200 to" in section.panels[0].alternative


def fourier_table(values: np.ndarray | None, *, name: str = "fourier_error") -> Table:
    row = {"net": "a", "perturbation": "", "name": name, "layer": "eps 4", "value": 0.3, "n": 9}
    return Table({"networks": {"a": {}}}, [row], load_array=lambda _: values)


def test_a_fourier_map_is_drawn_with_its_table():
    values = np.array([[0.5, 0.6, 0.5], [np.nan, 0.1, 0.2], [0.5, 0.6, 0.5]])
    section = fourier(Content(fourier_table(values)))
    assert section is not None
    (trace,) = section.panels[0].figure["data"]
    assert (trace["x"], trace["y"], trace["zmax"]) == ([-1, 0, 1], [-1, 0, 1], 1.0)
    assert trace["z"][1] == [None, 0.1, 0.2]
    (grid,) = section.grids
    assert grid.tidy and grid.header == ("waves", "-1", "0", "1") and grid.rows[1] == (0, None, 0.1, 0.2)


@pytest.mark.parametrize("values", [None, np.zeros(5), np.zeros((1, 5)), np.zeros((2, 500))])
def test_what_is_no_map_is_not_drawn(values: np.ndarray | None):
    assert fourier(Content(fourier_table(values))) is None
    assert fourier(Content(fourier_table(np.ones((3, 3)), name="other"))) is None
