"""Common mistakes: each gets exit code 2 and one line that names the remedy; nothing is measured, nothing is left behind."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from brinell.cli import main

NETS = """
import torch
from torch import nn

def build(shape, classes):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

def colour(shape, classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, classes))

def ten(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def no_network():
    return 3

def needs_more():
    import nothing_installed

def softmaxed(shape, classes):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes), nn.Softmax(1))
"""


class RunsCode:
    """What a hostile checkpoint holds."""

    def __reduce__(self):
        return os.system, ("touch was_run",)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with files that people have, and files that went wrong."""
    root = tmp_path_factory.mktemp("mistakes")
    (root / "nets.py").write_text(NETS)
    (root / "typo.py").write_text("def build(:\n")
    x, y = np.linspace(0, 1, 40 * 64, dtype=np.float32).reshape(40, 1, 8, 8), np.arange(40) % 10
    arrays = {
        "good": (x, y), "normalised": ((x - 0.5) / 0.25, y), "levels": (x * 255, y), "nan": (np.where(x == 1, np.nan, x)[::-1], y),
        "from_one": (x, y + 1), "negative": (x, y - 1), "one_hot": (x, np.eye(10)[y]), "short": (x, y[:-1]), "flat": (x.reshape(40, 64), y),
    }  # fmt: skip
    for name, (inputs, labels) in arrays.items():
        np.savez(root / f"{name}.npz", x=inputs, y=labels)
    np.savez(root / "other_names.npz", images=x, targets=y)
    state = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict()
    save_file(state, root / "w.safetensors")
    torch.save(state, root / "w.pt")
    torch.save({f"backbone.{name}": value for name, value in state.items()}, root / "old.pt")
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 7)).state_dict(), root / "seven.pt")
    torch.save({"optimizer": {"step": torch.tensor(1.0)}}, root / "optimizer.pt")
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), root / "whole.pt")
    (root / "hostile.pt").write_bytes(pickle.dumps(RunsCode()))
    (root / "half.safetensors").write_bytes((root / "w.safetensors").read_bytes()[:100])
    (root / "bad.parquet").write_bytes(b"no parquet at all")
    (root / "empty").mkdir()
    return root


AUDIT = ["audit", "nets.py:build", "--data", "digits(side=8)", "--limit", "20", "--device", "cpu", "--perturb", "clean", "--out", "run"]


def audit(*more: str, net: str = "nets.py:build", **options: str) -> list[str]:
    """The usual audit with another network, other options, and more."""
    made = [AUDIT[0], net, *AUDIT[2:]]
    for option, value in options.items():
        made[made.index(f"--{option}") + 1] = value
    return [*made, *more]


MISTAKES = {
    # networks
    "no network": (["audit", "--data", "digits"], "no network was named; try `brinell audit resnet20 --weights FILE --data digits`"),
    "typo in the architecture": (audit(net="resnet21"), "resnet20, resnet18? (`brinell list` shows all)"),
    "wrong path of the code": (audit(net="nest.py:build"), "there is no file nest.py (seen from"),
    "no function named": (audit(net="nets.py"), "name the function in it that makes the network, as in nets.py:build"),
    "no such function": (audit(net="nets.py:make"), "has no function 'make'; it has build, colour, ten"),
    "a function that makes none": (audit(net="nets.py:no_network"), "returned int"),
    "code with a syntax error": (audit(net="typo.py:build"), "SyntaxError: invalid syntax (typo.py, line 1)"),
    "a package that is missing": (audit(net="nets.py:needs_more"), "No module named 'nothing_installed'"),
    "an extra that is missing": (audit(net="timm:resnet50"), "pip install 'brinell[models]'"),
    "a folder as network": (audit(net="empty"), "empty is a folder; name an architecture (`brinell list models`)"),
    "a name without a network": (audit(net="a="), "'a=' names no network; name an architecture"),
    "colour network, grey data": (audit(net="nets.py:colour"), "but got 1 channels instead. Check channels, side and normalisation"),
    "a network for other data": (["audit", "resnet20", "--data", "npz('flat.npz')", "--out", "run"], "Use mlp for vectors"),
    # weights
    "missing weights": (audit("--weights", "gone.pt"), "there is no weights file gone.pt (seen from"),
    "a folder as weights": (audit("--weights", "empty"), "empty is a folder, not a weights file; name the file in it"),
    "weights as network": (audit(net="w.pt"), "`brinell audit resnet20 --weights w.pt`"),
    "tensors without a recipe": (audit(net="w.safetensors"), "`brinell audit resnet20 --weights w.safetensors`"),
    "weights for too few networks": (audit("--weights", "w.pt", "w.pt"), "1 networks but 2 weights files; give one --weights file per"),
    "old checkpoint": (audit("--weights", "old.pt"), "unexpected (backbone.1.weight, backbone.1.bias)"),
    "wrong class count": (audit("--weights", "seven.pt"), "tells 7 classes apart, but 10 are asked for"),
    "optimiser state only": (audit("--weights", "optimizer.pt"), "save them with torch.save(net.state_dict(), path)"),
    "a pickled network": (audit("--weights", "whole.pt"), "save the weights alone: torch.save(net.state_dict(), path)"),
    "a checkpoint that runs code": (audit("--weights", "hostile.pt"), "opening the rest could run code; nothing of it was run"),
    "half a download": (audit("--weights", "half.safetensors"), "half.safetensors"),
    # data
    "typo in the data": (audit(data="digit"), "did you mean digits"),
    "a mere path": (audit(data="good.npz"), "--data \"npz(path='good.npz')\""),
    "a path without quotes": (audit(data="npz(path=good.npz)"), "such as a path, goes in quotes"),
    "missing data": (audit(data="npz('gone.npz')"), "gone.npz"),
    "missing data set": (audit(data="cifar10(path='gone')"), "cs.toronto.edu/~kriz/cifar.html"),
    "empty folder": (audit(data="folder(path='empty')"), "folder() reads path/<class name>/<image>"),
    "unreadable parquet": (audit(data="parquet(path='bad.parquet')"), "bad.parquet cannot be read as Parquet"),
    "normalised data": (audit(data="npz('normalised.npz')"), "normalisation belongs inside the network"),
    "levels from 0 to 255": (audit(data="npz('levels.npz')"), "inputs must lie in [0, 1]. Rescale them"),
    "holes in the data": (audit(data="npz('nan.npz')"), "row 0 holds NaN"),
    "labels from one": (audit(net="nets.py:ten", data="npz('from_one.npz')"), "labels seem to number from 1; subtract 1"),
    "negative labels": (audit(data="npz('negative.npz')"), "has label -1, outside 0..8"),
    "one-hot labels": (audit(data="npz('one_hot.npz')"), "expected one whole number per row"),
    "a label too few": (audit(data="npz('short.npz')"), "'x' has 40 rows but 'y' has 39"),
    "other names in the file": (audit(data="npz('other_names.npz')"), "(arrays: images, targets); say which with x= and y="),
    "an attack as data": (audit(data="pgd"), "a source is wanted here"),
    # perturbations and probes
    "typo in the perturbation": (audit(perturb="gausian_noise(severity=3)"), "did you mean gaussian_noise"),
    "unknown field": (audit(perturb="pgd(iterations=3)"), "no field 'iterations' (fields: "),
    "eps below zero": (audit(perturb="pgd(threat=ball(eps=-0.1))"), "eps=-0.1: Input should be greater than or equal to 0"),
    "no steps": (audit(perturb="pgd(steps=0)"), "greater than or equal to 1"),
    "severity below one": (audit(perturb="gaussian_noise(severity=-1)"), "severity=-1: Input should be greater than or equal to 1"),
    "severity above five": (audit(perturb="gaussian_noise(severity=6)"), "severity=6: Input should be less than or equal to 5"),
    "no spec": (audit(perturb="pgd steps=3"), "A spec looks like 'pgd(steps=40, goal=misclassify)'"),
    "code as spec": (audit(perturb="__import__('os')"), "__import__"),
    "a probe as perturbation": (audit(perturb="accuracy"), "'accuracy' is a probe, but a perturbation is wanted here"),
    "typo in the probe": (audit("--probe", "acuracy"), "did you mean accuracy"),
    # options
    "unknown command": (["audti"], "audti"),
    "unknown option": (audit("--epsilon", "3"), "--epsilon"),
    "unknown suite": (audit("--suite", "fast"), 'Choose from: "quick", "standard", "full"'),
    "no number": (audit(limit="few"), "--limit"),
    "no samples": (audit(limit="0"), "give at least 1"),
    "no batch": (audit("--batch-size", "0"), "give at least 1"),
    "a device that is absent": (audit(device="abacus"), "device 'abacus' is not available here; use one of: auto, "),
    "out is a file": (audit(out="nets.py"), "cannot use nets.py as a run directory: File exists. Choose another --out"),
    # runs
    "report of nothing": (["report", "gone"], "gone is no directory; give the --out of an earlier run"),
    "report of another folder": (["report", "empty"], "empty is not a run directory"),
    "unknown format": (["export", "empty", "--format", "xls"], 'Choose from: "csv", "parquet", "json"'),
    "comparison with nothing": (["diff", "gone", "empty"], "gone is no directory"),
    "a pair of one": (["diff", "empty", "empty", "--pair", "a"], "write NAME_IN_A=NAME_IN_B"),
    "gate without requirement": (["gate", "empty"], "nothing is required; give --require: a requirement looks like"),
    "gate that compares nothing": (["gate", "empty", "--require", "accuracy"], 'looks like "low(accuracy['),
    "gate of a folder": (["gate", "empty", "--require", "accuracy >= 0"], "empty is not a run directory"),
    "verify nothing": (["verify", "gone"], "gone is no directory"),
    "unknown item": (["show", "pdg"], "did you mean pgd"),
    "unknown kind": (["list", "attacks"], "attacks"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_with_the_remedy(place, monkeypatch, capsys, mistake):
    monkeypatch.chdir(place)
    before = sorted(place.rglob("[!_]*"))
    arguments, remedy = MISTAKES[mistake]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("brinell: ") and captured.out == "", captured.err
    assert remedy in lines[0] and "Traceback" not in lines[0] and len(lines[0]) < 700, lines[0]
    left = [file for file in sorted(place.rglob("[!_]*")) if file not in before and "__pycache__" not in file.parts]
    assert all(file == place / "run" for file in left), left  # at most an empty folder, which the corrected command uses


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_absent(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(audit(device="cuda")) == 2
    assert "device 'cuda' is not available here; use one of: auto, cpu" in capsys.readouterr().err


def test_the_corrected_command_runs_in_the_same_directory(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(audit(net="nets.py:colour", out="corrected")) == 2
    assert main(audit(out="corrected")) == 0
    assert main(audit(out="corrected", perturb="fgsm")) == 2
    assert "corrected holds another run: its perturbations, full, versions differ from what is asked now" in capsys.readouterr().err


def test_probabilities_for_logits_are_a_finding(place, monkeypatch, capsys):
    """That a network ends in a softmax is no error, but what is measured may be wrong: the last screen says so."""
    monkeypatch.chdir(place)
    assert main(audit(net="nets.py:softmaxed", out="softmaxed")) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "probabilities" in said or "softmax" in said.lower(), said


def test_there_are_twenty_at_least():
    assert len(MISTAKES) >= 20
