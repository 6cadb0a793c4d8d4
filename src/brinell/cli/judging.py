"""Commands that judge: `diff`, `gate` and `calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from brinell.cli.app import BAD_INPUT, CONTRADICTED, DONE, NOT_MET, Device, Json, Many, app, complain, say, say_json


@app.command
def diff(a: Path, b: Path, *, pair: Annotated[tuple[str, ...], Many] = (), out: Path | None = None, json: Json = False) -> int:
    """Compare two runs on the same samples, cell by cell: which differences are more than chance?

    Samples are paired; intervals hold for all cells at once, p-values are those of the exact McNemar test adjusted by Holm.
    Runs on different data are refused.

    Parameters
    ----------
    a
        The run directory to compare with.
    b
        The run directory that is compared.
    pair
        NAME_IN_A=NAME_IN_B, where networks that belong together have different names.
    out
        Also write the comparison as one HTML file.
    """
    from brinell.core.errors import SpecError
    from brinell.engine.table import open_table
    from brinell.report.comparison import compare
    from brinell.report.comparison_page import comparison_text, write_comparison

    pairs = [(left, right) for text in pair for left, _, right in [text.rpartition("=")]]
    if not all(left and right for left, right in pairs):
        raise SpecError(f"--pair {' '.join(pair)} names no two networks; write NAME_IN_A=NAME_IN_B")
    found = compare(open_table(a), open_table(b), (str(a), str(b)), pairs)
    page = write_comparison(found, out) if out else None
    if json:
        say_json(found.to_json())
    else:
        say(comparison_text(found).rstrip() + (f"\ncomparison: {page}" if page else ""))
    return DONE


@app.command
def gate(directory: Path, *, require: Annotated[tuple[str, ...], Many] = (), junit: Path | None = None, json: Json = False) -> int:
    """Hold a run against requirements: exit 0 when all are met, 3 when one is not, 2 when a number is missing.

    A requirement compares the end of the interval that is harder to meet: the low end for >= and >, the high end for <= and <.
    `value(...)`, `low(...)` and `high(...)` say which number is meant.

    Examples:

    brinell gate runs/first --require "accuracy >= 0.9" "low(accuracy[pgd(steps=20)]) >= 0.3"

    brinell gate runs/first --require "robust_accuracy[ball(eps=8/255), net=a] >= 0.1" --junit gate.xml

    Parameters
    ----------
    directory
        A run directory.
    require
        READING[PERTURBATION, net=NAME, layer=NAME] >= NUMBER; without brackets that of the clean samples, or of a summary.
    junit
        Also write the outcome as JUnit XML.
    """
    from brinell.core.errors import SpecError
    from brinell.engine.gate import Outcome, judge, outcome_text, worst
    from brinell.engine.junit import write_junit
    from brinell.engine.requirement import FORM, requirement
    from brinell.engine.table import open_table
    from brinell.report.text import printable

    if not require:
        raise SpecError(f"nothing is required; give --require: {FORM}")
    wanted = [requirement(text) for text in require]
    found = judge(open_table(directory), wanted)
    if junit:
        write_junit(found, junit, suite=str(directory))
    outcome = worst(found)
    code = {Outcome.MET: DONE, Outcome.NOT_MET: NOT_MET, Outcome.MISSING: BAD_INPUT}[outcome]
    if json:
        say_json({"directory": directory, "outcome": str(outcome), "exit": code, "requirements": [item.to_json() for item in found]})
    else:
        say(printable(outcome_text(found)).rstrip())
    return code


@app.command
def calibrate(
    *, device: Device = "auto", every: Annotated[bool, Parameter(negative=())] = False, out: Path | None = None, json: Json = False
) -> int:
    """Try the laws on every item, third-party ones too, and networks with known answers on the device; under a minute.

    The outcome is kept for this machine ($BRINELL_HOME, else $XDG_CACHE_HOME/brinell, else ~/.cache/brinell) and stands in the
    provenance of every run that is started later. Exit 4 where a law does not hold.

    Parameters
    ----------
    every
        Try every item in all norms and at all severities, not in the middle ones; some minutes.
    out
        Also write the outcome to this JSON file.
    """
    from brinell.engine.calibration import keep
    from brinell.laws import calibrate as try_all
    from brinell.report.text import printable

    def tell(name: str, outcomes: list[Any]) -> None:
        broken = [outcome for outcome in outcomes if not outcome.holds]
        if not json and outcomes:
            say(printable(f"{'FAIL' if broken else 'ok':4}  {name}: {len(outcomes) - len(broken)} of {len(outcomes)} hold"))
            for outcome in broken:
                say(printable(f"      {outcome.law} of {outcome.spec}: {outcome.detail}"))

    calibration, outcomes = try_all(device, every=every, say=tell)
    place = keep(calibration)
    if out:
        keep(calibration, out)
    if json:
        say_json({**calibration.__dict__, "outcomes": [outcome.__dict__ for outcome in outcomes]})
    else:
        say(f"{calibration}; {calibration.seconds:.0f} s; kept in {place}")
    if calibration.failed:
        complain("a law does not hold: do not trust what the items above measure on this machine; report it, or mend the item")
    return CONTRADICTED if calibration.failed else DONE
