"""JUnit XML: the outcome of a gate as the test report that build servers read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from brinell.core.errors import StoreError
from brinell.core.place import written_to
from brinell.engine.gate import Judgement, Outcome, worst

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(judgements: Sequence[Judgement], path: str | Path, *, suite: str) -> Path:
    """Write one test case per requirement: passed where it is met, a failure where not, an error where the number is missing.

    Arguments:
        suite: name of the test suite, such as the run directory.

    Raises:
        StoreError: the file cannot be written.
    """
    by_text: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        by_text.setdefault(judgement.requirement.text, []).append(judgement)
    outcomes = {text: worst(found) for text, found in by_text.items()}
    counts = {
        "tests": len(outcomes),
        "failures": sum(outcome == Outcome.NOT_MET for outcome in outcomes.values()),
        "errors": sum(outcome == Outcome.MISSING for outcome in outcomes.values()),
    }
    numbers = {name: str(count) for name, count in counts.items()}
    root = ElementTree.Element("testsuites", numbers)
    cases = ElementTree.SubElement(root, "testsuite", {"name": f"brinell gate {_legal(suite)}", **numbers, "skipped": "0", "time": "0"})
    for text, found in by_text.items():
        case = ElementTree.SubElement(cases, "testcase", {"classname": _legal(suite), "name": _legal(text), "time": "0"})
        said = _legal("\n".join(str(judgement) for judgement in found))
        if outcomes[text] is Outcome.MET:
            ElementTree.SubElement(case, "system-out").text = said
        else:
            kind = "failure" if outcomes[text] is Outcome.NOT_MET else "error"
            first = next(judgement for judgement in found if judgement.outcome is outcomes[text])
            ElementTree.SubElement(case, kind, {"message": _legal(first.detail), "type": str(first.outcome)}).text = said
    ElementTree.indent(root)
    place = Path(path)
    try:
        with written_to(place) as partial:
            partial.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")
    except OSError as error:
        raise StoreError(f"cannot write {place}: {error.strerror or error}. Choose another place") from error
    return place


def _legal(text: str) -> str:
    """Text with the characters that XML cannot hold spelled out."""
    return _ILLEGAL.sub(lambda mark: mark.group().encode("unicode_escape", "surrogatepass").decode(), text)
