"""The command line: what it prints, its exit codes, and that an interrupted audit goes on."""

import csv
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from brinell.cli import main
from brinell.cli.runs import finish
from brinell.core.component import items
from brinell.core.lab import Table
from brinell.core.measurement import COLUMNS, Finding, Verdict
from brinell.engine.table import open_table

FACTORY = """
import torch
from torch import nn

def build(shape, classes):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes))

def no_network():
    return 3
"""
FGSM = "fgsm(threat=ball(eps=0.1))"
OWN = {name: cls for name, cls in items().items() if cls.__module__.startswith("brinell.")}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a user's network and its weights."""
    (tmp_path / "mine.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    with torch.random.fork_rng(devices=[]):
        exec(FACTORY, scope)
        state = scope["build"]((1, 8, 8), 10).state_dict()
    save_file({name: value * 2 for name, value in state.items()}, tmp_path / "w.safetensors")
    return tmp_path


AUDIT = ["audit", "mine.py:build", "--data", "digits(side=8)", "--limit", "40", "--perturb", FGSM, "--device", "cpu", "--out", "run"]


def changed(option: str, value: str) -> list[str]:
    """The usual audit with another value of one option."""
    made = list(AUDIT)
    made[made.index(option) + 1] = value
    return made


def line_on_error(capsys) -> str:
    """The one line that a refused command leaves."""
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("brinell: ") and "Traceback" not in captured.err, captured.err
    return lines[0]


# ---------------------------------------------------------------- audit


def test_an_audit_writes_a_report_and_says_what_it_found(folder, capsys):
    assert main([*AUDIT, "--probe", "accuracy(confidence=0.9)", "--seed", "3"]) == 0
    captured = capsys.readouterr()
    table = open_table(folder / "run")
    assert table.networks == ["mine.py:build"] and table.plan["perturbations"] == ["clean", "fgsm(threat=ball(eps=0.1, norm=inf))"]
    assert table.plan["probes"][-1] == "accuracy(confidence=0.9)" and table.plan["seed"] == 3 and table.plan["data"]["n"] == 40
    assert "mine.py:build" in captured.out and "fgsm(threat=ball(eps=0.1, norm=inf))" in captured.out
    assert captured.out.splitlines()[-1] == "report: run/report.html" and (folder / "run" / "report.html").stat().st_size > 10_000
    log = captured.err.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d measuring: ", line) for line in log) and "started" in log[0] and "finished" in log[-1]


def test_the_same_command_measures_nothing_again(folder, capsys):
    assert main(AUDIT) == 0
    first = capsys.readouterr().out
    was = {file: file.stat().st_mtime_ns for file in (folder / "run" / "readings").iterdir()}
    assert main(AUDIT) == 0
    assert capsys.readouterr().out == first
    assert was == {file: file.stat().st_mtime_ns for file in (folder / "run" / "readings").iterdir()}


def test_networks_with_weights_and_names(folder, capsys):
    nets = ["a=mine.py:build", "b=mlp(widths=(16,))", "mine.py:build", "mine.py:build"]
    assert main(["audit", *nets, "--weights", *["w.safetensors"] * 4, *AUDIT[2:]]) == 0
    table = open_table(folder / "run")
    assert table.networks == ["a", "b", "mine.py:build", "mine.py:build-2"]
    digests = [table.plan["networks"][name]["digest"] for name in table.networks]
    assert digests[0] == digests[2] == digests[3]
    assert main(changed("--out", "other")) == 0
    untrained = open_table(folder / "other")
    assert untrained.plan["networks"]["mine.py:build"]["digest"] != digests[0]
    assert table.value("accuracy", net="a") == table.value("accuracy", net="b")  # the same weights in the same structure


def test_a_plan_prints_cells_passes_and_time_and_stops(folder, capsys):
    pgd = "pgd(steps=4, threat=ball(eps=0.1))"
    assert main([*AUDIT, "--perturb", pgd, "--plan"]) == 0
    captured = capsys.readouterr()
    assert not (folder / "run").exists() and captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0].startswith("3 cells of 40 samples from digits(side=8) (stratified sample of 40 of 539, seed 0); probes: ")
    rows = [line.split()[-3:] for line in lines[2:-1]]
    assert [row[:2] for row in rows[1:]] == [["2", "1"], ["6", "4"]] and int(rows[0][0]) >= 1  # probes may make passes of their own
    forwards, backwards = (40 * sum(int(row[k]) for row in rows) for k in (0, 1))
    assert re.fullmatch(rf"in all {forwards} forward and {backwards} backward passes; expected \d+ s on cpu", lines[-1])


def test_the_quick_suite_is_the_default(folder, capsys):
    assert main(["audit", "mine.py:build", "--data", "digits(side=8)", "--plan"]) == 0
    out = capsys.readouterr().out
    assert "cells of 512 samples" in out and "contrast(severity=5)" in out and "pgd(steps=20, threat=ball(eps=8/255, norm=inf))" in out
    assert (
        main(["audit", "mine.py:build", "--data", "digits(side=8)", "--suite", "standard", "--perturb", FGSM, "--limit", "9", "--plan"])
        == 0
    )
    out = capsys.readouterr().out
    assert "cells of 9 samples" in out and "strongest(threat=ball(eps=8/255" in out and "fgsm(threat=ball(eps=0.1, norm=inf))" in out


@pytest.mark.slow
def test_the_quick_suite_end_to_end(folder, capsys):
    assert main(["audit", "mine.py:build", "--data", "digits(side=8)", "--limit", "60", "--suite", "quick", "--out", "run"]) in (0, 4)
    table = open_table(folder / "run")
    assert table.plan["suite"] == "quick" and not table.select(status="failed") and len(table.findings) > 3
    assert len({row["perturbation"] for row in table.rows} - {""}) == len(table.plan["perturbations"]) > 15


def test_another_plan_in_the_directory_is_refused(folder, capsys):
    assert main(AUDIT) == 0
    capsys.readouterr()
    assert main([*AUDIT, "--seed", "1"]) == 2
    assert "run holds another run: its data, seed differ from what is asked now" in line_on_error(capsys)  # the seed draws the samples
    assert main(changed("--perturb", "fgsm")) == 2
    assert "run holds another run: its perturbations, full, versions differ" in line_on_error(capsys)


def test_a_damaged_run_is_refused(folder, capsys):
    assert main(AUDIT) == 0
    capsys.readouterr()
    for file in (folder / "run" / "readings").iterdir():
        file.write_bytes(file.read_bytes()[:-20])
    for command in (AUDIT, ["report", "run"], ["export", "run"]):
        assert main(command) == 2
        assert re.search(r"run/readings/\w+.parquet is damaged .* delete it and run again", line_on_error(capsys))


def test_a_contradiction_has_an_exit_code_of_its_own(tmp_path, capsys):
    for name, code in (("contradiction", 4), ("gradient_masking", 0)):
        table = Table({"networks": {"a": {}}, "perturbations": ["clean"]}, [], [Finding(name, Verdict.FAIL, "m", net="a")])
        assert finish(table, tmp_path) == code


# ---------------------------------------------------------------- processes


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "import sys; from brinell.cli import main; sys.exit(main())", *arguments]


def _hear_interrupts():
    """A shell that starts the tests in the background makes them, and all they start, deaf to SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_leaves_a_run_that_goes_on(folder):
    """The interrupt comes after the first shards are stored; the printed command finishes the run."""
    arguments = ["audit", "mine.py:build", "--data", "digits(side=8)", "--out", "my run", "--batch-size", "32", "--device", "cpu"]
    slow = [*arguments, "--perturb", "pgd(steps=150, restarts=9, threat=ball(eps=0.001))", FGSM]
    process = subprocess.Popen(command(*slow), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_interrupts)
    deadline = time.monotonic() + 120
    while not list(Path("my run").glob("shards/*/*.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err and out == ""
    last = err.splitlines()[-1]
    said, _, again = last.partition("Continue with the same command: ")
    assert said == "brinell: interrupted; what is finished is kept. " and shlex.split(again) == ["brinell", *slow]
    assert "stopped at" in err.splitlines()[-2]
    kept = {file: file.stat().st_mtime_ns for file in Path("my run").glob("shards/*/*.safetensors")}
    assert kept
    assert open_table("my run").rows == []
    quick = ["audit", "mine.py:build", "--data", "digits(side=8)", "--limit", "64", *arguments[4:], "--perturb", FGSM]
    assert main(quick) == 2  # it is another plan: the run that was interrupted is not overwritten
    assert kept == {file: file.stat().st_mtime_ns for file in Path("my run").glob("shards/*/*.safetensors")}


@pytest.mark.slow
def test_an_interrupted_audit_ends_like_an_undisturbed_one(folder):
    arguments = [*AUDIT[:-2], "--batch-size", "8", "--perturb", "pgd(steps=60, restarts=3, threat=ball(eps=0.001))"]
    assert main([*arguments, "--out", "undisturbed"]) == 0
    interrupted = 0
    for _ in range(20):
        process = subprocess.Popen(
            command(*arguments, "--out", "run"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_interrupts
        )
        files = len(list(Path("run").rglob("*.*")))
        while process.poll() is None and len(list(Path("run").rglob("*.*"))) < files + 6:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (0, 130) and "Traceback" not in err, err
        if process.returncode == 0:
            break
        interrupted += 1
    assert interrupted > 1
    rows = [[{**row, "forwards": 0, "backwards": 0, "seconds": 0} for row in open_table(place).rows] for place in ("run", "undisturbed")]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_refused_command_in_a_shell(folder):
    done = subprocess.run(command("audit", "nothing", "--out", "run"), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_error():
    line = f"{shlex.join(command('list'))} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout.splitlines()) == 1


# ---------------------------------------------------------------- list, show, report, export


def test_list_shows_every_item_in_one_line(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split()[0]: line for line in lines if line.startswith("  ")}
    assert shown.keys() >= OWN.keys()
    assert all(shown[name].endswith(cls.summary_line()) and cls.summary_line() for name, cls in OWN.items())
    assert {line for line in lines if not line.startswith(" ")} >= {
        "core:",
        "data:",
        "models:",
        "perturb:",
        "probe:",
        "summary:",
        "harden:",
    }


@pytest.mark.parametrize("kind", ["data", "models", "perturb", "probe", "summary", "harden"])
def test_list_of_one_kind(capsys, kind):
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{kind}:"
    assert {line.split()[0] for line in lines[1:]} == {name for name, cls in OWN.items() if cls.__module__.startswith(f"brinell.{kind}.")}


@pytest.mark.parametrize("name", OWN)
def test_show_every_item(capsys, name):
    assert main(["show", name]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{name} (version {OWN[name].revision}, {OWN[name].__module__})\n\n")
    fields = out[out.rindex("Fields:") :].splitlines()[1:]
    assert [line.split(":")[0].strip() for line in fields] == sorted(OWN[name].model_fields)
    assert all("required" in line or "default " in line for line in fields)


def test_report_of_a_finished_and_of_an_unfinished_run(folder, capsys):
    assert main(AUDIT) == 0
    said = capsys.readouterr().out
    (folder / "run" / "report.html").unlink()
    assert main(["report", "run"]) == 0
    assert capsys.readouterr().out == said and (folder / "run" / "report.html").exists()
    for file in (folder / "run" / "readings").iterdir():
        file.unlink()
    assert main(["report", "run"]) == 0


def read(file: Path) -> list[dict]:
    if file.suffix == ".json":
        return json.loads(file.read_text())
    if file.suffix == ".csv":
        with file.open(newline="") as lines:
            return list(csv.DictReader(lines))
    import duckdb

    found = duckdb.sql(f"SELECT * FROM '{file}'")
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


@pytest.mark.parametrize("form", ["csv", "parquet", "json"])
def test_export_and_read_back(folder, capsys, form):
    assert main(AUDIT) == 0
    capsys.readouterr()
    assert main(["export", "run", "--format", form]) == 0
    assert capsys.readouterr().out == f"run/measurements.{form}\n"
    rows, table = read(folder / "run" / f"measurements.{form}"), open_table("run")
    assert len(rows) == len(table) > 20
    for got, want in zip(rows, table.rows, strict=True):
        assert list(got) == list(COLUMNS)
        for column in COLUMNS:
            value = want[column]
            if form == "csv":
                value = "" if value is None else value if isinstance(value, str) else repr(value)
            assert got[column] == value
    assert main(["export", "run", "--format", form, "--out", f"sub/x.{form}"]) == 0
    assert read(folder / "sub" / f"x.{form}") == rows


def test_help_has_examples(capsys):
    for arguments, words in (
        (["--help"], ["brinell demo", "Exit codes", "audit", "export"]),
        (["audit", "--help"], ["Examples", "--suite quick", "--plan"]),
    ):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert all(word in out for word in words)


@pytest.mark.slow
def test_the_demo(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo")]) in (0, 4)
    out, err = capsys.readouterr()
    table = open_table(tmp_path / "demo")
    assert table.value("accuracy") >= 0.97 and (tmp_path / "demo" / "report.html").exists()
    assert out.splitlines()[-1].startswith("report: ") and "resnet20.safetensors" in err
    saved = tmp_path / "demo" / "resnet20.safetensors"
    assert main(["audit", str(saved), "--data", "digits(side=32, split=test)", "--perturb", "clean", "--out", str(tmp_path / "again")]) == 0
    assert open_table(tmp_path / "again").value("accuracy") > 0.95
