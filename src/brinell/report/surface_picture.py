"""The still picture of surfaces: maps of height with the decision boundary, as one SVG that can be printed or taken along."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from brinell.report.answer import number
from brinell.report.figure import label

SCALES = {
    "diverging": ["#8c1d2c", "#d6604d", "#f4b79a", "#f3f3f1", "#9fc7e0", "#3d86bd", "#0d3d73"],
    "sequential": ["#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838"],
}
"""Colours from low to high: right answers (S > 0) are blue, wrong ones red, the boundary is pale."""

SIDE, GAP, MARGIN, HEAD = 190, 16, 42, 26
"""Of the picture in pixels: a map, the room between maps, the room for axes, the room for titles."""


def limits(name: str, values: Sequence[np.ndarray]) -> tuple[float, float]:
    """Where the colours of a height end: around 99 % of all values; symmetric about the boundary for margin and DLR, else from 0.

    Example:
        >>> limits("margin", [np.array([[-1.0, 3.0]])])
        (-3.0, 3.0)
    """
    if name == "error":
        return 0.0, 1.0
    found = np.concatenate([np.asarray(array, np.float64).ravel() for array in values])
    top = float(np.quantile(np.abs(found), 0.99, method="higher")) or 1.0
    return (-top if scale_of(name) == "diverging" else 0.0), top


def scale_of(name: str) -> str:
    return "diverging" if name in ("margin", "dlr") else "sequential"


def colours(values: np.ndarray, scale: Sequence[str], low: float, high: float) -> np.ndarray:
    """(..., 3) uint8 colours of heights, by straight lines between the colours of a scale.

    Example:
        >>> colours(np.array([0.0, 1.0, 9.0]), ["#000000", "#ffffff"], 0.0, 2.0).tolist()
        [[0, 0, 0], [128, 128, 128], [255, 255, 255]]
    """
    stops = np.array([[int(text[at : at + 2], 16) for at in (1, 3, 5)] for text in scale], np.float64)
    place = np.clip((np.asarray(values, np.float64) - low) / ((high - low) or 1.0), 0, 1) * (len(stops) - 1)
    at = np.minimum(place.astype(int), len(stops) - 2)
    return np.floor(stops[at] + (stops[at + 1] - stops[at]) * (place - at)[..., None] + 0.5).astype(np.uint8)


def still(
    title: str, items: Sequence[str], places: np.ndarray, axes: tuple[str, str],
    lands: Sequence[tuple[str, Mapping[str, np.ndarray], Sequence[np.ndarray]]],
) -> Markup:  # fmt: skip
    """One row of maps per image, one column per network, all on one scale: the margin where there is one, else the first height.

    Arguments:
        items, places, axes: of the plane. lands: network, heights (m, g, g) by name, and the (k, 4) segments of the boundary.
    """
    name = "margin" if "margin" in lands[0][1] else next(iter(lands[0][1]))
    low, high = limits(name, [heights[name] for _, heights, _ in lands])
    width = MARGIN + max(len(lands), 2) * (SIDE + GAP)  # titles and axes need the room of two
    height = 2 * HEAD + len(items) * (SIDE + HEAD) + MARGIN
    parts = [f'<text x="{MARGIN}" y="16" font-size="13" font-weight="bold">{label(title, 60)}</text>']
    for row, item in enumerate(items):
        for column, (net, heights, lines) in enumerate(lands):
            left, top = MARGIN + column * (SIDE + GAP), 2 * HEAD + row * (SIDE + HEAD)
            about = f"{net}, {item}" if len(lands) > 1 else item
            parts.append(_text(left, top - 6, label(about, 30)))
            parts.append(_map(heights[name][row], SCALES[scale_of(name)], low, high, left, top))
            parts.append(_line(lines[row], places, left, top))
    bottom = 2 * HEAD + len(items) * (SIDE + HEAD) - 8
    ends = f"{label(axes[0], 40)}: {number(float(places[0]))} to {number(float(places[-1]))}"
    parts.append(_text(MARGIN, bottom, f"→ {ends}"))
    parts.append(f'<g transform="translate(14 {2 * HEAD + SIDE}) rotate(-90)">{_text(0, 0, "→ " + label(axes[1], 34))}</g>')
    parts.append(_bar(SCALES[scale_of(name)], low, high, name, bottom + 12))
    about = f"{label(title, 80)}: maps of {label(name)}, {len(lands)} networks, {len(items)} images"
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{about}" font-family="sans-serif" font-size="11" fill="currentColor">'
        f'<title>{about}</title>{"".join(parts)}</svg>'
    )  # fmt: skip


def _map(values: np.ndarray, scale: Sequence[str], low: float, high: float, left: float, top: float) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(colours(values[::-1], scale, low, high)).save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    cell = SIDE / (values.shape[0] - 1) / 2  # grid points are the middles of pixels, so the outer ones reach half a cell too far
    return (
        f'<svg x="{left}" y="{top}" width="{SIDE}" height="{SIDE}" viewBox="{cell:.3f} {cell:.3f} {SIDE:.3f} {SIDE:.3f}">'
        f'<image width="{SIDE + 2 * cell:.3f}" height="{SIDE + 2 * cell:.3f}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{data}"/></svg>'
    )


def _line(segments: np.ndarray, places: np.ndarray, left: float, top: float) -> str:
    low, high = float(places[0]), float(places[-1])
    x, y = ((value - low) / (high - low) for value in (segments[:, 0::2], segments[:, 1::2]))
    drawn = "".join(
        f"M{left + SIDE * a[0]:.1f} {top + SIDE * (1 - b[0]):.1f}L{left + SIDE * a[1]:.1f} {top + SIDE * (1 - b[1]):.1f}"
        for a, b in zip(x, y, strict=True)
    )
    zero = SIDE * -low / (high - low)
    cross = f"M{left + zero - 4:.1f} {top + SIDE - zero:.1f}h8m-4 -4v8"
    return f'<path d="{drawn}" fill="none" stroke="#d7263d" stroke-width="1.6"/><path d="{cross}" stroke="#000" stroke-width="1.2"/>'


def _bar(scale: Sequence[str], low: float, high: float, name: str, top: float) -> str:
    step = SIDE / 24
    shades = colours(np.linspace(low, high, 24), scale, low, high)
    cells = "".join(
        f'<rect x="{MARGIN + at * step:.1f}" y="{top}" width="{step + 0.5:.1f}" height="8" fill="rgb({r},{g},{b})"/>'
        for at, (r, g, b) in enumerate(shades.tolist())
    )
    return f"{cells}{_text(MARGIN, top + 22, f'{label(name)}: {number(low)} to {number(high)}')}"


def _text(x: float, y: float, escaped: str) -> str:
    return f'<text x="{x}" y="{y}">{escaped}</text>'
