"""The page of a study: its verdicts, its figures with the tables behind them, and its numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import brinell
from brinell.core.study import Curve, Figure, Judgement, Outcome, Verdict
from brinell.report import figure as draw
from brinell.report.page import fill, write_page
from brinell.report.section import Entry, Grid, Key, Panel, Section

MARKS = {"holds": ("✓ holds", "pass"), "fails": ("✕ fails", "fail"), "inconclusive": ("? open", "flag")}
"""What stands for a judgement, and the style it has in common with findings."""


def write_study(outcome: Outcome, path: str | Path) -> Path:
    """Write the outcome of a study as one HTML page that works offline and alone.

    Raises:
        StoreError: the file cannot be written.
    """
    parts = [_figure(place, figure) for place, figure in enumerate(outcome.figures)]
    parts += [_numbers(outcome)] if outcome.rows else []
    page = fill(
        "study.html", parts, [], outcome=outcome, headline=headline(outcome), marks=MARKS, effect=effect, version=brinell.__version__
    )
    return write_page(page, path)


def headline(outcome: Outcome) -> str:
    """How many of the claims hold."""
    counts = {judgement: sum(found.judgement is judgement for found in outcome.verdicts) for judgement in Judgement}
    return (
        f"Of {len(outcome.verdicts)} claims, {counts[Judgement.HOLDS]} hold, {counts[Judgement.FAILS]} fail, "
        f"{counts[Judgement.INCONCLUSIVE]} stay open"
    )


def effect(found: Verdict) -> str:
    """The number of a verdict with its interval.

    Example:
        >>> from brinell.core.study import Claim
        >>> effect(Verdict(Claim("a", "b"), Judgement.HOLDS, "points", 0.25, 0.1, 0.4, 5))
        '0.25 [0.1, 0.4], n = 5'
    """
    if found.effect is None:
        return f"no number, n = {found.n}"
    ends = "" if found.low is None or found.high is None else f" [{found.low:.3g}, {found.high:.3g}]"
    return f"{found.effect:.3g}{ends}, n = {found.n}"


def study_text(outcome: Outcome) -> str:
    """The verdicts as plain text, one line each."""
    lines = [f"{outcome.study} ({outcome.scale}): {headline(outcome)}", ""]
    width = max(len(found.claim.name) for found in outcome.verdicts)
    for found in outcome.verdicts:
        lines.append(f"{MARKS[found.judgement.value][0]:8} {found.claim.name:{width}}  {effect(found)}")
        lines.append(f"{'':8} {found.claim.statement}")
    return "\n".join([*lines, *(f"note: {text}" for text in outcome.notes)])


def _figure(place: int, figure: Figure) -> Section:
    keys = tuple(Key(at, curve.name) for at, curve in enumerate(figure.curves))
    rows: list[tuple[Entry, ...]] = [
        (curve.name, curve.x[at], curve.y[at], *(ends[at] if ends else None for ends in (curve.low, curve.high)))
        for curve in figure.curves
        for at in range(len(curve.x))
    ]
    names = ", ".join(curve.name for curve in figure.curves)
    said = f"{figure.title}: {figure.y} over {figure.x}, for {names}. The table below has all numbers."
    return Section(
        f"figure-{place + 1}",
        figure.title,
        (figure.caption,) if figure.caption else (),
        keys,
        [Panel("", lines(figure), said, wide=True)],
        [Grid(figure.title, ("series", figure.x, figure.y, "low", "high"), rows, tidy=True)],
    )


def lines(figure: Figure) -> draw.Figure:
    """Curves as Plotly draws them, with bars where there are intervals."""
    data = [_line(at, curve) for at, curve in enumerate(figure.curves)]
    layout = draw.layout(380, xaxis=draw.axis(draw.label(figure.x)), yaxis=draw.axis(draw.label(figure.y)), hovermode="closest")
    return {"data": data, "layout": layout}


def _line(at: int, curve: Curve) -> dict[str, object]:
    """A value that is no finite number leaves a gap."""
    shown = {
        "type": "scatter", "mode": "lines+markers", "name": draw.label(curve.name), "x": _finite(curve.x), "y": _finite(curve.y),
        "line": {"color": draw.colour(at), "width": 2, "dash": draw.DASHES[at % len(draw.DASHES)]},
        "marker": {"color": draw.colour(at), "symbol": draw.SYMBOLS[at % len(draw.SYMBOLS)], "size": 8},
    }  # fmt: skip
    if curve.low and curve.high:
        ends = [(y, low, high) for y, low, high in zip(curve.y, curve.low, curve.high, strict=True)]
        up, down = ([_gap(a, b) for a, b in pairs] for pairs in ([(h, y) for y, _, h in ends], [(y, low) for y, low, _ in ends]))
        shown["error_y"] = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1, "color": draw.colour(at)}
    return shown


def _finite(values: Iterable[float | None]) -> list[float | None]:
    return [value if value is not None and math.isfinite(value) else None for value in values]


def _gap(upper: float | None, lower: float | None) -> float:
    high, low = _finite((upper, lower))
    return 0.0 if high is None or low is None else max(high - low, 0.0)


def _numbers(outcome: Outcome) -> Section:
    header = tuple(dict.fromkeys(name for row in outcome.rows for name in row))
    rows: list[tuple[Entry, ...]] = [tuple(_entry(row.get(name)) for name in header) for row in outcome.rows]
    return Section(
        "numbers", "All numbers", ("One row for every network.",), grids=[Grid("Numbers of every network", header, rows, tidy=True)]
    )


def _entry(value: object) -> Entry:
    if isinstance(value, float):
        return value if value == value else None  # NaN: there is no number
    return value if isinstance(value, str | int) else None if value is None else str(value)
