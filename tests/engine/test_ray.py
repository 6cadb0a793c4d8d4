"""Runs on a real Ray cluster of several nodes: the numbers of the local executor, also when workers, nodes and drivers are killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.errors import BrinellError, NetworkError, SpecError
from brinell.engine.progress import Silent

ray = pytest.importorskip("ray", reason="the extra brinell[ray] is not installed")

from brinell.engine.ray import Ray  # noqa: E402 - after the check that ray is there

PERTURBATIONS = ["gaussian_noise", "pgd(steps=4, threat=ball(eps=0.1))", "transfer(source=net(b), attack=fgsm(threat=ball(eps=0.1)))"]
PROBES, SUMMARIES = ["accuracy", "calibration", "class_selectivity"], ["bound"]
COST = {"forwards", "backwards", "seconds"}

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning"), pytest.mark.timeout(300)]


class Slow(nn.Module):
    """A class that no worker can import, in no hurry."""

    def __init__(self, seed: int, seconds: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net, self.seconds = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)), seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return self.net(x)


class Failing(Slow):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("no light")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.connect()
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def data() -> br.Dataset:
    return br.load_dataset("digits(side=8)", limit=96)


def nets(seconds: float = 0.0) -> dict[str, nn.Module]:
    return {"a": Slow(1, seconds), "b": Slow(2)}


@pytest.fixture(scope="module")
def undisturbed(data) -> br.Table:
    return br.Lab(batch_size=8, device="cpu").measure(nets(), data, PERTURBATIONS, PROBES, SUMMARIES)


def same(found: br.Table, expected: br.Table) -> None:
    assert len(found.rows) == len(expected.rows) > 20
    for row, twin in zip(found.rows, expected.rows, strict=True):
        assert {k: v for k, v in row.items() if k not in COST | {"net_digest"}} == {
            k: v for k, v in twin.items() if k not in COST | {"net_digest"}
        }
        a, b = found.array(row), expected.array(twin)
        assert (a is None) == (b is None) and (a is None or b is None or np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


class Disturbing(Silent):
    """Does something once, when `after` pieces of progress have been made."""

    def __init__(self, deed: Callable[[], object], after: int) -> None:
        self.deed, self.left = deed, after

    def advance(self, amount: float, text: str = "") -> None:
        self.left -= 1
        if self.left == 0:
            self.deed()


@pytest.mark.parametrize("executor", [Ray(), Ray(cpus=0.5)], ids=lambda executor: executor.spec())
def test_the_numbers_are_those_of_the_local_executor(cluster, data, undisturbed, executor):
    same(br.Lab(batch_size=8, device="cpu", executor=executor).measure(nets(), data, PERTURBATIONS, PROBES, SUMMARIES), undisturbed)


def workers() -> list[int]:
    """The processes of Ray that are at work on a piece."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cmdline").read_bytes().startswith(b"ray::_piece"):
                found.append(int(place.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the workers in /proc")
def test_a_killed_worker_costs_only_its_pieces(cluster, data, undisturbed):
    killed: list[int] = []

    def kill() -> None:
        for worker in workers():
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)

    lab = br.Lab(batch_size=8, device="cpu", executor=Ray(cpus=0.5), progress=Disturbing(kill, 6))
    same(lab.measure(nets(0.02), data, PERTURBATIONS, PROBES, SUMMARIES), undisturbed)
    assert killed


def test_a_killed_node_costs_only_its_pieces(cluster, data, undisturbed):
    node = cluster.add_node(num_cpus=2)
    deed = Disturbing(lambda: cluster.remove_node(node, allow_graceful=False), 6)
    lab = br.Lab(batch_size=8, device="cpu", executor=Ray(), progress=deed)
    same(lab.measure(nets(0.02), data, PERTURBATIONS, PROBES, SUMMARIES), undisturbed)
    assert deed.left < 0


DRIVER = """
import os, signal
import brinell as br
from brinell.engine.progress import Silent
from brinell.engine.ray import Ray

class Deadly(Silent):
    left = 9

    def advance(self, amount, text=""):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

data = br.load_dataset("digits(side=8)", limit=96)
net = br.load_network("mlp(widths=(32,))", shape=data.shape, classes=10, seed=3)
lab = br.Lab({place!r}, batch_size=8, device="cpu", executor=Ray({address!r}), progress=Deadly())
lab.measure(net, data, {perturbations!r}, {probes!r})
"""


def test_a_killed_driver_leaves_a_run_that_goes_on(cluster, data, tmp_path):
    place, perturbations = tmp_path / "run", PERTURBATIONS[:2]
    script = DRIVER.format(place=str(place), address=cluster.address, perturbations=perturbations, probes=PROBES)
    died = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert list(place.glob("shards/*/*.safetensors")) and not list(place.glob("readings/*"))
    net = br.load_network("mlp(widths=(32,))", shape=data.shape, classes=10, seed=3)
    again = br.Lab(place, batch_size=8, device="cpu", executor=Ray()).measure(net, data, perturbations, PROBES)
    same(again, br.Lab(batch_size=8, device="cpu").measure(net, data, perturbations, PROBES))


def test_errors_of_a_task_are_told_as_at_home(cluster, data):
    with pytest.raises(NetworkError, match=r"^[^\n]*fails on [^\n]*ZeroDivisionError: no light[^\n]*$"):
        br.Lab(batch_size=48, executor=Ray()).measure(Failing(1), data, ["clean"])
    with pytest.raises(SpecError, match="no machine of the Ray cluster has 64 cores and 0 GPUs"):
        br.Lab(executor=Ray(cpus=64)).measure(Slow(1), data, ["clean"])
    with pytest.raises(SpecError, match="1 GPUs"):
        br.Lab(executor=Ray(gpus=1)).measure(Slow(1), data, ["clean"])


def deadly(item: int) -> dict[str, Any]:
    if item == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"square": item * item}


def test_a_piece_that_kills_every_worker_ends_the_run_and_the_rest_is_kept(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("brinell.engine.ray._RETRIES", 1)
    with pytest.raises(BrinellError, match="was lost 2 times"):
        br.Lab(tmp_path, executor=Ray(cpus=0.5)).map(deadly, range(4), key=str)
    assert list(tmp_path.glob("results/*"))


def squared(item: int) -> dict[str, Any]:
    return {"square": item * item, "row": torch.arange(item + 1.0)}


def test_items_of_a_map_run_on_the_cluster(cluster, tmp_path):
    here = br.Lab(tmp_path / "a").map(squared, range(7), key=str)
    there = br.Lab(tmp_path / "b", executor=Ray(cpus=0.5)).map(squared, range(7), key=str)
    assert [row["square"] for row in there] == [row["square"] for row in here] == [n * n for n in range(7)]
    assert all(torch.equal(a["row"], b["row"]) for a, b in zip(here, there, strict=True))


def test_a_network_of_a_users_file_travels(cluster, data, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\nclass Own(nn.Sequential):\n    pass\ndef build():\n    return Own(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    net = br.load_network(f"{tmp_path / 'mine.py'}:build", shape=data.shape, classes=10)
    arguments = {"own": net}, data, ["gaussian_noise"]
    there = br.Lab(executor=Ray(cpus=0.5), batch_size=16, device="cpu").measure(*arguments)
    here = br.Lab(batch_size=16, device="cpu").measure(*arguments)
    assert [row["value"] for row in there.rows] == [row["value"] for row in here.rows]


def test_the_command_line_runs_on_the_cluster(cluster, tmp_path, capsys):
    from brinell.cli import main

    common = ["audit", "mlp", "--data", "digits(side=8)", "--limit", "40", "--perturb", "gaussian_noise", "--device", "cpu"]
    assert main([*common, "--out", str(tmp_path / "there"), "--executor", "ray", "--address", cluster.address]) == 0
    assert main([*common, "--out", str(tmp_path / "here")]) == 0
    capsys.readouterr()
    assert main(["diff", str(tmp_path / "here"), str(tmp_path / "there")]) == 0


@pytest.mark.parametrize(("cpus", "gpus"), [(0, 0), (-1, 0), (1, -1)])
def test_tasks_of_nothing_are_refused(cpus, gpus):
    with pytest.raises(SpecError, match="cannot be placed"):
        Ray(cpus=cpus, gpus=gpus)


def test_an_address_without_a_cluster_is_named(tmp_path):
    script = "import brinell as br; from brinell.engine.ray import Ray\n" \
        "d = br.load_dataset('digits(side=8)', limit=20); n = br.load_network('mlp', shape=d.shape, classes=10)\n" \
        "br.Lab(executor=Ray('127.0.0.1:1')).measure(n, d, ['clean'])"  # fmt: skip
    died = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200)
    assert "SpecError: no Ray cluster answers at '127.0.0.1:1'" in died.stderr
