"""The two-layer learner: its values by a slow twin, its ground truth, its module and architecture."""

import numpy as np
import pytest
import torch

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import NetworkError, SpecError
from brinell.models.two_layer import TiedTwoLayer, TwoLayer, ground_truth, initial_neurons, two_layer
from brinell.models.two_layer_target import Target, drawn_target


def twin(x, w, activation):
    act = (lambda t: max(t, 0.0)) if activation == "relu" else abs
    return [sum(np.sqrt(sum(v * v for v in wi)) * act(sum(a * b for a, b in zip(wi, xn, strict=True))) for wi in w) / len(w) for xn in x]


@pytest.mark.parametrize("activation", ["relu", "abs"])
@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (4, 7, 3), (5, 2, 11)])
def test_values_by_hand(activation, n, m, d):
    x, w = derive(0, "x", ids=range(n)).normal(d, dtype=torch.float64), initial_neurons(m, d, draws=derive(0, ids=[4]), dtype=torch.float64)
    np.testing.assert_allclose(two_layer(x, w[0], activation), twin(x.tolist(), w[0].tolist(), activation), rtol=1e-12)


def test_an_ensemble_is_its_members():
    w = initial_neurons(6, 4, draws=derive(0, ids=[1, 2, 3]))
    assert w.shape == (3, 6, 4) and torch.equal(initial_neurons(6, 4, draws=derive(0, ids=[2]))[0], w[1])
    x = torch.randn(5, 4)
    torch.testing.assert_close(two_layer(x, w), torch.stack([two_layer(x, member) for member in w]))


def test_initial_neurons_have_variance_one_over_d():
    w = initial_neurons(20_000, 5, draws=derive(1, ids=[0]), dtype=torch.float64)
    assert float(w.mean()) == pytest.approx(0, abs=4 * (0.2 / w.numel()) ** 0.5)
    assert float(w.square().mean()) == pytest.approx(0.2, abs=4 * 0.2 * (2 / w.numel()) ** 0.5)


@pytest.mark.parametrize(("activation", "m"), [("relu", 12), ("abs", 6)])
def test_the_ground_truth_is_the_target(activation, m):
    target = drawn_target(6, draws=derive(1, ids=[0]), kappa=3.0)
    w = ground_truth(target, activation)
    assert w.shape == (m, 6)
    x = torch.randn(50, 6, dtype=torch.float64)
    torch.testing.assert_close(two_layer(x, w, activation), target(x))
    thin = Target(target.directions[:2], target.weights[:2])
    torch.testing.assert_close(two_layer(x, ground_truth(thin, activation), activation), thin(x))


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_the_module_is_one_learner_per_output(activation):
    net = TwoLayer(width=9, activation=activation).build((2, 3, 2), 4)
    x = torch.randn(5, 2, 3, 2)
    out = net(x)
    expected = torch.stack([two_layer(x.flatten(1), neurons, activation) for neurons in net.neurons], 1)
    torch.testing.assert_close(out, expected)
    assert out.shape == (5, 4)
    out.sum().backward()
    assert bool((net.neurons.grad != 0).any((1, 2)).all())


def test_a_neuron_that_is_zero_has_a_finite_gradient():
    net = TiedTwoLayer(torch.zeros(1, 2, 3))
    net(torch.randn(4, 3)).sum().backward()
    assert net.neurons.grad.abs().max() == 0


def test_the_architecture_draws_from_torch_s_state_alone():
    def build():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return TwoLayer(width=50).build((8,), 2).neurons.detach()

    assert torch.equal(build(), build())
    assert float(build().square().sum(-1).mean()) == pytest.approx(1, abs=0.2)


def test_refusals():
    with pytest.raises(NetworkError, match="use one of relu, abs"):
        two_layer(torch.ones(1, 2), torch.ones(1, 2), "tanh")
    with pytest.raises(NetworkError, match=r"inputs \(..., n, 3\)"):
        two_layer(torch.ones(1, 2), torch.ones(4, 3))
    for w in (torch.ones(3), torch.ones(0, 3), torch.ones(2, 3, dtype=torch.int64)):
        with pytest.raises(NetworkError, match="floating-point weights"):
            two_layer(torch.ones(1, 3), w)
    with pytest.raises(NetworkError, match="at least 1"):
        initial_neurons(0, 3, draws=derive(0, ids=[0]))
    for text in ("two_layer(width=0)", "two_layer(activation=tanh)"):
        with pytest.raises(SpecError):
            parse(text)
