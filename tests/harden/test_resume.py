import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from brinell.core.errors import StoreError
from brinell.harden.fit import Fit
from brinell.harden.resume import read_state, write_state

RECIPES = {
    "sgd": Fit(epochs=4, batch_size=10, lr=0.02, shift=1, ema=0.7, holdout=0.25),
    "adamw": Fit(epochs=4, batch_size=10, lr=0.01, optimizer="adamw", schedule="onecycle", amp=True),
}


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("stop_in", [1, 3])
def test_an_interrupted_training_ends_with_the_same_weights(toy, small, same, watcher, tmp_path, kind, stop_in):
    fit, file = RECIPES[kind], tmp_path / "deep" / "state.safetensors"
    whole = fit(small, toy, seed=1)
    with pytest.raises(KeyboardInterrupt):
        fit(small, toy, seed=1, checkpoint=file, progress=watcher(stop_in))
    assert file.exists() == (stop_in > 1)
    seen = watcher()
    resumed = fit(small, toy, seed=1, checkpoint=file, progress=seen)
    assert same(whole, resumed)
    assert whole.notes == resumed.notes
    samples = 36 if fit.holdout else 48
    assert seen.calls[0][2:] == (4 * samples, (stop_in - 1) * samples)
    assert seen.passed == (5 - stop_in) * samples, "finished epochs are not trained again"
    assert [path.name for path in file.parent.iterdir()] == ["state.safetensors"]


def test_a_finished_training_is_taken_from_its_checkpoint(toy, small, same, watcher, tmp_path):
    file, seen = tmp_path / "state.safetensors", watcher()
    fit = RECIPES["sgd"]
    first = fit(small, toy, seed=1, checkpoint=file)
    assert same(first, fit(small, toy, seed=1, checkpoint=file, progress=seen))
    assert seen.passed == 0


def test_a_checkpoint_of_another_training_is_refused(toy, small, tmp_path):
    file = tmp_path / "state.safetensors"
    fit = Fit(epochs=1, lr=0.01)
    trained = fit(small, toy, seed=1, checkpoint=file)
    for match, call in {
        "seed 1, but 2 is asked for": lambda: fit(small, toy, seed=2, checkpoint=file),
        "another training, with .*lr=0.01": lambda: fit.replace(lr=0.02)(small, toy, seed=1, checkpoint=file),
        "with data ": lambda: fit(small, toy.take(slice(0, 40)), seed=1, checkpoint=file),
        "with network ": lambda: fit(trained, toy, seed=1, checkpoint=file),
        "with held out ": lambda: fit(small, toy, seed=1, checkpoint=file, valid=toy),
        "with hardening ": lambda: fit(small, toy, seed=1, checkpoint=file, title="other"),
    }.items():
        with pytest.raises(StoreError, match=f"{match}.*Delete it") as caught:
            call()
        assert str(file) in str(caught.value)


def test_files_that_are_no_training_state_are_refused(toy, small, tmp_path):
    file, fit = tmp_path / "state.safetensors", Fit(epochs=1)
    for content in (b"", b"garbage", b"\x80\x04cos\nsystem\n."):
        file.write_bytes(content)
        with pytest.raises(StoreError, match="cannot resume"):
            fit(small, toy, seed=0, checkpoint=file)
    save_file({"a": torch.ones(1)}, file)
    with pytest.raises(StoreError, match="not the state of a training"):
        fit(small, toy, seed=0, checkpoint=file)
    save_file({"a": torch.ones(1)}, file, {"training": "{"})
    with pytest.raises(StoreError, match="damaged"):
        fit(small, toy, seed=0, checkpoint=file)


def test_a_state_with_missing_tensors_is_refused(toy, small, tmp_path):
    file, fit = tmp_path / "state.safetensors", Fit(epochs=1)
    fit(small, toy, seed=0, checkpoint=file)
    _, about = read_state(file, {"seed": 0})
    tensors = load_file(file)
    del tensors["module/0.weight"]
    write_state(file, tensors, about)
    with pytest.raises(StoreError, match=r"0\.weight"):
        fit(small, toy, seed=0, checkpoint=file)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "state.safetensors"
    write_state(file, {"a": torch.ones(2)}, {"epoch": 1})

    def fail(number: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_state(file, {"a": torch.zeros(2)}, {"epoch": 2})
    tensors, about = read_state(file, {})
    assert about == json.loads('{"epoch": 1}') and torch.equal(tensors["a"], torch.ones(2))
    assert len(list(tmp_path.iterdir())) == 1
