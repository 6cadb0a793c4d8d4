"""Runs on several devices: the numbers of one device, also where networks draw random numbers; failures and deaths are told."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import brinell as br
from brinell.core import precision
from brinell.core.errors import BrinellError, NetworkError, SpecError
from brinell.core.network import Network
from brinell.engine.arguments import pick_device, pick_executor
from brinell.engine.devices import Devices, _visible
from brinell.engine.local import Local
from brinell.engine.progress import Silent

PERTURBATIONS = ["gaussian_noise", "pgd(steps=4, threat=ball(eps=0.1))", "transfer(source=net(b), attack=fgsm(threat=ball(eps=0.1)))"]
PROBES, SUMMARIES = ["accuracy", "calibration", "class_selectivity", "diagnostics"], ["bound"]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Functions of this file are found by other processes, as those of a user's own file are."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2])


class Noisy(nn.Module):
    """Draws random numbers in every pass, from torch's own state, as nobody should; says so on standard output."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sys.stdout.write("a pass\n")
        return self.net(x + 0.1 * torch.randn_like(x))


class Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("no light")


@pytest.fixture(scope="module")
def two() -> Devices:
    return Devices(["cpu", "cpu"])


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_the_rows_are_those_of_one_device(two, data, make_net, assert_same, one_thread):
    nets = {"a": make_net(seed=1), "b": make_net(seed=2), "noisy": Noisy()}
    arguments = nets, data, PERTURBATIONS, PROBES, SUMMARIES
    there = br.Lab(batch_size=8, device="cpu", executor=two).measure(*arguments)
    assert_same(there, br.Lab(batch_size=8, device="cpu").measure(*arguments))
    assert len(there.rows) > 40


def processes(two: Devices) -> list[int]:
    return [worker.process.pid for worker in two._workers]


@pytest.mark.slow
def test_processes_are_used_again_and_a_run_of_one_piece_needs_none(two, data, make_net):
    br.Lab(batch_size=8, device="cpu", executor=two).measure(make_net(), data)
    first = processes(two)
    br.Lab(batch_size=20, device="cpu", executor=two).measure(make_net(), data)
    assert processes(two) == first and len(first) == 2
    alone = Devices(["cpu", "cpu"])
    br.Lab(device="cpu", executor=alone).measure(make_net(), data)
    assert not alone._workers


def squared(item: int) -> dict[str, Any]:
    return {"square": item * item, "where": os.getpid(), "row": torch.arange(item + 1.0)}


@pytest.mark.slow
def test_items_of_a_map_are_shared_out(two, tmp_path):
    there = br.Lab(tmp_path, executor=two).map(squared, range(9), key=str)
    assert [row["square"] for row in there] == [n * n for n in range(9)] and {row["where"] for row in there} == set(processes(two))
    assert all(torch.equal(row["row"], torch.arange(n + 1.0)) for n, row in enumerate(there))


def failing(item: int) -> dict[str, Any]:
    if item == 3:
        raise KeyError("gone astray")
    return {"item": item}


def deadly(item: int) -> dict[str, Any]:
    if item == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"item": item}


@pytest.mark.slow
def test_failures_are_told_and_the_executor_goes_on(two, data, tmp_path):
    with pytest.raises(NetworkError, match=r"^[^\n]*fails on [^\n]*ZeroDivisionError: no light[^\n]*$"):
        br.Lab(batch_size=8, device="cpu", executor=two).measure(Failing(), data)
    with pytest.raises(BrinellError, match=r"a piece of the run failed: KeyError: 'gone astray'") as caught:
        br.Lab(tmp_path, executor=two).map(failing, range(6), key=str)
    assert "in failing" in "".join(caught.value.__notes__)  # where in the user's function
    with pytest.raises(BrinellError, match=r"measured on cpu \(device [12] of 2\) was ended by signal 9; what is finished is kept"):
        br.Lab(tmp_path, executor=two).map(deadly, range(6), key=str)
    assert br.Lab(executor=two).map(squared, range(3), key=str)[2]["square"] == 4


class Interrupting(Silent):
    def __init__(self) -> None:
        self.left = 4

    def advance(self, amount: float, text: str = "") -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_run_ends_its_processes_and_goes_on(two, data, make_net, tmp_path, assert_same, one_thread):
    arguments = make_net(), data, PERTURBATIONS[:2], PROBES
    with pytest.raises(KeyboardInterrupt):
        br.Lab(tmp_path, batch_size=8, device="cpu", executor=two, progress=Interrupting()).measure(*arguments)
    assert not two._workers and list(tmp_path.glob("shards/*/*.safetensors"))
    again = br.Lab(tmp_path, batch_size=8, device="cpu", executor=two).measure(*arguments)
    assert_same(again, br.Lab(batch_size=8, device="cpu").measure(*arguments))


DRIVER = """
import os, signal, sys
import brinell as br
from brinell.engine.devices import Devices
from brinell.engine.progress import Silent
from torch import nn

class Own(nn.Sequential):  # of a script without a guard
    pass

class Deadly(Silent):
    left = 5

    def advance(self, amount, text=""):
        self.left -= 1
        if self.left == 0:
            print(*(worker.process.pid for worker in two._workers), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

data, two = br.load_dataset("digits(side=8)", limit=60), Devices(["cpu", "cpu"])
br.Lab(sys.argv[1], batch_size=4, device="cpu", executor=two, progress=Deadly()).measure(Own(nn.Flatten(), nn.Linear(64, 10)), data)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills by signal")
def test_processes_end_when_the_one_that_started_them_is_killed(tmp_path):
    (tmp_path / "script.py").write_text(DRIVER)
    died = subprocess.run([sys.executable, str(tmp_path / "script.py"), str(tmp_path / "run")], capture_output=True, text=True, timeout=120)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert list(tmp_path.glob("run/shards/*/*.safetensors"))
    left = [int(pid) for pid in died.stdout.split()]
    assert len(left) == 2
    until = time.monotonic() + 30
    while any(alive(pid) for pid in left) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in left)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # one that nobody waits for is dead all the same
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - no path of ours
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["meta"], "device 'meta' is not available here; use one of: auto, "),
        (["cpu", "cuda:7"], "'cuda:7' is not available"),
        ([], "needs devices of one kind; got none"),
    ],
)  # fmt: skip
def test_devices_that_cannot_be_used(names, said):
    with pytest.raises(SpecError, match=said):
        Devices(names)


@pytest.fixture
def three_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


def test_all_gpus_are_used_unless_one_is_named(three_gpus, monkeypatch):
    for name in ("cuda", "auto"):
        chosen = pick_executor("local", device=name)
        assert isinstance(chosen, Devices) and [str(device) for device in chosen.devices] == ["cuda:0", "cuda:1", "cuda:2"]
        assert isinstance(br.Lab(device=name).executor, Devices)
    assert isinstance(pick_executor("local", device="cuda:1"), Local) and isinstance(pick_executor("local", device="cpu"), Local)
    with pytest.raises(SpecError, match="needs devices of one kind; got cpu and cuda"):
        Devices(["cpu", "cuda:1"])
    with pytest.raises(SpecError, match="'cuda:7' is not available here; cuda devices number from 0 to 2"):
        pick_device("cuda:7")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert isinstance(pick_executor("local", device="cuda"), Local)


@pytest.mark.parametrize(
    ("visible", "name", "expected"), [(None, "cuda:2", "2"), ("5, 7,9", "cuda:1", "7"), ("GPU-a,GPU-b", "cuda:1", "GPU-b")]
)
def test_a_process_sees_its_own_gpu_alone(monkeypatch, visible, name, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _visible(torch.device(name)) == {"CUDA_VISIBLE_DEVICES": expected} and _visible(torch.device("cpu")) == {}


@pytest.mark.parametrize(
    "name", ["cuda:7", "cuda", "mps", "mps:0", "gpu", "", "cpu:3", "cuda:-1", "cuda:x", "a b", "tpu:0", "meta", "\u202ecpu"]
)
def test_a_device_that_is_not_here_is_named_with_what_is(name, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SpecError, match=r"is not available here; (use one of: auto, cpu|cpu devices number from 0 to 0)"):
        br.Lab(device=name)
    from brinell.cli import main

    assert main(["audit", "mlp", "--data", "digits(side=8)", "--limit", "20", "--device", name, "--out", str(tmp_path)]) == 2
    assert "is not available here" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_choice_of_arithmetic_travels(two, tmp_path):
    """A copy in another process would time the network anew, and might come to another answer."""
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(64, 2000), nn.ReLU(), nn.Linear(2000, 10)))
    for choice in (True, False):
        precision.decide(net, choice)
        asked = [(net.frozen_copy(),)] * 4
        assert [found for _, (found,) in two.run(answers, (), asked)] == [choice] * 4


def answers(net: Network) -> list[tuple[bool]]:
    return [(precision.drafts(net, torch.rand(1, 64)),)]
