"""The line of the gradient as a probe: linear networks exactly, random networks as predicted, layers by their singular values."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.draws import derive
from brinell.core.errors import NetworkError
from brinell.core.measurement import Bound, Status
from brinell.core.network import Counted, Network
from brinell.core.record import pooled, record
from brinell.models.loading import load_network
from brinell.models.reference import linear_network
from brinell.probe.gradient_line import GradientLine, layer_gains


@pytest.fixture
def look(make_view):
    """A view of a network at given inputs."""

    def seen(net: nn.Module, x: torch.Tensor):
        with torch.no_grad(), record(net, keep=pooled) as activations:
            logits = net(x)
        view = make_view(logits, np.zeros(len(x), int), activations=dict(activations))
        return replace(view, x=x, z=x, net=Counted(Network(net)))

    return seen


def readings(probe, *views):
    tallies = [probe.observe(view, draws=derive(0, "test", ids=view.ids)) for view in views]
    total = tallies[0]
    for tally in tallies[1:]:
        total = total + tally
    return {(reading.name, reading.layer): reading for reading in probe.read(total)}


def test_a_linear_network(look):
    torch.manual_seed(0)
    net = linear_network(torch.randn(2, 30)).requires_grad_(False)
    x = torch.randn(40, 30)
    w = (net[1].weight[0] - net[1].weight[1]).double()
    expected = (x.double() @ w).abs() / (w.norm() * x.double().norm(dim=1))
    found = readings(GradientLine(jacobians=0), look(net, x))
    step = found["relative_step", ""]
    assert np.sort(step.array) == pytest.approx(np.sort(expected.numpy()), rel=1e-5)
    assert step.value == pytest.approx(np.sort(expected.numpy())[19], rel=1e-5) and step.low < step.value < step.high
    assert found["step_flip_rate", ""].value == 1 and found["line_residual", ""].value < 1e-5
    assert found["line_flip_rate", ""].value == pytest.approx(float((expected <= 0.5).double().mean()))
    assert found["line_step", ""].value == pytest.approx(step.value, rel=0.02)
    assert found["dead_samples", ""].value == 0 and found["relative_step_predicted", ""].bound is Bound.ESTIMATE
    assert found["relative_step_predicted", ""].value == pytest.approx(0.6745 / math.sqrt(30), rel=0.08)
    assert found["line_residual_predicted", ""].value < 1e-6, "no ReLU layer: a line"


@pytest.mark.slow
def test_a_random_network_does_what_is_predicted(look):
    views = []
    for seed in range(40):
        net = load_network("random_relu(widths=(256, 256))", shape=(64,), classes=2, seed=seed).module.requires_grad_(False)
        x = derive(seed, "x", ids=[0]).normal(64)
        view = look(net, x)
        views.append(replace(view, ids=torch.tensor([seed])))
    found = readings(GradientLine(jacobians=1), *views)
    assert found["relative_step", ""].low <= found["relative_step_predicted", ""].value <= found["relative_step", ""].high
    for name in ("step_flip_rate", "line_flip_rate", "random_flip_rate"):
        reading = found[name, ""]
        assert reading.n == 40 and reading.low - 0.03 <= found[f"{name}_predicted", ""].value <= reading.high + 0.03, name
    assert found["random_flip_rate", ""].value < 0.02
    assert 0.02 < found["line_residual", ""].value < 0.16
    assert 0.5 < found["layer_gain_normalised", "2:0"].value < 3.5


def test_gains_are_singular_values():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    net.requires_grad_(False)
    x = torch.rand(3, 1, 5, 5, dtype=torch.float64)
    found = layer_gains(net, x, iterations=400)
    assert [size for _, size in found.values()] == [18, 5]
    for (gain, _), depth in zip(found.values(), (2, 5), strict=True):
        for i in range(3):
            jacobian = torch.autograd.functional.jacobian(lambda z, depth=depth: net[:depth](z).flatten(), x[i : i + 1])
            exact = float(torch.linalg.matrix_norm(jacobian.reshape(jacobian.shape[0], 25), 2))
            assert float(gain[i]) == pytest.approx(exact, rel=1e-3) and float(gain[i]) <= exact * (1 + 1e-9)
    with pytest.raises(NetworkError, match="no recorded layer"):
        layer_gains(net, x, ("9:0",))


def test_the_bottleneck_normalises_gains(look):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 4, bias=False), nn.ReLU(), nn.Linear(4, 256, bias=False), nn.ReLU(), nn.Linear(256, 2, bias=False))
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.normal_(std=math.sqrt(2 / layer.in_features))
    net.requires_grad_(False)
    found = readings(GradientLine(), look(net, torch.randn(16, 64)))
    raw, own = (found[name, "3:0"] for name in ("layer_gain", "layer_gain_normalised"))
    assert own.value == pytest.approx(raw.value * math.sqrt(4 / 256)) and raw.bound is Bound.LOWER and raw.n == 16
    assert found["layer_gain_normalised", "1:0"].value == pytest.approx(found["layer_gain", "1:0"].value)


def test_flat_networks_and_no_samples(look):
    net = linear_network(torch.zeros(3, 4), torch.tensor([1.0, 0.0, 0.5])).requires_grad_(False)
    found = readings(GradientLine(), look(net, torch.rand(5, 4)))
    assert found["relative_step", ""].status is Status.UNDEFINED and found["dead_samples", ""].value == 1
    from brinell.core.tally import Tallies

    (only,) = GradientLine().read(Tallies())
    assert only.status is Status.UNDEFINED


def test_samples_are_bounded_and_the_same_in_any_shards(look):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3)).requires_grad_(False)
    x = torch.randn(30, 6)
    whole = replace(look(net, x), ids=torch.arange(30))
    parts = [replace(look(net, x[rows]), ids=rows) for rows in torch.arange(30).split(7)]
    probe = GradientLine(samples=12, jacobians=3)
    one, many = readings(probe, whole), readings(probe, *parts)
    assert one.keys() == many.keys() and one["relative_step", ""].n == 12 and one["layer_gain", "1:0"].n == 3
    for key, reading in one.items():
        assert many[key].value == pytest.approx(reading.value, abs=1e-6), key


@pytest.mark.slow
def test_before_and_after_training():
    data = br.load_dataset("digits(side=8, split=train)")
    start = load_network("random_relu(widths=(128, 128))", shape=data.shape, classes=10)
    lab = br.Lab(seed=0)
    trained = lab.harden({"trained": start}, "fit(epochs=15, batch_size=64)", data)
    table = lab.measure({"initial": start, **trained}, br.load_dataset("digits(side=8, split=test)"), probes=["gradient_line", "accuracy"])
    for net in ("initial", "trained"):
        assert table.value("step_flip_rate", net=net) > 0.5 and table.value("relative_step_predicted", net=net) < 0.2
    assert table.value("relative_step", net="trained") > table.value("relative_step", net="initial")
