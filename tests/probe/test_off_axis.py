"""Off-axis selectivity: planted rotations are found, and nothing is found where there is nothing."""

import numpy as np
import pytest
import torch

from brinell.core.measurement import Bound, Status
from brinell.probe.off_axis import OffAxis, most_selective_rotation, rotated_selectivity
from brinell.probe.selectivity import class_selectivity

LOT = np.random.default_rng(0)
LABELS = torch.tensor(np.arange(400) % 4)
ONE_EACH = torch.tensor(np.eye(4)[LABELS.numpy()] * LOT.uniform(0.8, 1.2, (400, 1)) + LOT.uniform(0, 0.05, (400, 4)))


def turned(size: int) -> torch.Tensor:
    """A rotation of non-negative entries on blocks, so that non-negative responses stay so: pairs of axes turned by 45 degrees."""
    half = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5
    return torch.block_diag(*[half] * (size // 2))


def test_a_planted_rotation_is_turned_back():
    """Sums and differences of pairs of one-class units: the sums are units of two classes, the differences are shifted to be above 0."""
    mixed = ONE_EACH @ turned(4)
    shift = mixed.min(0).values.clamp(max=0)
    responses = mixed - shift
    axes = torch.eye(4, dtype=torch.float64)
    before = rotated_selectivity(responses, LABELS, axes)
    found = most_selective_rotation(responses, LABELS, axes, steps=200)
    assert torch.allclose(found @ found.T, axes, atol=1e-9)
    assert before == pytest.approx(float(class_selectivity(responses, LABELS).mean()))
    assert rotated_selectivity(responses, LABELS, found) > before + 0.1


def test_it_is_never_worse_than_where_it_began():
    axes = torch.eye(4, dtype=torch.float64)
    assert rotated_selectivity(ONE_EACH, LABELS, most_selective_rotation(ONE_EACH, LABELS, axes, steps=3)) >= rotated_selectivity(
        ONE_EACH, LABELS, axes
    )
    assert torch.equal(most_selective_rotation(torch.zeros(8, 3), LABELS[:8], torch.eye(3)), torch.eye(3, dtype=torch.float64))


def test_the_index_of_rotated_responses_against_numpy():
    w = np.linalg.qr(LOT.normal(size=(4, 4)))[0]
    rotated = np.maximum(ONE_EACH.numpy() @ w, 0)
    means = np.array([rotated[LABELS.numpy() == c].mean(0) for c in range(4)])
    best, rest = means.max(0), (means.sum(0) - means.max(0)) / 3
    expected = ((best - rest) / (best + rest + 1e-6)).mean()
    assert rotated_selectivity(ONE_EACH, LABELS, torch.tensor(w)) == pytest.approx(expected, rel=1e-9)


def test_readings(make_view, measure, take):
    view = make_view(torch.zeros(400, 4), LABELS, activations={"b:0": ONE_EACH.float(), "a:0": torch.rand(400, 3) + 5})
    probe = OffAxis(sample=300, steps=20)
    found = {(r.name, r.layer): r for r in measure(probe, view)}
    on, off, gain = (found[f"{name}", "b:0"] for name in ("on_axis_selectivity", "off_axis_selectivity", "off_axis_gain"))
    assert on.value > 0.9 and on.bound is Bound.ESTIMATE and on.n == 300
    assert gain.value == pytest.approx(off.value - on.value) and gain.value > -0.05
    assert found["random_axis_selectivity", "b:0"].value < on.value
    assert found["on_axis_selectivity", "a:0"].value < 0.02
    assert found["on_axis_selectivity", ""].value == pytest.approx((on.value + found["on_axis_selectivity", "a:0"].value) / 2)
    assert found["on_axis_selectivity", ""].array[0] == on.value, "in the order of the forward pass"
    shards = measure(probe, take(view, np.arange(150, 400)), take(view, np.arange(150)))
    assert [r.value for r in shards] == [r.value for r in measure(probe, view)]


@pytest.mark.parametrize(
    ("change", "labels", "reason"), [(-1.0, LABELS, "negative"), (np.nan, LABELS, "NaN"), (1.0, 0 * LABELS, "at least 2")]
)
def test_what_has_none(change, labels, reason, make_view, measure):
    responses = ONE_EACH.clone()
    responses[:] = torch.where(torch.arange(400)[:, None] < 10, change, responses)
    view = make_view(torch.zeros(400, 4), labels, activations={"a:0": responses})
    for reading in measure(OffAxis(steps=1), view):
        assert reading.status is Status.UNDEFINED and reason in reading.reason
    assert "no ReLU" in measure(OffAxis(), make_view(torch.zeros(2, 2), [0, 1]))[0].reason
