import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brinell.core.dataset import Dataset, Lookup, class_names, load_dataset, whole_numbers
from brinell.core.errors import DataError, SpecError


def quotas(counts, n):
    """Largest remainders by exact fractions; returns the floor of each class and its remainder."""
    total = sum(counts)
    exact = [Fraction(c * n, total) for c in counts]
    return [int(e) for e in exact], [e - int(e) for e in exact]


def made(labels, ids=None, **columns):
    x = torch.arange(len(labels), dtype=torch.float32)[:, None] / max(len(labels), 1)
    return Dataset.from_arrays(x, labels, classes=max(labels) + 1, ids=ids, **columns)


def test_from_arrays_gives_back_what_it_was_given_in_any_order():
    x = torch.rand(5, 2, 3, generator=torch.Generator().manual_seed(0))
    data = Dataset.from_arrays(x, torch.tensor([0, 1, 2, 1, 0]), ids=[50, 10, 40, 20, 30], group=list("aabbc"))
    assert (len(data), data.shape, data.classes, data.domain, data.source) == (5, (2, 3), ("0", "1", "2"), (0.0, 1.0), "arrays")
    assert torch.equal(data.x(), x)
    assert torch.equal(data.x([3, 0, 3]), x[[3, 0, 3]])
    assert torch.equal(data.x(slice(1, 3)), x[1:3])
    assert torch.equal(data.x(np.array([True, False, False, False, True])), x[[0, 4]])
    assert data.x([]).shape == (0, 2, 3)
    assert data.labels([2, 0]).tolist() == [2, 0]
    assert data.labels().dtype == torch.int64
    assert data.y.dtype == data.ids.dtype == np.int64
    assert list(data.columns["group"]) == list("aabbc")


def test_uint8_is_divided_by_255_and_float64_becomes_float32():
    grey = np.array([[[[0, 51]]], [[[102, 255]]]], dtype=np.uint8)
    assert torch.equal(Dataset.from_arrays(grey, [0, 1]).x(), torch.tensor([[[[0.0, 51 / 255]]], [[[102 / 255, 1.0]]]]))
    assert Dataset.from_arrays(np.array([[0.1]]), [0]).x().dtype == torch.float32


def test_arrays_are_copied_so_that_the_digest_stays_true():
    x = torch.zeros(2, 1)
    data = Dataset.from_arrays(x, [0, 1])
    x[0] = 1
    assert data.x().abs().max() == 0
    data.x()[0] = 1
    assert data.x().abs().max() == 0


@pytest.mark.parametrize(("x", "y", "options", "message"), [
    (torch.tensor([[0.0], [float("nan")]]), [0, 1], {}, "row 1 holds NaN"),
    (torch.tensor([[0.0], [1.5]]), [0, 1], {"ids": [7, 9]}, r"row 9 holds the value 1.5; inputs must lie in \[0, 1\]"),
    (torch.tensor([[0.0], [float("inf")]]), [0, 1], {}, "row 1 holds the value inf"),
    (torch.tensor([[-0.5]]), [0], {}, "the value -0.5"),
    (torch.tensor([[0.0], [1.0]]), [0], {}, "1 labels"),
    (torch.tensor([0.0, 1.0]), [0, 1], {}, "expected"),
    (torch.zeros(2, 0), [0, 1], {}, "empty"),
    (torch.zeros(0, 2), [], {}, "no samples"),
    (torch.zeros(2, 2, dtype=torch.int32), [0, 1], {}, "type torch.int32"),
    (torch.zeros(2, 2), [0, 2], {"classes": ["a", "b"]}, r"row 1 has label 2, outside 0..1 \(1 such rows\)"),
    (torch.zeros(2, 2), [0, -1], {}, "row 1 has label -1"),
    (torch.zeros(2, 2), [0, 0.5], {}, "label of row 1 is 0.5, not a whole number"),
    (torch.zeros(2, 2), [0, float("nan")], {}, "label of row 1 is nan"),
    (torch.zeros(2, 2), ["cat", "dog"], {}, "labels have type"),
    (torch.zeros(2, 2), [[0], [1]], {}, "shape \\(2, 1\\)"),
    (torch.zeros(2, 2), [0, 1], {"ids": [4, 4]}, "id 4 occurs 2 times"),
    (torch.zeros(2, 2), [0, 1], {"group": ["a"]}, r"2 labels, but another number of rows in group \(1\)"),
    (torch.zeros(2, 2), [0, 1], {"domain": (1, 0)}, "low < high"),
])  # fmt: skip
def test_wrong_arrays_are_refused_with_the_row(x, y, options, message):
    with pytest.raises(DataError, match=message):
        Dataset.from_arrays(x, y, name="mine", **options)


def test_domain_is_the_users():
    data = Dataset.from_arrays(torch.tensor([[-3.0], [7.0]]), [0, 1], domain=(-3, 7))
    assert data.domain == (-3.0, 7.0)
    assert data.x().flatten().tolist() == [-3.0, 7.0]


def test_a_reader_that_returns_another_shape_or_type_is_caught():
    def dataset(read):
        return Dataset(source="s", shape=(2,), y=np.array([0]), ids=np.array([0]), classes=("a",), read=read, content="")

    with pytest.raises(DataError, match=r"float32 of shape \(1, 3\); expected float32 of shape \(1, 2\)"):
        dataset(lambda ids: torch.zeros(len(ids), 3)).x()
    with pytest.raises(DataError, match="read as torch\\.float64"):
        dataset(lambda ids: torch.zeros(len(ids), 2, dtype=torch.float64)).x()


def test_take_keeps_ids_columns_and_notes():
    data = made([0, 1, 0, 1], ids=[3, 1, 4, 2], cluster=[7, 8, 9, 10])
    part = data.take([2, 0], "two").take(slice(0, 1), "one")
    assert (part.ids.tolist(), part.columns["cluster"].tolist(), part.note) == ([4], [9], "two; one")
    assert torch.equal(part.x(), data.x([2]))


def test_the_digest_names_every_part_but_the_source():
    base = {"x": torch.zeros(2, 2), "y": [0, 1], "group": ["a", "b"]}
    same = [
        Dataset.from_arrays(**base),
        Dataset.from_arrays(**base, name="other"),
        Dataset.from_arrays(**{**base, "group": np.array(["a", "b"], dtype="U9")}),
    ]
    other = [
        {"x": torch.full((2, 2), 0.5)}, {"x": torch.zeros(2, 2, 1)}, {"y": [1, 0]}, {"group": ["a", "c"]}, {"ids": [1, 2]},
        {"classes": ["a", "b"]}, {"domain": (0, 2)}, {"cluster": [0, 0]},
    ]  # fmt: skip
    digests = [Dataset.from_arrays(**{**base, **change}).digest for change in other]
    assert len({data.digest for data in same}) == 1
    assert len({same[0].digest, same[0].take([0]).digest, *digests}) == len(other) + 2


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 120), st.integers(0, 2**40),
)  # fmt: skip
def test_limit_keeps_exact_class_shares_and_the_order(counts, n, seed):
    labels = np.repeat(np.arange(len(counts)), counts)[np.random.default_rng(seed).permutation(sum(counts))]
    data = made(labels.tolist(), ids=(np.arange(len(labels)) * 3 + 1).tolist())
    part = data.limit(n, seed)
    if n >= len(labels):
        assert part is data
        return
    floors, remainders = quotas(counts, n)
    kept = np.bincount(part.y, minlength=len(counts))
    extra = kept - floors
    assert len(part) == n == kept.sum()
    assert set(extra.tolist()) <= {0, 1}
    assert all(remainders[a] >= remainders[b] for a in np.flatnonzero(extra == 1) for b in np.flatnonzero(extra == 0))
    assert (np.diff(part.ids) > 0).all()
    assert set(part.ids) <= set(data.ids)
    assert torch.equal(part.x(), data.x(((part.ids - 1) // 3).tolist()))
    assert part.note == f"stratified sample of {n} of {len(data)}, seed {seed}"


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 59))
def test_limit_depends_on_ids_and_not_on_the_order_of_the_set(seed, n):
    data = made([k % 3 for k in range(60)])
    shuffled = data.take(np.random.default_rng(seed).permutation(60))
    assert set(shuffled.limit(n, seed).ids) == set(data.limit(n, seed).ids)


def test_limit_draws_by_seed():
    data = made([k % 2 for k in range(200)])
    assert data.limit(20, 1).ids.tolist() == data.limit(20, 1).ids.tolist()
    assert data.limit(20, 1).ids.tolist() != data.limit(20, 2).ids.tolist()
    assert data.limit(None) is data


def test_limit_below_the_number_of_classes_does_not_favour_the_first():
    data = made(list(range(10)) * 3)
    assert {int(data.limit(1, seed).y[0]) for seed in range(200)} == set(range(10))


def test_limit_includes_every_sample_about_equally_often():
    data = made([0] * 30 + [1] * 10)
    hits = np.zeros(40)
    for seed in range(400):
        hits[data.limit(8, seed).ids] += 1
    assert abs(hits.mean() - 80) < 1e-9  # 8 of 40, 400 times
    assert np.abs(hits - 80).max() < 5 * np.sqrt(400 * 0.2 * 0.8)


@pytest.mark.parametrize("n", [0, -3])
def test_a_limit_that_leaves_nothing_is_refused(n):
    with pytest.raises(DataError, match="leaves nothing"):
        made([0, 1]).limit(n)


def test_shards_cover_every_position_once():
    data = made([0, 1, 0, 1, 0])
    assert [shard.tolist() for shard in data.shards(2)] == [[0, 1], [2, 3], [4]]
    assert [shard.tolist() for shard in data.shards(9)] == [[0, 1, 2, 3, 4]]
    with pytest.raises(DataError, match="shards of 0"):
        list(data.shards(0))


def test_a_dataset_can_be_pickled():
    data = made([0, 1, 0], ids=[5, 3, 9], group=["a", "b", "c"])
    twin = pickle.loads(pickle.dumps(data))
    assert twin.digest == data.digest
    assert torch.equal(twin.x([2, 0]), data.x([2, 0]))


@settings(deadline=None)
@given(st.lists(st.integers(-(2**62), 2**62), unique=True, min_size=1, max_size=30), st.data())
def test_lookup_finds_positions(ids, data):
    asked = data.draw(st.lists(st.sampled_from(ids), max_size=10))
    assert Lookup(np.array(ids))(np.array(asked, dtype=np.int64)).tolist() == [ids.index(one) for one in asked]


@pytest.mark.parametrize("unknown", [0, 15, 99])
def test_lookup_refuses_unknown_ids(unknown):
    with pytest.raises(DataError, match=f"no sample has id {unknown}"):
        Lookup(np.array([10, 20]))(np.array([10, unknown]))


def test_whole_numbers_takes_what_is_whole():
    for values in ([True, False], np.array([1.0, 0.0], dtype=np.float32), torch.tensor([1, 0]), np.array([1, 0], dtype=np.uint64)):
        found = whole_numbers(values, "label")
        assert (found.dtype, found.tolist()) == (np.int64, [1, 0])
    with pytest.raises(DataError, match="row 0 is 1e\\+300"):
        whole_numbers([1e300], "label")
    with pytest.raises(DataError, match="row 1 is 18446744073709551615"):
        whole_numbers(np.array([1, 2**64 - 1], dtype=np.uint64), "label")


def test_class_names():
    y = np.array([0, 2])
    assert (class_names(None, y, "s"), class_names(4, y, "s"), class_names(["a", "b", "c"], y, "s")) == (
        ("0", "1", "2"),
        ("0", "1", "2", "3"),
        ("a", "b", "c"),
    )


def test_labels_that_are_identifiers_are_refused_before_they_fill_the_memory():
    with pytest.raises(DataError, match="mine: row 1 has label 4611686018427387904; labels number the classes"):
        Dataset.from_arrays(torch.zeros(2, 1), [0, 2**62], name="mine")


def test_load_dataset_takes_text_and_refuses_what_is_no_source():
    assert len(load_dataset("digits(side=8)", limit=30, seed=1)) == 30
    with pytest.raises(SpecError, match="source"):
        load_dataset("ball(eps=1)")
