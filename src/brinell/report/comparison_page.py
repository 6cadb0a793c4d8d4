"""A comparison for people: as text for a terminal, and as one small HTML file without any script."""

from __future__ import annotations

import base64
import hashlib
import io
from importlib import resources
from pathlib import Path
from typing import Any

from brinell.report.answer import number
from brinell.report.comparison import CONFIDENCE, Comparison, Difference
from brinell.report.page import write_page
from brinell.report.text import printable

MARKS = {"B better": "▲", "B worse": "▼", "no difference shown": "=", "no answer": "?"}


def comparison_text(comparison: Comparison, width: int = 120) -> str:
    """The comparison as plain text: one row per cell, what differs between the plans, and how it was computed."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    several = len({cell.net for cell in comparison.cells}) > 1
    for title in (*(("network",) if several else ()), "cell", "A", "B", "B - A", "p", ""):
        table.add_column(title)
    for cell in comparison.cells:
        about = (cell.net,) if several else ()
        row = (
            *about,
            cell.perturbation,
            cell.a.brief,
            cell.b.brief,
            difference(cell),
            chance(cell),
            f"{MARKS[cell.verdict]} {cell.verdict}",
        )
        table.add_row(*(Text(printable(part)) for part in row))
    page = io.StringIO()
    console = Console(file=page, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    for line in (comparison.headline, f"A: {comparison.a}", f"B: {comparison.b}"):
        console.print(Text(printable(line)))
    console.print(table)
    for line in (*differing(comparison), comparison.method):
        console.print(Text(printable(line)))
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines()) + "\n"


def write_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Write a comparison as one HTML page: no script, nothing loaded, and every text of the runs shown as text.

    Raises:
        StoreError: the file cannot be written.
    """
    import jinja2
    from markupsafe import Markup

    styles = resources.files("brinell.report").joinpath("comparison.css").read_text(encoding="utf-8")
    templates = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown)
    page = templates.from_string(resources.files("brinell.report").joinpath("comparison.html").read_text(encoding="utf-8")).render(
        comparison=comparison, confidence=f"{100 * CONFIDENCE:g} %", marks=MARKS, difference=difference, chance=chance,
        bar=bar, reach=reach(comparison), differing=differing(comparison), styles=Markup(styles),
        digest=base64.b64encode(hashlib.sha256(styles.encode()).digest()).decode(),
    )  # fmt: skip
    return write_page(page, path)


def difference(cell: Difference) -> str:
    """`+0.031 [+0.002, +0.060]`, or why there is none."""
    if cell.test is None:
        return cell.reason
    return f"{cell.test.difference:+.3f} [{cell.test.low:+.3f}, {cell.test.high:+.3f}]"


def chance(cell: Difference) -> str:
    """The adjusted p-value."""
    return "" if cell.p_value is None else number(cell.p_value)


def reach(comparison: Comparison) -> float:
    """The end of the axis of differences: the smallest of 0.1, 0.2, 0.5 and 1 that all intervals lie within."""
    widest = max((max(-cell.test.low, cell.test.high) for cell in comparison.cells if cell.test), default=0.0)
    return next((end for end in (0.1, 0.2, 0.5) if widest <= end), 1.0)


def bar(cell: Difference, end: float, width: float = 200.0) -> dict[str, float] | None:
    """Where the interval and the point lie on an axis from -end to end of the given width; None where there is no test."""
    if cell.test is None:
        return None
    places = {"low": cell.test.low, "high": cell.test.high, "at": cell.test.difference}
    return {name: round((value / end + 1) / 2 * width, 2) for name, value in places.items()}


def differing(comparison: Comparison) -> list[str]:
    """What is in one run only, and what else differs between the plans."""
    only = [
        f"Only in {name}: {', '.join(specs)}." for name, specs in (("A", comparison.only_a), ("B", comparison.only_b)) if specs
    ]  # fmt: skip
    return [*only, *comparison.notes]


def _shown(value: Any) -> Any:
    return printable(value) if type(value) is str else value
