"""Agreement: rank correlations by hand and by a peer, bootstrap over images, and rankings that are refused."""

import numpy as np
import pytest
from scipy.stats import spearmanr

import brinell as br
from brinell.core.component import parse
from brinell.core.lab import Table
from brinell.core.measurement import Finding, Status, Verdict
from brinell.core.perturbation import Perturbation
from brinell.core.threat import Ball
from brinell.summary.agreement import Agreement, median, spearman

RNG = np.random.default_rng(0)
N = 60
PGD = parse("pgd(threat=ball(eps=0.1))", Perturbation).spec()
FMN = parse("fmn(threat=ball(eps=inf, norm=2))", Perturbation).spec()
BALL = Ball(eps=0.1)


def table_of(strengths, *, clean=None, spread=0.3, lost=()):
    """Networks whose psi, margins and robustness grow with one number each; psi of some may be undefined."""
    names = [f"net {k}" for k in range(len(strengths))]
    rows, arrays, samples = [], {}, {}
    for place, (name, strength) in enumerate(zip(names, strengths, strict=True)):
        noise = np.random.default_rng(place).normal(size=N)
        worst = np.exp(-strength + spread * noise)
        values = {("psi", "raw"): 1 / worst, ("worst_divergence", "raw"): worst, ("lipschitz", ""): np.exp(-strength) + 0 * noise}
        for (metric, layer), array in values.items():
            gone = (name, metric) in lost
            status = "undefined" if gone else "ok"
            row = {"net": name, "name": metric, "layer": layer, "perturbation": "clean", "probe": "p", "status": status,
                   "value": None if gone else float(median(array))}  # fmt: skip
            rows.append(row)
            arrays[name, metric, layer] = None if gone else array
        rows.append({**rows[-1], "name": "psi_inverse_mean", "layer": "raw", "value": float(1 / worst.mean())})
        rows.append({**rows[-1], "name": "psi_mean", "value": float((1 / worst).mean())})
        empty = {"id": np.arange(N), "label": np.zeros(N, int), **{f"l{p}": np.zeros(N) for p in ("0", "1", "2", "inf")}}
        share = 1.0 if clean is None else clean[place]
        right = np.arange(N) < round(share * N)
        robust = np.arange(N) < N * (1 - np.exp(-strength))
        far = np.where(robust, strength, 0.5 * strength)
        samples[name, "clean"] = {**empty, "correct": right}
        samples[name, PGD] = {**empty, "correct": robust & right, "linf": np.full(N, 0.1)}
        samples[name, FMN] = {**empty, "correct": np.zeros(N, bool), "l2": far, "linf": far}
    plan = {"networks": {name: {} for name in names}, "perturbations": ["clean", PGD, FMN], "probes": ["p"],
            "data": {"shape": [4], "domain": [0.0, 1.0], "n": N, "classes": ["0", "1"]}}  # fmt: skip
    return Table(plan, rows, load_samples=lambda net, spec: samples[net, spec],
                 load_array=lambda row: arrays.get((row["net"], row["name"], row["layer"])))  # fmt: skip


def told(table, **fields):
    found = Agreement(**fields)(table)
    readings = {item[1].layer.partition(" |")[0]: item[1] for item in found if not isinstance(item, Finding)}
    return readings, next(item for item in found if isinstance(item, Finding))


def test_rank_correlation_by_a_peer():
    for _ in range(20):
        a, b = RNG.integers(0, 5, 9).astype(float), RNG.normal(size=9)
        assert float(spearman(a, b)) == pytest.approx(spearmanr(a, b).statistic)
    assert np.isnan(spearman(np.ones(4), np.arange(4.0)))


def test_what_grows_together_agrees():
    readings, finding = told(table_of([0.3, 0.9, 1.5, 2.1]))
    assert finding.verdict is Verdict.PASS and finding.value == 0
    for name in ("psi raw", "psi_inverse_mean raw", "psi_mean raw", "flipping_distance L2"):
        assert readings[name].value == pytest.approx(1), name
    assert readings["lipschitz"].value == pytest.approx(-1)
    psi = readings["psi raw"]
    assert psi.n == 4 and psi.array.shape == (4, 2) and (np.diff(psi.array, axis=0) > 0).all()
    assert psi.low <= psi.value <= psi.high and psi.confidence == 0.95
    assert f"psi raw | {BALL.spec()}" in {item[1].layer for item in Agreement()(table_of([1.0, 2.0, 3.0])) if not isinstance(item, Finding)}


def test_the_interval_knows_how_far_networks_are_apart():
    """Networks that differ by less than images do have an order that other images would change."""
    far, near = (told(table_of(strengths, spread=1.0))[0]["psi raw"] for strengths in ([0.2, 0.8, 1.6, 2.4], [1.0, 1.1, 1.2, 1.3]))
    assert near.high - near.low > 5 * (far.high - far.low)


def test_mixed_accuracies_are_refused():
    strengths, clean = [0.3, 0.9, 1.5], [1.0, 0.98, 0.8]
    readings, finding = told(table_of(strengths, clean=clean))
    assert finding.verdict is Verdict.FLAG and finding.value == pytest.approx(0.2) and finding.threshold == 0.05
    assert "net 2" in finding.message and "0.800" in finding.message
    assert all(r.status is Status.UNDEFINED and "margin=0.05" in r.reason for r in readings.values())
    readings, finding = told(table_of(strengths, clean=clean), margin=0.25)
    assert finding.verdict is Verdict.PASS and readings["psi raw"].value is not None


def test_what_cannot_be_ranked():
    two, _ = told(table_of([0.3, 0.9]))
    assert all("at least 3" in r.reason for r in two.values())
    level, _ = told(table_of([1.0, 1.0, 1.0]))
    assert level["lipschitz"].status is Status.UNDEFINED and "same value" in level["lipschitz"].reason
    gone, _ = told(table_of([0.3, 0.9, 1.5], lost={("net 1", "psi")}))
    assert gone["psi raw"].reason == "net 1 has no psi raw" and gone["psi_inverse_mean raw"].value == pytest.approx(1)
    empty, _ = told(table_of([0.3, 0.9, 1.5]), threat=Ball(norm=1, eps=1e-9, low=-5, high=0.5))
    assert all("no measured point" in r.reason for r in empty.values())


def test_capped_samples_are_left_out_of_means():
    table = table_of([0.3, 0.9, 1.5])
    whole = table.load_array
    table.load_array = lambda row: np.append(whole(row)[:-1], 1e12) if row["name"] == "psi" else whole(row)
    readings, _ = told(table)
    assert readings["psi_mean raw"].array[:, 0].max() < 100


def test_a_lab_ranks_its_networks():
    data = br.load_dataset("digits(side=8)", limit=40)
    nets = {f"n{k}": br.load_network(f"mlp(widths=({8 * k},))", shape=data.shape, classes=10, seed=k) for k in (1, 2, 3)}
    table = br.Lab().measure(nets, data, ["fgsm(threat=ball(eps=0.05))"], ["psi(steps=4, restarts=1)"], ["agreement(margin=1)"])
    row = table.row("agreement", net="", perturbation="", layer="psi raw | ball(eps=0.05, norm=inf)")
    assert row["status"] in ("ok", "undefined") and row["n"] == 3 and row["net_digest"] == ""
    assert table.findings[0].name == "mixed_accuracies"
