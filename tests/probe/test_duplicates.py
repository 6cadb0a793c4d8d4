"""Duplicates: which samples are there more than once, found without comparing them."""

import numpy as np
import pytest
import torch

from brinell.core.draws import derive
from brinell.core.probe import View
from brinell.core.tally import Tally
from brinell.probe.duplicates import Duplicates, digests

SHAPES = [(7,), (1, 5, 3), (3, 4, 4)]


def read(x, y, ids=None, cut=None):
    probe, ids = Duplicates(), torch.arange(len(x)) if ids is None else ids
    parts = [slice(0, cut), slice(cut, None)] if cut else [slice(None)]
    tally: Tally | None = None
    for rows in parts:
        view = View(x[rows], x[rows], y[rows], ids[rows], torch.zeros(len(x[rows]), 2))
        view = View(view.x, view.x, view.y, view.ids, view.logits)
        seen = probe.observe(view, draws=derive(0, ids=view.ids))
        tally = seen if tally is None else tally + seen
    return {reading.name: reading for reading in probe.read(tally)}


def slow(x, y):
    """Every pair, byte by byte."""
    rows = [np.ascontiguousarray(one.numpy() + 0.0).tobytes() for one in x]
    later = [any(rows[i] == rows[j] for j in range(i)) for i in range(len(rows))]
    mixed = [any(rows[i] == rows[j] and int(y[i]) != int(y[j]) for j in range(len(rows))) for i in range(len(rows))]
    return np.mean(later), np.mean(mixed)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_slow_count_of_all_pairs_agrees(shape, dtype):
    pool = derive(0, "pool", ids=range(20)).uniform(*shape, dtype=dtype)
    which = derive(0, "which", ids=[0]).integers(0, 20, 50).squeeze(0)
    x, y = pool[which], derive(0, "label", ids=[0]).integers(0, 3, 50).squeeze(0)
    expected = slow(x, y)
    assert 0.4 < expected[0] < 1 and 0.4 < expected[1] < 1
    for cut in (None, 17):
        found = read(x, y, cut=cut)
        assert (found["duplicate_share"].value, found["conflict_share"].value) == expected
        assert found["duplicate_share"].n == 50


def test_samples_that_differ_in_one_bit_or_in_two_signs_differ():
    """Two sign bits are what a sum of products modulo 2^64 loses when words are as long as the sum."""
    for dtype in (torch.float32, torch.float64):
        x = torch.full((4, 6), 0.5, dtype=dtype)
        x[1, :2] *= -1
        x[2, 3] = torch.nextafter(x[2, 3], torch.ones((), dtype=dtype))
        x[3, [2, 4]] *= -1
        assert len(torch.unique(digests(x), dim=0)) == 4
    assert len(torch.unique(digests(torch.tensor([[0.0, 1.0], [-0.0, 1.0]])), dim=0)) == 1


def test_digests_are_those_of_the_formula():
    x = torch.tensor([[0.25, -3.0, 1e-8]])
    keys = derive(0, "duplicates", ids=[0, 1]).words(3)
    words = np.array([0.25, -3.0, 1e-8], dtype=np.float32).view(np.int32)
    slowly = [sum(int(w) * int(k) for w, k in zip(words, row, strict=True)) % 2**64 for row in keys.tolist()]
    assert [int(value) % 2**64 for value in digests(x)[0]] == slowly


def test_a_large_image_is_digested_in_parts(monkeypatch):
    x = derive(0, "x", ids=range(9)).uniform(40)
    whole = digests(x)
    monkeypatch.setattr("brinell.probe.duplicates._CHUNK", 100)
    assert torch.equal(digests(x), whole)


def test_no_readings_where_samples_are_perturbed():
    x, y = torch.rand(3, 4), torch.zeros(3, dtype=torch.int64)
    view = View(x, x + 0.1, y, torch.arange(3), torch.zeros(3, 2))
    assert Duplicates().read(Duplicates().observe(view, draws=derive(0, ids=range(3)))) == []
