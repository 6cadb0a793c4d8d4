"""Sections that look inside: quantities along the layers, and sensitivity by frequency."""

from __future__ import annotations

import math
import re

import numpy as np

from brinell.report.answer import Answer, listed
from brinell.report.content import Content
from brinell.report.explanation import STANCES, stance_keys
from brinell.report.figure import profile, spectrum
from brinell.report.section import Entry, Grid, Panel, Section, tidy

LAYER = re.compile(r":\d+$")
"""What ends the name of a recorded layer, `path:call`; other places (a class, a loss) have other names."""

MOST_WAVES = 129


def profiles(content: Content) -> Section | None:
    """Every quantity that a probe reads layer by layer, along the forward pass: clean, corrupted and attacked."""
    places: dict[str, dict[str, None]] = {}
    for row in content.table.rows:
        if row.get("perturbation") and LAYER.search(row.get("layer") or ""):
            places.setdefault(row["name"], {})[row["layer"]] = None
    panels, rows = [], []
    for name in [name for name, layers in places.items() if len(layers) > 1]:
        drawn = [(net, _series(content, net, name)) for net in content.networks]
        values = [answer for _, (_, series) in drawn for *_, answers in series for answer in answers]
        low, top = _range(values)
        for net, (layers, series) in drawn:
            if not layers:
                continue
            ends = listed(f"{stance} from {answers[0].brief} to {answers[-1].brief}" for stance, answers in _named(series))
            alternative = f"{_words(name)} of {net} along {len(layers)} layers: {ends}."
            title = _words(name) if len(content.networks) == 1 else f"{net}: {_words(name)}"
            panels.append(Panel(title, profile(layers, series, _words(name), low, top), alternative))
        rows += [line for net in content.networks for line in _rows(content, net, name, list(places[name]))]
    if not panels:
        return None
    lead = (
        "What probes read layer by layer, in the order of the forward pass, on one scale for all networks.",
        "Corrupted and attacked are the corruption and the attack that leave the least accuracy.",
    )
    grid = tidy("Quantities by layer", ("network", "quantity", "layer", "perturbation"), rows)
    return Section("layers", "Layers", lead, stance_keys(content), panels, [grid])


def _series(content: Content, net: str, name: str) -> tuple[list[str], list[tuple[int, str, list[Answer]]]]:
    stances = content.stances(net)
    found = [row["layer"] for item in stances.values() for row in content.cell(net, item.spec) if row["name"] == name]
    layers = [layer for layer in dict.fromkeys(found) if layer]
    return layers, [
        (STANCES.index(stance), f"{stance} ({item.spec})", [content.answer(name, net, item.spec, layer) for layer in layers])
        for stance, item in stances.items()
    ]


def _named(series: list[tuple[int, str, list[Answer]]]) -> list[tuple[str, list[Answer]]]:
    return [(STANCES[which], answers) for which, _, answers in series]


def _rows(content: Content, net: str, name: str, layers: list[str]) -> list[tuple[tuple[Entry, ...], Answer]]:
    whole = [""] if any(content.row(name, net, item.spec) for item in content.stances(net).values()) else []
    return [
        ((net, name, layer or "(network)", item.spec), content.answer(name, net, item.spec, layer))
        for item in content.stances(net).values()
        for layer in [*layers, *whole]
    ]


def _range(answers: list[Answer]) -> tuple[float, float]:
    """From 0, or the smallest value where that is negative, to the largest."""
    values = [end for answer in answers for end in (answer.value, answer.low, answer.high) if end is not None]
    low, top = min([0.0, *values]), max([0.0, *values])
    return low, top if top > low else low + 1.0


def _words(name: str) -> str:
    return name.replace("_", " ")


def fourier(content: Content) -> Section | None:
    """Heat maps by frequency, where readings called `fourier_...` have an array over frequencies behind them."""
    maps: list[tuple[str, str, str, np.ndarray]] = []
    for row in content.table.rows:
        if row["name"].startswith("fourier_") and row.get("value") is not None:
            values = content.array(row)
            if values is not None and values.ndim == 2 and min(values.shape) > 1 and max(values.shape) <= MOST_WAVES:
                maps.append((row["net"], row["name"], row.get("layer") or row.get("perturbation") or "", np.asarray(values, np.float64)))
    if not maps:
        return None
    panels, grids = [], []
    for net, name, about, values in maps:
        known = [other[np.isfinite(other)].max(initial=0.0) for _, like, _, other in maps if like == name]
        top = 1.0 if 0.25 < max(known) <= 1 else float(max(known)) or 1.0
        rows, columns = (waves(side) for side in values.shape)
        cells = [[float(value) if math.isfinite(value) else None for value in line] for line in values]
        title = " · ".join([*([net] if len(content.networks) > 1 else []), _words(name), *([about] if about else [])])
        alternative = f"Heat map of {_words(name)} of {net} by frequency. {_by_ring(values, rows, columns)}"
        panels.append(Panel(title, spectrum(cells, rows, columns, _words(name), top), alternative))
        lines: list[tuple[Entry, ...]] = [(down, *line) for down, line in zip(rows, cells, strict=True)]
        grids.append(Grid(f"{title}, by waves down (rows) and across (columns)", ("waves", *map(str, columns)), lines, tidy=True))
    lead = (
        "Noise of one single frequency at a time: low frequencies in the middle, high ones at the rim. The darker, the more the network "
        "is hurt: a dark rim means that it leans on fine detail, a dark middle that it leans on coarse shape.",
    )
    return Section("fourier", "Frequencies", lead, (), panels, grids)


def waves(side: int) -> list[int]:
    """Whole waves over a side, as the rows or columns of a map run, the constant in the middle.

    Example:
        >>> waves(5), waves(4)
        ([-2, -1, 0, 1, 2], [-2, -1, 0, 1])
    """
    return [at - side // 2 for at in range(side)]


def _by_ring(values: np.ndarray, rows: list[int], columns: list[int]) -> str:
    """The means over the lower and the upper half of frequencies, in words."""
    radius = np.hypot(np.array(rows)[:, None] / len(rows), np.array(columns) / len(columns))
    low, high = values[(radius <= 0.25) & np.isfinite(values)], values[(radius > 0.25) & np.isfinite(values)]
    if not len(low) or not len(high):
        return "Few frequencies were measured."
    return f"Mean below a quarter of a wave per pixel {low.mean():.3f}, above it {high.mean():.3f}."
