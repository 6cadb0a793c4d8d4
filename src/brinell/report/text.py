"""The report as text for a terminal or a log: one table a person can act on."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from brinell.core.lab import Table
from brinell.core.measurement import Verdict
from brinell.report import verdict
from brinell.report.content import Content
from brinell.report.grade import Grade

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SIDE_BY_SIDE, MANY = 3, 8
LONG = 24
"""A plan with more perturbations than this shows graded corruptions at their greatest severity only."""


def summary_text(table: Table, width: int = 110) -> str:
    """What a run found, as plain text: accuracy by perturbation, bounds of R(T), findings, and what was not tested.

    Example:
        >>> row = {"net": "a", "perturbation": "clean", "name": "accuracy", "value": 0.9, "low": 0.8, "high": 0.95, "n": 50}
        >>> print(summary_text(Table({"networks": {"a": {}}, "perturbations": ["clean"]}, [row])))
        a on unnamed data: 90.0 % right on clean samples
        ...
         clean      0.900 [0.800, 0.950]
        ...
    """
    from rich.console import Console

    page = io.StringIO()
    print_summary(table, Console(file=page, width=width, color_system=None, force_terminal=False, legacy_windows=False))
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines()) + "\n"


def print_summary(table: Table, console: Console) -> None:
    """Print `summary_text` to a rich console, in colour where it has colour."""
    from rich.text import Text

    content = Content(table)
    console.print(Text(printable(verdict.headline(content)), style="bold"))
    for first in range(0, len(content.networks), SIDE_BY_SIDE):
        console.print(_accuracies(content, content.networks[first : first + SIDE_BY_SIDE]))
    gaps = [f"{answer.status}, {net}, {item.spec}: {answer.reason}" for net, item, answer in content.gaps()]
    for text in gaps[:MANY] + ([f"... and {len(gaps) - MANY} more; the report has them all"] if len(gaps) > MANY else []):
        console.print(Text(printable(text)))
    shown, hidden = _chosen(content)
    if hidden:
        console.print(Text(f"(graded corruptions at their greatest severity; {hidden} more perturbations are in the report)"))
    if any(content.yielded(net, content.accuracy(net, item.spec)) for net in content.networks for item in shown):
        console.print(Text("v: has yielded, the interval lies below 0.9 of the clean accuracy"))
    for net in content.networks:
        for known in content.bounds(net):
            console.print(Text(printable(f"{net}: {verdict.bound_text(known)}, T = {known.threat}")))
    console.print(Text(f"\nFindings: {verdict.findings_in_words(content)}", style="bold"))
    for found in content.findings:
        if found.verdict == Verdict.PASS:
            continue
        about = ", ".join(part for part in (found.net, found.perturbation) if part)
        figures = [f"{name} {value:.4g}" for name, value in (("value", found.value), ("threshold", found.threshold)) if value is not None]
        said = f"{found.verdict.upper():4} {found.name}{f' ({about})' if about else ''}: {found.message}"
        said += f" [{', '.join(figures)}]" if figures else ""
        console.print(Text(printable(said), style=_STYLES[found.verdict]))
    passed = dict.fromkeys(found.name for found in content.findings if found.verdict == Verdict.PASS)
    if passed:
        console.print(Text(printable(f"PASS {', '.join(passed)}"), style=_STYLES["pass"]))
    console.print(Text("\nNot tested, and limits", style="bold"))
    for text in verdict.untested(content):
        console.print(Text(printable(f"- {text}")))


_STYLES = {"fail": "bold red", "flag": "yellow", "pass": "green"}


def _accuracies(content: Content, nets: list[str]) -> RenderableType:
    """Accuracy with its interval, one row per perturbation, one column per network."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("accuracy")
    for net in nets:
        table.add_column(Text(printable(net)))
    for item in _chosen(content)[0]:
        texts = []
        for net in nets:
            answer = content.accuracy(net, item.spec)
            text = f"{answer.brief} {answer.interval}".rstrip() + (" v" if content.yielded(net, answer) else "")
            texts.append(Text(text, style="" if answer.ok else "italic"))
        table.add_row(Text(printable(item.spec)), *texts)
    return table


def _chosen(content: Content) -> tuple[list[Grade], int]:
    """The perturbations that are shown, and how many are not."""
    if len(content.grades) <= LONG:
        return content.grades, 0
    top: dict[str, Grade] = {}
    for item in content.of_kind("corruption"):
        if item.family not in top or item.size > top[item.family].size:
            top[item.family] = item
    chosen = [item for item in content.grades if item.kind != "corruption" or top[item.family] is item]
    return chosen, len(content.grades) - len(chosen)


def printable(text: str) -> str:
    r"""Text that a terminal shows and does not obey: control characters and direction marks are spelled out.

    Example:
        >>> printable("\x1b[2J")
        '\\x1b[2J'
    """
    return "".join(mark if mark.isprintable() or mark == "\n" else mark.encode("unicode_escape").decode() for mark in text)
