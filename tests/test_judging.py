"""The commands that judge runs: diff, gate, verify and calibrate, for people and for machines."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from brinell.cli import main
from brinell.engine import calibration
from brinell.laws.law import Outcome

FGSM = "fgsm(threat=ball(eps=0.1, norm=inf))"
NETS = """
import torch
from torch import nn

def one(shape, classes):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

def two(shape, classes):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
"""


def audit(net: str, out: str, *more: str, limit: str = "40") -> list[str]:
    return ["audit", net, "--data", "digits(side=8)", "--limit", limit, "--device", "cpu", "--perturb", FGSM, *more, "--out", out]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Three runs: one, two (another network, one more cell), and three (other samples)."""
    root = tmp_path_factory.mktemp("judging")
    (root / "nets.py").write_text(NETS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(audit("nets.py:one", "one")) == 0
        assert main(audit("nets.py:two", "two", "clean", "contrast(severity=5)")) == 0
        assert main(audit("nets.py:one", "three", limit="30")) == 0
    return root


@pytest.fixture(autouse=True)
def inside(place, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setenv("BRINELL_HOME", str(tmp_path / "home"))
    capsys.readouterr()


def told(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


# ---------------------------------------------------------------- diff


def test_diff_in_the_terminal_as_a_page_and_for_machines(capsys, tmp_path):
    assert main(["diff", "one", "two", "--out", str(tmp_path / "d.html")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("B is better in ") and lines[1:3] == ["A: one", "B: two"]
    assert any(FGSM in line for line in lines) and "Only in B: contrast(severity=5)." in lines
    assert lines[-1] == f"comparison: {tmp_path / 'd.html'}" and FGSM in (tmp_path / "d.html").read_text()
    assert main(["diff", "one", "two", "--json"]) == 0
    found = told(capsys)
    assert [cell["perturbation"] for cell in found["cells"]] == ["clean", FGSM] and found["comparisons"] == 2
    assert found["pairs"] == [["nets.py:one", "nets.py:two"]] and found["only_b"] == ["contrast(severity=5)"]


def test_diff_of_a_run_with_itself_shows_no_difference(capsys):
    assert main(["diff", "one", "one", "--json"]) == 0
    assert {(cell["difference"], cell["p_value"], cell["verdict"]) for cell in told(capsys)["cells"]} == {(0.0, 1.0, "no difference shown")}
    assert main(["diff", "one", "two", "--pair", "nets.py:one=nets.py:two"]) == 0


def test_diff_refuses_other_data(capsys):
    assert main(["diff", "one", "three"]) == 2
    assert (
        "the runs are on different data (one: digits(side=8), 40 samples and three: digits(side=8), 30 samples" in capsys.readouterr().err
    )


# ---------------------------------------------------------------- gate


@pytest.mark.parametrize(
    ("require", "code"),
    [
        (["accuracy >= 0"], 0),
        (["accuracy >= 0", "accuracy >= 1"], 3),
        (["value(accuracy[fgsm(threat=ball(norm=inf, eps=1/10))]) <= 1"], 0),
        (["accuracy[fgsm(threat=ball(eps=0.2))] >= 0"], 2),
        (["accuracy >= 1", "acuracy >= 0"], 2),
    ],
)
def test_the_exit_code_of_a_gate(capsys, require, code):
    assert main(["gate", "one", "--require", *require]) == code
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")][:-1] == require and lines[-1].endswith(f"of {len(require)} met")
    assert main(["gate", "one", "--json", *(part for text in require for part in ("--require", text))]) == code
    found = told(capsys)
    assert found["exit"] == code and [item["requirement"] for item in found["requirements"]] == require


def test_a_gate_writes_junit(tmp_path):
    assert main(["gate", "one", "--require", "accuracy >= 0", "accuracy >= 1", "--junit", str(tmp_path / "gate.xml")]) == 3
    cases = list(ElementTree.parse(tmp_path / "gate.xml").getroot().iter("testcase"))
    assert [(case.attrib["name"], case[0].tag) for case in cases] == [("accuracy >= 0", "system-out"), ("accuracy >= 1", "failure")]


def test_the_gate_that_the_last_screen_proposes_is_met(capsys):
    import shlex

    assert main(["report", "one"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("to keep this level: ")]
    assert main(shlex.split(line.removeprefix("to keep this level: "))[1:]) == 0


# ---------------------------------------------------------------- verify


def test_verify_and_what_it_finds(capsys, tmp_path):
    import shutil

    shutil.copytree("one", tmp_path / "run")
    assert main(["verify", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.endswith("files checked; every file is as it was written\n")
    file = next((tmp_path / "run" / "samples").iterdir())
    file.unlink()
    assert main(["verify", str(tmp_path / "run")]) == 2
    assert f"missing  samples/{file.name}: " in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "run"), "--json"]) == 2
    assert not told(capsys)["sound"]


# ---------------------------------------------------------------- calibrate


@pytest.fixture
def few(monkeypatch):
    """Two items and one known answer instead of all."""
    import brinell.laws.calibration as module

    monkeypatch.setattr(module, "index", lambda: {"ball": ("", ""), "clean": ("", "")})
    monkeypatch.setattr(module, "KNOWN", module.KNOWN[1:2])
    return module


def test_calibrate_says_and_keeps_what_held(capsys, tmp_path, few):
    assert calibration.latest() is None
    assert main(["calibrate", "--device", "cpu", "--out", str(tmp_path / "out.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["ok    ball", "ok    clean", "ok    one_hot_selectivity"]
    assert str(tmp_path / "home" / "calibration.json") in lines[-1]
    found = calibration.latest()
    assert found is not None and not found.failed and found.passed > 8 and found.device.startswith("cpu")
    assert json.loads((tmp_path / "out.json").read_text())["passed"] == found.passed
    assert main(audit("nets.py:one", str(tmp_path / "run"))) == 0
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["environment"]["calibration"] == str(found)
    assert f"all {found.passed} laws held" in (tmp_path / "run" / "report.html").read_text()


def test_a_law_that_does_not_hold_has_an_exit_code(capsys, monkeypatch, few):
    monkeypatch.setattr(few, "check", lambda item: [Outcome("projection", item.spec(), False, "projection lands outside")])
    assert main(["calibrate", "--device", "cpu", "--json"]) == 4
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["failed"] and len(captured.err.splitlines()) == 1 and "do not trust" in captured.err
    kept = calibration.latest()
    assert kept is not None and "laws FAILED" in str(kept) and "projection: clean" in kept.failed


# ---------------------------------------------------------------- JSON everywhere


@pytest.mark.parametrize(
    ("command", "entries"),
    [
        (["list", "--json"], None),
        (["list", "probe", "--json"], None),
        (["show", "pgd", "--json"], {"name", "version", "doc", "fields", "summary"}),
        (["report", "one", "--json"], {"directory", "report", "exit", "findings", "measurements"}),
        (audit("nets.py:one", "one", "--json"), {"directory", "report", "exit", "findings", "measurements"}),
        (audit("nets.py:one", "one", "--plan", "--json"), {"samples", "data", "probes", "cells"}),
        (["verify", "three", "--json"], {"sound", "damaged", "missing", "foreign", "unfinished"}),
    ],
)
def test_json_is_all_there_is_on_standard_output(capsys, command, entries):
    assert main(command) == 0
    found = told(capsys)
    if entries is None:
        assert all({"name", "package", "module", "summary"} <= item.keys() for item in found) and len(found) > 2
    else:
        assert entries <= found.keys()
