"""F-ratio and preference: scipy as second implementation, closed forms, and their place in the probe."""

import numpy as np
import pytest
import torch
from scipy import stats

import brinell as br
from brinell.core.dataset import Dataset
from brinell.core.draws import derive
from brinell.core.errors import UndefinedReading
from brinell.core.measurement import Bound
from brinell.core.record import pooled, record
from brinell.probe.selectivity import Selectivity, class_selectivity
from brinell.probe.tuning import f_ratio, preference_auc

LOT = np.random.default_rng(0)
LABELS = LOT.integers(0, 4, 120)
R = LOT.gamma(1.0, size=(120, 5)) * (1 + 0.4 * LABELS[:, None] * np.arange(5))


def test_the_f_ratio_is_that_of_scipy():
    found = f_ratio(torch.tensor(R), torch.tensor(LABELS)).numpy()
    expected = [stats.f_oneway(*(R[c == LABELS, u] for c in range(4))).statistic for u in range(5)]
    assert found == pytest.approx(expected, rel=1e-9)
    assert f_ratio(torch.tensor(7 * R - 300), torch.tensor(LABELS)).numpy() == pytest.approx(expected, rel=1e-6)


def test_the_area_is_that_of_mann_and_whitney():
    r = np.round(R, 1)  # with ties
    preferred = np.array([0, 1, 2, 3, 3])
    expected = []
    for unit, c in enumerate(preferred):
        inside, outside = r[c == LABELS, unit], r[c != LABELS, unit]
        expected.append(stats.mannwhitneyu(inside, outside).statistic / (len(inside) * len(outside)))
    assert preference_auc(torch.tensor(r), torch.tensor(LABELS), torch.tensor(preferred)).numpy() == pytest.approx(expected, rel=1e-12)
    assert torch.isnan(preference_auc(torch.tensor(r), torch.tensor(LABELS), torch.full((5,), -1))).all()


def test_what_has_no_f_ratio():
    assert torch.isnan(f_ratio(torch.tensor([[1.0], [1.0], [2.0], [2.0]]), torch.tensor([0, 0, 1, 1]))).all()
    for r, y in ((torch.rand(4, 1), [0, 0, 0, 0]), (torch.rand(3, 1), [0, 1, 2]), (torch.full((4, 1), torch.nan), [0, 0, 1, 1])):
        with pytest.raises(UndefinedReading):
            f_ratio(r, torch.tensor(y))


@pytest.fixture
def responses():
    """Gamma responses without any class information, and labels."""
    lot = np.random.default_rng(3)
    return torch.tensor(lot.gamma(16.0, size=(2000, 300)) / 16), torch.tensor(lot.integers(0, 10, 2000))


def test_shuffled_labels_give_the_null_level(responses, make_view, measure):
    """0.855 cv / sqrt(n) for 10 classes, within 10 %."""
    r, y = responses
    data = Dataset.from_arrays(torch.zeros(2000, 1), y, classes=10)
    probe = Selectivity(permutations=5, sample=1000)
    probe = probe.prepared(probe.prepare(None, data, draws=derive(0, ids=data.ids)))
    found = {(q.name, q.layer): q for q in measure(probe, make_view(torch.zeros(2000, 10), y, activations={"a:0": r}))}
    expected = 0.855 * 0.25 / 200**0.5
    null = found["selectivity_null", "a:0"]
    assert null.value == pytest.approx(expected, rel=0.1) and null.bound is Bound.ESTIMATE
    assert null.low < null.value < null.high
    assert found["selectivity", "a:0"].value == pytest.approx(expected, rel=0.1)
    assert found["f_ratio", "a:0"].value == pytest.approx(1, abs=0.1)
    assert found["preference_auc", "a:0"].value == pytest.approx(0.53, abs=0.03)
    assert found["selectivity_null", ""].value == null.value


def test_the_null_is_that_of_whole_permutations_whatever_the_shards(make_view, measure):
    ids = LOT.permutation(10_000)[:120]
    data = Dataset.from_arrays(torch.zeros(120, 1), LABELS, classes=4, ids=ids)
    probe = Selectivity(permutations=3)
    state = probe.prepare(None, data, draws=derive(0, ids=data.ids))
    probe = probe.prepared(state)
    assert all(torch.equal(row.sort().values, torch.tensor(LABELS).sort().values.int()) for row in state["shuffled"])
    place = {int(i): k for k, i in enumerate(state["ids"])}
    expected = []
    for row in state["shuffled"]:
        labels = torch.tensor([int(row[place[int(i)]]) for i in data.ids])
        expected.append(float(class_selectivity(torch.tensor(R), labels).mean()))

    def part(rows):
        return make_view(torch.zeros(120, 4)[rows], LABELS[rows], ids=data.ids[rows], activations={"a:0": torch.tensor(R[rows])})

    found = measure(probe, part(slice(50, 120)), part(slice(0, 50)))
    null = next(q for q in found if q.name == "selectivity_null" and q.layer)
    assert (null.value, null.low, null.high) == pytest.approx((np.mean(expected), min(expected), max(expected)), rel=1e-9)


def test_any_column_can_take_the_place_of_the_labels():
    data = br.load_dataset("digits(side=8)", limit=60)
    halves = np.where(data.labels().numpy() < 5, "low", "high")
    grouped = Dataset.from_arrays(data.x(), data.labels(), classes=data.classes, ids=data.ids, group=halves)
    net = br.load_network("mlp(widths=(16,))", shape=data.shape, classes=10)
    table = br.Lab().measure(net, grouped, (), ["class_selectivity(by=group)", "class_selectivity"])
    with torch.no_grad(), record(net, keep=pooled) as activations:
        net(data.x())
    expected = float(class_selectivity(next(iter(activations.values())), torch.tensor(halves == "low").long()).mean())
    assert table.value("selectivity", probe="class_selectivity(by=group)") == pytest.approx(expected, rel=1e-6)
    assert table.value("selectivity", probe="class_selectivity") > expected
    missing = br.Lab().measure(net, data, (), ["class_selectivity(by=colour)"])
    assert "no column 'colour'" in missing.select(status="failed")[0]["reason"]
