"""Input-unit gradients: linear networks, finite differences, planted variability."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.errors import NetworkError
from brinell.core.measurement import Status
from brinell.core.network import Counted, Network
from brinell.core.record import pooled, record
from brinell.probe.input_gradient import InputGradient, input_unit_gradients


def linear(weight: torch.Tensor, bias: float) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(weight.shape[1], len(weight)), nn.ReLU(), nn.Linear(len(weight), 2))
    with torch.no_grad():
        net[0].weight.copy_(weight)
        net[0].bias.fill_(bias)
    return net.requires_grad_(False)


WEIGHT = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])


def test_units_that_are_always_active_have_the_norm_of_their_weights():
    net = linear(WEIGHT, 10.0)
    sizes = input_unit_gradients(net, torch.rand(7, 2), {"1:0": None})["1:0"]
    assert torch.allclose(sizes, torch.tensor([5.0, 2.0, 1.0]).expand(7, 3))
    assert torch.equal(input_unit_gradients(net, torch.rand(7, 2), {"1:0": [2, 0]})["1:0"][0], torch.tensor([1.0, 5.0]))
    with pytest.raises(NetworkError, match="no recorded layer"):
        input_unit_gradients(net, torch.rand(7, 2), {"9:0": None})


def test_gradients_equal_finite_differences():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)).double()
    x = torch.rand(2, 1, 5, 5, dtype=torch.float64)
    found = input_unit_gradients(net, x, {"1:0": None, "3:0": None})

    def responses(z, depth):
        return net[:depth](z).flatten(2).mean(2)

    step = 1e-6
    for layer, depth in (("1:0", 2), ("3:0", 4)):
        difference = torch.zeros(*responses(x, depth).shape, 25, dtype=torch.float64)
        for k in range(25):
            e = torch.zeros(25, dtype=torch.float64)
            e[k] = step
            e = e.reshape(1, 1, 5, 5)
            difference[..., k] = (responses(x + e, depth) - responses(x - e, depth)) / (2 * step)
        assert found[layer].numpy() == pytest.approx(difference.norm(dim=2).detach().numpy(), rel=1e-5)


@pytest.fixture
def look(make_view):
    """A view of a network at given inputs."""

    def seen(net: nn.Module, x: torch.Tensor, ids=None):
        with record(net, keep=pooled) as activations:
            logits = net(x)
        view = make_view(logits.detach(), np.zeros(len(x), int), ids=ids, activations={k: v.detach() for k, v in activations.items()})
        return replace(view, x=x, z=x, net=Counted(Network(net)))

    return seen


def test_constant_gradients_do_not_vary_over_samples(look, find):
    view = look(linear(WEIGHT, 10.0), torch.rand(9, 2))
    probe = InputGradient()
    assert find(probe, view, name="input_gradient", layer="1:0").value == pytest.approx(8 / 3)
    assert find(probe, view, name="input_gradient", layer="1:0").array == pytest.approx([5, 2, 1])
    assert find(probe, view, name="input_gradient_cv_samples", layer="1:0").value == pytest.approx(0, abs=1e-6)
    expected = np.std([5, 2, 1]) / np.mean([5, 2, 1])
    assert find(probe, view, name="input_gradient_cv_units", layer="1:0").value == pytest.approx(expected, rel=1e-6)
    assert find(probe, view, name="input_gradient_cv_units", layer="").value == pytest.approx(expected, rel=1e-6)


def test_a_unit_active_for_one_sample_in_four(look, find):
    """m is 5 for a share p and 0 for the rest: std / mean = sqrt((1 - p) / p)."""
    x = torch.tensor([[1.0, 1.0]] + 3 * [[-1.0, -1.0]])
    view = look(linear(torch.tensor([[3.0, 4.0], [-3.0, -4.0]]), 0.0), x)
    found = find(InputGradient(), view, name="input_gradient_cv_samples", layer="1:0")
    assert found.array == pytest.approx([3**0.5, (1 / 3) ** 0.5], rel=1e-6)


def test_shards_change_nothing(look, measure):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    x = torch.rand(30, 6, dtype=torch.float64)
    probe = InputGradient(units=8)
    whole = measure(probe, look(net, x))
    parts = measure(probe, look(net, x[20:]), look(net, x[:20]))
    for one, other in zip(whole, parts, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-9)
    assert len(next(r for r in whole if r.layer == "1:0").array) == 8
    assert probe.plan("1:0", 40) != probe.plan("3:0", 40)
    assert probe.plan("1:0", 5) == [0, 1, 2, 3, 4]


def test_layers_without_any_gradient_are_undefined(look, find):
    view = look(linear(WEIGHT, -10.0), torch.rand(4, 2))
    assert find(InputGradient(), view, name="input_gradient", layer="1:0").value == 0
    for layer in ("1:0", ""):
        found = find(InputGradient(), view, name="input_gradient_cv_samples", layer=layer)
        assert found.status is Status.UNDEFINED and "depends on any input" in found.reason


def test_it_runs_in_the_lab_under_an_attack():
    data = br.load_dataset("digits(side=8)", limit=40)
    net = br.load_network("small_cnn", shape=data.shape, classes=10)
    attack = "fgsm(threat=ball(eps=0.1))"
    table = br.Lab().measure(
        net, data, [attack], ["input_gradient(units=4)", "jacobian", "similarity", "sparsity", "dimensionality(sample=30)"]
    )
    assert not [row["reason"] for row in table.rows if row["status"] == "failed"]
    for name in ("input_gradient", "jacobian_norm", "zeros"):
        assert table.value(name, perturbation=attack) > 0
    layer = table.select(name="cka", perturbation=attack)[0]
    assert 0 < layer["value"] < 1
    assert table.select(name="cka", perturbation="clean")[0]["value"] == pytest.approx(1)
