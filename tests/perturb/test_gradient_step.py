"""Steps along the gradient: exact on linear networks, controls on random ones, walls, and one network beside many."""

import math

import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.line import value_and_gradient
from brinell.core.perturbation import DONE, GAVE_UP
from brinell.models.random_ensemble import gaussian, inputs, two_layer
from brinell.models.reference import exact_margin, linear_network
from brinell.perturb.gradient_step import GradientStep, fixed_step, newton_step, small_steps

FREE = "threat=ball(norm=2, eps={}, low=-inf, high=inf)"


@pytest.fixture
def net():
    torch.manual_seed(0)
    return linear_network(torch.randn(3, 12))


@pytest.fixture
def batch(net):
    x = torch.randn(9, 1, 3, 4)
    return x, net(x).argmax(1)


def attack(text, net, x, y):
    return br.parse(text)(net, x, y, draws=derive(0, ids=range(len(x))))


@pytest.mark.parametrize("rule", ["newton", "line", "small", "fixed"])
def test_linear_networks_of_two_classes(rule):
    torch.manual_seed(1)
    net, x = linear_network(torch.randn(2, 12)), torch.randn(9, 12)
    y = net(x).argmax(1)
    margins = exact_margin(net[1].weight.detach(), None, x, y, 2)
    text = f"gradient_step(rule={rule}, eta=100, step=0.01, steps=500, factor=1.02, most=2, {FREE.format('inf')})"
    found = attack(text, net, x, y)
    assert not found.status.any() and bool((net(found.z).argmax(1) != y).all())
    far = (found.z - x).double().norm(dim=1)
    if rule == "fixed":
        w = net[1].weight.detach().double()
        assert torch.allclose(far, 100 * (w[0] - w[1]).norm().expand(9), rtol=1e-5)
    else:
        assert bool((far >= margins * 0.9999).all()) and bool((far <= margins * 1.03 + 0.011).all())


@pytest.mark.parametrize("rule", ["newton", "line"])
def test_a_budget_is_kept_and_decides(rule):
    torch.manual_seed(2)
    net, x = linear_network(torch.randn(2, 12)), torch.randn(9, 12)
    y = net(x).argmax(1)
    margins = exact_margin(net[1].weight.detach(), None, x, y, 2)
    for factor, status in ((1.05, DONE), (0.95, GAVE_UP)):
        for row in range(len(x)):
            at, budget = slice(row, row + 1), float(margins[row]) * factor
            found = attack(f"gradient_step(rule={rule}, {FREE.format(repr(budget))})", net, x[at], y[at])
            assert int(found.status[0]) == status and float((found.z - x[at]).norm()) <= budget * (1 + 1e-6)
            assert status == DONE or torch.equal(found.z, x[at]), "who gives up stays"


def test_walls_of_the_domain(net):
    x = torch.rand(20, 1, 3, 4)
    x[:, 0, 0] = 0.0
    x[:, 0, 2] = 1.0
    y = net(x).argmax(1)
    for rule in ("newton", "line", "small", "fixed"):
        found = attack(f"gradient_step(rule={rule}, eta=0.5)", net, x, y)
        assert bool(((found.z >= 0) & (found.z <= 1)).all())
        assert bool((net(found.z).argmax(1) != y)[found.status == DONE].all())


def test_misclassified_samples_and_flat_networks(net, batch):
    x, y = batch
    wrong = (y + 1) % 3
    assert torch.equal(attack(f"gradient_step({FREE.format('inf')})", net, x, wrong).z, x)
    flat = linear_network(torch.zeros(2, 12), torch.tensor([1.0, 0.0]))
    for rule in ("newton", "line", "small", "fixed"):
        found = attack(f"gradient_step(rule={rule}, {FREE.format('inf')})", flat, x, torch.zeros(9, dtype=torch.int64))
        assert bool((found.status == GAVE_UP).all()) and torch.equal(found.z, x)


def test_a_target_and_drawing_in(net, batch):
    x, y = batch
    found = attack(f"gradient_step(goal=target(1), factor=4, {FREE.format('inf')})", net, x, y)
    reached = found.status == DONE
    assert bool(reached.any()) and bool((net(found.z).argmax(1) == 1)[reached].all())
    far = attack(f"gradient_step(factor=4, {FREE.format('inf')})", net, x, y).z
    near = attack(f"gradient_step(factor=4, bisections=15, {FREE.format('inf')})", net, x, y).z
    assert bool(((near - x).flatten(1).norm(dim=1) < 0.6 * (far - x).flatten(1).norm(dim=1)).any())


@pytest.mark.parametrize("text", ["gradient_step(threat=ball(norm=inf, eps=0.1))", "gradient_step(rule=big)", "gradient_step(eta=0)"])
def test_what_it_cannot_do(text):
    with pytest.raises(SpecError):
        br.parse(text)


def test_the_text_form():
    step = GradientStep(rule="fixed", eta=3)
    assert br.parse(step.spec()) == step and step.cost == (3, 1) and GradientStep(rule="small", steps=10).cost == (13, 11)


def test_a_trained_network_takes_the_same_test():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 64, bias=False), nn.ReLU(), nn.Linear(64, 3, bias=False))
    x = torch.rand(30, 1, 4, 4)
    y = net(x).argmax(1)
    for rule in ("newton", "line", "small"):
        found = attack(f"gradient_step(rule={rule}, {FREE.format('inf')})", net, x, y)
        done = found.status == DONE
        assert float(done.double().mean()) > 0.5 and bool((net(found.z).argmax(1) != y)[done].all())


def test_the_sign_of_eta():
    """Twice the linear step flips down the gradient, never up it, and hardly ever in a random direction."""
    draws = derive(0, "eta", ids=range(300))
    nets, x = gaussian((64, 256), draws), inputs(64, draws)
    f, g = value_and_gradient(nets, x)
    down = newton_step(x, f, g)
    random = inputs(64, draws.at("random")) / 8 * (down - x).norm(dim=1, keepdim=True)
    flipped = [float((nets(z[:, None])[:, 0] * f < 0).double().mean()) for z in (down, 2 * x - down, x + random, x)]
    assert flipped[0] > 0.98 and flipped[1] == 0 and flipped[2] < 0.02 and flipped[3] == 0


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus"])
def test_fixed_steps_follow_the_success_curve(activation):
    from brinell.models.random_two_layer import moments

    draws = derive(0, "curve", ids=range(400))
    nets, x = two_layer(256, 300, draws, activation=activation), inputs(256, draws)
    f, g = value_and_gradient(nets, x)
    for eta in (1.0, 2.0, 3.0):
        rate = float((nets(fixed_step(x, f, g, eta)[:, None])[:, 0] * f < 0).double().mean())
        expected = moments(activation).flip_rate(eta)
        assert abs(rate - expected) < 4 * math.sqrt(expected * (1 - expected) / 400) + 0.03, eta
    up = float((nets((2 * x - fixed_step(x, f, g, 3.0))[:, None])[:, 0] * f < 0).double().mean())
    assert up < 0.02


def test_small_steps_against_a_slow_twin():
    draws = derive(0, "walk", ids=range(6))
    nets, x = gaussian((24, 12, 6), draws, dtype=torch.float64), inputs(24, draws, dtype=torch.float64)
    walk = small_steps(nets, x, 0.05, 60)
    for i in range(6):
        z, steps, sign = x[i].clone(), 0, None
        while True:
            leaf = z.clone().requires_grad_()
            h = leaf
            for w in nets.weights[:-1]:
                h = torch.relu(w[i] @ h)
            value = (nets.weights[-1][i] @ h).squeeze()
            (g,) = torch.autograd.grad(value, leaf)
            sign = value.detach().sign() if sign is None else sign
            if float(value.detach() * sign) < 0 or steps == 60 or not bool(g.any()):
                break
            z, steps = z - 0.05 * sign * g / g.norm(), steps + 1
        assert int(walk.steps[i]) == steps and torch.allclose(walk.z[i], z) and bool(walk.flipped[i]) == bool(value.detach() * sign < 0)
        assert float(walk.path[i]) == pytest.approx(0.05 * steps) and float(walk.distance[i]) <= 0.05 * steps + 1e-9


def test_small_steps_leave_who_has_arrived():
    w, seen = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]), []

    def select(rows):
        def output(z):
            seen.append(len(z))
            return (z * w[rows][:, None]).sum(-1) + (rows == 2)[:, None]

        return output

    x = torch.tensor([[0.15, 0.0], [0.45, 0.0], [0.0, 0.0]])
    walk = small_steps(select(torch.arange(3)), x, 0.1, 20, select=select)
    assert walk.flipped.tolist() == [True, True, False] and walk.steps.tolist() == [2, 5, 0]
    assert seen == [3, 2, 2, 1, 1, 1], "the flat one leaves at once, the others as they arrive"
