"""Runs that are killed by SIGKILL and runs beside each other: the next one finishes with the rows of an undisturbed run."""

import json
import signal
import subprocess
import sys
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


@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.slow)])
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
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_instants(tmp_path, seed, assert_same):
    statuses = run(tmp_path / "run", "times", str(seed))
    assert KILLED in statuses and set(statuses) <= {KILLED, 0} and statuses[-1] == 0
    assert_same(open_table(tmp_path / "run"), open_table(tmp_path / "run-timing"))
    assert_tidy(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(3))
def test_three_runs_on_one_directory_at_once(tmp_path, turn, assert_near):
    assert run(tmp_path / "run", "together") == [0, 0, 0]
    assert_near(open_table(tmp_path / "run"), open_table(tmp_path / "run-plain"))  # one has another batch size, and may be the first
    assert_tidy(tmp_path / "run")
