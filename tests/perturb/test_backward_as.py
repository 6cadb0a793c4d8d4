"""Backward pass approximation: a hidden gradient is found again, and the forward pass is the network's own."""

import pytest
import torch
from torch import nn

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import NetworkError
from brinell.core.perturbation import points
from brinell.models.reference import linear_network

WEIGHT = derive(0, "weight", ids=[0, 1]).normal(16)
X = derive(0, "x", ids=range(10)).uniform(1, 4, 4, low=0.3, high=0.7)


class Quantise(nn.Module):
    def forward(self, x):
        return (x * 16).round() / 16


class Step(nn.Module):
    def forward(self, x):
        return (x > 0.5).to(x.dtype)


def hidden(step: nn.Module) -> nn.Sequential:
    return nn.Sequential(step, linear_network(WEIGHT)).eval()


def ask(text, net, y):
    return points(parse(text)(net, X, y, draws=derive(0, ids=range(len(X)))))


PGD = "pgd(steps=20, random_start=False, threat=ball(eps=0.2))"


@pytest.mark.parametrize(("step", "substitute"), [(Quantise(), "identity"), (Quantise(), "clamp"), (Step(), "sigmoid")])
def test_a_zero_gradient_hides_what_the_substitute_finds(step, substitute):
    net = hidden(step)
    with torch.no_grad():
        y = net(X).argmax(1)
    blind = ask(PGD, net, y)
    seeing = ask(f"backward_as(attack={PGD}, module='0', substitute={substitute})", net, y)
    assert (net(blind).argmax(1) == y).all()
    assert (net(seeing).argmax(1) != y).float().mean() > 0.6


def test_the_forward_pass_is_exact_and_the_gradient_that_of_the_substitute():
    net = hidden(Quantise())
    attack = parse("backward_as(attack=fgsm(threat=ball(eps=0.1)), module='0')")
    seen = {}

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            seen["x"], seen["out"] = x, self.net(x)
            return seen["out"]

    watched = Watched().eval()
    y = torch.zeros(len(X), dtype=torch.int64)
    z = points(attack.replace(module="net.0")(watched, X, y, draws=derive(0, ids=range(len(X)))))
    assert torch.equal(seen["out"], net(seen["x"].detach()))  # asked with the hook, and again without
    direction = (WEIGHT[1] - WEIGHT[0]).sign().reshape(1, 1, 4, 4)
    assert torch.allclose(z, (X + 0.1 * direction).clamp(0, 1))


def test_the_network_is_left_as_it_was():
    net = hidden(Quantise())
    y = torch.zeros(len(X), dtype=torch.int64)
    ask("backward_as(attack=fgsm, module='0')", net, y)
    assert not net[0]._forward_hooks
    with pytest.raises(NetworkError):
        ask("backward_as(attack=fgsm, module='1.0')", net, y)  # the flattening has another shape
    assert not net[1][0]._forward_hooks


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(NetworkError, match=r"no module 'quantise'; it has 0, 1, 1\.0"):
        ask("backward_as(attack=fgsm, module='quantise')", hidden(Quantise()), torch.zeros(len(X), dtype=torch.int64))
