"""The law of tallies, for the probes of plain measurements: shards, order, storage, units and precision change no reading."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.tally import unpack
from brinell.probe.accuracy import Accuracy
from brinell.probe.calibration import Calibration
from brinell.probe.selectivity import Selectivity

PROBES = [Accuracy(), Accuracy(confidence=0.5), Calibration(), Calibration(bins=4), Selectivity(), Selectivity(eps=0.1)]


@pytest.fixture
def view(make_view):
    lot = np.random.default_rng(7)
    n = 90
    y = lot.integers(0, 4, n)
    logits = lot.normal(size=(n, 4)) + 2 * np.eye(4)[y]
    layers = {"late:0": lot.gamma(1.0, size=(n, 3)), "early:0": lot.gamma(1.0, size=(n, 5)) * (y[:, None] + 1)}
    layers["early:0"][:, 2] = 0
    return make_view(
        torch.tensor(logits, dtype=torch.float32),
        y,
        ids=lot.permutation(1000)[:n],
        activations={name: torch.tensor(value, dtype=torch.float32) for name, value in layers.items()},
        classes=("ant", "bee", "ant", "café"),
        group=lot.choice(["left", "right", "both"], n),
        cluster=lot.integers(0, 30, n),
    )


@pytest.fixture
def bare(view):
    """The same view without optional columns."""
    return replace(view, columns={}, classes=())


def check_same(found, expected, tolerance=1e-12):
    assert [(r.name, r.layer, r.status, r.bound, r.n, r.axis) for r in found] == [
        (r.name, r.layer, r.status, r.bound, r.n, r.axis) for r in expected
    ]
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in ((ours.value, theirs.value), (ours.low, theirs.low), (ours.high, theirs.high)):
            assert one == other or one == pytest.approx(other, rel=tolerance, abs=tolerance), (ours, theirs)
        if theirs.array is not None:
            assert np.allclose(ours.array, theirs.array, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("probe", PROBES, ids=str)
@pytest.mark.parametrize("columns", ["view", "bare"])
@pytest.mark.parametrize("shards", [2, 7, 90])
def test_any_split_in_any_order_gives_the_readings_of_the_whole(probe, columns, shards, request, take):
    whole = request.getfixturevalue(columns)
    lot = np.random.default_rng(shards)
    parts = np.array_split(lot.permutation(90), shards)
    total = None
    for rows in parts:
        shard = take(whole, rows)
        kind, tensors = probe.observe(shard, draws=derive(0, ids=shard.ids)).pack()
        tally = unpack(kind, load(save(tensors)))
        total = tally if total is None else tally + total
    check_same(probe.read(total), probe.read(probe.observe(whole, draws=derive(0, ids=whole.ids))))


@pytest.mark.parametrize("probe", PROBES[:4], ids=str)
def test_a_shard_observed_twice_changes_nothing(probe, view, take, measure):
    check_same(measure(probe, view, take(view, np.arange(40))), measure(probe, view))


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_double_precision_gives_the_same(probe, view, measure):
    double = replace(view, logits=view.logits.double(), activations={k: v.double() for k, v in view.activations.items()})
    check_same(measure(probe, double), measure(probe, view))


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_an_empty_shard_changes_nothing(probe, view, take, measure):
    check_same(measure(probe, take(view, np.arange(0)), view), measure(probe, view))


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_no_sample_at_all_is_no_answer(probe, view, take, measure):
    readings = measure(probe, take(view, np.arange(0)))
    assert readings and all(reading.value is None and reading.reason for reading in readings)


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_the_text_of_a_probe_gives_it_back(probe):
    assert parse(probe.spec()) == probe


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_an_empty_tally_is_no_answer(probe, view):
    empty = type(probe.observe(view, draws=derive(0, ids=view.ids)))()
    assert all(reading.value is None for reading in probe.read(empty))
