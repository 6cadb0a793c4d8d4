"""The text report: a golden one, and what it must not print."""

from __future__ import annotations

from collections.abc import Callable

from brinell.core.lab import Table
from brinell.report.text import LONG, printable, summary_text

GOLDEN = """\
2 networks on digits, side by side

 accuracy                                          a                      b
 ──────────────────────────────────────────────────────────────────────────────────
 clean                                             0.900 [0.870, 0.925]   undefined
 contrast(severity=1)                              failed                 missing
 contrast(severity=5)                              undefined              missing
 pgd(steps=40, threat=ball(eps=8/255, norm=inf))   missing                missing

failed, a, contrast(severity=1): out of memory at sample 17
undefined, a, contrast(severity=5): 3 of 500 samples have NaN among their logits
missing, a, pgd(steps=40, threat=ball(eps=8/255, norm=inf)): this cell is not in the table
undefined, b, clean: 3 of 500 samples have NaN among their logits
missing, b, contrast(severity=1): this cell is not in the table
missing, b, contrast(severity=5): this cell is not in the table
missing, b, pgd(steps=40, threat=ball(eps=8/255, norm=inf)): this cell is not in the table

Findings: No check was run

Not tested, and limits
- No certificate was computed: nothing bounds R(T) from below, and a stronger attack may find more errors.
- No attack was run, or none has an answer: nothing is known of the worst case.
- No graded corruption was run, or none has an answer.
- Cells without an accuracy: 7 of 8.
- Samples: 500 (stratified sample). The widest interval spans 0.055 of accuracy; a smaller difference may be
chance.
"""


def test_a_torn_run_reads_like_this(torn: Table):
    assert summary_text(torn) == GOLDEN


def test_accuracy_bounds_and_findings_are_there(audit: Callable[..., Table]):
    text = summary_text(audit())
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "clean 0.962 [0.941, 0.977] 0.932 [0.906, 0.952]" in lines
    assert "contrast(severity=5) 0.266 [0.228, 0.307] v 0.560 [0.515, 0.604] v" in lines
    assert "plain: R(T) <= 0.058 (no lower bound), T = ball(eps=8/255, norm=inf)" in lines
    assert "hardened: 0.312 <= R(T) <= 0.458 (in doubt: contradiction failed), T = ball(eps=8/255, norm=inf)" in lines
    assert "FAIL contradiction (hardened): 3 samples are certified and broken. [value 3, threshold 0]" in lines
    fail, flag, passed = (next(at for at, line in enumerate(lines) if line.startswith(word)) for word in ("FAIL", "FLAG", "PASS"))
    assert fail < flag < passed


def test_a_long_plan_shows_greatest_severities_only(audit: Callable[..., Table]):
    table = audit()
    assert len(table.plan["perturbations"]) > LONG
    text = summary_text(table)
    assert "severity=5" in text and "severity=4" not in text
    assert "20 more perturbations are in the report" in text


def test_many_networks_come_in_several_tables(audit: Callable[..., Table]):
    text = summary_text(audit("a", "b", "c", "d"))
    assert sum(line.startswith(" accuracy") for line in text.splitlines()) == 2
    assert all(len(line) <= 110 for line in text.splitlines())


def test_a_terminal_is_not_obeyed(hostile: Table):
    text = summary_text(hostile)
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text
    assert "\\x1b[2J" in text and "\\u202e" in text
    assert printable("a\tb\nc [bold]d[/]") == "a\\tb\nc [bold]d[/]"


def test_markup_of_rich_is_text():
    row = {"net": "[red]a[/red]", "perturbation": "clean", "name": "accuracy", "value": 0.9}
    assert "[red]a[/red]" in summary_text(Table({"networks": {"[red]a[/red]": {}}, "perturbations": ["clean"]}, [row]))


def test_an_empty_table_is_said_to_be_empty():
    assert "No networks on unnamed data" in summary_text(Table({}, []))
