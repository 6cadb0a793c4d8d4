"""Weights files and run directories that somebody else sent: nothing in them runs, nothing outside them is read or written."""

import collections
import json
import os
import pickle
import shutil
from html.parser import HTMLParser

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import brinell as br
from brinell.cli import main
from brinell.core.errors import NetworkError, StoreError, WeightsError
from brinell.core.form import findings_of, plan_of, rows_of
from brinell.core.network import Network
from brinell.models.loading import load_network


class Runs:
    """What a hostile pickle asks to be called when it is opened."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


PICKLES = {
    "a command": Runs(os.system, "touch was_run"),
    "eval": Runs(eval, "open('was_run', 'w')"),
    "exec": Runs(exec, "open('was_run', 'w')"),
    "open": Runs(open, "was_run", "w"),
    "an import": Runs(__import__, "antigravity"),
    "an attribute": Runs(getattr, int, "from_bytes"),
    "a call inside a state": {"layer.weight": torch.zeros(2), "more": Runs(os.system, "touch was_run")},
    "a module": nn.Linear(64, 10),
}  # fmt: skip


@pytest.mark.parametrize("ending", ["pt", "pth", "ckpt", "bin", "safetensors"])
@pytest.mark.parametrize("case", PICKLES)
def test_no_code_runs_from_a_weights_file(case, ending, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"w.{ending}"
    plain = isinstance(PICKLES[case], Runs)
    file.write_bytes(pickle.dumps(PICKLES[case])) if plain else torch.save(PICKLES[case], file)
    with pytest.raises((WeightsError, NetworkError)):
        load_network("mlp", weights=file, shape=(1, 8, 8), classes=10)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    "recipe",
    [
        "evil.py:build", "os:system", "evil:build", "/tmp/evil.py:build", "hf:/etc", "hf:../somewhere", "builtins.eval",
        "mlp(widths=(1,)); x",
        "__import__('os').system('touch was_run')", "mlp(widths=9**9**9)", "a" * 200_000, "torchvision:../x", "timm:hf-hub:someone/net",
        "",
    ],
    ids=range(14),
)  # fmt: skip
def test_a_weights_file_never_chooses_code_or_paths(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("open('was_run', 'w')\ndef build(): pass\n")
    about = {"recipe": recipe, "shape": "[1, 8, 8]", "classes": "10", "notes": "[]"}
    save_file({"w": torch.zeros(1)}, tmp_path / "net.safetensors", metadata=about)
    with pytest.raises((NetworkError, ValueError)) as caught:
        load_network(tmp_path / "net.safetensors", shape=(1, 8, 8), classes=10)
    assert isinstance(caught.value, br.BrinellError) and not (tmp_path / "was_run").exists()


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """A finished run, as somebody may send it."""
    root = tmp_path_factory.mktemp("sent")
    nets = {"net": nn.Sequential(nn.Flatten(), nn.Linear(64, 10))}
    br.Lab(root / "run", device="cpu").measure(nets, br.load_dataset("digits(side=8)", limit=20), [], ["accuracy"], ["checks"])
    return root / "run"


@pytest.fixture
def run(sent, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(sent, tmp_path / "run")


WRITING = [["report", "run"], ["export", "run"], ["export", "run", "--format", "json"], ["export", "run", "--format", "parquet"],
           ["diff", "run", "run", "--out", "run/report.html"]]  # fmt: skip


@pytest.mark.parametrize("command", WRITING, ids=" ".join)
def test_a_link_in_a_run_directory_is_replaced_and_not_followed(command, run, tmp_path):
    mine = tmp_path / "precious"
    for name in ("report.html", "measurements.csv", "measurements.json", "measurements.parquet"):
        (run / name).symlink_to(mine)
    mine.write_text("mine")
    assert main(command) == 0
    assert mine.read_text() == "mine" and not list(run.glob(".*partial*"))


def changed(**entries):
    return lambda plan: {**plan, **entries}


PLANS = {
    "a list": lambda plan: [],
    "a text": lambda plan: "plan",
    "nothing in it": lambda plan: {},
    "networks in a list": changed(networks=["net"]),
    "a network that is a number": changed(networks={"net": 3}),
    "a network without digest": changed(networks={"net": {}}),
    "notes that are a number": changed(networks={"net": {"digest": "a", "notes": 3}}),
    "data of text": changed(data="digits"),
    "no data": changed(data=None),
    "classes that are a number": lambda plan: {**plan, "data": {**plan["data"], "classes": 3}},
    "classes without names": lambda plan: {**plan, "data": {**plan["data"], "classes": [1, None]}},
    "a shape of text": lambda plan: {**plan, "data": {**plan["data"], "shape": "x", "n": "y"}},
    "perturbations that are a number": changed(perturbations=3),
    "perturbations without specs": changed(perturbations=[3, {}]),
    "perturbations without versions": changed(perturbations=["clean", "other"]),
    "versions in a list": changed(versions=[]),
    "no probes": changed(probes=None),
    "an environment that is a number": changed(environment=3),
    "summaries that are a number": changed(summaries=3),
    "a suite of dicts": changed(suite={}),
}


@pytest.mark.parametrize("case", PLANS)
def test_a_plan_of_another_form_is_refused_by_name(case, run):
    plan = json.loads((run / "plan.json").read_text())
    assert plan_of(plan, "plan.json") is plan
    with pytest.raises(StoreError, match=r"plan.json is not the plan of a run \(.*get the run directory again"):
        plan_of(PLANS[case](plan), "plan.json")


@pytest.mark.parametrize("case", ["a list", "nothing in it", "networks in a list", "data of text", "versions in a list"])
def test_a_command_on_such_a_plan_gets_one_line(case, run, capsys):
    plan = json.loads((run / "plan.json").read_text())
    del plan["digest"]  # who writes another plan leaves out what would betray it
    (run / "plan.json").write_text(json.dumps(PLANS[case](plan)))
    for command in (["report", "run"], ["export", "run"], ["diff", "run", "run"], ["gate", "run", "--require", "accuracy >= 0"]):
        assert main(command) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "value",
    [3, "a", {}, [1], [{"name": 3}], {"findings": 3}, [{"name": "a", "verdict": "odd", "message": "b"}], [{"name": "a", "code": "b"}]],
    ids=str,
)
def test_findings_of_another_form_are_refused_by_name(value):
    with pytest.raises(StoreError, match=r"findings.json is not a list of findings"):
        findings_of(value, "findings.json")


@pytest.mark.parametrize("row", [{}, {"net": 1}, {"net": "a", "perturbation": "b", "name": "c", "value": "big"}], ids=str)
def test_rows_of_another_form_are_refused_by_name(row):
    with pytest.raises(StoreError, match="is not a table of readings"):
        rows_of([row], "readings/x.parquet")


def test_names_in_a_plan_are_never_paths(run, tmp_path):
    plan = json.loads((run / "plan.json").read_text())
    plan["networks"]["../../escaped"] = plan["networks"]["net"]
    (run / "plan.json").write_text(json.dumps(plan))
    before = {file for file in tmp_path.rglob("*") if run not in file.parents}
    assert main(["report", "run"]) in (0, 2)
    assert {file for file in tmp_path.rglob("*") if run not in file.parents} == before


PAYLOADS = [
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", "<!--<script>", "]]><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>", "\"><svg onload=alert(1)>", "' onmouseover='alert(1)", "javascript:alert(1)",
    "<a href='javascript:alert(1)'>x</a>", "{{7*7}}", "{% include '/etc/passwd' %}", "${alert(1)}", "%{x}",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>", "<iframe src=//evil>", "<base href=//evil>", "<meta http-equiv=refresh content=0;url=//evil>",
    "\u2028alert(1)\u2029", "\x1b]0;owned\x07", "\u202etxt", "&lt;script&gt;", "\\u003cscript\\u003e", "\\x3cscript\\x3e", "<b>bold</b>",
]  # fmt: skip


class Elements(HTMLParser):
    """Elements and attributes of a page."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def page(texts, place):
    """The page of a run whose networks, classes, groups, notes and reasons are called so."""
    digits, text = br.load_dataset("digits(side=8)", limit=30), "".join(texts)
    groups = [texts[k % len(texts)] for k in range(30)]
    data = br.Dataset.from_arrays(digits.x(), digits.labels(), classes=texts, name=text, group=groups)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, len(texts)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        nn.init.normal_(module[1].weight)
    net = Network(module, recipe=text, notes=tuple(texts))
    br.Lab(place, device="cpu").measure({text: net}, data, ["uniform_noise(threat=ball(eps=0.1))"], ["accuracy", "examples"], ["checks"])
    assert main(["report", str(place)]) == 0
    return Elements((place / "report.html").read_text())


def test_nothing_in_a_report_is_executed(tmp_path):
    """Whatever things are called, the page has the active elements that the page of harmless names has."""
    hostile, harmless = page(PAYLOADS, tmp_path / "a"), page([f"harmless {k}" for k in range(len(PAYLOADS))], tmp_path / "b")
    active = {"script", "iframe", "base", "meta", "object", "embed", "link", "form", "style", "title", "img"}
    kinds = [collections.Counter(tag for tag, _ in tree.found if tag in active) for tree in (hostile, harmless)]
    assert kinds[0] == kinds[1] and kinds[0]["script"] > 0
    for tag, attributes in hostile.found:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        places = [attributes.get(name) or "" for name in ("href", "src", "srcset", "action", "formaction", "data", "xlink:href")]
        assert not any(place.strip() and not place.startswith(("#", "data:image/")) for place in places), (tag, attributes)
