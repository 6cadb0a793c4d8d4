"""What a run directory remembers: fitted states, hardened networks, results of `map`, summaries, findings."""

import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.draws import derive
from brinell.core.errors import SpecError, StoreError
from brinell.core.hardening import Hardening
from brinell.core.measurement import Finding, Verdict
from brinell.core.perturbation import Attack
from brinell.core.probe import Needs, Probe
from brinell.core.summary import Summary
from brinell.core.tally import Sum
from brinell.core.threat import Ball
from brinell.engine.progress import Silent
from brinell.engine.store import Store
from brinell.engine.table import open_table

CALLS: list[str] = []


class Universal(Attack, name="engine_universal"):
    """One direction for all samples, fitted on the data."""

    threat: Ball = Ball(eps=0.05)
    state_less: bool = False
    fails: ClassVar[bool] = False

    def prepare(self, net, data, *, draws):
        CALLS.append(f"attack {len(draws)}")
        if Universal.fails:
            raise ZeroDivisionError("nothing to fit")
        net(data.x())
        return None if self.state_less else {"direction": draws[:1].signs(*data.shape), "mean": data.x().mean()}

    def __call__(self, net, x, y, *, draws):
        if self.state_less:
            assert self.state is None
            return x.clone()
        return self.threat.project(x, x + self.threat.eps * self.state["direction"])


class Scale(Probe, name="engine_scale"):
    fails: ClassVar[bool] = False

    @property
    def needs(self):
        return Needs(layers=None)

    def prepare(self, net, data, *, draws):
        CALLS.append("probe")
        if Scale.fails:
            raise RuntimeError("no scale")
        return {"scale": torch.tensor(0.5, dtype=torch.float64)}

    def observe(self, view, *, draws):
        return Sum.of(total=view.z.double().sum() * self.state["scale"], n=torch.tensor(len(view.y)))

    def read(self, tally):
        return [br.Reading("engine_scaled", float(tally["total"]), n=int(tally["n"]))]


@pytest.fixture(autouse=True)
def _fresh():
    CALLS.clear()
    Universal.fails = Scale.fails = False


def test_items_are_prepared_once_per_network_and_get_their_state(data, make_net, tmp_path, assert_same):
    nets = {"a": make_net(seed=1), "b": make_net(seed=2)}
    table = br.Lab(tmp_path, batch_size=20).measure(nets, data, ["engine_universal"], ["engine_scale"])
    assert sorted(CALLS) == sorted(["attack 60", "probe"] * 2)
    signs = derive(0, "prepare", br.parse("engine_universal").spec(), ids=data.ids)[:1].signs(*data.shape)
    moved = (data.x() + 0.05 * signs).clamp(0, 1)
    assert table.value("engine_scaled", net="a", perturbation="engine_universal") == pytest.approx(moved.double().sum().item() / 2)
    assert table.value("engine_scaled", net="b") == pytest.approx(data.x().double().sum().item() / 2)
    for file in (tmp_path / "readings").iterdir():
        file.unlink()
    assert_same(br.Lab(tmp_path).measure(nets, data, ["engine_universal"], ["engine_scale"]), table)
    assert len(CALLS) == 4  # what was fitted is kept


def test_nothing_to_fit_is_a_state_too(data, make_net):
    table = br.Lab(batch_size=20).measure(make_net(), data, ["engine_universal(state_less=True)"])
    assert table.value("accuracy", perturbation="engine_universal(state_less=True)") == table.value("accuracy")


def test_what_cannot_be_prepared_fails_alone(data, make_net, tmp_path):
    Universal.fails = Scale.fails = True
    table = br.Lab(tmp_path, batch_size=20).measure(make_net(), data, ["engine_universal"], ["engine_scale", "accuracy"])
    assert table.row("perturbation", perturbation="engine_universal")["reason"] == "ZeroDivisionError: nothing to fit"
    assert table.row("engine_scale")["reason"] == "RuntimeError: no scale" and table.row("accuracy")["status"] == "ok"
    Universal.fails = Scale.fails = False
    mended = br.Lab(tmp_path, batch_size=20).measure(make_net(), data, ["engine_universal"], ["engine_scale", "accuracy"])
    assert {row["status"] for row in mended.rows} == {"ok"}


def test_damaged_states_are_named(data, make_net, tmp_path):
    br.Lab(tmp_path).measure(make_net(), data, ["engine_universal"])
    for file in [*(tmp_path / "states").iterdir()]:
        file.write_bytes(file.read_bytes()[:-1])
    for file in (tmp_path / "readings").iterdir():
        file.unlink()
    with pytest.raises(StoreError, match=r"states.* is damaged"):
        br.Lab(tmp_path).measure(make_net(), data, ["engine_universal"])


# ---------------------------------------------------------------- summaries


class Gap(Summary, name="engine_gap"):
    """The loss of accuracy from the first to the last perturbation, and a finding about it."""

    def __call__(self, table):
        CALLS.append(f"{len(table.rows)} rows")
        found = []
        for net in table.networks:
            rows = table.select(net=net, name="accuracy")
            gap = rows[0]["value"] - rows[-1]["value"]
            array = np.arange(3.0) + len(found)
            found.append((net, br.Reading("engine_gap", gap, n=rows[0]["n"], array=array, axis="sample")))
            found.append(Finding("engine_finding", Verdict.FLAG, "look here", gap, 0.5, net, "clean"))
        return found


def test_summaries_and_findings_are_stored_and_read_again(data, make_net, tmp_path, assert_same):
    nets = {"a": make_net(seed=1), "b": make_net(seed=2)}
    arguments = nets, data, ["pgd(steps=3, threat=ball(eps=0.3))"], ["accuracy"], ["engine_gap"]
    table = br.Lab(tmp_path).measure(*arguments)
    gaps = table.select(name="engine_gap")
    assert [(row["net"], row["perturbation"], row["probe"]) for row in gaps] == [("a", "", "engine_gap"), ("b", "", "engine_gap")]
    for row, net, shift in zip(gaps, "ab", (0, 2), strict=True):
        attacked = table.value("accuracy", net=net, perturbation=table.plan["perturbations"][-1])
        assert row["value"] == table.value("accuracy", net=net) - attacked > 0
        assert np.array_equal(table.array(row), np.arange(3.0) + shift)
    assert [(f.name, f.verdict, f.net, f.value) for f in table.findings] == [
        ("engine_finding", Verdict.FLAG, net, row["value"]) for net, row in zip("ab", gaps, strict=True)
    ]
    assert table.worst is Verdict.FLAG
    assert_same(open_table(tmp_path), table)
    assert_same(br.Lab(tmp_path).measure(*arguments), table)
    assert len(set(CALLS)) == 1  # a second run does not see what the first one summarised


def test_an_unfinished_run_has_a_table(data, make_net, tmp_path):
    table = br.Lab(tmp_path).measure({"a": make_net()}, data, ["fgsm"], ["accuracy"], ["engine_gap"])
    for file in (tmp_path / "readings").iterdir():
        if Store(tmp_path).read_rows(f"readings/{file.name}")[0]["perturbation"] != "clean":
            file.unlink()
    for name in ("summary.parquet", "findings.json"):
        (tmp_path / name).unlink()
    half = open_table(tmp_path)
    assert half.rows == table.select(perturbation="clean") and half.findings == [] and half.plan == table.plan
    assert half.samples("a", "fgsm") == {}


def test_open_table_makes_no_directory(tmp_path):
    with pytest.raises(StoreError, match="no directory"):
        open_table(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()
    with pytest.raises(StoreError, match="not a run directory"):
        open_table(tmp_path)


def test_a_lab_without_a_directory_leaves_none_behind(data, make_net):
    import gc

    lab = br.Lab()
    root, table = lab.store.root, lab.measure(make_net(), data)
    del lab
    gc.collect()
    assert len(table.samples("net", "clean")["id"]) == len(data)  # the table keeps it alive
    del table
    gc.collect()
    assert not root.exists()


# ---------------------------------------------------------------- harden and map


class Shift(Hardening, name="engine_shift"):
    """Adds a number drawn by the seed to every bias."""

    by: float = 1.0

    def __call__(self, net, data, *, seed, **options):
        CALLS.append(f"shift {seed} {sorted(options)}")
        twin = net.frozen_copy()
        with torch.no_grad():
            for name, p in twin.module.named_parameters():
                if name.endswith("bias"):
                    p += self.by + seed
        return br.Network(twin.module, net.recipe, (*net.notes, f"shifted by {self.by + seed}"), net.source)


class Doubled(Hardening, name="engine_doubled"):
    """Changes the structure: the network's logits, twice as large."""

    def wrap(self, net):
        return nn.Sequential(net, nn.Hardtanh(-1e9, 1e9))

    def __call__(self, net, data, *, seed, **options):
        return br.Network(self.wrap(net.frozen_copy().module), net.recipe)


def test_hardened_networks_are_kept(data, make_net, tmp_path):
    nets = {"a": make_net(seed=1), "b": make_net(seed=2)}
    first = br.Lab(tmp_path, seed=3).harden(nets, "engine_shift(by=2)", data)
    assert CALLS == ["shift 3 ['checkpoint', 'device', 'progress', 'valid']"] * 2
    again = br.Lab(tmp_path, seed=3).harden(nets, Shift(by=2), data)
    assert len(CALLS) == 2
    for name, net in nets.items():
        assert torch.allclose(again[name](data.x()), first[name](data.x())) and again[name].digest == first[name].digest
        assert torch.allclose(again[name].module[3].bias, net[3].bias + 5) and again[name].notes == ("shifted by 5.0",)
        assert net.training and not again[name].module.training
    br.Lab(tmp_path, seed=4).harden(nets, "engine_shift(by=2)", data)
    br.Lab(tmp_path, seed=3).harden(nets, "engine_shift(by=1)", data)
    assert len(CALLS) == 6  # another seed or another field is another network
    table = br.Lab(tmp_path).measure(first, data)
    assert table.plan["networks"]["a"]["notes"] == ["shifted by 5.0"]


def test_hardenings_that_change_the_structure(data, make_net, tmp_path):
    for _ in range(2):
        made = br.Lab(tmp_path).harden(make_net(), "engine_doubled", data)["net"]
        assert isinstance(made.module[1], nn.Hardtanh) and made.shape == data.shape and made.classes == 10


def test_training_is_kept_too(data, tmp_path):
    net = br.load_network("linear", shape=data.shape, classes=10, seed=0)
    how = "fit(epochs=2, batch_size=20)"
    first = br.Lab(tmp_path).harden(net, how, data)["net"]
    (file,) = (tmp_path / "networks").iterdir()
    was = file.stat().st_mtime_ns
    again = br.Lab(tmp_path).harden(net, how, data)["net"]
    assert again.digest == first.digest != net.digest and file.stat().st_mtime_ns == was
    with pytest.raises(SpecError, match="hardening is wanted"):
        br.Lab(tmp_path).harden(net, "pgd", data)


class Impatient(Silent):
    """Stops the work like Ctrl-C after some samples, and keeps what the work said at its start."""

    def __init__(self, patience=math.inf):
        self.left, self.started = patience, []

    def start(self, title, total, done=0.0):
        self.started.append((total, done))

    def advance(self, amount, text=""):
        self.left -= amount
        if self.left < 0:
            raise KeyboardInterrupt


def test_an_interrupted_training_goes_on_where_it_was(data, tmp_path):
    net, how = br.load_network("linear", shape=data.shape, classes=10, seed=0), "fit(epochs=4, batch_size=20)"
    undisturbed = br.Lab(tmp_path / "a").harden(net, how, data)["net"]
    with pytest.raises(KeyboardInterrupt):
        br.Lab(tmp_path / "b", progress=Impatient(2.5 * len(data))).harden(net, how, data)
    again = Impatient()
    resumed = br.Lab(tmp_path / "b", progress=again).harden(net, how, data)["net"]
    assert again.started == [(4 * len(data), 2 * len(data))]
    assert resumed.digest == undisturbed.digest
    assert not list((tmp_path / "b" / "checkpoints").glob("*"))


def test_samples_to_judge_on_are_part_of_what_is_kept(data, tmp_path):
    net, how = br.load_network("linear", shape=data.shape, classes=10, seed=0), "fit(epochs=3, batch_size=20)"
    last = br.Lab(tmp_path).harden(net, how, data)["net"]
    chosen = br.Lab(tmp_path).harden(net, how, data, valid=data.limit(20, 0))["net"]
    assert "chosen on 20 held-out samples" in chosen.notes[-1]
    assert "held-out" not in last.notes[-1]


def square(item):
    CALLS.append(f"square {item}")
    if item == 7:
        raise KeyboardInterrupt
    return {"square": item * item, "tensor": torch.full((2,), float(item)), "text": f"of {item}"}


def test_map_computes_what_is_missing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        br.Lab(tmp_path).map(square, [1, 2, 7, 3], key=str)
    assert CALLS == ["square 1", "square 2", "square 7"]
    results = br.Lab(tmp_path).map(square, [3, 1, 3, 2], key=str)
    assert CALLS[3:] == ["square 3"]
    assert [result["square"] for result in results] == [9, 1, 9, 4]
    assert list(results[0]) == ["square", "tensor", "text"] and results[1]["text"] == "of 1"
    assert torch.equal(results[3]["tensor"], torch.tensor([2.0, 2.0]))
    br.Lab(tmp_path, seed=1).map(square, [1], key=str)
    assert CALLS[4:] == ["square 1"]
