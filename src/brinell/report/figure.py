"""Plotly figures as plain data, built by hand: what is drawn, never what is computed.

A colour written `--name` is a variable of page.css; page.js puts the value of the current theme in its place. All text that comes
from outside passes `label`, because Plotly reads a small markup language in its texts. Axes of names are linear axes with named
ticks, so that equal or odd names cannot merge or reorder.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import chain, groupby, pairwise
from typing import Any

from brinell.report.answer import Answer, number

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "star", "x")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash")
CHANCE = -1
"""The series number of noise controls: drawn in grey."""

Figure = dict[str, Any]


def label(text: str, longest: int = 44) -> str:
    """Text as Plotly shows it: cut in the middle where long, without markup."""
    if len(text) > longest:
        text = f"{text[: longest // 2]}…{text[-(longest // 2 - 1) :]}"
    return html.escape("".join(mark if mark.isprintable() else "�" for mark in text))


def colour(series: int) -> str:
    return "--chance" if series == CHANCE else f"--series-{series % len(SYMBOLS) + 1}"


def layout(height: int, **more: Any) -> dict[str, Any]:
    """What all figures share."""
    return {
        "height": height, "autosize": True, "showlegend": False, "dragmode": False,
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "--ink"},
        "hoverlabel": {"bgcolor": "--card", "bordercolor": "--line", "font": {"color": "--ink"}, "align": "left"},
        "margin": {"l": 44, "r": 12, "t": 8, "b": 40}, **more,
    }  # fmt: skip


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 8}, "gridcolor": "--line", "linecolor": "--line", "zerolinecolor": "--line",
        "zeroline": False, "automargin": True, "fixedrange": True, "ticks": "", "exponentformat": "power",
        **more,
    }  # fmt: skip


def named_axis(names: Sequence[str], title: str = "", longest: int = 30, **more: Any) -> dict[str, Any]:
    ticks = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": [label(name, longest) for name in names]}
    return axis(title, showgrid=False, range=[-0.5, len(names) - 0.5], **ticks, **more)


def share_axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis from 0 to 1, the same in every panel."""
    return axis(title, range=[-0.03, 1.03], tickvals=[0, 0.25, 0.5, 0.75, 1], ticktext=["0", "0.25", "0.5", "0.75", "1"], **more)


def hover(title: str, answer: Answer) -> str:
    lines = [f"<b>{label(title, 80)}</b>", label(str(answer), 120)]
    return "<br>".join([*lines, f"n = {answer.n}"] if answer.ok and answer.n else lines)


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Sequence[Answer]],
    fronts: Sequence[int | None],
    groups: Sequence[str] = (),
    titles: Sequence[Sequence[str]] = (),
    net: int = 0,
) -> Figure:
    """Accuracy by corruption (rows, from the top) and severity (columns), on a scale from 0 to 1.

    Arguments:
        fronts: for each row the column from which on the network has yielded, None where it has not: drawn as a front line.
        groups: for each row the family it belongs to; a rule is drawn where it changes. titles, net: what the gallery calls each
            cell, and the number of the network, for a click to find them there.
    """
    height = 74 + 27 * len(rows)
    gaps = [
        {"x": j, "y": i, "text": answer.status, "showarrow": False, "font": {"size": 10, "color": "--faint"}}
        for i, row in enumerate(cells)
        for j, answer in enumerate(row)
        if not answer.ok
    ]
    lines = [
        {"type": "line", "x0": at - 0.5, "x1": at - 0.5, "y0": i - 0.5, "y1": i + 0.5, "line": {"color": "--front", "width": 4}}
        for i, at in enumerate(fronts)
        if at is not None
    ]
    lines += [
        {"type": "line", "x0": -0.5, "x1": len(columns) - 0.5, "y0": i - 0.5, "y1": i - 0.5, "line": {"color": "--soft", "width": 1.5}}
        for i, (above, below) in enumerate(pairwise(groups), 1)
        if above != below
    ]
    trace = {
        "type": "heatmap", "z": [[answer.value for answer in row] for row in cells], "zmin": 0, "zmax": 1, "colorscale": "Cividis",
        "text": [[f"{answer.value:.2f}" if answer.value is not None else "" for answer in row] for row in cells],
        "texttemplate": "%{text}", "textfont": {"size": 11}, "xgap": 2, "ygap": 2, "hoverongaps": True, "hoverinfo": "text",
        "hovertext": [[hover(f"{rows[i]}, {columns[j]}", answer) for j, answer in enumerate(row)] for i, row in enumerate(cells)],
        "showscale": False, "customdata": [list(line) for line in titles],
    }  # fmt: skip
    y = named_axis(rows, ticklabelstandoff=4)
    x = named_axis(columns, "severity", side="top")
    y["range"] = y["range"][::-1]
    margin = {"l": 20, "r": 6, "t": 50, "b": 6}
    return {"data": [trace], "layout": layout(height, xaxis=x, yaxis=y, annotations=gaps, shapes=lines, margin=margin, meta=net)}


def curves(
    series: Sequence[tuple[int, str, Sequence[tuple[float, str, Answer]]]],
    bars: Sequence[tuple[float, str, float | None, float | None]],
    ticks: Sequence[tuple[float, str]],
    title: str,
    steps: Sequence[tuple[int, str, Sequence[tuple[float, float]]]] = (),
) -> Figure:
    """Accuracy against eps, each family with the band of its intervals, and the bounds of R(T) as short lines.

    Arguments:
        series: number, name and points (eps, its title, answer) in the order of eps. bars: eps, text, lower and upper bound of
            R(T), None where there is none.
        ticks: sizes and how they are written; crowded ones are left out. steps: number, name and points (eps, share that stands) of
            attacks that find a distance for each sample.
    """
    known_sizes = [size for size, _ in ticks] + ([] if len(ticks) > 1 else [size for *_, points in steps for size, _ in points])
    widest = max(known_sizes, default=1.0) or 1.0
    data: list[dict[str, Any]] = []
    for which, name, points in series:
        line = _line(which, [size for size, _, _ in points], [hover(f"{name} at {shown}", a) for _, shown, a in points], points)
        bands = [_band(which, [(size, answer) for size, _, answer in run]) for ok, run in groupby(points, lambda p: p[2].ok) if ok]
        line["error_y"]["visible"] = not any(bands)
        data += [*chain.from_iterable(bands), line]
    for which, name, points in steps:
        shown = [(size, share) for size, share in points if size <= 1.06 * widest]
        data.append({
            "type": "scatter", "mode": "lines", "x": [size for size, _ in shown], "y": [share for _, share in shown], "hoverinfo": "text",
            "hovertext": [f"<b>{label(name, 80)}</b><br>{number(share)} stand at {number(size)}" for size, share in shown],
            "line": {"color": colour(which), "width": 1.5, "shape": "hv", "dash": DASHES[which % len(DASHES)]},
        })  # fmt: skip
    for size, text, *ends in bars:
        known = [end for end in ends if end is not None]
        data.append({
            "type": "scatter", "mode": "lines+markers", "x": [size] * len(known), "y": known, "hoverinfo": "text",
            "hovertext": [label(text, 120)] * len(known), "line": {"color": "--guarantee", "width": 6},
            "marker": {"symbol": "line-ew", "size": 26, "line": {"width": 2.5, "color": "--ink"}},
        })  # fmt: skip
    kept: list[tuple[float, str]] = []
    for size, shown in sorted(ticks):
        if not kept or size - kept[-1][0] >= 0.09 * widest:
            kept.append((size, shown))
    named = {"tickvals": [size for size, _ in kept], "ticktext": [label(shown) for _, shown in kept]} if len(kept) > 1 else {}
    x = axis(title, range=[-0.04 * widest, 1.06 * widest], **named)
    return {"data": data, "layout": layout(320, xaxis=x, yaxis=share_axis("accuracy"))}


def _band(which: int, points: Sequence[tuple[float, Answer]]) -> list[dict[str, Any]]:
    sure = [(size, answer.low, answer.high) for size, answer in points if answer.low is not None and answer.high is not None]
    if len(sure) < 2:
        return []
    x = [size for size, _, _ in sure]
    edge = [high for _, _, high in sure] + [low for _, low, _ in reversed(sure)]
    return [
        {
            "type": "scatter", "x": x + x[::-1], "y": edge, "mode": "lines", "line": {"width": 0}, "fill": "toself",
            "fillcolor": f"{colour(which)}-soft", "hoverinfo": "skip",
        }
    ]  # fmt: skip


def _line(which: int, x: Sequence[float], texts: Sequence[str], known: Sequence[tuple[Any, Any, Answer]]) -> dict[str, Any]:
    symbol, dash = ("circle-open", "dot") if which == CHANCE else (SYMBOLS[which % len(SYMBOLS)], DASHES[which % len(DASHES)])
    return {
        "type": "scatter", "mode": "lines+markers", "x": list(x), "y": [answer.value for _, _, answer in known],
        "hoverinfo": "text", "hovertext": list(texts), "line": {"color": colour(which), "width": 2, "dash": dash},
        "marker": {"symbol": symbol, "size": 8, "color": colour(which)}, "error_y": _whiskers(which, [a for _, _, a in known]),
    }  # fmt: skip


def _whiskers(which: int, answers: Sequence[Answer]) -> dict[str, Any]:
    ends = [(answer.value or 0.0, answer.low, answer.high) for answer in answers]
    return {
        "type": "data", "symmetric": False, "thickness": 1.2, "width": 3, "color": colour(which),
        "array": [0 if high is None else high - value for value, _, high in ends],
        "arrayminus": [0 if low is None else value - low for value, low, _ in ends],
    }  # fmt: skip


def dots(rows: Sequence[str], series: Sequence[tuple[int, str, Sequence[tuple[str, Answer] | None]]], title: str) -> Figure:
    """One row per question, one dot with its interval per series: everything at a glance on a scale from 0 to 1."""
    count = len(series)
    step = min(0.22, 0.7 / max(count, 1))
    data = []
    for at, (which, name, points) in enumerate(series):
        shift = (at - (count - 1) / 2) * step
        known = [(row + shift, *point) for row, point in enumerate(points) if point is not None and point[1].ok]
        answers = [answer for _, _, answer in known]
        data.append({
            "type": "scatter", "mode": "markers", "x": [answer.value for answer in answers], "y": [y for y, _, _ in known],
            "hoverinfo": "text", "hovertext": [hover(f"{name}: {what}", answer) for _, what, answer in known],
            "marker": {"symbol": SYMBOLS[which % len(SYMBOLS)], "size": 10, "color": colour(which)},
            "error_x": _whiskers(which, answers),
        })  # fmt: skip
    y = named_axis(rows, ticklabelstandoff=6)
    y["range"] = y["range"][::-1]
    height = 60 + len(rows) * max(34, 16 + 14 * count)
    return {"data": data, "layout": layout(height, xaxis=share_axis(title), yaxis=y, margin={"l": 20, "r": 14, "t": 6, "b": 40})}


def profile(places: Sequence[str], series: Sequence[tuple[int, str, Sequence[Answer]]], title: str, low: float, top: float) -> Figure:
    """A quantity along the layers, in the order of the forward pass; all panels of a quantity run from the same low to the same top."""
    data = []
    for which, name, answers in series:
        points = [(at, places[at], answer) for at, answer in enumerate(answers)]
        data.append(_line(which, [at for at, _, _ in points], [hover(f"{name}, {place}", answer) for _, place, answer in points], points))
    x = named_axis(places, "", 22, tickangle=-40 if len(places) > 4 else 0)
    every = -(-len(places) // 24)
    x["tickvals"], x["ticktext"] = x["tickvals"][::every], x["ticktext"][::every]
    room = 0.06 * (top - low)
    return {"data": data, "layout": layout(320, xaxis=x, yaxis=axis(title, range=[low - (room if low < 0 else 0), top + room]))}


def reliability(series: Sequence[tuple[int, str, Sequence[tuple[float, float, float]]]]) -> Figure:
    """Accuracy against confidence by bin; on the diagonal the network is right as often as it says."""
    diagonal = {"color": "--faint", "width": 1, "dash": "dot"}
    data: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip", "line": diagonal}
    ]  # fmt: skip
    for which, name, curve in series:
        known = [(None, None, Answer(right)) for _, right, _ in curve]
        texts = [
            f"<b>{label(name, 80)}</b><br>says {number(sure)}, is right {number(right)}<br>{number(share)} of samples"
            for sure, right, share in curve
        ]
        data.append(_line(which, [sure for sure, _, _ in curve], texts, known))
    return {"data": data, "layout": layout(320, xaxis=share_axis("mean confidence"), yaxis=share_axis("accuracy"))}


def stairs(series: Sequence[tuple[int, str, Sequence[tuple[float, float]]]]) -> Figure:
    """The share of samples that fall to at least a share of the perturbations, for each network."""
    data = []
    for which, name, points in series:
        texts = [f"<b>{label(name, 80)}</b><br>{100 * y:.1f} % fall to at least {100 * x:.0f} % of the perturbations" for x, y in points]
        data.append({
            "type": "scatter", "mode": "lines", "x": [x for x, _ in points], "y": [y for _, y in points], "hoverinfo": "text",
            "hovertext": texts, "line": {"color": colour(which), "width": 2, "shape": "vh", "dash": DASHES[which % len(DASHES)]},
            "fill": "tozeroy", "fillcolor": f"{colour(which)}-soft",
        })  # fmt: skip
    x, y = share_axis("at least this share of the perturbations"), share_axis("share of samples that fall")
    return {"data": data, "layout": layout(320, xaxis=x, yaxis=y)}


def matrix(names: Sequence[str], shares: Sequence[Sequence[float]]) -> Figure:
    """Of the samples that fall to the row, the share that falls to the column."""
    trace = {
        "type": "heatmap", "z": [list(row) for row in shares], "zmin": 0, "zmax": 1, "colorscale": "Cividis", "reversescale": True,
        "xgap": 1, "ygap": 1, "hoverinfo": "text", "colorbar": _bar("share"),
        "hovertext": [
            [f"of those that fall to {label(a, 60)}<br>{100 * shares[i][j]:.1f} % fall to {label(b, 60)}" for j, b in enumerate(names)]
            for i, a in enumerate(names)
        ],
    }  # fmt: skip
    x, y = named_axis(names, "", 26, tickangle=-60), named_axis(names, "", 26)
    y["range"] = y["range"][::-1]
    return {
        "data": [trace],
        "layout": layout(170 + 20 * len(names), xaxis=x, yaxis=y, margin={"l": 20, "r": 6, "t": 6, "b": 20}, meta="matrix"),
    }


def spectrum(values: Sequence[Sequence[float | None]], rows: Sequence[float], columns: Sequence[float], name: str, top: float) -> Figure:
    """A quantity by frequency: whole waves over the height (downwards) and over the width, the constant in the middle."""
    trace = {
        "type": "heatmap", "z": [list(row) for row in values], "x": list(columns), "y": list(rows), "zmin": 0, "zmax": top,
        "colorscale": "Cividis", "reversescale": True, "hoverinfo": "text", "colorbar": _bar(label(name)),
        "hovertext": [
            [f"{down:g} waves down, {right:g} across<br>{label(name)} {number(value) or 'not measured'}"
             for right, value in zip(columns, line, strict=True)]
            for down, line in zip(rows, values, strict=True)
        ],
    }  # fmt: skip
    x = axis("waves over the width", showgrid=False, constrain="domain", scaleanchor="y")
    y = axis("waves over the height", showgrid=False, constrain="domain", autorange="reversed")
    return {"data": [trace], "layout": layout(360, xaxis=x, yaxis=y)}


def _bar(title: str) -> dict[str, Any]:
    """A colour bar."""
    return {"title": {"text": title, "side": "right"}, "thickness": 10, "outlinewidth": 0, "len": 0.9, "tickfont": {"size": 10}}


def ladder(sizes: Sequence[str], series: Sequence[tuple[int, str, Sequence[Answer]]], few: bool) -> Figure:
    """Accuracy against severity, from clean (the first of `sizes`) on; with few curves each has its intervals as whiskers. A curve
    is broken where there is no answer."""
    data = []
    for which, name, answers in series:
        points = [(at, sizes[at], answer) for at, answer in enumerate(answers)]
        line = _line(which, [at for at, _, _ in points], [hover(f"{name}, severity {size}", a) for _, size, a in points], points)
        line["error_y"]["visible"] = few
        data.append(line)
    x = named_axis(sizes, "severity", 12)
    x["range"] = [-0.15, len(sizes) - 0.85]
    return {"data": data, "layout": layout(270, xaxis=x, yaxis=share_axis("accuracy"), margin={"l": 44, "r": 10, "t": 6, "b": 38})}
