"""Linear CKA: its invariances, a twin, and what has no answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from brinell.core.errors import UndefinedReading
from brinell.core.measurement import Status
from brinell.probe.similarity import Similarity, linear_cka

LOT = np.random.default_rng(0)
A, B = LOT.normal(size=(50, 6)), LOT.normal(size=(50, 4))


def twin(a: np.ndarray, b: np.ndarray) -> float:
    """From centred Gram matrices instead of covariances."""
    h = np.eye(len(a)) - 1 / len(a)
    k, m = h @ a @ a.T @ h, h @ b @ b.T @ h
    return (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())


def test_the_twin():
    assert linear_cka(torch.tensor(A), torch.tensor(B)) == pytest.approx(twin(A, B), rel=1e-9)
    assert linear_cka(torch.tensor(A), torch.tensor(A[:, ::-1] ** 2)) == pytest.approx(twin(A, A[:, ::-1] ** 2), rel=1e-9)


def test_invariances():
    rotation = np.linalg.qr(LOT.normal(size=(6, 6)))[0]
    assert linear_cka(torch.tensor(A), torch.tensor(-3 * A @ rotation + 7)) == pytest.approx(1)
    stretched = A * np.array([1, 1, 1, 1, 1, 30])
    assert linear_cka(torch.tensor(A), torch.tensor(stretched)) < 0.7


def test_what_has_no_answer():
    for a, b in ((torch.ones(5, 2), torch.rand(5, 2)), (torch.rand(4, 2), torch.rand(5, 2)), (torch.rand(4, 2, 2), torch.rand(4, 2))):
        with pytest.raises(UndefinedReading):
            linear_cka(a, b)


def test_the_reading_of_shards(make_view, measure):
    a, z = torch.tensor(A), torch.tensor(A + 0.5 * LOT.normal(size=A.shape))
    y = np.zeros(50, int)

    def part(rows):
        clean = make_view(np.zeros((50, 2))[rows], y[rows], activations={"a:0": a[rows]})
        return replace(clean, activations={"a:0": z[rows]}, clean=clean)

    (whole,), (parts,) = measure(Similarity(), part(slice(None))), measure(Similarity(), part(slice(30, 50)), part(slice(0, 30)))
    assert whole.value == pytest.approx(twin(A, z.numpy()), rel=1e-9)
    assert parts.value == pytest.approx(whole.value, rel=1e-12)
    still = make_view(np.zeros((50, 2)), y, activations={"a:0": torch.ones(50, 2)})
    assert measure(Similarity(), still)[0].status is Status.UNDEFINED
