"""What a row depends on, what it costs, and that measuring leaves no trace on the user's side."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.measurement import COLUMNS
from brinell.models.reference import linear_network

NOISE, PGD, FGSM = "normal_noise(threat=ball(norm=2, eps=1))", "pgd(steps=5, threat=ball(eps=0.1))", "fgsm(threat=ball(eps=0.1))"
PROBES = ["accuracy", "calibration", "class_selectivity"]


@pytest.fixture(scope="module")
def table(data, make_net) -> br.Table:
    return br.Lab().measure({"a": make_net(seed=1), "b": make_net(seed=2)}, data, [NOISE, FGSM, PGD], PROBES, ["bound"])


def test_there_is_one_row_per_reading_with_every_column(table, data):
    assert table.networks == ["a", "b"] and [p.spec() for p in table.perturbations()] == [
        br.parse(t).spec() for t in ("clean", NOISE, FGSM, PGD)
    ]
    assert all(set(row) == {"place", *COLUMNS} for row in table.rows)
    keys = [(row["net"], row["perturbation"], row["probe"], row["name"], row["layer"], row["bound"]) for row in table.rows]
    assert len(set(keys)) == len(keys)
    for net in ("a", "b"):
        for perturbation in table.perturbations():
            row = table.row("accuracy", net=net, perturbation=perturbation.spec())
            samples = table.samples(net, perturbation)
            assert row["value"] == samples["correct"].mean() and row["n"] == len(data) and row["seed"] == 0
            assert br.parse(row["perturbation_full"]) == perturbation and row["data_digest"] == data.digest
            assert np.array_equal(table.array(row), samples["correct"])
            assert np.array_equal(samples["id"], np.sort(data.ids)) and np.array_equal(samples["label"], data.y[np.argsort(data.ids)])


def test_samples_say_how_far_each_was_moved(table):
    assert all((table.samples("a", "clean")[f"l{p}"] == 0).all() for p in ("0", "1", "2", "inf"))
    noise = table.samples("a", NOISE)
    assert (noise["l2"] > 0.5).all() and (noise["l2"] <= 1 + 1e-5).all()
    assert (noise["linf"] <= noise["l2"]).all() and (noise["l2"] <= noise["l1"]).all() and (noise["l0"] <= 64).all()
    assert (table.samples("a", PGD)["linf"] <= 0.1 + 1e-6).all()


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 17, 59])
def test_rows_do_not_depend_on_the_batch_size(table, data, make_net, assert_near, batch_size):
    lab = br.Lab(batch_size=batch_size)
    assert_near(lab.measure({"a": make_net(seed=1), "b": make_net(seed=2)}, data, [NOISE, FGSM, PGD], PROBES, ["bound"]), table)


def test_rows_do_not_depend_on_other_cells_or_their_order(table, data, make_net, without_cost):
    want = [row for row in without_cost(table) if row["net"] == "a" and row["perturbation"] == br.parse(PGD).spec()]
    for perturbations in ([PGD], [PGD, NOISE], [FGSM, PGD, NOISE]):
        again = br.Lab().measure({"a": make_net(seed=1)}, data, perturbations, PROBES)
        assert [row for row in without_cost(again) if row["perturbation"] == br.parse(PGD).spec()] == want
    assert want


def test_the_order_of_the_samples_does_not_matter(table, data, make_net, assert_near):
    back = data.take(np.arange(len(data))[::-1])
    again = br.Lab(batch_size=13).measure({"a": make_net(seed=1), "b": make_net(seed=2)}, back, [NOISE, FGSM, PGD], PROBES, ["bound"])
    for name, values in again.samples("a", NOISE).items():
        assert np.array_equal(values, table.samples("a", NOISE)[name])  # in the order of ids
    for row in again.rows:
        row["data_digest"] = data.digest  # another order is another dataset
    assert_near(again, table)


def test_the_seed_decides_and_networks_share_the_noise(table, data, make_net):
    a, b = (table.samples(net, NOISE) for net in ("a", "b"))
    assert np.array_equal(a["l2"], b["l2"])
    other = br.Lab(seed=1).measure({"a": make_net(seed=1)}, data, [NOISE])
    assert not np.array_equal(other.samples("a", NOISE)["l2"], a["l2"])
    assert {row["seed"] for row in other.rows} == {1}


def test_one_network_needs_no_name_and_data_may_be_arrays(make_net):
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % 10
    table = br.Lab().measure(make_net(), (x, y), probes=["accuracy"])
    with torch.no_grad():
        right = make_net()(x).argmax(1) == y
    assert table.networks == ["net"] and table.value("accuracy") == pytest.approx(float(right.double().mean()))


def test_probes_and_perturbations_may_be_components_and_repeat(data, make_net):
    table = br.Lab().measure(make_net(), data, [br.parse(FGSM), FGSM, "clean"], ["accuracy", br.parse("accuracy")])
    assert table.plan["perturbations"] == ["clean", br.parse(FGSM).spec()] and table.plan["probes"] == ["accuracy"]


# ---------------------------------------------------------------- cost


class Counting(nn.Module):
    """Always says 0; counts the samples that all its copies have seen."""

    seen = 0

    def __init__(self, right: bool = True) -> None:
        super().__init__()
        weight = torch.zeros(2, 4)
        self.net = linear_network(weight, torch.tensor([5.0, 0.0] if right else [0.0, 5.0]))

    def forward(self, x):
        type(self).seen += len(x)
        return self.net(x)


def cost(table: br.Table, spec: str) -> tuple[int, int]:
    row = table.row("accuracy", perturbation=br.parse(spec).spec())
    return row["forwards"], row["backwards"]


@pytest.mark.parametrize("batch_size", [10, 3])
def test_passes_are_counted_exactly(batch_size):
    n, Counting.seen = 10, 0
    data = br.Dataset.from_arrays(torch.full((n, 4), 0.5), [0] * n, classes=2)
    restarts = "pgd(steps=7, restarts=2, threat=ball(eps=0.1))"
    table = br.Lab(batch_size=batch_size).measure(Counting(), data, [PGD, restarts, FGSM, NOISE], ["accuracy", "calibration"])
    assert table.value("accuracy", perturbation=br.parse(PGD).spec()) == 1
    assert cost(table, "clean") == (n, 0)
    assert cost(table, NOISE) == (n, 0)
    assert cost(table, PGD) == (n * (5 + 1 + 1), n * 5)  # steps, the last look, and the lab's own pass; the clean pass is known
    assert cost(table, restarts) == (n * (2 * 8 + 1), n * 2 * 7)
    assert cost(table, FGSM) == (n * 2, n)
    assert Counting.seen == n * (1 + 1 + 7 + 17 + 2) + 2  # and nothing was computed that is not counted, but for the rehearsal


def test_samples_that_are_wrong_already_cost_an_attack_nothing():
    data = br.Dataset.from_arrays(torch.full((6, 4), 0.5), [0] * 6, classes=2)
    table = br.Lab().measure(Counting(right=False), data, [PGD])
    assert cost(table, PGD) == (6, 0)


def test_seconds_are_kept(table):
    assert all(row["seconds"] > 0 for row in table.rows if row["perturbation"])


# ---------------------------------------------------------------- no trace


def test_the_users_module_and_the_random_states_stay_as_they_were(data):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 10)
        )
    module[1].eval()
    module[0].weight.requires_grad_(False)
    module[0].register_forward_hook(lambda *_: None)
    module[5].weight.grad = torch.ones_like(module[5].weight)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def facts():
        parts = [(part.training, len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()]
        return parts, [(p.requires_grad, p.stride(), p.grad is None, p.data_ptr()) for p in module.parameters()]

    def randomness():
        return torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002 - the global state

    was, chance, enabled = facts(), randomness(), torch.is_grad_enabled()
    br.Lab().measure(module, data, [NOISE, PGD], PROBES)
    assert facts() == was and randomness() == chance and torch.is_grad_enabled() == enabled
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert (module[5].weight.grad == 1).all()


def test_a_network_in_training_mode_is_measured_in_evaluation_mode(data):
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.9), nn.Linear(64, 10))
    first, second = (br.Lab(batch_size=size).measure(module, data) for size in (60, 7))
    assert np.array_equal(first.samples("net", "clean")["prediction"], second.samples("net", "clean")["prediction"])
    assert module.training and first.plan["networks"]["net"]["training"]
    assert not br.Lab().measure(module.eval(), data).plan["networks"]["net"]["training"]


def test_cells_without_readings_keep_their_samples(data, make_net, tmp_path):
    """Some probes read the clean samples alone; what an attack did to each sample is kept all the same."""
    attack = "fgsm(threat=ball(eps=0.1, norm=inf))"
    table = br.Lab(tmp_path).measure({"net": make_net()}, data, [attack], ["diagnostics(share=1)"])
    assert not table.select(perturbation=attack)
    samples = table.samples("net", attack)
    assert len(samples["id"]) == len(data) and samples["linf"].max() > 0


def test_a_probe_that_finds_nothing_to_observe_has_no_answer_and_has_not_failed(data, tmp_path):
    """A linear network has no activations; a run that says so is finished, and measures nothing when it is repeated."""
    net, passes = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), []
    probes = ["accuracy", "class_selectivity", "sparsity", "dimensionality"]
    table = br.Lab(tmp_path).measure(net, data, [NOISE], probes)
    silent = [row for row in table.rows if row["value"] is None]
    assert {row["status"] for row in silent} == {"undefined"} and len(silent) == 6
    assert all("no layer was recorded: the network has no ReLU" in row["reason"] for row in silent)
    net[1].register_forward_hook(lambda *_: passes.append(1))
    br.Lab(tmp_path).measure(net, data, [NOISE], probes)
    assert not passes


def test_what_an_attack_notes_of_its_work_reaches_the_table(data, make_net, tmp_path):
    """A budget of 12 passes is spent at once; what survives it is a partial answer, and says so."""
    attack = "strongest(passes=60, threat=ball(eps=0.0001, norm=inf))"
    table = br.Lab(tmp_path, batch_size=30).measure({"net": make_net()}, data, [attack], ["accuracy"], ["checks"])
    (row,) = table.select(name="proposed", perturbation=attack)
    assert row["value"] == 1 and "partial" in row["reason"] and row["status"] == "ok"
    (found,) = [f for f in table.findings if f.name == "attack_note"]
    assert found.perturbation == row["perturbation"] and "passes allow" in found.message
    far = br.Lab(tmp_path / "far").measure({"net": make_net()}, data, ["fmn(steps=2, threat=ball(norm=2, eps=0.0001))"], ["accuracy"])
    samples = far.samples("net", far.perturbations()[-1])
    assert (samples["status"] != 0).any()


class Wavering(nn.Module):
    """Answers at random, from torch's own random state."""

    def forward(self, x):
        return x.flatten(1)[:, :10] + torch.randn(len(x), 10)


def test_a_random_network_repeats_whatever_the_global_state(data, assert_same):
    tables = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = torch.random.get_rng_state()
            tables.append(br.Lab(batch_size=20, device="cpu").measure(Wavering(), data, ["gaussian_noise", "fgsm"], ["accuracy"]))
            assert torch.equal(torch.random.get_rng_state(), before)
    assert_same(*tables)


@pytest.mark.parametrize("scope", [torch.no_grad, torch.inference_mode])
def test_the_gradient_mode_around_the_lab_does_not_matter(scope, make_net, assert_same):
    """Also where the data were made in it: tensors of the inference mode know no gradients."""

    def measured():
        x = br.derive(0, "modes", ids=range(20)).uniform(1, 8, 8)
        probes = ["accuracy", "jacobian", "input_gradient", "dimensionality(flat=8)", "fisher"]
        return br.Lab(batch_size=7, device="cpu").measure(
            make_net(), (x, torch.arange(20) % 10), [PGD, "gaussian_noise"], probes, ["checks"]
        )

    with scope():
        inside = measured()
    assert_same(inside, measured())
