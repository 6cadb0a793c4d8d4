"""The studies of random networks: the smallest scale runs whole and is kept; planted truths hold and their opposites fail."""

import json
import math

import numpy as np
import pytest

import brinell as br
from brinell.cli import main
from brinell.core.component import parse
from brinell.core.study import Judgement, Scale, Study
from brinell.models.random_limit import line_law
from brinell.studies.random_relu import RandomReluStudy
from brinell.studies.random_relu_claims import DEAD, LAW, Measured, normalised, slope_of, verdicts
from brinell.studies.single_step import SETTINGS, SingleStep


def planted(bent: bool) -> Measured:
    """Numbers that follow the closed forms, or do not."""
    lot, n = np.random.default_rng(0), 1500

    def line(d, layers, rate=None):
        law = line_law(d, layers, samples=n)
        linear = law.linear * (d**0.3 if bent else 1.0)
        crossing = law.crossing.copy() if not bent else lot.permutation(np.where(np.arange(n) < n / 2, np.inf, 0.1))
        if rate is not None:
            crossing = np.where(np.arange(n) < rate * n, 0.1, np.inf)
        flags = np.zeros(n, bool)
        return {
            "linear": linear, "crossing": crossing, "residual": law.residual if not bent else np.full(n, 0.5) + 0.01 * lot.normal(size=n),
            "random": flags | bent, "wrong_way": flags | bent, "dead": flags, "euler": np.full(n, 1e-6 if not bent else 1.0),
            "one_sign": np.arange(n) < n * (layers / 60 if not bent else 1 - layers / 60), "value": lot.normal(size=n),
            "spread": np.full(n, 1 / layers if not bent else layers / 60) + 0.001 * lot.random(n), "flipped": flags, "switched": flags,
        }  # fmt: skip

    def behind(b):
        found = line(64, 1, 0.0 if b == 1 and not bent else 0.999 if b > 8 and not bent else 0.5)
        dead = np.arange(n) >= n * (1 - 2.0**-b) if not bent else np.arange(n) < n / 3
        return found | {
            "dead": dead,
            "linear": np.where(dead, np.nan, found["linear"]),
            "change": b ** (-0.5 if not bent else 0.0) * (1 + 0.1 * lot.random(n)),
        }

    widths = {}
    for side in (16, 64):
        residual = (1 / side if not bent else side) * (1 + 0.1 * lot.random(n))
        widths[side] = {"residual": residual}
    chain = (
        np.tile([2.0, 18.0], (20, 1)) * (1 + 0.01 * lot.random((20, 2)))
        if not bent
        else np.tile([9.0, 10.0], (20, 1)) * (1 + 0.01 * lot.random((20, 2)))
    )
    from brinell.core.draws import derive
    from brinell.models.random_relu import output_law

    f = output_law(LAW, derive(77, "planted", ids=range(60_000))).numpy() * (1.3 if bent else 1)
    square = f**2
    silent = (np.arange(60_000) >= 60_000 * 0.04662).astype(float) if not bent else np.ones(60_000)
    return Measured(
        {(d, k): line(d, k) for d in (32, 64, 256) for k in (1, 5)}, {(16, k): line(16, k) for k in (1, 4, 48)},
        {b: behind(b) for b in (1, 8, 64)},
        widths, {(4, 1, 81): {"norms": chain if not bent else chain * 3}},
        {LAW: {"value": f, "squared_gradient": square}, DEAD: {"value": f, "squared_gradient": silent}}, 256, 64, 16, 5, 0,
    )  # fmt: skip


def judged(bent):
    return {verdict.claim.name: verdict.judgement for verdict in verdicts(RandomReluStudy.claims, planted(bent), 0.999)}


@pytest.mark.slow
def test_every_claim_holds_where_the_truth_is_planted():
    found = judged(False)
    assert set(found.values()) == {Judgement.HOLDS}, {name: str(v) for name, v in found.items() if v is not Judgement.HOLDS}


@pytest.mark.slow
def test_no_claim_holds_where_its_opposite_is_planted():
    found = judged(True)
    assert all(v is not Judgement.HOLDS for v in found.values()), {name: str(v) for name, v in found.items() if v is Judgement.HOLDS}


def test_normalised_gains_and_slopes():
    assert normalised((64, 1024, 64, 1024), np.ones((1, 3))).tolist() == [[0.25, 1.0, 0.25]]
    assert slope_of({1.0: np.ones(5), 4.0: np.full(5, 2.0)}).value == pytest.approx(0.5) and math.isnan(slope_of({1.0: np.ones(5)}).value)


@pytest.mark.parametrize("study", [RandomReluStudy, SingleStep])
def test_every_claim_is_judged_once_and_no_name_is_twice(study):
    names = [claim.name for claim in study.claims]
    assert len(set(names)) == len(names) and parse(study(nets=5).spec(), Study) == study(nets=5)
    assert study(nets=7).settings(Scale.PAPER) != study().settings(Scale.PAPER)


def test_trained_networks_can_be_left_out():
    s = SingleStep(trained=False, train="a", test="b").settings(Scale.SMALL)
    assert s.depths == s.sides == () and (s.train, s.test) == ("a", "b") and SETTINGS[Scale.SMALL].depths


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random_relu", "single_step"])
def test_the_smallest_scale_runs_whole_and_is_kept(name, tmp_path, capsys):
    arguments = ["study", name, "--scale", "smoke", "--out", str(tmp_path / "run"), "--json"]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    study = parse(name, Study)
    assert [v["claim"]["name"] for v in first["verdicts"]] == [claim.name for claim in study.claims]
    assert not any(v["judgement"] == "fails" for v in first["verdicts"]), "so few networks refute nothing that is true"
    assert len(first["figures"]) > 5 and len(first["rows"]) > 40
    assert (tmp_path / "run" / "report.html").stat().st_size > 1e6
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "results").iterdir()}
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "results").iterdir()} == files, "nothing is measured twice"


@pytest.mark.slow
def test_a_study_in_python(tmp_path):
    outcome = RandomReluStudy(nets=12)(br.Lab(tmp_path, seed=7), scale=Scale.SMOKE)
    rows = {(row["row"], row["cell"], row["quantity"]): row for row in outcome.rows}
    found = rows["A", "d = 16, L = 1", "median sqrt(d) lin"]
    assert found["n"] == 12 and found["low"] < found["value"] < found["high"] and 0.6 < found["predicted"] < 0.72
    assert rows["X", "10-10-20-15", "kurtosis"]["predicted"] == pytest.approx(3 * 1.5 * 1.25 * 4 / 3)
