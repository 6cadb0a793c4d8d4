"""The study of class selectivity: its smallest scale runs whole, goes on where it stopped, and judges by the planted truth."""

import json

import numpy as np
import pytest

import brinell as br
from brinell.cli import main
from brinell.core.component import parse
from brinell.core.study import Judgement, Scale, Study
from brinell.studies.class_selectivity import SETTINGS, ClassSelectivity, _verdicts


def planted(slope: float) -> list[dict]:
    """Rows of 5 alphas x 4 seeds in which every outcome follows selectivity, in the paper's direction for slope 1."""
    lot, rows = np.random.default_rng(0), []
    for seed in range(4):
        for alpha in (-1.0, -0.3, 0.0, 0.3, 1.0):
            si = 0.3 + 0.2 * alpha + 0.001 * lot.normal()
            good = slope * si
            row = {
                "training": f"alpha {alpha:g}", "alpha": alpha, "seed": seed, "selectivity": si if slope > 0 else -si,
                "clean": 0.9 - 0.1 * good, "corrupted": 0.7 - 0.3 * good, "corrupted_normalised": 0.8 - 0.3 * good,
                "attacked Linf 0.1": 0.3 + 0.4 * good, "jacobian_norm": 30 - 5 * good, "input_gradient_cv_samples": 0.5 + good,
                "input_gradient_cv_units": 0.4 + good, "selectivity 1": si, "off_axis_selectivity": 0.2 + good / 2,
                "components_90 1": 20 - 9 * good, "components_90_change 1 attack": 15 - 5 * good,
                "components_90_increase 1 attack": 5 + slope * 3 + lot.normal() * 0.1, "components_90_increase 1 corruption": 5,
            }  # fmt: skip
            row["selectivity"] = si
            rows.append(row)
        plain = rows[-3]
        rows.append({**plain, "training": "against corruptions", "alpha": None, "selectivity": plain["selectivity"] - 0.1 * slope})
        rows.append({**plain, "training": "against attacks", "alpha": None, "selectivity": plain["selectivity"] + 0.1 * slope})
    return rows


def judged(rows):
    settings = ClassSelectivity(alphas=(-1.0, -0.3, 0.0, 0.3, 1.0)).settings(Scale.SMALL)
    return {verdict.claim.name: verdict.judgement for verdict in _verdicts(ClassSelectivity.claims, rows, settings)}


def test_every_claim_holds_where_the_truth_is_planted_and_fails_where_its_opposite_is():
    found = judged(planted(1.0))
    assert set(found.values()) == {Judgement.HOLDS}, found
    opposite = judged(planted(-1.0))
    assert opposite.pop("control") is Judgement.HOLDS  # alpha still moves selectivity
    assert set(opposite.values()) == {Judgement.FAILS}, opposite


def test_every_claim_is_judged_once_and_alpha_zero_is_always_there():
    study = parse("class_selectivity(alphas=(-1, 1))", Study)
    assert study.settings(Scale.SMALL).alphas == (-1.0, 0.0, 1.0)
    assert len(SETTINGS[Scale.SMALL].alphas) == 7 and SETTINGS[Scale.SMALL].seeds == 3 and len(SETTINGS[Scale.SMALL].corruptions) == 15
    shorter = ClassSelectivity(epochs=60, limit=25_000).settings(Scale.PAPER)
    assert (shorter.fit.epochs, shorter.fit.milestones, shorter.limit) == (60, (30, 45), 25_000)
    assert ClassSelectivity(epochs=4).settings(Scale.SMOKE).fit.epochs == 4
    assert len({claim.name for claim in study.claims}) == len(study.claims) == len(judged(planted(1.0)))


@pytest.mark.slow
def test_the_smallest_scale_runs_whole_and_is_kept(tmp_path, capsys):
    arguments = ["study", "class_selectivity(alphas=(-1, 0))", "--scale", "smoke", "--out", str(tmp_path / "run"), "--json"]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert len(first["rows"]) == 2 * 6 and len(first["verdicts"]) == len(ClassSelectivity.claims)
    assert all(row["clean"] > 0.2 for row in first["rows"]), "the networks of the smallest scale have learnt something"
    lower = {row["seed"]: row["selectivity"] for row in first["rows"] if row["training"] == "alpha -1"}
    plain = {row["seed"]: row["selectivity"] for row in first["rows"] if row["training"] == "alpha 0"}
    assert all(lower[seed] < plain[seed] for seed in plain)
    assert (tmp_path / "run" / "report.html").stat().st_size > 1e6
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.parquet")}
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == first
    kept = [path for path, when in files.items() if "readings" in path.parts and path.stat().st_mtime_ns == when]
    assert len(kept) == sum("readings" in path.parts for path in files), "no cell is measured twice"


@pytest.mark.slow
def test_a_study_in_python(tmp_path):
    outcome = ClassSelectivity(alphas=(0.0,), seeds=1)(br.Lab(tmp_path, seed=7), scale=Scale.SMOKE)
    assert {row["seed"] for row in outcome.rows} == {7}
    assert all(verdict.judgement is Judgement.INCONCLUSIVE for verdict in outcome.verdicts), "one seed proves nothing"
