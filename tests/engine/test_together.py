"""Two runs on one directory, step by step: what one finishes in the middle of the other."""

from typing import ClassVar

import pytest

import brinell as br
from brinell.core.errors import StoreError
from brinell.core.perturbation import Corruption
from brinell.engine.store import Store

NOISE = "uniform_noise(threat=ball(eps=0.1))"


class Visited(Corruption, name="engine_visited"):
    """Lets another run begin and end while the second shard is measured."""

    visits: ClassVar[list] = []

    def __call__(self, net, x, y, *, draws):
        self.visits.append(len(x))
        if len(self.visits) == 3 and callable(self.visits[0]):
            self.visits[0]()
        return (x + 0.01).clamp(0, 1)


@pytest.fixture
def arguments(data, make_net):
    Visited.visits.clear()
    return {"a": make_net()}, data, ["engine_visited", NOISE], ["accuracy", "calibration"]


@pytest.mark.parametrize("batch_size", [20, 7])
def test_another_run_finishes_everything_meanwhile(arguments, tmp_path, batch_size, assert_same):
    undisturbed = br.Lab(batch_size=20).measure(*arguments)
    assert {row["status"] for row in undisturbed.rows} == {"ok"}
    Visited.visits[:] = [lambda: br.Lab(tmp_path, batch_size=batch_size).measure(*arguments)]
    assert_same(br.Lab(tmp_path, batch_size=20).measure(*arguments), undisturbed)
    assert len(Visited.visits) > 4 and not (tmp_path / "shards").exists()


def test_a_folder_that_goes_away_under_a_write(arguments, tmp_path, assert_same, monkeypatch):
    """The other run removes the shards of a cell it has finished just when this one puts another shard there."""
    undisturbed = br.Lab(batch_size=20).measure(*arguments)
    lab = br.Lab(tmp_path, batch_size=20)
    write, gone = lab.store.write_tensors, []

    def refused(path, *rest, **how):
        if path.startswith("shards") and list(tmp_path.glob("readings/*.parquet")):
            gone.append(path)
            raise StoreError(f"cannot write {path}: No such file or directory")
        write(path, *rest, **how)

    monkeypatch.setattr(lab.store, "write_tensors", refused)
    Visited.visits[:] = [lambda: br.Lab(tmp_path, batch_size=20).measure(*arguments)]
    assert_same(lab.measure(*arguments), undisturbed)
    assert gone


def test_a_place_that_cannot_be_written_is_still_an_error(arguments, tmp_path, monkeypatch):
    lab = br.Lab(tmp_path)

    def refused(path, *rest, **how):
        raise StoreError(f"cannot write {path}")

    monkeypatch.setattr(lab.store, "write_tensors", refused)
    with pytest.raises(StoreError, match="cannot write shards"):
        lab.measure(*arguments)


def test_shards_of_two_sizes_are_never_mixed(arguments, tmp_path, assert_near, monkeypatch):
    """Two runs that start at the same moment may each think that the directory has their own shard size."""
    with monkeypatch.context() as patch:
        patch.setattr(br.Lab, "_fold", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            br.Lab(tmp_path, batch_size=20).measure(*arguments)
    store = Store(tmp_path)
    store.write_json("plan.json", {**store.read_json("plan.json"), "shard": 7})
    table = br.Lab(tmp_path, batch_size=7).measure(*arguments)
    assert_near(table, br.Lab(batch_size=20).measure(*arguments))
    assert all(len(table.samples("a", spec)["id"]) == 60 for spec in table.plan["perturbations"])


def test_finished_shards_are_used_whatever_batch_size_is_asked_for(arguments, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(br.Lab, "_fold", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            br.Lab(tmp_path, batch_size=20).measure(*arguments)
    assert Visited.visits == [20, 20, 20]
    br.Lab(tmp_path, batch_size=7).measure(*arguments)
    assert Visited.visits == [20, 20, 20]
