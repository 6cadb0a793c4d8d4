"""Gates on tables whose numbers are known: what is met, what is not, what is missing, and why."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from brinell.core.errors import SpecError, StoreError
from brinell.core.lab import Table
from brinell.core.measurement import Bound
from brinell.engine.gate import Outcome, judge, outcome_text, worst
from brinell.engine.junit import write_junit

PGD = "pgd(steps=40, threat=ball(eps=8/255, norm=inf))"
BALL = "ball(eps=8/255, norm=inf)"


def row(net: str, perturbation: str, name: str, value: float | None, low: float | None = None, high: float | None = None, **more: Any):
    made = {
        "net": net,
        "perturbation": perturbation,
        "probe": "p",
        "name": name,
        "layer": "",
        "bound": "exact",
        "status": "ok",
        "reason": "",
    }
    return {**made, "value": value, "low": low, "high": high, "n": 50, **more}


@pytest.fixture
def table() -> Table:
    rows = [row(net, "clean", "accuracy", 0.9, 0.85, 0.93) for net in ("a", "b")]
    rows += [row("a", PGD, "accuracy", 0.45, 0.41, 0.5), row("b", PGD, "accuracy", 0.42, 0.38, 0.47)]
    rows += [row("a", "clean", "class_accuracy", 0.5, 0.4, 0.6, layer=f"class {k}") for k in range(3)]
    rows += [row("a", "clean", "worst_class_accuracy", 0.5, 0.4, 0.6, layer="class 2")]
    rows += [row("a", "fog(severity=3)", "accuracy", None, status="undefined", reason="3 samples have NaN")]
    rows += [row("a", "fgsm(threat=ball(eps=8/255, norm=inf))", "perturbation", None, status="failed", reason="out of memory", probe="")]
    rows += [row("a", "clean", "calibration", None, status="failed", reason="KeyError: 3")]
    rows += [row("a", "", "mce", 1.05), row("b", "", "mce", 0.7)]
    for bound, value in ((Bound.LOWER, 0.1), (Bound.UPPER, 0.4)):
        rows.append(row("a", "", "robust_accuracy", value, value - 0.05, value + 0.05, layer=BALL, bound=str(bound)))
    rows.append(row("a", "", "robust_accuracy", 0.7, layer="ball(eps=0.25, norm=2)", bound="upper"))
    specs = ["clean", PGD, "fog(severity=3)", "fgsm(threat=ball(eps=8/255, norm=inf))", "contrast(severity=1)", "gone(x=1)"]
    return Table({"networks": {"a": {}, "b": {}}, "perturbations": specs, "full": {"contrast(severity=1)": "contrast(severity=1)"}}, rows)


@pytest.mark.parametrize(
    ("text", "outcomes"),
    [
        ("accuracy >= 0.85", "met met"),
        ("accuracy >= 0.86", "not met,not met"),
        ("value(accuracy) >= 0.86", "met met"),
        ("accuracy <= 0.92", "not met,not met"),
        ("low(accuracy) <= 0.92", "met met"),
        ("high(accuracy) >= 0.93", "met met"),
        ("accuracy[clean] >= 0.85", "met met"),
        ("accuracy[pgd(threat=ball(norm=inf, eps=8/255), steps=40)] >= 0.4", "met not met"),
        ("accuracy[pgd(steps=39)] >= 0.4", "missing missing"),
        ("accuracy[pgd(steps=40), net=a] >= 0.4", "met"),
        ("accuracy[pgd(steps=40), net=c] >= 0.4", "missing"),
        ("mce <= 1", "not met,met"),
        ("low(mce) <= 2", "missing missing"),
        ("class_accuracy[net=a] >= 0", "missing"),
        ("class_accuracy[net=a, layer='class 1'] >= 0.4", "met"),
        ("class_accuracy[net=a, layer='class 7'] >= 0.4", "missing"),
        ("worst_class_accuracy[net=a] >= 0.4", "met"),
        ("accuracy[fog(severity=3), net=a] >= 0", "not met"),
        ("accuracy[fgsm, net=a] >= 0", "not met"),
        ("accuracy[fgsm, net=b] >= 0", "missing"),
        ("accuracy[contrast(severity=1), net=a] >= 0", "missing"),
        ("ece[net=a] <= 1", "missing"),
        ("robust_accuracy[ball(eps=8/255), net=a] >= 0.05", "met"),
        ("robust_accuracy[ball(eps=8/255), net=a] >= 0.06", "not met"),
        ("robust_accuracy[ball(eps=8/255), net=a] <= 0.45", "met"),
        ("robust_accuracy[ball(eps=8/255), net=a] <= 0.44", "not met"),
        ("robust_accuracy[ball(eps=8/255), net=a, bound=upper] >= 0.35", "met"),
        ("value(robust_accuracy[ball(eps=8/255), net=a]) >= 0.2", "not met"),
        ("value(robust_accuracy[ball(eps=0.25, norm=2), net=a]) <= 0.7", "met"),
        ("robust_accuracy[ball(eps=0.25, norm=2), net=a, bound=lower] >= 0.7", "missing"),
        ("robust_accuracy[ball(eps=0.3, norm=2), net=a] >= 0.7", "missing"),
        ("robust_accuracy[layer=ball(norm=inf, eps=8/255), net=a] <= 0.45", "met"),
        ("robust_accuracy[net=a] >= 0", "missing"),
    ],
)
def test_outcomes(table, text, outcomes):
    found = [str(judgement.outcome) for judgement in judge(table, [text])]
    assert " ".join(found).replace(" ", "") == outcomes.replace(",", "").replace(" ", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("accuracy[fog(severity=3), net=a] >= 0", "undefined: 3 samples have NaN"),
        ("accuracy[fgsm, net=a] >= 0", "failed: out of memory"),
        ("accuracy[fog(severity=2), net=a] >= 0", "near: fog(severity=3)"),
        ("acuracy >= 0", "near: accuracy"),
        ("ece[net=a] <= 1", "calibration failed: KeyError: 3"),
        ("accuracy[contrast(severity=1)] >= 0", "planned but not measured yet; repeat the command"),
        ("class_accuracy[net=a] >= 0", "give layer=... (class 0, class 1, class 2)"),
        ("low(mce) <= 2", "no interval here; compare value(mce...)"),
        ("accuracy[net=aa] >= 0", "near: a"),
        ("robust_accuracy[ball(eps=0.3, norm=2), net=a] >= 0", "near: ball(eps=0.25, norm=2)"),
        ("accuracy >= 0.86", "low(accuracy) is 0.85 (0.9 [0.85, 0.93]), and must be >= 0.86"),
        ("mce <= 1", "value(mce) is 1.05 (1.05, no interval), and must be <= 1"),
    ],
)
def test_every_answer_has_its_reason(table, text, words):
    assert words in judge(table, [text])[0].detail


def test_the_meaning_of_a_stored_text_is_that_of_its_full_form(table):
    """A run of an older version, in which a default was another one, is read as it was meant."""
    table.plan["full"][PGD] = PGD.replace("8/255", "4/255")
    assert [found.outcome for found in judge(table, ["accuracy[pgd(steps=40, threat=ball(eps=4/255)), net=a] >= 0.4"])] == [Outcome.MET]
    assert judge(table, ["accuracy[pgd(steps=40), net=a] >= 0.4"])[0].outcome is Outcome.MISSING


def test_of_two_readings_of_one_name_the_weaker_counts():
    rows = [row("a", "clean", "accuracy", 0.9, low, 0.95) for low in (0.85, 0.8)]
    found = judge(Table({"networks": {"a": {}}, "perturbations": ["clean"]}, rows), ["accuracy >= 0.82", "high(accuracy) >= 0.9"])
    assert [judgement.outcome for judgement in found] == [Outcome.NOT_MET, Outcome.MET] and found[0].number == 0.8


def test_the_printed_number_never_contradicts_the_answer():
    rows = [row("a", "clean", "accuracy", 0.39999999, 0.39999999, 0.5)]
    (found,) = judge(Table({"networks": {"a": {}}, "perturbations": ["clean"]}, rows), ["accuracy >= 0.4"])
    assert found.outcome is Outcome.NOT_MET and "0.39999999" in found.detail


def test_the_text_and_the_worst(table):
    found = judge(table, ["mce <= 1", "accuracy >= 0.8"])
    assert outcome_text(found).splitlines() == [
        "mce <= 1",
        "  NOT MET  a: value(mce) is 1.05 (1.05, no interval), and must be <= 1",
        "  MET      b: value(mce) is 0.7 (0.7, no interval)",
        "accuracy >= 0.8",
        "  MET      a: low(accuracy) is 0.85 (0.9 [0.85, 0.93])",
        "  MET      b: low(accuracy) is 0.85 (0.9 [0.85, 0.93])",
        "3 of 4 met",
    ]
    assert worst(found) is Outcome.NOT_MET and worst(found[1:2]) is Outcome.MET
    assert worst([*found, *judge(table, ["acuracy > 0"])]) is Outcome.MISSING


def test_junit_has_a_case_per_requirement(table, tmp_path):
    texts = ["accuracy >= 0.8", "mce <= 1", "accuracy[fgsm, net=b] >= 0", 'value(accuracy[net="<b>&\x01"]) > 0']
    file = write_junit(judge(table, texts), tmp_path / "sub" / "gate.xml", suite="runs/<one>")
    root = ElementTree.parse(file).getroot()
    (suite,) = root
    assert root.tag == "testsuites" and suite.attrib["name"] == "brinell gate runs/<one>"
    assert {name: suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4", "failures": "1", "errors": "2", "skipped": "0",
    }  # fmt: skip
    cases = list(suite)
    assert [case.attrib["name"] for case in cases][:3] == texts[:3] and all(case.attrib["classname"] == "runs/<one>" for case in cases)
    assert [[part.tag for part in case] for case in cases] == [["system-out"], ["failure"], ["error"], ["error"]]
    assert (
        cases[1][0].attrib["message"] == "value(mce) is 1.05 (1.05, no interval), and must be <= 1" and "b: value(mce)" in cases[1][0].text
    )
    assert "\\x01" in cases[3].attrib["name"]


def test_junit_that_cannot_be_written_is_named(table, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*gate.xml"):
        write_junit(judge(table, ["accuracy >= 0"]), Path(tmp_path / "file" / "gate.xml"), suite="x")


def test_a_malformed_text_is_refused_before_anything_is_judged(table):
    with pytest.raises(SpecError):
        judge(table, ["accuracy >= 0", "accuracy"])
