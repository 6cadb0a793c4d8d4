"""Sparsity: closed forms, a twin written from the formulas, and what has no answer."""

import numpy as np
import pytest
import torch

from brinell.core.errors import UndefinedReading
from brinell.core.measurement import Status
from brinell.probe.sparsity import Sparsity, hoyer, treves_rolls


def twin(r: np.ndarray) -> tuple[float, float]:
    """Treves-Rolls (normalised) and Hoyer of one vector."""
    m = len(r)
    a = r.mean() ** 2 / (r**2).mean()
    return (1 - a) / (1 - 1 / m), (np.sqrt(m) - np.abs(r).sum() / np.sqrt((r**2).sum())) / (np.sqrt(m) - 1)


@pytest.mark.parametrize("m", [2, 10, 1000])
def test_the_ends_of_the_scale(m):
    alone, equal = torch.zeros(m, 1), torch.full((m, 1), 0.3)
    alone[m // 2] = 5
    for measure in (treves_rolls, hoyer):
        assert float(measure(alone)) == pytest.approx(1, abs=1e-12)
        assert float(measure(equal)) == pytest.approx(0, abs=1e-6)
        assert float(measure(7 * alone)) == float(measure(alone))


def test_equal_answers_to_k_of_m_samples():
    """a = k/m, so S = (1 - k/m) / (1 - 1/m); L1/L2 = sqrt(k)."""
    r = torch.zeros(10, 1)
    r[:4] = 2
    assert float(treves_rolls(r)) == pytest.approx(0.6 / 0.9)
    assert float(hoyer(r)) == pytest.approx((10**0.5 - 2) / (10**0.5 - 1))


@pytest.mark.parametrize("axis", [0, 1])
def test_the_twin(axis):
    r = np.random.default_rng(0).gamma(0.5, size=(30, 7))
    lines = r.T if axis == 0 else r
    expected = np.array([twin(line) for line in lines])
    assert treves_rolls(torch.tensor(r), axis).numpy() == pytest.approx(expected[:, 0], rel=1e-12)
    assert hoyer(torch.tensor(r), axis).numpy() == pytest.approx(expected[:, 1], rel=1e-12)


@pytest.mark.parametrize("bad", [torch.tensor([[-1.0], [1.0]]), torch.tensor([[torch.nan], [1.0]]), torch.ones(1, 3)])
def test_what_has_no_sparsity(bad):
    for measure in (treves_rolls, hoyer):
        with pytest.raises(UndefinedReading):
            measure(bad)
    assert torch.isnan(treves_rolls(torch.zeros(3, 1))).all()


@pytest.fixture
def responses():
    r = np.random.default_rng(1).gamma(0.5, size=(40, 6)).astype(np.float32)
    r[:, 2] = 0
    r[5] = 0
    r[r < 0.1] = 0
    return r


def test_the_readings_equal_the_twin(responses, make_view, find):
    view = make_view(np.zeros((40, 3), np.float32), np.zeros(40, int), activations={"a:0": torch.tensor(responses)})
    r = responses.astype(np.float64)
    live, some = [u for u in range(6) if u != 2], [i for i in range(40) if r[i].any()]
    expected = {
        "zeros": (r == 0).mean(),
        "lifetime_sparsity": np.mean([twin(r[:, u])[0] for u in live]),
        "lifetime_hoyer": np.mean([twin(r[:, u])[1] for u in live]),
        "population_sparsity": np.mean([twin(r[i])[0] for i in some]),
        "population_hoyer": np.mean([twin(r[i])[1] for i in some]),
    }
    for name, value in expected.items():
        assert find(Sparsity(), view, name=name, layer="a:0").value == pytest.approx(value, rel=1e-9)
        assert find(Sparsity(), view, name=name, layer="").value == pytest.approx(value, rel=1e-9)
    array = find(Sparsity(), view, name="lifetime_sparsity", layer="a:0").array
    assert np.isnan(array).tolist() == [u == 2 for u in range(6)]


def test_layers_weigh_the_same_whatever_their_width(make_view, find):
    dense, sparse = torch.ones(8, 100), torch.eye(8)[:, :2]
    view = make_view(np.zeros((8, 2), np.float32), np.zeros(8, int), activations={"late:0": dense, "early:0": sparse})
    network = find(Sparsity(), view, name="lifetime_sparsity", layer="")
    assert network.value == pytest.approx(0.5)
    assert network.array.tolist() == pytest.approx([0, 1], abs=1e-12)
    assert network.axis == "layer"


def test_every_position_is_a_unit_where_maps_are_not_pooled(make_view, find):
    maps = torch.zeros(5, 2, 2, 2)
    maps[:, :, 0, 0] = 1
    view = make_view(np.zeros((5, 2), np.float32), np.zeros(5, int), activations={"a:0": maps})
    assert find(Sparsity(pooled=False), view, name="zeros", layer="a:0").value == 0.75
    assert Sparsity(pooled=False).needs.pooled is False


@pytest.mark.parametrize(("change", "reason"), [(-1.0, "negative"), (float("nan"), "NaN")])
def test_signed_and_broken_layers_are_undefined(responses, change, reason, make_view, find):
    responses[3, 1] = change
    view = make_view(np.zeros((40, 3), np.float32), np.zeros(40, int), activations={"a:0": torch.tensor(responses)})
    for layer in ("a:0", ""):
        found = find(Sparsity(), view, name="population_sparsity", layer=layer)
        assert found.status is Status.UNDEFINED and reason in found.reason


def test_dead_layers_say_so(make_view, find):
    view = make_view(np.zeros((4, 3), np.float32), np.zeros(4, int), activations={"a:0": torch.zeros(4, 5)})
    assert find(Sparsity(), view, name="zeros", layer="a:0").value == 1
    assert "dead" in find(Sparsity(), view, name="lifetime_sparsity", layer="a:0").reason
