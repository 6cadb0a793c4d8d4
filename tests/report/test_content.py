"""Answers, yields and bounds, on numbers known beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from brinell.core.confidence import clopper_pearson
from brinell.core.errors import StoreError
from brinell.core.lab import Table
from brinell.core.measurement import Finding, Verdict
from brinell.report.answer import Answer
from brinell.report.content import Bounds, Content
from brinell.report.verdict import bound_text, clean_sentence, headline, run_state, title, untested, yield_rule, yield_sentence


def made(accuracies: dict[str, tuple[float, float] | None], *more: dict[str, Any]) -> Content:
    """A table of network `a` from accuracy and upper end by perturbation; None for a missing cell."""
    rows = [
        {"net": "a", "perturbation": spec, "probe": "accuracy", "name": "accuracy", "layer": "", "value": found[0],
         "low": 0.0, "high": found[1], "confidence": 0.95, "status": "ok", "reason": "", "n": 100}
        for spec, found in accuracies.items() if found is not None
    ]  # fmt: skip
    return Content(Table({"networks": {"a": {}}, "perturbations": list(accuracies)}, [*rows, *more]))


def bound(value: float | None, kind: str, threat: str = "T", reason: str = "") -> dict[str, Any]:
    status = "ok" if value is not None else "failed"
    return {
        "net": "a",
        "perturbation": "",
        "name": "robust_accuracy",
        "layer": threat,
        "value": value,
        "bound": kind,
        "status": status,
        "reason": reason,
    }


def test_a_network_yields_at_the_smallest_size_whose_upper_end_is_below_nine_tenths_of_clean():
    content = made({
        "clean": (0.8, 0.9),
        "contrast(severity=1)": (0.6, 0.6972),  # alone it would have yielded: below 0.9 * 0.8; among five cells it has not
        "contrast(severity=2)": (0.58, 0.6780),
        "brightness(severity=2)": (0.5, 0.6),
        "contrast(severity=5)": (0.1, 0.2),
        "fgsm(threat=ball(eps=1/255, norm=inf))": (0.75, 0.8),
    })  # fmt: skip
    corruption, attack = content.yields("a")
    assert corruption.grade is not None
    assert (corruption.grade.spec, corruption.tried) == ("brightness(severity=2)", 4)
    assert (attack.grade, attack.scale, attack.tried) == (None, "Linf", 1)
    assert yield_sentence(content, "a", attack) == "Linf attacks: none of the 1 tried makes it yield."
    assert (corruption.sizes, corruption.at, attack.sizes, attack.at) == (("1", "2", "5"), 1, ("1/255",), None)
    assert corruption.answer is not None
    assert corruption.answer.high == pytest.approx(clopper_pearson(50, 100, 1 - 0.05 / 5)[1])
    assert "the intervals of all 5 corruptions and attacks hold at once" in yield_rule(content)
    assert title(content) == "a yields to brightness (severity 2), to none of the Linf attacks tried"


def test_without_an_interval_the_value_itself_decides():
    content = made({"clean": (0.8, 0.9)})
    assert content.yielded("a", Answer(0.71))
    assert not content.yielded("a", Answer(0.73))
    assert not content.yielded("a", Answer(None, status="failed", reason="x"))


def test_nothing_yields_without_a_clean_accuracy():
    content = made({"clean": None, "contrast(severity=1)": (0.1, 0.2)})
    (found,) = content.yields("a")
    assert found.grade is None
    assert "cannot be judged" in yield_sentence(content, "a", found)
    assert headline(content) == "a on unnamed data: clean accuracy is missing (this cell is not in the table)"


def test_a_network_that_may_be_guessing_is_told(audit: Callable[..., Table]):
    table = audit("plain")
    assert "guessing" not in clean_sentence(Content(table), "plain")
    next(row for row in table.rows if row["name"] == "accuracy")["low"] = 0.1
    assert "That may be no better than guessing one of 10 classes." in clean_sentence(Content(table), "plain")
    assert title(Content(table)) == "plain may be guessing: 96.2 % right on clean samples of 10 classes"


def test_the_best_bounds_of_each_threat_are_joined():
    rows = [bound(0.2, "lower"), bound(0.31, "lower"), bound(0.5, "upper"), bound(0.44, "upper"), bound(0.7, "upper", "S")]
    first, second = made({"clean": (0.8, 0.9)}, *rows).bounds("a")
    assert (str(first), first.threat) == ("0.31 <= R(T) <= 0.44", "T")
    assert bound_text(second) == "R(T) <= 0.70 (no lower bound)"


@pytest.mark.parametrize(
    ("lower", "upper", "text"),
    [
        (0.3129, 0.4391, "0.312 <= R(T) <= 0.44"),  # outwards: a rounded bound is still a bound
        (0.3, None, "0.30 <= R(T) (no upper bound)"),
        (0.25, 0.25, "R(T) = 0.250"),
        (0.0, 0.0001, "0.00 <= R(T) <= 0.001"),
        (0.29, 0.29 + 1e-12, "0.29 <= R(T) <= 0.29"),
        (0.5, 0.4, "0.50 <= R(T) <= 0.40: a contradiction, the lower bound lies above the upper one"),
        (None, None, "R(T) unknown: no bound was computed"),
    ],
)
def test_bounds_in_words(lower: float | None, upper: float | None, text: str):
    assert bound_text(Bounds("T", lower, upper)) == text


BALL, OTHER = "ball(eps=8/255, norm=inf)", "ball(eps=1/255, norm=inf)"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Finding("no_gradient", Verdict.FAIL, "", net="a"), " (in doubt: no_gradient failed)"),
        (Finding("no_gradient", Verdict.FLAG, "", net="a"), ""),
        (Finding("no_gradient", Verdict.FAIL, "", net="b"), ""),
        (Finding("noise_control", Verdict.FAIL, "", net="a", perturbation=f"pgd(threat={BALL})"), " (in doubt: noise_control failed)"),
        (Finding("noise_control", Verdict.FAIL, "", net="a", perturbation=f"pgd(threat={OTHER})"), ""),
        (Finding("binarisation", Verdict.FAIL, "", net="a", perturbation=f"pgd(threat={OTHER})"), " (in doubt: binarisation failed)"),
    ],
)
def test_a_bound_whose_checks_failed_says_so_on_its_line(found: Finding, said: str):
    content = made({"clean": (0.8, 0.9)}, bound(0.31, "lower", BALL), bound(0.44, "upper", BALL))
    content.findings = [found]
    assert bound_text(content.bounds("a")[0]) == f"0.31 <= R(T) <= 0.44{said}"


def test_a_failed_bound_says_why():
    (found,) = made({"clean": (0.8, 0.9)}, bound(None, "upper", reason="no attack finished")).bounds("a")
    assert str(found) == "R(T) unknown: no attack finished"


def test_failed_undefined_and_missing_cells_give_reasons_and_no_number(torn: Table):
    content = Content(torn)
    pgd = content.grades[3].spec
    found = {
        (net, spec): content.accuracy(net, spec) for net in "ab" for spec in ("clean", "contrast(severity=1)", "contrast(severity=5)", pgd)
    }
    assert {key: answer.status for key, answer in found.items() if not answer.ok} == {
        ("a", "contrast(severity=1)"): "failed", ("a", "contrast(severity=5)"): "undefined", ("a", pgd): "missing",
        ("b", "clean"): "undefined", ("b", "contrast(severity=1)"): "missing", ("b", "contrast(severity=5)"): "missing",
        ("b", pgd): "missing",
    }  # fmt: skip
    assert found["a", "contrast(severity=1)"].reason == "out of memory at sample 17"
    assert all(answer.value is None and answer.reason for answer in found.values() if not answer.ok)
    assert len(list(content.gaps())) == 7


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_number_that_is_none_is_undefined(value: float | None):
    answer = Answer.of({"value": value, "status": "ok"})
    assert (answer.status, answer.value) == ("undefined", None)
    assert answer.reason


def test_an_infinite_end_leaves_no_interval():
    assert Answer.of({"value": 1.0, "low": 0.5, "high": math.inf, "status": "ok"}).interval == ""


def test_findings_come_gravest_first(audit: Callable[..., Table]):
    assert [found.verdict for found in Content(audit()).findings] == [Verdict.FAIL, Verdict.FLAG, Verdict.PASS]


def said(content: Content) -> str:
    return "\n".join(untested(content))


def test_what_was_not_tested_is_said(audit: Callable[..., Table], torn: Table):
    whole, alone, cut = said(Content(audit())), said(Content(audit("plain"))), said(Content(torn))
    assert "No certificate" not in whole and "No certificate" in alone  # only the second network has a lower bound
    assert "No attack in L1 was run." in whole and "L2" not in whole
    assert "No black-box attack" in whole and "noise control" not in whole
    assert "Common corruptions that were not run, 11 of 15: defocus_blur, elastic_transform, fog, frost, glass_blur" in whole
    assert "No attack was run, or none has an answer" in cut
    assert "Cells without an accuracy: 7 of 8." in cut
    assert "Samples: 500 (stratified sample)" in cut


def test_an_attack_without_backward_passes_is_a_black_box_attack():
    spec = "fgsm(threat=ball(eps=1/255, norm=inf))"
    content = made({"clean": (0.8, 0.9), spec: (0.5, 0.6)})
    assert "No black-box attack" in said(content)
    content.cell("a", spec)[0] |= {"forwards": 100, "backwards": 0}
    assert "No black-box attack" not in said(content)


def test_an_empty_table_still_reads():
    content = Content(Table({}, []))
    assert headline(content) == "No networks on unnamed data, side by side"
    assert untested(content)


def test_the_title_says_who_yields_before_the_others(audit: Callable[..., Table]):
    assert title(Content(audit("plain"))) == "plain yields to contrast (severity 2), pgd (Linf 2/255) and pgd (L2 0.25)"
    assert title(Content(audit())) == (
        "Before the others, plain yields to corruptions (at 2, the next at 3) and to L2 attacks (at 0.25, the next at 0.5)"
    )
    assert title(made({"clean": (0.8, 0.9)})) == "a was not tried: no corruption or attack of known size was run"
    assert (
        title(made({"clean": (0.8, 0.9), "contrast": (0.79, 0.88)})) == "a yields to none of the 1 corruptions and attacks that were tried"
    )
    assert title(made({"clean": None, "contrast": (0.1, 0.2)})) == "a cannot be judged: its clean accuracy is missing"


def test_the_state_of_a_run_is_told(torn: Table):
    assert run_state(made({"clean": (0.8, 0.9)}))[-1].startswith("The plan of this run does not say its data")
    words = " ".join(run_state(Content(torn)))
    assert "unfinished: 4 of 8 cells are missing" in words and "1 of 8 cells failed" in words and "2 of 8 cells have no accuracy" in words
    old = Table({**torn.plan, "environment": {"brinell": "0.0.1"}, "perturbations": ["clean", "gone(level=2)"]}, [])
    words = " ".join(run_state(Content(old)))
    assert "Measured by brinell 0.0.1; this page was made by brinell" in words
    assert "does not know gone(level=2)" in words


def test_a_whole_new_run_has_nothing_to_tell(audit: Callable[..., Table]):
    import brinell

    table = audit()
    table.plan["environment"]["brinell"] = brinell.__version__
    assert run_state(Content(table)) == []


def test_damaged_files_are_named_and_left_out(audit: Callable[..., Table]):
    table = audit("plain")

    def broken(*_: Any) -> Any:
        raise StoreError("samples/x.parquet is damaged")

    table.load_samples = table.load_array = broken
    content = Content(table)
    assert content.samples("plain", "clean") == {}
    assert content.array(table.rows[0]) is None
    assert "samples/x.parquet is damaged" in " ".join(run_state(content))


def test_a_nearest_attack_is_an_attack_in_its_norm():
    content = made({"clean": (0.8, 0.9), "deepfool(threat=ball(eps=inf, norm=2))": (0.0, 0.1)})
    assert content.grades[1].kind == "nearest"
    assert "No attack in L1 or Linf was run." in said(content)
