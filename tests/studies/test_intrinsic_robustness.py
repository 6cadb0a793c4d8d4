"""The study of intrinsic robustness: verdicts follow planted numbers, rescalings keep the function, the smallest scale runs and is kept."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.component import parse
from brinell.core.errors import NetworkError
from brinell.core.measurement import Reading
from brinell.core.network import Network
from brinell.core.study import Judgement, Scale, Study
from brinell.studies.intrinsic_robustness import SETTINGS, Battery, IntrinsicRobustness
from brinell.studies.intrinsic_robustness_claims import JUDGED, Measured, comparable, consistency, figures, passes_to_order, verdicts
from brinell.studies.intrinsic_robustness_rescaling import louder, rescaled, rescaling_numbers, sharpness

CLAIMS = IntrinsicRobustness.claims
S = SETTINGS[Scale.SMALL]


def planted(good: bool) -> Measured:
    """Numbers of 3 structures and 3 seeds in which every claim is plainly true, or plainly false."""
    battery, lot, rows, sign = Battery(S, 0.1), np.random.default_rng(0), [], 1 if good else -1
    trainings = ("natural", "gradient penalty", "adversarial 0.1", "adversarial 0.2")
    for structure in ("a", "b", "c"):
        for seed in range(3):
            for place, how in enumerate(trainings):
                psi = float(np.exp(sign * place + 0.1 * lot.random()))
                row = {
                    "structure": structure,
                    "seed": seed,
                    "training": how,
                    "clean": 0.95 - 0.02 * place,
                    "network": f"{structure}, {how}, seed {seed}",
                }
                row |= {f"psi {layer}": psi for layer in ("raw", "normalised")} | {"robust": psi / 50 if good else lot.random()}
                row["psi_mean raw"] = lot.random() if good else row["robust"]
                if not good:  # psi has another order at every setting, accuracy the same one under all attacks
                    row["robust"] = row["psi_mean raw"] = 0.1 * place + 0.01 * seed
                for name in (*(f"eps {radius:.3g}" for radius in battery.radii), *list(battery.psi)[1:]):
                    row[f"psi normalised {name}"] = psi * 2 if good else lot.random()
                for name in battery.named:
                    row[f"accuracy {name}"] = lot.random() if good else row["robust"]
                row |= {"lost gradient": 0.4 - sign * 0.08 * place + 0.001 * lot.random(), "lost random": 0.15 if good else 0.39}
                if how == "natural":
                    row |= {
                        "saturated": 0.2 if good else 0.3,
                        "saturated louder": 0.6 if good else 0.31,
                        "distinct louder": 1.0 if good else 0.5,
                    }
                rows.append(row)
    tiny = 1e-13 if good else 1e-3
    changes = [{"layer raw": tiny, "layer normalised": tiny, "layer sharpness": 5.0, "logits normalised": tiny, "logits raw": 0.5}] * 3
    value = 0.95 if good else 0.2
    agreements = {f"psi {layer}": Reading("agreement", value, low=value - 0.05, high=value + 0.03, n=36) for layer in ("raw", "normalised")}
    return Measured("planted", (0.1, 0.2), rows, battery, changes, agreements)


@pytest.mark.parametrize(("good", "judgement"), [(True, Judgement.HOLDS), (False, Judgement.FAILS)])
def test_verdicts_follow_what_is_planted(good, judgement):
    found = {verdict.claim.name: verdict for verdict in verdicts(CLAIMS, [planted(good)])}
    assert list(found) == [claim.name for claim in CLAIMS]
    wrong = {name: (str(v.judgement), v.effect, v.low, v.high) for name, v in found.items() if v.judgement is not judgement}
    assert not wrong


def test_networks_of_low_accuracy_are_not_ranked():
    m = planted(True)
    for row in m.rows[:5]:
        row["clean"] = 0.5
    assert len(comparable(m.rows)) == 31 and "5 of 36 networks are not ranked" in m.left_out
    assert sum(len(rows) for rows in m.seeds()) == 31


def test_one_data_set_that_fails_is_told():
    claim = next(claim for claim in CLAIMS if claim.name == "order")
    (verdict,) = verdicts((claim,), [planted(True), planted(False)])
    assert verdict.judgement is Judgement.FAILS and "planted" in verdict.why


def test_every_claim_has_its_judge_and_nothing_is_certain_without_numbers():
    assert set(JUDGED) == {claim.name for claim in CLAIMS}
    empty = Measured("none", (0.1, 0.2), [], Battery(S, 0.1), [], {})
    assert all(verdict.judgement is Judgement.INCONCLUSIVE for verdict in verdicts(CLAIMS, [empty]))


def test_orders_and_their_cost():
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert consistency([a, a, -a]) == pytest.approx(-1 / 3) and consistency([a, np.ones(4)]) == 0
    rows = planted(True).rows[:4]
    psi, accuracy = passes_to_order(planted(True), rows)
    assert psi == Battery(S, 0.1).passes["5 x 1"] == 22 and accuracy >= 11
    assert [figure.title.partition(":")[0] for figure in figures([planted(True)])].count("planted") >= 3


@pytest.mark.parametrize("spec", ["mlp(widths=(9,))", "mlp(widths=(8, 8))", "small_cnn(pool=(1,), widths=(4, 6))"])
def test_rescaled_networks_are_the_same_function(spec):
    net = br.load_network(spec, shape=(1, 8, 8), classes=5)
    double = Network(net.module.double().eval(), net.recipe)
    x = torch.rand(7, 1, 8, 8, dtype=torch.float64)
    twin, loud = rescaled(double, 10.0), louder(double, 3.0)
    assert twin(x).detach().numpy() == pytest.approx(double(x).detach().numpy(), rel=1e-9, abs=1e-12)
    assert loud(x).detach().numpy() == pytest.approx(3 * double(x).detach().numpy(), rel=1e-9)
    moved = [not torch.equal(a, b) for a, b in zip(double.module.parameters(), twin.module.parameters(), strict=True)]
    assert sum(moved) >= 2 and double.digest != twin.digest
    asked = {"net": net, "x": x.float(), "y": torch.arange(7) % 5, "eps": 0.1, "steps": 10, "restarts": 2}
    found = rescaling_numbers(asked)
    assert max(found["layer raw"], found["layer normalised"], found["logits normalised"]) < 1e-9
    assert found["logits raw"] > 0.05 and found["layer sharpness"] > 0.01


def test_a_network_that_answers_a_constant_has_no_psi_to_move():
    net = br.load_network("mlp(widths=(8,))", shape=(1, 8, 8), classes=5)
    with torch.no_grad():
        net.module[-1].weight.zero_()
    found = rescaling_numbers({"net": net, "x": torch.rand(5, 1, 8, 8), "y": torch.arange(5), "eps": 0.1, "steps": 3, "restarts": 1})
    assert {found[f"{what} {layer}"] for what in ("layer", "logits") for layer in ("raw", "normalised")} == {None}
    assert json.dumps(found, allow_nan=False)  # as the lab keeps it
    m = planted(True)
    constant = replace(
        m, changes=[*m.changes, found], rows=[*m.rows, {**m.rows[0], "clean": 0.1, "psi normalised": np.nan, "psi raw": np.nan}]
    )
    assert [v.judgement for v in verdicts(CLAIMS, [constant])] == [v.judgement for v in verdicts(CLAIMS, [m])]
    radii = next(figure for figure in figures([constant]) if "over radii" in figure.title)
    assert all(np.isfinite(curve.y).all() for curve in radii.curves)


def test_what_cannot_be_rescaled():
    with pytest.raises(NetworkError, match="none can be rescaled"):
        rescaled(br.load_network("mlp(widths=())", shape=(4,), classes=3), 2.0)
    with pytest.raises(NetworkError, match="not in a linear layer"):
        louder(Network(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4))), 2.0)


def test_a_network_at_a_minimum_is_sharp():
    x, y = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    net = Network(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        next(net.module.parameters()).copy_(8 * torch.eye(2))
    assert sharpness(net, x, y, spread=0.0) == pytest.approx(0, abs=1e-9)
    assert sharpness(net, x, y, spread=3.0, draws=60) > 1e-3


def test_mnist_is_taken_where_it_lies_and_said_where_not(tmp_path):
    study = parse(f"intrinsic_robustness(mnist='{tmp_path}')", Study)
    s, notes = study.settings(Scale.SMALL)
    assert [corpus.name for corpus in s.corpora] == ["digits"] and "MNIST is not part of this run" in notes[0]
    for split in ("train", "test"):
        (tmp_path / f"{split}.parquet").touch()
    s, notes = study.settings(Scale.SMALL)
    assert [corpus.name for corpus in s.corpora] == ["digits", "MNIST"] and not notes
    assert [corpus.name for corpus in study.replace(data=("MNIST",), seeds=2).settings(Scale.SMALL)[0].corpora] == ["MNIST"]
    assert {corpus.name for corpus in study.settings(Scale.PAPER)[0].corpora} == {"digits", "CIFAR-10", "MNIST"}


@pytest.mark.slow
def test_the_smallest_scale_runs_whole_and_is_kept(tmp_path):
    study = IntrinsicRobustness()
    first = study(br.Lab(tmp_path), scale=Scale.SMOKE)
    assert len(first.rows) == 8 and len(first.verdicts) == len(CLAIMS) and len(first.figures) == 4
    assert all(row["clean"] > 0.5 for row in first.rows), "the networks of the smallest scale have learnt something"
    assert all(row["psi_limit_linf raw"] > 0 for row in first.rows)
    assert first.verdict("rescaled_layers").judgement is first.verdict("scaled_logits").judgement is Judgement.HOLDS
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet") if "readings" in path.parts}
    again = study(br.Lab(tmp_path), scale=Scale.SMOKE)
    assert again.to_json() == first.to_json()
    assert {path: path.stat().st_mtime_ns for path in files} == files, "nothing is measured twice"
