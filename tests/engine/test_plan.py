"""Plans, suites, and what they are expected to cost."""

import json

import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.component import items
from brinell.core.errors import SpecError
from brinell.core.perturbation import Corruption, Perturbation
from brinell.core.probe import Probe
from brinell.core.summary import Summary
from brinell.engine.expectation import expect
from brinell.engine.suite import NAMES, suite

PGD, NOISE = "pgd(steps=4, restarts=2, threat=ball(eps=0.1))", "uniform_noise(threat=ball(eps=0.1))"


@pytest.fixture
def plan(data, make_net):
    return br.Lab(batch_size=20).plan({"a": make_net(), "b": make_net(seed=1)}, data, [NOISE, PGD], ["accuracy"], ["bound"], suite="quick")


def test_a_plan_as_json_says_all_there_is_to_know(plan, data, make_net):
    said = json.loads(json.dumps(plan.to_json()))
    assert said["perturbations"] == ["clean", br.parse(NOISE).spec(), br.parse(PGD).spec()]
    assert said["networks"]["a"]["parameters"] == 64 * 16 + 16 + 16 * 10 + 10 and said["networks"]["a"]["training"]
    assert said["networks"]["a"]["digest"] == br.Network(make_net()).digest
    assert said["data"] | {"digest": ""} == {
        "spec": "digits(side=8)", "digest": "", "n": 60, "shape": [1, 8, 8], "classes": list("0123456789"), "domain": [0, 1],
        "note": data.note, "columns": [],
    }  # fmt: skip
    assert (said["seed"], said["shard"], said["suite"], said["probes"], said["summaries"]) == (0, 20, "quick", ["accuracy"], ["bound"])
    assert set(said["full"]) == set(said["versions"]) == {*said["perturbations"], "accuracy", "bound"}
    assert br.parse(said["full"][said["perturbations"][2]]) == br.parse(PGD)
    assert {"brinell", "torch", "python", "machine", "device", "threads", "date"} <= said["environment"].keys()


class Tupled(nn.Sequential):
    def forward(self, x):
        logits = super().forward(x)
        return logits.sum(), logits


@pytest.mark.parametrize("executor", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_where_the_logits_are_taken_from_stands_in_the_plan(data, make_net, tmp_path, executor):
    if executor == "ray":
        pytest.importorskip("ray", reason="the extra brinell[ray] is not installed")
    net = Tupled(make_net())
    table = br.Lab(tmp_path, executor=executor).measure({"two": net, "one": make_net()}, data)
    assert {name: about["notes"] for name, about in table.plan["networks"].items()} == {
        "two": ["logits are entry 1 of the tuple it returns"], "one": []
    }  # fmt: skip
    assert br.Lab(tmp_path).measure({"two": net, "one": make_net()}, data).plan["networks"]["two"]["notes"]  # kept by one that goes on


def test_cells_have_names_of_their_own(plan):
    cells = list(plan.cells())
    assert [(cell.net, cell.perturbation.name) for cell in cells] == [(n, p) for n in "ab" for p in ("clean", "uniform_noise", "pgd")]
    assert len({cell.key for cell in cells}) == 6


def test_expected_passes_are_the_most_a_sample_costs(plan):
    found = expect(plan)
    assert [(e.forwards, e.backwards) for e in found] == [(1, 0), (1, 0), (2 * 5 + 1, 2 * 4)] * 2
    assert all(e.seconds > 0 for e in found)


def test_planning_measures_and_writes_nothing(data, make_net, tmp_path):
    lab = br.Lab(tmp_path)
    expect(lab.plan(make_net(), data, [PGD]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["images", "vectors", "other domain"])
def test_suites_can_be_parsed_and_planned(name, kind, make_net):
    data = {
        "images": lambda: br.load_dataset("digits(side=8)"),
        "vectors": lambda: br.Dataset.from_arrays(torch.rand(30, 64), torch.arange(30) % 10),
        "other domain": lambda: br.Dataset.from_arrays(torch.rand(30, 1, 8, 8) * 4 - 2, torch.arange(30) % 10, domain=(-2.0, 2.0)),
    }[kind]()
    made = suite(name, data)
    perturbations = [br.parse(spec) for spec in made.perturbations]
    assert all(isinstance(p, Perturbation) for p in perturbations) and len({p.spec() for p in perturbations}) == len(perturbations)
    assert all(isinstance(br.parse(spec), Probe) for spec in made.probes) and all(isinstance(br.parse(s), Summary) for s in made.summaries)
    assert made.limit == {"quick": 512, "standard": 2000, "full": None}[name]
    assert any("severity" in type(p).model_fields for p in perturbations) == (kind == "images")
    assert {(p.threat.low, p.threat.high) for p in perturbations if p.threat is not None} == {data.domain}
    names = {p.name for p in perturbations}
    assert {"fgsm", "pgd" if name == "quick" else "strongest", "uniform_noise", "normal_noise"} <= names
    if name == "full" and kind == "images":
        graded = {n for n, cls in items(Corruption).items() if "severity" in cls.model_fields and cls.__module__.startswith("brinell.")}
        assert graded <= names and len([p for p in perturbations if p.name == min(graded)]) == 5


def test_the_standard_suite_tries_out_the_attack_that_its_bounds_rest_on():
    for n, shares in ((4000, (0.02, 0.02, 0.008)), (100, (0.4, 0.4, 0.16)), (10, (1.0, 1.0, 1.0))):
        made = suite("standard", br.Dataset.from_arrays(torch.rand(n, 1, 2, 2), torch.arange(n) % 2))
        probes = {probe.name: probe for probe in map(br.parse, made.probes)}
        tried = [probes[name] for name in ("escalation", "binarisation", "noise_search")]
        assert tuple(probe.share for probe in tried) == shares
        assert {probe.attack for probe in tried} <= set(map(br.parse, made.perturbations)) and tried[2].tries == 10_000
        spent = sum(sum(br.parse(spec).cost) for spec in made.perturbations)
        assert n < 4000 or sum(sum(probe.cost) for probe in tried) < spent / 30


def test_unknown_suites():
    with pytest.raises(SpecError, match="'huge'; choose one of quick, standard, full"):
        suite("huge", br.load_dataset("digits(side=8)"))
