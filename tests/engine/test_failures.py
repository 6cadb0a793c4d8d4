"""What goes wrong stays where it went wrong, is said clearly, and can be mended and continued."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.errors import DataError, NetworkError, SpecError, StoreError
from brinell.core.perturbation import GAVE_UP, Attack, Attempt, Corruption
from brinell.core.probe import Needs, Probe
from brinell.core.tally import Sum
from brinell.engine.store import Store
from brinell.engine.table import open_table

NOISE, PGD = "uniform_noise(threat=ball(eps=0.1))", "pgd(steps=3, threat=ball(eps=0.1))"


class Moody(Corruption, name="engine_moody"):
    """Fails until it is mended."""

    mended: ClassVar[bool] = False

    def __call__(self, net, x, y, *, draws):
        if not Moody.mended:
            raise AttributeError("a third party's own mistake")
        return (x + 0.01).clamp(0, 1)


class MoodyProbe(Probe, name="engine_moody_probe"):
    mended: ClassVar[bool] = False

    @property
    def needs(self):
        return Needs(layers=None)

    def observe(self, view, *, draws):
        if not MoodyProbe.mended:
            raise AssertionError("observe does not like this shard")
        return Sum.of(n=torch.tensor(len(view.y)))

    def read(self, tally):
        return [br.Reading("engine_count", float(tally["n"]), n=int(tally["n"]))]


class Speechless(Probe, name="engine_speechless"):
    """Observes, but cannot read."""

    @property
    def needs(self):
        return Needs(layers=None)

    def observe(self, view, *, draws):
        return Sum.of(n=torch.tensor(len(view.y)))

    def read(self, tally):
        raise br.BrinellError("there is nothing to say")


class GivesUp(Attack, name="engine_gives_up"):
    """Has no point for every second sample."""

    def __call__(self, net, x, y, *, draws):
        status = torch.zeros_like(y)
        status[::2] = GAVE_UP
        return Attempt(torch.ones_like(x), status, "every second")


@pytest.fixture(autouse=True)
def _ill():
    Moody.mended = MoodyProbe.mended = False


def status(table, perturbation, name="accuracy"):
    return table.row(name, perturbation=br.parse(perturbation).spec())["status"]


def test_a_failing_cell_says_why_and_the_others_are_measured(data, make_net, tmp_path):
    table = br.Lab(tmp_path, batch_size=20).measure(make_net(), data, ["engine_moody", NOISE], ["accuracy", "class_selectivity"])
    (row,) = table.select(perturbation="engine_moody")
    assert (row["status"], row["value"], row["name"], row["probe"]) == ("failed", None, "perturbation", "")
    assert row["reason"] == "AttributeError: a third party's own mistake"
    assert table.failed("net", br.parse("engine_moody")) and not table.failed("net", br.parse(NOISE))
    assert table.samples("net", "engine_moody") == {}
    assert status(table, NOISE) == status(table, "clean") == "ok"


def test_a_cell_that_failed_is_measured_once_it_is_mended(data, make_net, tmp_path, assert_same):
    br.Lab(tmp_path, batch_size=20).measure(make_net(), data, ["engine_moody", NOISE], ["accuracy", "engine_moody_probe"])
    Moody.mended = MoodyProbe.mended = True
    table = br.Lab(tmp_path, batch_size=20).measure(make_net(), data, ["engine_moody", NOISE], ["accuracy", "engine_moody_probe"])
    assert status(table, "engine_moody") == status(table, "engine_moody", "engine_count") == "ok"
    assert table.value("engine_count") == len(data)
    fresh = br.Lab(batch_size=20).measure(make_net(), data, ["engine_moody", NOISE], ["accuracy", "engine_moody_probe"])
    assert_same(table, fresh)


def test_a_failing_probe_takes_no_other_with_it(data, make_net):
    table = br.Lab().measure(make_net(), data, [NOISE], ["engine_moody_probe", "accuracy", "engine_speechless"])
    for perturbation in ("clean", br.parse(NOISE).spec()):
        failed = table.row("engine_moody_probe", perturbation=perturbation)
        assert (failed["status"], failed["reason"]) == ("failed", "AssertionError: observe does not like this shard")
        mute = table.row("engine_speechless", perturbation=perturbation)
        assert (mute["status"], mute["value"], mute["reason"]) == ("undefined", None, "BrinellError: there is nothing to say")
        assert status(table, perturbation) == "ok"


def test_samples_without_a_point_keep_their_clean_input(data, make_net):
    samples = br.Lab().measure(make_net(), data, ["engine_gives_up"]).samples("net", "engine_gives_up")
    order = np.argsort(data.ids)
    given_up = (np.arange(len(data)) % 2 == 0)[order]
    assert np.array_equal(samples["status"] == GAVE_UP, given_up)
    assert np.array_equal(samples["linf"] == 0, given_up)


# ---------------------------------------------------------------- bad input


class Sour:
    """Reads zeros, but a NaN for one id until it is mended."""

    mended = False

    def __call__(self, ids):
        x = torch.zeros(len(ids), 1, 8, 8)
        if not Sour.mended:
            x[torch.from_numpy(ids == 25)] = torch.nan
        return x


def test_bad_samples_stop_the_run_and_nothing_is_lost(make_net, tmp_path):
    data = br.Dataset("sour", (1, 8, 8), np.arange(30) % 10, np.arange(30), tuple("0123456789"), Sour(), "sour")
    lab = br.Lab(tmp_path, batch_size=10)
    with pytest.raises(DataError, match="row 25 holds NaN"):
        lab.measure(make_net(), data, [NOISE])
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("shards/*/*.safetensors")}
    assert len(kept) == 4  # two shards of two cells
    Sour.mended = True
    table = br.Lab(tmp_path, batch_size=10).measure(make_net(), data, [NOISE])
    assert status(table, NOISE) == "ok" and table.row("accuracy")["n"] == 30
    assert table.row("accuracy")["forwards"] == 30  # the shards that were finished were not measured again


class Picky(nn.Module):
    def forward(self, x):
        raise AssertionError("Input height (8) doesn't match model (224)")


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (nn.Linear(5, 10), "fails on .*shape.*normalisation"),
        (nn.Conv2d(3, 4, 3), "fails on .*channels"),
        (Picky(), r"AssertionError: Input height \(8\)"),
        (nn.Flatten(), None),  # 64 outputs for 10 classes are fine
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), r"has 3 outputs but .*digits.* has 10 classes; load the network with classes=10"),
        (nn.Identity(), r"returned shape \(60, 1, 8, 8\) for 60 inputs"),
    ],
)
def test_networks_that_do_not_fit_the_data(data, net, words):
    if words is None:
        assert br.Lab().measure(net, data).row("accuracy")["status"] == "ok"
        return
    with pytest.raises(NetworkError, match=words):
        br.Lab().measure(net, data, [NOISE])


def test_compiled_networks_are_refused_with_the_remedy(data, make_net):
    with pytest.raises(NetworkError, match="_orig_mod"):
        br.Lab().measure(torch.compile(make_net(), backend="eager"), data, probes=["class_selectivity"])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"nets": {}}, NetworkError, "no network"),
        ({"nets": {"a": "resnet20"}}, NetworkError, "network 'a' is the text 'resnet20'"),
        ({"nets": 3}, NetworkError, "network 'net' is int"),
        ({"data": 3}, DataError, "data must be a Dataset"),
        ({"data": "digit"}, SpecError, "did you mean digits"),
        ({"data": "pgd"}, SpecError, "source is wanted"),
        ({"perturbations": ["pgdd"]}, SpecError, "did you mean pgd"),
        ({"perturbations": ["accuracy"]}, SpecError, "perturbation is wanted"),
        ({"perturbations": [3]}, SpecError, "3 is no perturbation"),
        ({"probes": ["pgd"]}, SpecError, "probe is wanted"),
        ({"summaries": ["pgd"]}, SpecError, "summary is wanted"),
    ],
)
def test_arguments_that_cannot_be_used(data, make_net, arguments, error, words):
    with pytest.raises(error, match=words):
        br.Lab().measure(**{"nets": make_net(), "data": data, **arguments})


def test_labs_that_cannot_be_made(tmp_path):
    for wrong in ({"batch_size": 0}, {"device": "abacus"}, {"seed": 1 << 63}, {"device": "cuda:99"}):
        with pytest.raises(SpecError):
            br.Lab(tmp_path / "run", **wrong)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot use .*file"):
        br.Lab(tmp_path / "file")


# ---------------------------------------------------------------- another run's directory


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"perturbations": []}, "perturbations"),
        ({"probes": ["calibration"]}, "probes"),
        ({"summaries": []}, "summaries"),
        ({"nets": "other"}, "networks"),
        ({"data": "digits(side=8, split=test)"}, "data"),
        ({"seed": 1}, "seed"),
    ],
)
def test_another_plan_is_refused_by_name(data, make_net, tmp_path, change, named):
    usual = {"perturbations": [NOISE], "probes": ["accuracy"], "summaries": ["bound"]}
    br.Lab(tmp_path).measure(make_net(), data, **usual)
    was = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    net = make_net(seed=7) if change.pop("nets", None) else make_net()
    asked = {"data": data, **usual, **change}
    with pytest.raises(StoreError, match=rf"holds another run: its ({named}|{named}, full, versions) differ"):
        br.Lab(tmp_path, seed=asked.pop("seed", 0)).measure(net, **asked)
    assert was == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


def test_a_changed_version_is_another_plan(data, make_net, tmp_path):
    br.Lab(tmp_path).measure(make_net(), data, [NOISE])
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["versions"]["clean"] = "0"
    Store(tmp_path).write_json("plan.json", {name: value for name, value in plan.items() if name != "digest"})
    with pytest.raises(StoreError, match="its versions differ"):
        br.Lab(tmp_path).measure(make_net(), data, [NOISE])


def test_another_batch_size_continues_with_the_stored_one(data, make_net, tmp_path, assert_same):
    first = br.Lab(tmp_path, batch_size=20).measure(make_net(), data, [NOISE, PGD], ["accuracy", "calibration"])
    for file in (tmp_path / "readings").iterdir():
        file.unlink()
    again = br.Lab(tmp_path, batch_size=7).measure(make_net(), data, [NOISE, PGD], ["accuracy", "calibration"])
    assert_same(again, first)
    assert json.loads((tmp_path / "plan.json").read_text())["shard"] == 20


# ---------------------------------------------------------------- damaged files


DAMAGES = {  # one bit: only safetensors carry a digest over every bit
    "truncated": lambda content: content[:-9],
    "emptied": lambda content: b"",
    "one bit": lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in ("plan.json", "readings/*.parquet", "samples/*.parquet") for damage in ("truncated", "emptied")),
        *(("arrays/*.safetensors", damage) for damage in DAMAGES),
    ],
)
def test_damaged_files_are_named(data, make_net, tmp_path, name, damage):
    br.Lab(tmp_path).measure(make_net(), data, [NOISE])
    for file in tmp_path.glob(name):
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(StoreError, match=rf"{name.partition('/')[0]}.* is damaged .*delete it and run again"):
        table = open_table(tmp_path)
        table.samples("net", "clean")
        table.array(table.row("accuracy"))


def test_plans_of_something_else(data, make_net, tmp_path):
    (tmp_path / "plan.json").write_text("[1, 2]")
    with pytest.raises(StoreError, match="is not the plan of a run"):
        br.Lab(tmp_path).measure(make_net(), data)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_measured_again(data, make_net, tmp_path, damage, assert_same, monkeypatch):
    lab = br.Lab(tmp_path, batch_size=20)
    fold = br.Lab._fold

    def interrupted(self, plan, cell):
        raise KeyboardInterrupt

    monkeypatch.setattr(br.Lab, "_fold", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab.measure(make_net(), data, [NOISE])
    shards = sorted(tmp_path.glob("shards/*/*.safetensors"))
    assert len(shards) == 6
    for file in shards[::2]:
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
    monkeypatch.setattr(br.Lab, "_fold", fold)
    assert_same(br.Lab(tmp_path).measure(make_net(), data, [NOISE]), br.Lab(batch_size=20).measure(make_net(), data, [NOISE]))


class Stumbling(Speechless, name="engine_stumbling"):
    """Trips over its own tally."""

    def read(self, tally):
        return [br.Reading("engine_count", float(tally["no such column"]))]


def test_a_probe_that_trips_over_its_tally_takes_nothing_with_it():
    lot = torch.Generator().manual_seed(0)
    x, y = torch.rand(12, 1, 4, 4, generator=lot), torch.arange(12) % 2
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    table = br.Lab(device="cpu").measure({"net": net}, (x, y), [NOISE], ["accuracy", Stumbling()])
    for spec in table.plan["perturbations"]:
        row = table.row("engine_stumbling", perturbation=spec)
        assert row["status"] == "failed" and "KeyError" in row["reason"] and "no such column" in row["reason"]
        assert table.row("accuracy", perturbation=spec)["status"] == "ok"


class Leaving(nn.Module):
    """Has a second layer for batches whose first image is light, and for the others none."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 4), nn.Linear(4, 2)

    def forward(self, x):
        hidden = torch.relu(self.first(x.flatten(1)))
        return torch.relu(self.second(hidden)) if x[0].mean() > 0.5 else self.second(hidden)


@pytest.mark.parametrize("probe", ["sparsity", "class_selectivity", "dimensionality(sample=10)"])
def test_a_network_whose_layers_depend_on_the_batch_fails_that_probe_alone(probe):
    x, y = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.4, torch.arange(12) % 2
    x[4:8] += 0.6
    table = br.Lab(device="cpu", batch_size=4).measure({"net": Leaving().eval()}, (x, y), [NOISE], ["accuracy", probe])
    clean = table.plan["perturbations"][0]
    assert table.row("accuracy", perturbation=clean)["n"] == 12
    (row,) = [row for row in table.rows if row["probe"] == br.parse(probe).spec() and row["perturbation"] == clean]
    assert row["status"] == "failed" and "has no sum: TypeError" in row["reason"] and "layers=(...)" in row["reason"]
    asked = br.parse(probe).replace(layers=("root:0",))
    table = br.Lab(device="cpu", batch_size=4).measure({"net": Leaving().eval()}, (x, y), [NOISE], [asked])
    assert {row["layer"] for row in table.rows if row["layer"]} == {"root:0"}
