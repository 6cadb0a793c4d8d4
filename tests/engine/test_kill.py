"""Runs that are killed by SIGKILL and runs beside each other: the next one finishes with the rows of an undisturbed run."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from brinell.engine.table import open_table

SCRIPT = Path(__file__).with_name("killed_run.py")
KILLED = -signal.SIGKILL


def run(place: Path, *how: str) -> list[int]:
    done = subprocess.run([sys.executable, str(SCRIPT), str(place), *how], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def assert_tidy(place: Path) -> None:
    """Nothing is left of shards, and beside every finished file only hidden ones of killed writers."""
    assert not (place / "shards").exists()
    suffixes = {"readings": ".parquet", "samples": ".parquet", "arrays": ".safetensors"}
    for folder, suffix in suffixes.items():
        strange = [file.name for file in (place / folder).iterdir() if not file.name.startswith(".") and file.suffix != suffix]
        assert strange == []


@pytest.mark.parametrize("stride", [15, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_every_write(tmp_path, stride, assert_same):
    """The process dies right before or right after it puts a file into place: at each of them, twice in a row."""
    statuses = run(tmp_path, "writes", str(stride))
    undisturbed = open_table(tmp_path / "plain")
    assert len(undisturbed.rows) > 50
    kills = statuses[:-3]
    assert statuses[-3:] == [0, 0, 0] and len(kills) >= 3 * 15 // stride  # plan, 3 cells of 2 shards and 3 files, 3 of the summaries
    assert kills == [KILLED, KILLED, 0] * (len(kills) // 3)
    runs = [place for place in tmp_path.iterdir() if place.name != "plain"]
    assert len(runs) == len(statuses) // 3
    for place in runs:
        assert_same(open_table(place), undisturbed)
        assert_tidy(place)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_two_hundred_random_instants(tmp_path, assert_same):
    statuses = run(tmp_path, "times", "200")
    assert statuses.count(KILLED) >= 200 and set(statuses) == {KILLED, 0} and statuses[-1] == 0
    undisturbed = open_table(tmp_path / "plain")
    for number in range(statuses.count(0)):
        assert_same(open_table(tmp_path / str(number)), undisturbed)
        assert_tidy(tmp_path / str(number))


AUDIT = ["audit", "mlp", "--data", "digits(side=8)", "--limit", "300", "--batch-size", "20", "--device", "cpu", "--exact",
         "--perturb", "pgd(steps=10, threat=ball(eps=0.1))", "gaussian_noise", "--out"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_whole_program_killed_twenty_times(tmp_path, assert_same):
    """From its start, imports included, to some time of its work; every one goes on where the one before was cut off."""
    program = [sys.executable, "-c", "import sys; from brinell.cli import main; sys.exit(main(sys.argv[1:]))", *AUDIT]
    began = time.monotonic()
    subprocess.run([*program, str(tmp_path / "plain")], check=True, capture_output=True)
    long, chance, killed, place = time.monotonic() - began, random.Random(0), 0, 0
    while killed < 20:
        started = subprocess.Popen([*program, str(tmp_path / str(place))], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.3 * long, long))
        started.kill()
        killed += (code := started.wait()) == KILLED
        place += code == 0  # it was faster: the next one begins anew
    subprocess.run([*program, str(tmp_path / str(place))], check=True, capture_output=True)
    for number in range(place + 1):
        assert_same(open_table(tmp_path / str(number)), open_table(tmp_path / "plain"))
        assert_tidy(tmp_path / str(number))


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(3))
def test_three_runs_on_one_directory_at_once(tmp_path, turn, assert_near):
    assert run(tmp_path / "run", "together") == [0, 0, 0]
    assert_near(open_table(tmp_path / "run"), open_table(tmp_path / "run-plain"))  # one has another batch size, and may be the first
    assert_tidy(tmp_path / "run")
