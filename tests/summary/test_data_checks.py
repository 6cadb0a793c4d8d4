"""Findings on the data, and those on single attacks that came with them, on hand-built tables."""

import numpy as np
import pytest

import brinell as br
from brinell.core.lab import Table
from brinell.core.measurement import Verdict
from brinell.summary.checks import Checks

PASS, FLAG, FAIL = Verdict.PASS, Verdict.FLAG, Verdict.FAIL
PGD, FGSM = "pgd(threat=ball(eps=0.1))", "fgsm(threat=ball(eps=0.1))"


def found(table, name):
    return [item for item in Checks()(table) if item.name == name]


def flags(*wrong, n=10, linf=0.1):
    return {"correct": [k not in wrong for k in range(n)], "linf": [linf] * n}


def row(name, value, perturbation="clean", layer=""):
    return {"net": "net", "perturbation": perturbation, "probe": "tried", "name": name, "layer": layer, "value": value, "n": 50,
            "status": "ok" if value is not None else "undefined", "reason": "" if value is not None else "nobody"}  # fmt: skip


@pytest.mark.parametrize("n, verdict", [(400, PASS), (60, FLAG)])
def test_few_samples_have_a_wide_interval(make_table, n, verdict):
    """Clopper-Pearson at one half: +- 0.0500 of 400 samples, +- 0.132 of 60."""
    (item,) = found(make_table({"clean": flags(*range(n // 2), n=n)}), "sample_size")
    assert item.verdict is verdict and item.value == pytest.approx({400: 0.1, 60: 0.264}[n], abs=2e-3)
    assert f"on {n} samples" in item.message


@pytest.mark.parametrize(
    "name, value, finding, verdict",
    [
        ("duplicate_share", 0.01, "duplicates", PASS),
        ("duplicate_share", 0.02, "duplicates", FLAG),
        ("conflict_share", 0.0, "conflicting_labels", PASS),
        ("conflict_share", 0.001, "conflicting_labels", FLAG),
    ],
)
def test_duplicates_are_noted(make_table, name, value, finding, verdict):
    (item,) = found(make_table({"clean": flags()}, rows=[row(name, value)]), finding)
    assert (item.verdict, item.value, item.net) == (verdict, value, "net")


@pytest.mark.parametrize("value, verdict", [(0.05, PASS), (0.06, FLAG), (None, None)])
def test_what_eight_bits_lose(make_table, value, verdict):
    items = found(make_table({"clean": flags(), PGD: flags(1)}, rows=[row("eight_bit_lost", value, br.parse(PGD).spec())]), "eight_bit")
    assert [(item.verdict, item.value, item.perturbation) for item in items] == (
        [] if verdict is None else [(verdict, value, br.parse(PGD).spec())]
    )


@pytest.mark.parametrize(
    "name, value, finding, verdict",
    [
        ("silent_share", 0.0, "silent_success", PASS),
        ("silent_share", 0.02, "silent_success", FLAG),
        ("chance_alone", 0.0, "noise_search", PASS),
        ("chance_alone", 0.02, "noise_search", FLAG),
        ("chance_alone", None, "noise_search", FLAG),
    ],
)
def test_what_trials_say(make_table, name, value, finding, verdict):
    (item,) = found(make_table({"clean": flags()}, rows=[row(name, value, layer=PGD)]), finding)
    assert (item.verdict, item.perturbation) == (verdict, PGD)


@pytest.mark.parametrize("far, verdict, beyond", [(0.1, PASS, 0.0), (0.1 + 1e-7, PASS, 0.0), (0.1001, FAIL, 1.0), (np.nan, FAIL, 1.0)])
def test_saved_points_lie_in_the_balls_they_claim(make_table, far, verdict, beyond):
    """Two ulp of float32 around 1 are forgiven, 2.4e-7 in all; a distance that is none is not."""
    cell = {**flags(1), "linf": [0.02] * 9 + [far]}
    (item,) = found(make_table({"clean": flags(linf=0.0), "fmn": flags(1, linf=9.0), PGD: cell, FGSM: flags(linf=0.05)}), "bounds_obeyed")
    assert (item.verdict, item.value) == (verdict, beyond)
    assert br.parse(PGD).spec() in item.message


def test_no_claim_no_bounds(make_table):
    assert not found(make_table({"clean": flags(), "brightness": flags(1)}), "bounds_obeyed")


@pytest.mark.parametrize("cell, verdict, value", [(flags(1, 2), PASS, -0.1), (flags(), FLAG, 0.1), (flags(1), PASS, 0.0)])
def test_a_single_step_that_helps_tells_the_label(make_table, cell, verdict, value):
    (item,) = found(make_table({"clean": flags(1), FGSM: cell, PGD: flags()}), "label_leakage")
    assert (item.verdict, item.value) == (verdict, pytest.approx(value))


TRANSFER = "transfer(source=net(open), attack=pgd(threat=ball(eps=0.1)))"


@pytest.mark.parametrize(
    "there, here, own, verdict, value",
    [
        (flags(1, 2, 3, 4), flags(1, 2), flags(), PASS, 0.5),
        (flags(1, 2, 3, 4), flags(1), flags(), FLAG, 0.75),
        (flags(1, 2, 3, 4), flags(1), flags(2, 3, 4), PASS, 0.0),  # attacks on the network itself break what transferred points do not
        (flags(0), flags(), flags(), None, None),  # the source was wrong at first
        (flags(5), flags(), flags(), None, None),  # this network was
    ],
)
def test_points_that_break_their_source_alone(there, here, own, verdict, value):
    spec, pgd = br.parse(TRANSFER).spec(), br.parse(PGD).spec()
    columns = {("open", "clean"): flags(0), ("open", spec): there, ("open", pgd): flags(), ("net", "clean"): flags(5, linf=0.0),
               ("net", spec): here, ("net", pgd): own}  # fmt: skip
    rest = {"id": np.arange(10), "label": np.zeros(10, int), "finite": np.ones(10, bool), "l0": np.zeros(10), "l1": np.zeros(10),
            "l2": np.zeros(10), "status": np.zeros(10, int)}  # fmt: skip
    samples = {key: {**rest, **{name: np.asarray(values) for name, values in cell.items()}} for key, cell in columns.items()}
    plan = {"networks": {"open": {}, "net": {}}, "data": {"shape": [4], "domain": [0, 1], "n": 10}, "perturbations": ["clean", spec, pgd],
            "probes": []}  # fmt: skip
    items = found(Table(plan, [], load_samples=lambda net, text: samples[net, text]), "transfer_failure")
    assert [(item.net, item.verdict, item.value) for item in items] == ([] if verdict is None else [("net", verdict, value)])
