"""Selectivity as a term of the loss: its gradient, its direction, its schedule, its memory."""

import numpy as np
import pytest
import torch

import brinell as br
from brinell.core.dataset import Dataset
from brinell.core.draws import derive
from brinell.core.errors import NetworkError, SpecError
from brinell.core.network import Network
from brinell.harden.fit import Fit
from brinell.harden.loop import Step
from brinell.harden.selectivity import Selectivity, Term
from brinell.probe.selectivity import class_selectivity

FIT = Fit(epochs=3, batch_size=24, lr=0.02)


def step_of(activations, y, epoch=0) -> Step:
    y = torch.as_tensor(y)
    logits = torch.zeros(len(y), 3, requires_grad=True)
    return Step(Network(torch.nn.Identity()), logits, y, logits, activations, epoch, derive(0, ids=range(len(y))))


def test_the_gradient_in_closed_form():
    """d SI / d mu_max = 2 mu_rest / S^2 and d SI / d mu_rest = -2 mu_max / S^2: 2/9 and -4/9 at (2, 1)."""
    r = torch.tensor([[2.0], [1.0]], requires_grad=True)
    (-Term(Selectivity(alpha=1), 2)(step_of({"a:0": r}, [0, 1]))).backward()
    assert r.grad.flatten().tolist() == pytest.approx([2 / 9, -4 / 9], abs=1e-6)


def test_the_term_is_the_mean_over_layers_of_the_means_over_units():
    lot = np.random.default_rng(0)
    y = torch.tensor(lot.integers(0, 3, 40))
    layers = {"early:0": torch.tensor(lot.gamma(1, size=(40, 9))), "late:0": torch.tensor(lot.gamma(1, size=(40, 2)))}
    means = [float(class_selectivity(r, y).mean()) for r in layers.values()]
    step = step_of(layers, y)
    assert float(Term(Selectivity(alpha=-2), 3)(step)) == pytest.approx(2 * np.mean(means), rel=1e-5)
    assert float(Term(Selectivity(alpha=-2, first=1), 3)(step)) == pytest.approx(2 * means[0], rel=1e-5)
    assert float(Term(Selectivity(alpha=-2, last=1), 3)(step)) == pytest.approx(2 * means[1], rel=1e-5)


def test_half_precision_does_not_reach_the_term():
    """Class means that differ by less than bfloat16 can tell are told apart under autocast."""
    layers = {"a:0": torch.tensor([[1.001], [1.0]])}
    expected = float(Term(Selectivity(alpha=-1), 2)(step_of(layers, [0, 1])))
    with torch.autocast("cpu", torch.bfloat16):
        found = Term(Selectivity(alpha=-1), 2)(step_of(layers, [0, 1]))
    assert float(found) == expected == pytest.approx(0.001 / 2.001, rel=1e-3) and found.dtype == torch.float32


def test_batches_of_one_class_leave_the_term_out():
    assert float(Term(Selectivity(alpha=1), 3)(step_of({"a:0": torch.rand(4, 2)}, [1, 1, 1, 1]))) == 0


def test_moving_means_stand_for_absent_classes():
    term = Term(Selectivity(alpha=-1, mode="ema", decay=0.5), 3)
    term(step_of({"a:0": torch.tensor([[1.0], [2.0], [8.0]])}, [0, 1, 2]))
    r = torch.tensor([[3.0], [3.0]], requires_grad=True)
    value = term(step_of({"a:0": r}, [0, 0]))
    assert float(value.detach()) == pytest.approx((8 - 2.5) / (8 + 2.5), abs=1e-6)  # means 3 (of the batch), 2, 8
    value.backward()
    assert r.grad.abs().sum() > 0
    assert term.tensors["means"].flatten().tolist() == [2.0, 2.0, 8.0]


def test_alpha_zero_is_plain_training_to_the_last_bit(toy, small, same):
    assert same(Selectivity(alpha=0, fit=FIT)(small, toy, seed=0), FIT(small, toy, seed=0))


def test_it_moves_selectivity_both_ways(toy, small):
    def measured(net):
        return br.Lab().measure(net, toy, probes=["class_selectivity"]).value("selectivity")

    fit = FIT.replace(epochs=8)
    low, plain, high = (measured(Selectivity(alpha=alpha, fit=fit)(small, toy, seed=0)) for alpha in (-3, 0, 1))
    assert low < plain - 0.02 and high > plain + 0.02


def test_the_schedule(toy, small, same):
    plain = FIT(small, toy, seed=0)
    never = Selectivity(alpha=-3, start=3, fit=FIT)(small, toy, seed=0)
    assert same(never, plain)
    early = Selectivity(alpha=-3, stop=1, fit=FIT)(small, toy, seed=0)
    late = Selectivity(alpha=-3, start=2, fit=FIT)(small, toy, seed=0)
    assert not same(early, plain) and not same(late, plain) and not same(early, late)


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_an_interrupted_training_ends_with_the_same_weights(toy, small, same, watcher, tmp_path, mode):
    how, file = Selectivity(alpha=-1, mode=mode, fit=FIT), tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        how(small, toy, seed=0, checkpoint=file, progress=watcher(3))
    assert same(how(small, toy, seed=0, checkpoint=file), how(small, toy, seed=0))


def test_half_precision_training(toy, small, same):
    how = Selectivity(alpha=-3, fit=FIT.replace(amp=True))
    assert not same(how(small, toy, seed=0), FIT.replace(amp=True)(small, toy, seed=0))


def test_the_gradient_reaches_all_earlier_weights_as_finite_differences_say():
    """Of the whole term, through two regularised layers, at every weight of the network."""
    lot = np.random.default_rng(0)
    y = torch.tensor(lot.integers(0, 3, 40))
    x = torch.tensor(lot.normal(size=(40, 5)))
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4), torch.nn.ReLU()).double()

    def index():
        early = net[1](net[0](x))
        late = net[3](net[2](early))
        found = []
        for r in (early, late):
            means = torch.stack([r[y == c].mean(0) for c in range(3)])
            best = means.max(0).values
            rest = (means.sum(0) - best) / 2
            found.append(((best - rest) / (best + rest + 1e-6)).mean())
        return sum(found) / 2

    weights = [net[0].weight, net[2].weight]
    early = net[1](net[0](x))
    term = Term(Selectivity(alpha=-2), 3)(step_of({"1:0": early, "3:0": net[3](net[2](early))}, y))
    for weight, slope in zip(weights, torch.autograd.grad(term, weights), strict=True):
        for place in np.ndindex(*weight.shape):
            with torch.no_grad():
                ends = []
                for step in (1e-6, -2e-6):
                    weight[place] += step
                    ends.append(float(index()))
                weight[place] += 1e-6
            assert float(slope[place]) == pytest.approx(2 * (ends[0] - ends[1]) / 2e-6, abs=2e-5)


def test_networks_with_relu6(toy):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 12), torch.nn.ReLU6(), torch.nn.Linear(12, 3))
    low, high = (Selectivity(alpha=alpha, fit=FIT)(net, toy, seed=0) for alpha in (-3, 3))
    table = br.Lab().measure({"low": low, "high": high}, toy, probes=["class_selectivity", "input_gradient"])
    assert table.value("selectivity", net="low") < table.value("selectivity", net="high")
    assert table.value("input_gradient", net="low", layer="") > 0


def test_small_batches_are_warned_of(toy, small):
    with pytest.warns(UserWarning, match=r"2 samples per class.*raise batch_size to 24"):
        Selectivity(fit=FIT.replace(batch_size=6, epochs=1))(small, toy, seed=0)


def test_networks_without_such_layers_are_refused(small, toy):
    data = Dataset.from_arrays(toy.x(), toy.labels(), classes=3)
    with pytest.raises(NetworkError, match="needs at least 1 recorded ReLU"):
        Selectivity(fit=FIT)(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3)), data, seed=0)
    with pytest.raises(NetworkError, match="needs 5 recorded ReLU layers, but this network has 2: 2:0, 4:0"):
        Selectivity(last=5, fit=FIT)(small, toy, seed=0)


@pytest.mark.parametrize(
    "bad", ["selectivity(first=1, last=1)", "selectivity(start=3, stop=3)", "selectivity(alpha=inf)", "selectivity(mode=x)"]
)
def test_nonsense_is_refused(bad):
    with pytest.raises(SpecError):
        br.parse(bad)
