"""Full disks, failing writes and damaged files: a rerun gives the undisturbed result, or one error that names the file."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import brinell as br
from brinell.core.errors import StoreError
from brinell.core.measurement import COLUMNS
from brinell.engine.store import Signature, Store
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


def flipped(content: bytes, places: range) -> Iterator[bytes]:
    """The content with one bit flipped, for every bit of every place."""
    for place in places:
        for bit in range(8):
            yield content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


def written_rows(place: Path) -> Store:
    store = Store(place)
    row = {**dict.fromkeys(COLUMNS), "net": "net", "value": 0.25, "n": 3}
    store.write_rows("rows.parquet", [row], beside={"arrays/a.safetensors": "0123456789abcdef", "samples/a.parquet": "fedcba9876543210"})
    return store


@pytest.mark.parametrize("was, now", [
    (b'": "0123', b'":`"0123'), (b'"0123456789abcdef"', b'[123456789012345 ]'), (b"0123456789abcdef", b"0123456789abcdee"),
    (b"arrays/a", b"arrays/b"), (b"digest", b"eigest"), (b"beside", b"besidf"), (b"seal", b"se\xffl"), (b"arrays/", b"\xffrrays/"),
])  # fmt: skip
def test_damaged_metadata_are_named(tmp_path, was, now):
    store, file = written_rows(tmp_path), tmp_path / "rows.parquet"
    content = file.read_bytes()
    assert was in content
    assert len(was) == len(now)
    file.write_bytes(content.replace(was, now))
    with pytest.raises(StoreError, match=r"rows\.parquet is damaged"):
        store.signature("rows.parquet")
    with pytest.raises(StoreError, match=r"rows\.parquet is damaged"):
        store.read_rows("rows.parquet")


def test_metadata_of_older_versions_are_read(tmp_path):
    """They hold no seal over the digests of the files beside, or nothing at all."""
    store, rows = written_rows(tmp_path), written_rows(tmp_path).read_rows("rows.parquet")
    own = store.signature("rows.parquet")
    digests = f"digest: '{own.digest}', beside: '{json.dumps(own.beside)}'"
    for name, noted, expected in [("old", f", KV_METADATA {{{digests}}}", own), ("oldest", "", Signature(""))]:
        store.duckdb.execute(f"COPY (FROM '{tmp_path}/rows.parquet') TO '{tmp_path}/{name}.parquet' (FORMAT parquet{noted})")
        assert store.signature(f"{name}.parquet") == expected and store.read_rows(f"{name}.parquet") == rows


@pytest.mark.slow
def test_every_bit_of_the_footer_of_a_file(tmp_path):
    """Whatever bit is flipped there: an error that names the file, or the same rows beside the same files (or, at worst, no digest)."""
    store, file = written_rows(tmp_path), tmp_path / "rows.parquet"
    rows, signature = store.read_rows("rows.parquet"), store.signature("rows.parquet")
    content, refused = file.read_bytes(), 0
    for damaged in flipped(content, range(len(content) - 500, len(content))):
        file.write_bytes(damaged)
        try:
            assert store.read_rows("rows.parquet") == rows and store.signature("rows.parquet") in (signature, Signature(""))
        except StoreError as error:
            assert "rows.parquet is damaged" in str(error), error
            refused += 1
    assert refused > 2000


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
