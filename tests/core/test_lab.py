"""The table that measuring leaves behind."""

import numpy as np
import pytest

from brinell.core.component import parse
from brinell.core.draws import Draws
from brinell.core.lab import Table
from brinell.core.measurement import Finding, Verdict
from brinell.core.probe import SAFE, UNKNOWN, UNSAFE, Certifier
from brinell.core.tally import Sum, Tally
from brinell.core.threat import Ball, Threat
from brinell.perturb.fgsm import FGSM

SPEC = "fgsm(threat=ball(eps=0.1))"


class Always(Certifier, name="core_always_safe"):
    threat: Threat = Ball()

    def observe(self, view, *, draws: Draws) -> Tally:
        return Sum()

    def read(self, tally: Tally):
        return []


def row(name="accuracy", value=0.5, **more):
    return {"net": "a", "perturbation": "clean", "probe": "accuracy", "layer": "", "name": name, "value": value, "status": "ok", **more}


@pytest.fixture
def table():
    rows = [
        row(), row(net="b", value=0.25), row("class_accuracy", 1.0, layer="class 0"), row(perturbation=parse(SPEC).spec(), value=0.0),
        row("perturbation", None, net="b", perturbation=parse(SPEC).spec(), probe="", status="failed"),
        row("probe", None, net="b", status="failed"),
        row("certified", 0.5, probe="core_always_safe"),
    ]  # fmt: skip
    plan = {"networks": {"a": {}, "b": {}}, "perturbations": ["clean", parse(SPEC).spec()], "probes": ["accuracy", "core_always_safe"]}
    verdicts = np.array([SAFE, UNSAFE, UNKNOWN])
    return Table(
        plan, rows, load_samples=lambda net, spec: {"id": np.array([len(net)]), "spec": np.array([spec])},
        load_array=lambda found: verdicts if found["name"] == "certified" else None,
    )  # fmt: skip


def test_selecting(table):
    assert len(table) == 7 and len(table.select()) == 7 and len(table.select(net="b")) == 3
    assert [found["value"] for found in table.select(net="a", name="accuracy")] == [0.5, 0.0] and table.select(nothing=1) == []


def test_one_value(table):
    assert table.value("accuracy", net="a") == 0.5 and table.value("class_accuracy", layer="class 0") == 1.0
    assert table.value("accuracy", perturbation=parse(SPEC).spec()) == 0.0 and table.value("probe", net="b") is None
    for where in ({}, {"net": "c"}, {"net": "a", "layer": "x"}):
        with pytest.raises(KeyError, match=r"[02] rows with perturbation='clean'.*one was expected"):
            table.row("accuracy", **where)


def test_the_plan_is_read_back(table):
    assert table.networks == ["a", "b"] and table.perturbations() == [parse("clean"), parse(SPEC)]


def test_samples_by_component_or_text(table):
    for asked in (SPEC, parse(SPEC), parse(SPEC).spec()):
        assert table.samples("a", asked)["spec"].tolist() == [parse(SPEC).spec()]
    assert Table({}, []).samples("a", "clean") == {} and Table({}, []).array(row()) is None


def test_which_cells_failed(table):
    assert table.failed("b", parse(SPEC)) and not table.failed("a", parse(SPEC)) and not table.failed("b", parse("clean"))


def test_certificates_are_those_of_the_plan(table):
    ((certifier, verdicts),) = table.certificates("a")
    assert certifier == Always() and verdicts.tolist() == [SAFE, UNSAFE, UNKNOWN] and table.certificates("b") == []


def test_the_gravest_verdict(table):
    assert table.worst is Verdict.PASS
    for verdict, worst in (
        (Verdict.FLAG, Verdict.FLAG),
        (Verdict.PASS, Verdict.FLAG),
        (Verdict.FAIL, Verdict.FAIL),
        (Verdict.FLAG, Verdict.FAIL),
    ):
        table.findings.append(Finding("f", verdict, "m"))
        assert table.worst is worst


def test_rows_are_found_by_any_spelling_of_a_perturbation():
    ball = Ball(eps=8 / 255)
    rows = [{"name": "accuracy", "layer": "", "perturbation": f"fgsm(threat={ball.spec()})", "value": 0.5}]
    table = Table({}, rows)
    for spelling in ("fgsm(threat=ball(eps=8/255))", "fgsm(threat=ball(norm=inf, eps=0.03137254901960784))", FGSM(threat=ball)):
        assert table.value("accuracy", perturbation=spelling) == 0.5
    assert not table.select(perturbation="fgsm(threat=ball(eps=4/255))")
    assert not table.select(perturbation="no spec (at all")
    assert not table.select(perturbation="")
