"""Tallies are commutative monoids, and survive being stored."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from brinell.core.tally import Max, Rows, Sample, Sum, Tallies, Tally, added, encode, unpack

IDS = st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=30, unique=True)
KINDS = ("sum", "max", "rows", "sample", "tallies")


def observe(kind: str, ids: list[int]) -> Tally:
    """A tally of some samples whose values are a function of their ids, whole numbers so that sums are exact."""
    rows = torch.tensor(ids, dtype=torch.int64).reshape(-1)
    values = (rows % 97).double()
    match kind:
        case "sum":
            return Sum.of(total=values.sum(), count=torch.tensor(len(ids)), table=torch.stack((values.sum(), -values.sum())))
        case "max":
            return Max.of(high=values.max(), low=(-values).max())
        case "rows":
            return Rows.of(id=rows, value=values)
        case "sample":
            return Sample.pick(7, rows, {"value": values, "pair": torch.stack((values, -values), 1)})
    return Tallies({inner: observe(inner, ids) for inner in ("sum", "rows")} | {"deep": Tallies({"a:0": observe("sample", ids)})})


def read(tally: Tally) -> dict[str, list]:
    """What a probe may see of a tally."""
    if isinstance(tally, Tallies):
        return {f"{name}/{key}": value for name, part in tally.parts.items() for key, value in read(part).items()}
    shown = tally.sorted() if isinstance(tally, Rows) else tally
    return {name: value.tolist() for name, value in sorted(shown.values.items())}


def stored(tally: Tally) -> Tally:
    kind, tensors = tally.pack()
    return unpack(kind, load(save(tensors)))


@pytest.mark.parametrize("kind", KINDS)
@given(a=IDS, b=IDS, c=IDS)
@settings(max_examples=25, deadline=None)
def test_addition_is_associative_commutative_and_has_an_identity(kind, a, b, c):
    x, y, z = (observe(kind, ids) for ids in (a, b, c))
    empty = type(x)()
    assert read((x + y) + z) == read(x + (y + z))
    assert read(x + y) == read(y + x)
    assert read(x + empty) == read(empty + x) == read(x)


@pytest.mark.parametrize("kind", KINDS)
@given(ids=IDS, cut=st.integers(0, 30), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_shards_in_any_order_add_up_to_the_whole(kind, ids, cut, seed):
    order = np.random.default_rng(seed).permutation(ids).tolist()
    parts = [part for part in (order[:cut], order[cut:]) if part]
    total = stored(observe(kind, parts[0]))
    for part in parts[1:]:
        total = stored(observe(kind, part)) + total
    assert read(stored(total)) == read(observe(kind, ids))


def test_sum_keeps_float64_and_whole_numbers():
    many = Sum.of(x=torch.tensor([2.0**24], dtype=torch.float32), hits=torch.tensor([True])) + Sum.of(
        x=torch.tensor([1.0]), hits=torch.tensor([True])
    )
    assert many["x"].dtype == torch.float64 and many["x"].item() == 2**24 + 1  # float32 would lose the 1
    assert many["hits"].dtype == torch.int64 and many["hits"].item() == 2


def test_adding_a_constant_to_itself_leaves_it():
    name = Max.of(name=torch.tensor([99, 97, 116], dtype=torch.uint8))
    assert bytes((name + name)["name"].tolist()) == b"cat"


def test_max_shows_nan():
    assert (Max.of(x=torch.tensor([1.0])) + Max.of(x=torch.tensor([float("nan")])))["x"].isnan().all()


def test_a_shard_run_twice_counts_once():
    once = Rows.of(id=torch.tensor([5, 3]), value=torch.tensor([50, 30]))
    assert read(once + once) == {"id": [3, 5], "value": [30, 50]}
    some = observe("sample", list(range(20)))
    assert read(some + observe("sample", list(range(10)))) == read(some)


def test_the_sample_is_a_fair_subset_and_the_same_for_every_column():
    ids = torch.arange(4000)
    picked = Sample.pick(1000, ids, {"x": torch.zeros(4000)})["id"]
    assert len(picked) == 1000
    assert torch.equal(picked, Sample.pick(1000, ids.flip(0), {"other": torch.ones(4000, 2)})["id"])
    expected = ids.double().mean()
    assert abs(picked.double().mean() - expected) < 4 * 4000 / 12**0.5 / 1000**0.5
    assert not torch.equal(picked.sort().values, ids[:1000])


def test_a_sample_keeps_all_rows_when_there_are_few():
    assert sorted(Sample.pick(9, torch.tensor([4, 2]), {})["id"].tolist()) == [2, 4]


def test_a_tally_owns_its_memory_and_can_be_stored():
    base = torch.arange(6.0).reshape(2, 3)
    tally = Sum.of(a=base.T, b=base[0], c=base[0], d=torch.ones(1).expand(4))
    again = stored(tally)  # safetensors refuses shared or strided memory
    ids, values = torch.arange(3), torch.ones(3)
    rows = Rows.of(id=ids, a=values, b=values)
    assert read(stored(rows)) == {"id": [0, 1, 2], "a": [1, 1, 1], "b": [1, 1, 1]}
    for changed in (base, ids, values):
        changed.zero_()
    assert read(rows) == {"id": [0, 1, 2], "a": [1, 1, 1], "b": [1, 1, 1]}
    assert again["a"].tolist() == tally["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
    grown = torch.ones(2, requires_grad=True) * 2
    assert not Sum.of(x=grown)["x"].requires_grad


def test_empty_tallies_survive_storage():
    for tally in (Sum(), Rows(), Sample(), Tallies()):
        assert read(stored(tally)) == {}
    assert Rows().sorted().values == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sum.of(a=torch.ones(1)) + Max.of(a=torch.ones(1)),
        lambda: Sum.of(a=torch.ones(3)) + Sum.of(a=torch.ones(1)),  # would broadcast
        lambda: Max.of(a=torch.ones(3)) + Max.of(a=torch.ones(())),
        lambda: Rows.of(value=torch.ones(2)),
        lambda: Rows.of(id=torch.arange(2), value=torch.ones(3)),
        lambda: Rows.of(id=torch.arange(2), value=torch.ones(2)) + Rows.of(id=torch.arange(2)),  # columns would run apart
        lambda: Sample.pick(2, torch.arange(2), {}) + Sample.pick(3, torch.arange(2), {}),
        lambda: Sample.pick(2, torch.arange(2), {}) + Sample.pick(2, torch.arange(2), {"x": torch.ones(2)}),
        lambda: Tallies({"a\tb": Sum()}),
        lambda: unpack("nonsense", {}),
        lambda: Tally.of(a=torch.ones(1)) + Tally.of(a=torch.ones(1)),
    ],
)
def test_what_cannot_be_added_is_refused(make):
    with pytest.raises(TypeError):
        make()


@pytest.mark.parametrize(
    "column",
    [
        np.array(["b", "a", "b", "ü"]),
        np.array([3, 1, 3, 2]),
        np.array([None, "x", None, 4], dtype=object),
        np.array([True, False, True, True]),
    ],
)
def test_codes_stand_for_the_same_text_in_every_shard(column):
    codes, table = encode(column)
    late, other = encode(column[2:])
    assert torch.equal(codes[2:], late)
    names = {int(code): text for text, code in (table + other).values.items()}
    assert [names[int(code)] for code in codes] == [str(value) for value in column]


def test_codes_of_no_rows_and_of_long_texts():
    codes, table = encode(np.array([], dtype=object))
    assert codes.shape == (0,) and codes.dtype == torch.int64 and not table.values
    texts = [f"{'x' * 200}{k}" for k in range(500)]
    assert len(encode(np.array(texts))[0].unique()) == 500


@pytest.mark.parametrize("n", [0, 1, 2, 3, 15, 16, 17, 31, 33, 100, 1000])
def test_many_parts_are_added_in_order_and_few_sums_wait(n):
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    class Piece:
        def __init__(self, numbers):
            self.numbers = numbers
            alive.add(self)

        def __add__(self, other):
            return Piece(self.numbers + other.numbers)

    def pieces():
        nonlocal most
        for number in range(n):
            most = max(most, len(alive))
            yield Piece([number])

    total = added(pieces())
    assert (total.numbers if total else []) == list(range(n)) and (total is None) == (n == 0)
    assert most <= 7
