"""What a network does besides computing logits."""

import pytest
import torch
from torch import nn

from brinell.core.draws import derive
from brinell.models.reference import linear_network
from brinell.probe.interference import gradient_calls, instability, state_version


def test_gradient_calls_are_seen_and_autograd_is_put_back():
    known = torch.autograd.grad, torch.autograd.backward
    with gradient_calls() as calls:
        x = torch.ones(2, requires_grad=True)
        x.sum().backward()
        torch.autograd.grad((x * x).sum(), x)
    assert sorted(calls) == ["backward", "grad"]
    assert (torch.autograd.grad, torch.autograd.backward) == known
    with pytest.raises(ValueError, match="out"), gradient_calls():
        raise ValueError("out")
    assert (torch.autograd.grad, torch.autograd.backward) == known


def test_writing_to_state_changes_its_version():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = state_version(net)
    net.eval()(torch.rand(8, 4))
    assert state_version(net) == before and state_version(None) == ()
    net.train()(torch.rand(8, 4))
    assert state_version(net) != before


def test_the_relative_change_of_a_linear_margin():
    """For m(x) = g.x, uniform noise of side s has |g.noise| of known variance: (s^2 / 12) |g|^2 over m^2."""
    weight = derive(0, "weight", ids=[0, 1]).normal(400)
    net, x = linear_network(weight), torch.full((50, 400), 0.5)
    with torch.no_grad():
        logits = net(x)
    y = logits.argmax(1)
    draws = derive(0, ids=range(50))
    got = instability(net, x, y, logits, side=0.01, count=40, low=0.0, high=1.0, draws=draws)
    g = weight[1] - weight[0]
    want = 0.01 / 12**0.5 * g.norm() / (g.sum() / 2).abs() * (2 / torch.pi) ** 0.5  # mean of |normal|
    assert got.mean().item() == pytest.approx(float(want), rel=0.05)


def test_a_shattered_margin_is_capped_at_one():
    def net(x):
        return torch.stack((torch.ones(len(x)), 1e4 * torch.sin(1e5 * x.flatten(1)[:, 0])), 1)

    x = torch.full((20, 4), 0.5)
    y = torch.zeros(20, dtype=torch.int64)
    got = instability(net, x, y, net(x), side=0.03, count=10, low=0.0, high=1.0, draws=derive(0, ids=range(20)))
    assert 0.5 < got.mean() <= 1.0
