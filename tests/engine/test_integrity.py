"""`verify`: every kind of damage to a run directory is found and named, and nothing is when there is none."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import brinell as br
from brinell.core.errors import StoreError
from brinell.engine.integrity import integrity
from brinell.engine.plan import keys_of
from brinell.engine.store import Store, digest_of

FGSM = "fgsm(threat=ball(eps=0.1))"


@pytest.fixture(scope="module")
def finished(make_net, data, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "done"
    lab = br.Lab(root, batch_size=32)
    lab.measure({"a": make_net(), "b": make_net(seed=1)}, data, [FGSM], ["accuracy", "class_selectivity"], ["bound"])
    lab.map(lambda item: {"value": item}, [1], key=str)
    return root


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def one(run: Path, pattern: str) -> tuple[Path, str]:
    file = sorted(run.glob(pattern))[0]
    return file, file.relative_to(run).as_posix()


def test_a_finished_run_is_sound_and_is_not_touched(run):
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in run.rglob("*") if file.is_file()}
    found = integrity(run)
    assert found.sound and not (found.undated or found.unfinished or found.beside)
    assert set(found.checked) == {file.relative_to(run).as_posix() for file in before}
    assert str(found) == f"{run}: {len(before)} files checked; every file is as it was written\n"
    assert before == {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in before}
    assert json.loads(json.dumps(found.to_json()))["sound"] is True


def test_keys_are_those_of_the_plan(finished):
    keys = keys_of(Store(finished).read_json("plan.json"))
    assert set(keys.values()) == {file.stem for file in (finished / "readings").iterdir()} and len(keys) == 4


@pytest.mark.parametrize(
    "pattern",
    ["plan.json", "findings.json", "summary.parquet", "readings/*", "samples/*", "arrays/*", "results/*"],
)
def test_truncated_files_are_named(run, pattern):
    file, path = one(run, pattern)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    found = integrity(run)
    assert list(found.damaged) == [path] and not found.sound and path not in found.checked
    assert f"damaged  {path}: " in str(found) and "1 files are damaged" in str(found)


def test_changed_values_are_found_though_the_file_can_be_read(run):
    store = Store(run)
    file, path = one(run, "readings/*")
    rows = store.read_rows(path)
    signed = store.check(path)
    rows[0]["value"] = np.nextafter(rows[0]["value"] or 0.5, 1)
    store.write_rows(path, rows, tuple(rows[0]), signed.beside)  # a new digest: whole, and yet not what was measured?
    assert integrity(run).sound  # a digest is no signature
    content, text, other = file.read_bytes(), json.dumps(signed.beside), store.check(path).digest
    for now, was in [(other, signed.digest), (digest_of(other, text), digest_of(signed.digest, text))]:  # the digest, and its seal
        assert content.count(now.encode()) == 1
        content = content.replace(now.encode(), was.encode())
    file.write_bytes(content)
    assert integrity(run).damaged == {path: "its digest does not match its content; delete it and run again"}
    with pytest.raises(StoreError, match=r"readings.* is damaged \(its digest does not match its content\); delete it and run again"):
        store.read_rows(path)  # nor does a report use it


@pytest.mark.parametrize("place", ["plan.json", "findings.json"])
def test_an_edited_text_file_is_found(run, place):
    text = (run / place).read_text()
    edited = text.replace('"seed": 0', '"seed": 1') if place == "plan.json" else text.replace('"findings"', '"finding"')
    assert edited != text
    (run / place).write_text(edited)
    assert place in integrity(run).damaged


@pytest.mark.parametrize("pattern", ["readings/*", "samples/*", "arrays/*", "summary.parquet"])
def test_missing_files_are_named(run, pattern):
    file, path = one(run, pattern)
    file.unlink()
    found = integrity(run)
    assert list(found.missing) == [path] and not found.damaged and not found.sound


def test_a_file_under_the_name_of_another_cell(run):
    first, second = sorted((run / "samples").iterdir())[:2]
    shutil.copy(first, second)
    assert list(integrity(run).damaged) == [second.relative_to(run).as_posix()]
    first, second = sorted((run / "readings").iterdir())[:2]
    shutil.copy(first, second)
    assert "holds readings of another cell" in integrity(run).damaged[second.relative_to(run).as_posix()]


def test_foreign_files_in_the_folders_and_beside_them(run):
    shutil.copy(one(run, "readings/*")[0], run / "readings" / "0123456789.parquet")
    (run / "readings" / "notes.txt").write_text("mine")
    (run / "samples" / "link.parquet").symlink_to(one(run, "samples/*")[0])
    (run / "notes.txt").write_text("mine")
    (run / "report.html").write_text("")
    (run / ".gitignore").write_text("")
    found = integrity(run)
    assert found.foreign == ["readings/notes.txt", "samples/link.parquet", "readings/0123456789.parquet"]
    assert found.beside == ["notes.txt"] and not found.sound


def test_a_run_that_is_not_over_is_unfinished_not_damaged(run):
    (run / "findings.json").unlink()
    readings = sorted((run / "readings").iterdir())[0]
    for folder in ("readings", "samples", "arrays"):
        for file in (run / folder).glob(f"{readings.stem}.*"):
            file.unlink()
    found = integrity(run)
    assert found.sound and len(found.unfinished) == 1 and "1 cells are not measured yet" in str(found)


def test_runs_of_older_versions_hold_no_digests(run):
    plan = json.loads((run / "plan.json").read_text())
    del plan["digest"]
    (run / "plan.json").write_text(json.dumps(plan))
    (run / "findings.json").write_text("[]")
    found = integrity(run)
    assert found.sound and found.undated == ["findings.json", "plan.json"] and "2 files were written by an older version" in str(found)
    assert br.Lab(run) and len(br.engine.table.open_table(run)) > 0


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"plan\.json is missing"):
        integrity(tmp_path)
    with pytest.raises(StoreError, match="is no directory"):
        integrity(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
