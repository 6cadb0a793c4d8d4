"""Commands on finished and unfinished runs: `report`, `export` and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from brinell.cli.app import BAD_INPUT, CONTRADICTED, DONE, Json, app, say, say_json


@app.command
def report(directory: Path, *, json: Json = False) -> int:
    """Write DIRECTORY/report.html from what is finished there, and print the summary.

    Parameters
    ----------
    directory
        A run directory; it may hold an unfinished run.
    """
    from brinell.engine.table import open_table

    return finish(open_table(directory), directory, json)


@app.command
def export(directory: Path, *, format: Literal["csv", "parquet", "json"] = "csv", out: Path | None = None) -> int:  # noqa: A002
    """Write all measurements as one tidy table: net, data, perturbation, probe, layer, name, value, low, high, ...

    Parameters
    ----------
    directory
        A run directory.
    format
        Of the file.
    out
        Where to; DIRECTORY/measurements.FORMAT by default.
    """
    from brinell.engine.table import open_table
    from brinell.report.export import export as write

    say(str(write(open_table(directory), format, out or directory / f"measurements.{format}")))
    return DONE


@app.command
def verify(directory: Path, *, json: Json = False) -> int:
    """Check every file of a run against its digest and the plan; exit 2 where one is damaged, missing or foreign.

    Parameters
    ----------
    directory
        A run directory; nothing in it is changed.
    """
    from brinell.engine.integrity import integrity
    from brinell.report.text import printable

    found = integrity(directory)
    if json:
        say_json(found.to_json())
    else:
        say(printable(str(found)).rstrip())
    return DONE if found.sound else BAD_INPUT


def finish(table: Any, out: Path, json: bool = False) -> int:
    """Write the report, print the summary and what to do next, and choose the exit code."""
    from brinell.report.advice import next_steps
    from brinell.report.page import write_report
    from brinell.report.text import printable, summary_text

    page = write_report(table, out / "report.html")
    code = CONTRADICTED if any(finding.name == "contradiction" and finding.verdict == "fail" for finding in table.findings) else DONE
    if json:
        findings = [{**finding.__dict__, "verdict": str(finding.verdict)} for finding in table.findings]
        say_json({"directory": out, "report": page, "exit": code, "findings": findings, "measurements": table.rows})
        return code
    say(summary_text(table))
    for line in next_steps(table, str(out)):
        say(printable(line))
    say(f"report: {page}")
    return code
