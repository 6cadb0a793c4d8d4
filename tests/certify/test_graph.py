"""Tracing: every way to call an operation gives its node, replay equals the network, and what has no bounds is named."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import brinell as br
from brinell.certify.graph import Unsupported, faithful, trace
from brinell.certify.interval import interval_bounds
from brinell.core.threat import Ball

NAMES = ["mlp", "two classes", "small_cnn", "strides", "normalised", "option A", "option B", "parts"]


class Calls(nn.Module):
    """A function of the input as a network of 2 outputs."""

    def __init__(self, function):
        super().__init__()
        self.function, self.last = function, nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.function(x))


def kinds(net, x=None):
    return [type(node.op).__name__ for node in trace(net, torch.zeros(1, 4) if x is None else x).nodes]


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_computes_what_the_network_computes(name, make_net, samples):
    net, shape = make_net(name, torch.float64)
    x = samples(5, shape, torch.float64)
    graph = trace(net, x)
    assert torch.allclose(graph(x), net(x), rtol=1e-12, atol=1e-12) and faithful(graph, net(x), x).all()
    assert graph.below[-1] == 1 and graph.below[0] == 0


class Pooled(nn.Module):
    """A residual block, averaged to one entry of each channel."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.pool, self.out = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 2)

    def forward(self, x):
        h = F.relu(self.one(x))
        return self.out(self.pool(F.relu(self.norm(self.two(h)) + h)).flatten(1))


@pytest.mark.parametrize("name", ["small_cnn", "strides", "option B", "parts", "pooled"])
def test_networks_and_samples_laid_out_channels_last_are_followed(name, make_net, samples):
    net, shape = (Pooled().double().eval(), (1, 7, 5)) if name == "pooled" else make_net(name, torch.float64)
    x = samples(3, shape, torch.float64).contiguous(memory_format=torch.channels_last)
    net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    assert torch.allclose(trace(net, x)(x), net(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("strides", [(1, 2), (4, 0), (2, 1)])
def test_memory_read_in_another_order_is_refused(strides):
    with pytest.raises(Unsupported, match="as_strided, to read its memory in another order"):
        trace(nn.Sequential(Calls(lambda x: x.as_strided((len(x), 4), strides))), torch.zeros(1, 4))


@pytest.mark.parametrize(
    "relu",
    [nn.ReLU(), nn.ReLU(inplace=True), F.relu, torch.relu, lambda x: x.relu(), lambda x: (x + 0).relu_(), lambda x: x.clamp(min=0),
     lambda x: torch.clamp_min(x, 0), lambda x: F.relu(x, inplace=True)],
    ids=["ReLU", "ReLU in place", "F.relu", "torch.relu", "x.relu", "x.relu_", "clamp", "clamp_min", "F.relu in place"],
)  # fmt: skip
def test_a_relu_is_one_however_it_is_called(relu):
    net = nn.Sequential(nn.Linear(4, 4), Calls(relu))
    found = [kind for kind in kinds(net) if kind not in ("Scale", "Reshape")]
    assert found == ["Input", "Linear", "ReLU", "Linear"]


def test_normalisation_is_folded_into_the_layer_beside_it(make_net):
    net, shape = make_net("normalised")
    assert kinds(net, torch.zeros(1, *shape)) == ["Input", "Conv", "ReLU", "Mixing", "Linear"]


def test_modes_gradients_and_hooks_are_left_as_they_were():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 2)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trace(net, torch.rand(3, 4))
    assert all(part.training for part in net.modules()) and all(p.requires_grad for p in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net[0]._forward_hooks and not net[0]._forward_pre_hooks


@pytest.mark.parametrize(
    "function, said",
    [
        (nn.Sigmoid(), "layer 'function' uses sigmoid"),
        (nn.GELU(), "layer 'function' uses gelu"),
        (nn.LeakyReLU(), "layer 'function' uses leaky_relu"),
        (lambda x: x * x, "layer 'root' uses mul, of two things that depend on the sample"),
        (lambda x: x / x.abs().amax(), "uses abs"),
        (lambda x: 1 / x, "uses reciprocal"),
        (lambda x: x.clamp(0, 6), "to other ends than 0"),
        (lambda x: x - x.mean(0), "of two batches of different shapes"),
        (lambda x: x - x.mean(0, keepdim=True).repeat(len(x), 1), "uses repeat"),
        (lambda x: x.flip(0), "across the samples"),
        (lambda x: x.t().reshape(-1, 4), "which mixes them"),
        (lambda x: x.reshape(1, -1)[:, :4].expand(len(x), 4), "uses expand"),
        (lambda x: torch.cat([x, x], 0)[: len(x)], "across the samples"),
        (lambda x: x if x.mean() > 0 else -x, "uses gt"),
        (lambda x: x if x[0, 0] > 0 else -x, "uses gt"),
        (lambda x: x * float(x.shape[1] == x.sum(1).max().item()), "uses max"),
        (lambda x: torch.from_numpy(x.detach().numpy()), "without values"),
        (lambda x: torch.tensor(x.tolist()), "without values"),
        (lambda x: x + torch.randn_like(x), "uses randn_like"),
        (lambda x: x + torch.arange(2.0 * 4).reshape(2, 4), "a constant that differs from sample to sample"),
        (lambda x: F.max_pool1d(x[:, None], 2, return_indices=True)[1][:, 0].float().repeat(1, 2), "uses where a maximum was"),
        (nn.BatchNorm1d(4, track_running_stats=False), "normalises by the batch"),
    ],
)
def test_what_has_no_bounds_is_named(function, said):
    with pytest.raises(Unsupported) as caught:
        trace(Calls(function), torch.zeros(3, 4))
    assert said in str(caught.value)


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, g):
        return g


@pytest.mark.parametrize("layer", ["sigmoid", "custom", "quantised"])
def test_layers_deep_in_a_network_are_named(layer):
    inner = {"sigmoid": nn.Sigmoid(), "custom": Calls(Straight.apply).function, "quantised": lambda x: (x * 8).round() / 8}[layer]
    net = nn.Sequential()
    net.add_module("features", nn.Sequential(nn.Linear(4, 4), Calls(inner) if layer != "sigmoid" else inner))
    with pytest.raises(Unsupported, match=r"layer 'features\.1'"):
        interval_bounds(net, torch.zeros(1, 4), Ball())


def test_memory_that_is_overwritten_through_a_view_is_refused():
    def shadowed(x):
        a = x + 0
        a.view(-1, 2, 2).relu_()
        return a

    with pytest.raises(Unsupported, match="overwritten through another view"):
        trace(Calls(shadowed), torch.zeros(1, 4))


def test_what_was_overwritten_in_place_is_followed():
    net = Calls(lambda x: (lambda a: a.relu_().sub_(0.5) + a)(x * 2)).double()
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(trace(net, x)(x), net(x))


def test_a_network_that_draws_its_own_constants_is_found_out():
    lot, x = torch.Generator().manual_seed(0), torch.zeros(2, 4)
    with pytest.raises(Unsupported, match="draws random numbers"):
        trace(Calls(lambda x: x + 1e-9 * torch.randn(4)), x)
    net = Calls(lambda x: x + torch.randn(4, generator=lot)).requires_grad_(False)
    assert not faithful(trace(net, x), net(x), x).any()


def test_other_ways_to_answer():
    class Answers(nn.Module):
        def forward(self, x):
            return {"logits": x[:, :2]}

    assert kinds(Answers()) == ["Input", "Mixing"]
    with pytest.raises(Unsupported, match=r"no torch\.nn\.Module"):
        trace(lambda x: x, torch.zeros(1, 2))
    with pytest.raises(Unsupported, match="do not depend on the input"):
        trace(Calls(lambda x: torch.zeros(len(x), 4)), torch.zeros(1, 4))
    assert br.parse("ibp(threat=ball(norm=2, eps=0.5))").threat.norm == 2 < math.inf
