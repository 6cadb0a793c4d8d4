"""A shard as it is stored: flat tensors and a list of places give back every tensor, whatever its type and shape."""

import json

import torch

from brinell.core.tally import Max, Rows, Sum, Tallies
from brinell.engine.shards import Shard
from brinell.engine.store import Store


def a_shard() -> Shard:
    rows = Rows.of(id=torch.tensor([5, 3]), hit=torch.tensor([True, False]), at=torch.tensor([[1.5, -0.0], [float("nan"), 2.0]]))
    layers = Tallies({f"layer{k}": Sum.of(total=torch.arange(6.0).reshape(2, 3) + k, count=torch.tensor(4 + k)) for k in range(3)})
    tallies = {"one": Tallies({"rows": rows, "layers": layers}), "two": Max.of(top=torch.tensor(2.0), none=torch.zeros(0, 4))}
    return Shard({"id": torch.tensor([5, 3]), "finite": torch.tensor([True, True])}, tallies, forwards=7, notes=["a\tnote"])


def tensors_of(shard: Shard) -> dict[str, torch.Tensor]:
    return Tallies(shard.tallies).pack()[1] | shard.samples


def test_a_shard_comes_back_bit_by_bit(tmp_path):
    shard, store = a_shard(), Store(tmp_path)
    store.write_tensors("shard", *shard.pack(), lasting=False)
    found = Shard.unpacked(*store.read_tensors("shard"))
    assert (found.forwards, found.notes, found.failure) == (7, ["a\tnote"], "")
    before, after = tensors_of(shard), tensors_of(found)
    assert list(before) == list(after)
    for name, value in before.items():
        assert value.dtype == after[name].dtype and value.shape == after[name].shape
        assert value.numpy().tobytes() == after[name].numpy().tobytes()


def test_a_shard_is_stored_as_one_tensor_for_each_type():
    tensors, about = a_shard().pack()
    assert set(tensors) == {"int64", "bool", "float32", "float64"} and all(value.ndim == 1 for value in tensors.values())
    json.dumps(about)


def test_a_shard_that_failed_holds_no_tensor(tmp_path):
    store = Store(tmp_path)
    store.write_tensors("shard", *Shard(failure="ValueError: no").pack())
    found = Shard.unpacked(*store.read_tensors("shard"))
    assert (found.failure, found.samples, found.tallies) == ("ValueError: no", {}, {})
