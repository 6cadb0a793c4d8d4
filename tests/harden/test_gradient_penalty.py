"""Input-gradient regularisation: its term equals a closed form, and what it trains has flatter losses."""

import math

import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.network import Network

FIT = "fit(epochs=1, batch_size=48, lr=1, momentum=0, weight_decay=0, schedule=constant)"


@pytest.mark.parametrize("norm, p", [("2", 2), ("1", 1), ("inf", math.inf)])
def test_one_step_on_a_linear_network_equals_the_formula(toy, norm, p):
    """grad_x CE = W^T (softmax - e_y), written out; the weights after one step of plain descent follow from it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    made = br.parse(f"gradient_penalty(strength=0.7, norm={norm}, fit={FIT})")(Network(net), toy, seed=0)
    w, b = (p.detach().double().requires_grad_() for p in net[1].parameters())
    x, y = toy.x().flatten(1).double(), toy.labels()
    logits = x @ w.T + b
    slope = (logits.softmax(1) - torch.eye(3, dtype=torch.float64)[y]) @ w
    size = {1: slope.abs().sum(1), 2: slope.square().sum(1).sqrt(), math.inf: slope.abs().max(1).values}[p]
    loss = -logits.log_softmax(1)[torch.arange(48), y].mean() + 0.7 * size.square().mean()
    loss.backward()
    assert torch.allclose(made.module[1].weight.double(), w - w.grad, atol=1e-5)
    assert torch.allclose(made.module[1].bias.double(), b - b.grad, atol=1e-5)


def test_strength_0_is_plain_training(toy, small, same):
    fit = "fit(epochs=2, batch_size=16)"
    assert same(br.parse(fit)(small, toy, seed=0), br.parse(f"gradient_penalty(strength=0, fit={fit})")(small, toy, seed=0))


def test_losses_become_flatter_with_strength(toy, small):
    def slope(net):
        x = toy.x().requires_grad_()
        return (
            torch.autograd.grad(nn.functional.cross_entropy(net(x), toy.labels(), reduction="sum"), x)[0].square().flatten(1).sum(1).mean()
        )

    fit = "fit(epochs=6, batch_size=16, lr=0.02, holdout=0.2, shift=1)"
    nets = [br.parse(f"gradient_penalty(strength={strength}, fit={fit})")(small, toy, seed=0) for strength in (0, 0.3, 3)]
    sizes = [slope(net).item() for net in nets]
    assert sizes[0] > sizes[1] > sizes[2]
    assert nets[1].notes[-2].startswith("trained by gradient_penalty(") or nets[1].notes[-1].startswith("trained by gradient_penalty(")
