"""Full disks, failing writes and damaged files: a rerun gives the undisturbed result, or one error that names the file."""

import errno
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import brinell as br
from brinell.core.errors import StoreError
from brinell.engine.table import open_table

PERTURBATIONS, PROBES, SUMMARIES = ["gaussian_noise", "pgd(steps=2, threat=ball(eps=0.1))"], ["accuracy", "class_selectivity"], ["bound"]


@pytest.fixture
def measure(data, make_net):
    def measured(place: Path) -> br.Table:
        return br.Lab(place, batch_size=20, device="cpu").measure(make_net(), data, PERTURBATIONS, PROBES, SUMMARIES)

    return measured


@pytest.mark.slow
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_every_write_may_fail(measure, tmp_path, monkeypatch, assert_same, error):
    """The k-th file cannot be put into place, for every k: the error names it, and the next run finishes."""
    undisturbed = measure(tmp_path / "plain")
    replace = Path.replace
    for k in range(1, 100):
        place, left = tmp_path / str(k), iter(range(k - 1, -1, -1))

        def failing(self: Path, target: Path, left=left) -> Path:
            if next(left, 1) == 0:
                raise OSError(error, os.strerror(error))
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", failing)
        try:
            measure(place)
        except StoreError as found:
            assert str(place) in str(found) and os.strerror(error) in str(found) and "What was finished before is kept" in str(found)
        else:
            break
        finally:
            monkeypatch.setattr(Path, "replace", replace)
        assert not [file for file in place.rglob(".*") if file.is_file()]  # no half-written file is left
        assert_same(measure(place), undisturbed)
    assert k > 15


TMPFS = "mount -t tmpfs -o size={size}k none {place} && exec {command}"


def on_a_small_disk(place: Path, size: int, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program in a namespace of its own, in which `place` is a disk of `size` KiB; what it holds in the end is at `place`.saved."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed: no small disk can be made")
    place.mkdir()
    command = " ".join(f"'{word}'" for word in arguments)
    script = f"mount -t tmpfs -o size={size}k none '{place}' || exit 77; {command}; code=$?; cp -r '{place}' '{place}.saved'; exit $code"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"this system lets nobody mount a small disk: {done.stderr.strip()[:100]}")
    return done


@pytest.mark.slow
@pytest.mark.parametrize("size", [48, 90, 150])
def test_a_full_disk_stops_the_run_with_one_line_and_loses_nothing(tmp_path, assert_same, size):
    audit = ["audit", "small_cnn", "--data", "digits(side=8)", "--limit", "200", "--batch-size", "40", "--device", "cpu", "--exact",
             "--perturb", "gaussian_noise", "fgsm(threat=ball(eps=0.1))", "--out"]  # fmt: skip
    program = [sys.executable, "-c", "import sys; from brinell.cli import main; sys.exit(main(sys.argv[1:]))", *audit]
    subprocess.run([*program, str(tmp_path / "plain")], check=True, capture_output=True)
    disk = tmp_path / "disk"
    done = on_a_small_disk(disk, size, [*program, str(disk / "run")])
    said = [line for line in done.stderr.splitlines() if line.startswith("brinell: ")]
    assert done.returncode == 2 and len(said) == 1 and "No space left on device" in said[0] and "run again" in said[0], done.stderr
    saved = Path(f"{disk}.saved") / "run"
    subprocess.run([*program, str(saved)], check=True, capture_output=True)
    assert_same(open_table(saved), open_table(tmp_path / "plain"))


def damages(content: bytes, chance: random.Random) -> list[bytes]:
    """The content cut off at three places, and with one bit flipped at six."""
    found = [content[: chance.randrange(len(content))] for _ in range(3)]
    for _ in range(6):
        place = chance.randrange(len(content))
        found.append(content[:place] + bytes([content[place] ^ (1 << chance.randrange(8))]) + content[place + 1 :])
    return found


def everything(table: br.Table) -> None:
    for row in table.rows:
        table.array(row)
    for spec in table.plan["perturbations"]:
        table.samples("net", spec)


@pytest.mark.slow
def test_a_damaged_file_is_named_or_made_again(measure, tmp_path, assert_same):
    """Every file of a finished run, damaged in nine ways: no number changes without an error that names the file."""
    undisturbed = measure(tmp_path / "run")
    files = [file for file in sorted((tmp_path / "run").rglob("*")) if file.is_file()]
    chance, named, tried = random.Random(0), 0, 0
    for file in files:
        content = file.read_bytes()
        for damaged in damages(content, chance):
            file.write_bytes(damaged)
            tried += 1
            try:
                table = open_table(tmp_path / "run")
                everything(table)
            except StoreError as error:
                assert file.name in str(error) or "is not the plan of a run" in str(error), (file, error)
                named += 1
            else:
                assert_same(table, undisturbed)  # the bit was one that holds nothing
            try:
                assert_same(measure(tmp_path / "run"), undisturbed)
            except StoreError as error:
                assert file.name in str(error) or "is not the plan of a run" in str(error), (file, error)
                file.unlink()
                assert_same(measure(tmp_path / "run"), undisturbed)
            file.write_bytes(content)
    assert named > 0.7 * tried > 70
