"""What studies of random networks measure: pieces that are kept, the same in any shard and chunk, and right against a slow twin."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import brinell as br
from brinell.studies.evidence import Number, entry, gap, mean, median, rate
from brinell.studies.random_networks import (
    Cell,
    Work,
    fixed_numbers,
    gathered,
    jacobian_numbers,
    line_numbers,
    reduced_numbers,
    value_numbers,
    walk_numbers,
)
from brinell.studies.trained_line import Training, lazy, odd_even, standardised


def test_pieces_are_kept_and_do_not_depend_on_how_they_are_cut(tmp_path):
    cells = [Cell((8, 6), 25), Cell((8, 12, 4), 10, sphere=5, narrow=1)]
    lab = br.Lab(tmp_path, seed=3)
    whole = gathered(lab, line_numbers, cells, shard=100)
    count = len(list((tmp_path / "results").iterdir()))
    assert count == 2 and [len(part["value"]) for part in whole] == [25, 10]
    cut = gathered(lab, line_numbers, cells, shard=4, budget=30_000)
    for a, b in zip(whole, cut, strict=True):
        assert all(np.allclose(a[name], b[name], rtol=2e-3, atol=1e-5, equal_nan=True) for name in ("value", "gradient", "linear"))
    assert len(list((tmp_path / "results").iterdir())) == count + 7 + 3
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    more = gathered(lab, line_numbers, [Cell((8, 6), 29)], shard=4)
    assert len(more[0]["value"]) == 29 and all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_a_line_by_hand():
    cell = Cell((6, 9, 4), 5)
    found = line_numbers(Work(cell, 0, 11))
    from brinell.core.draws import derive
    from brinell.models.random_ensemble import gaussian, inputs

    draws = derive(11, "random_networks", ids=range(5))
    nets, x = gaussian(cell.widths, draws), inputs(6, draws)
    for i in range(5):

        def f(z, i=i):
            h = z
            for w in nets.weights[:-1]:
                h = np.maximum(w[i].double().numpy() @ h, 0)
            return float(nets.weights[-1][i, 0].double().numpy() @ h)

        z = x[i].double().numpy()
        g = np.array([(f(z + 1e-6 * e) - f(z - 1e-6 * e)) / 2e-6 for e in np.eye(6)])
        if not g.any():
            assert bool(found["dead"][i])
            continue
        value, lin = f(z), abs(f(z)) / (np.linalg.norm(g) * math.sqrt(6))
        assert found["value"][i] == pytest.approx(value, rel=1e-4) and found["linear"][i] == pytest.approx(lin, rel=1e-3)
        u = -np.sign(value) * g / np.linalg.norm(g)
        assert found["residual"][i] == pytest.approx(f(z + lin * math.sqrt(6) * u) / value, abs=1e-3)
        assert bool(found["flipped"][i]) == (f(z + 2 * lin * math.sqrt(6) * u) * value < 0)
        eps = [e for e in np.linspace(2.5e-4, 0.5, 2000) if f(z + e * math.sqrt(6) * u) * value < 0]
        assert float(found["crossing"][i]) == pytest.approx(eps[0] if eps else math.inf, abs=4e-4)
        assert not found["dead"][i]
    assert int(found["dead"].sum()) < 4


def test_one_bottleneck_unit_never_lets_the_sign_change():
    found = line_numbers(Work(Cell((32, 64, 1, 64), 200, narrow=1), 0, 0))
    alive = ~found["dead"]
    assert bool(found["crossing"].isinf().all()) and 60 < int(alive.sum()) < 140
    assert 0.3 < float(found["linear"][alive].median()) * math.sqrt(32) < 1.1, "the linear step does not know"


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_fixed_steps_and_the_reduced_sampler_agree(activation):
    cell = Cell((40, 60), 1500, signs=True, steps=(2.0, 3.0), activations=(activation,))
    direct, reduced = fixed_numbers(Work(cell, 0, 0)), reduced_numbers(Work(cell, 0, 1))
    for column in (0, 1):
        a, b = (numbers[f"{activation} flipped"][:, column].double().mean() for numbers in (direct, reduced))
        assert abs(float(a - b)) < 4 * math.sqrt(2 * 0.25 / 1500)
    assert stats.ks_2samp(direct[f"{activation} value"].numpy(), reduced[f"{activation} value"].numpy()).pvalue > 1e-3
    control = direct[f"{activation} control"].double().mean(0)
    assert control[0] == 0 and control[1] < 0.05 and 0.02 < control[2] < 0.3


def test_walks_and_jacobians():
    walk = walk_numbers(Work(Cell((64, 32, 16, 8), 40), 0, 0))
    assert float(walk["flipped"].double().mean()) > 0.7 and bool((walk["path"] >= walk["distance"] - 1e-6).all())
    norms = jacobian_numbers(Work(Cell((20, 4, 50), 3), 0, 0))["norms"]
    assert norms.shape == (3, 2) and bool((norms > 0.2).all())
    values = value_numbers(Work(Cell((5, 4), 9, variance="paper"), 0, 0))
    assert values["value"].shape == (9,) and bool((values["squared_gradient"] >= 0).all())


def test_numbers_with_intervals():
    assert rate([True, False]).ends[0] == 0.5 and rate([]).n == 0
    assert mean([1.0, 2.0, 3.0, np.nan]).n == 3 and np.isnan(mean([1.0]).low)
    assert median([np.nan]).n == 0
    found = median([3.0, 1.0, 2.0] * 40 + [np.inf])
    assert found.value == 2 and found.low <= 2 <= found.high
    apart = gap(Number(3, 2, 4, 5), Number(1, 0, 2, 5))
    assert apart.ends == pytest.approx((2, 2 - math.sqrt(2), 2 + math.sqrt(2)))
    assert entry("A", "c", "q", Number(1.0, -np.inf, np.inf, 3))["low"] is None


@pytest.mark.slow
def test_training_and_walking():
    common = {"train": "digits(side=8, split=train)", "test": "digits(side=8, split=test)", "points": 100}
    found = odd_even(Training(**common, epochs=40, width=100, depth=3))
    assert float(found["right"].double().mean()) > 0.93 and float(found["flipped"].double().mean()) > 0.95
    distance = found["distance"][found["flipped"]]
    assert float(distance.median()) < 2 and float((found["random"] / found["size"]).median()) > 0.3
    assert torch.equal(odd_even(Training(**common, epochs=40, width=100, depth=3))["distance"], found["distance"])
    still = lazy(Training(**common, epochs=20, width=500, side=8))
    assert float(still["one_step"].double().mean()) > 0.9 and float(still["right"].double().mean()) > 0.9
    x, _ = standardised(torch.rand(3, 1, 4, 4), torch.zeros(3))
    assert torch.allclose(x.mean(1), torch.zeros(3), atol=1e-6) and torch.allclose(x.norm(dim=1), torch.tensor(4.0))
