"""AutoAttack: the published sequence, few classes, exactness on a linear network; against pyautoattack where it is installed."""

import math

import pytest
import torch

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.perturbation import Attempt, points
from brinell.core.threat import Ball
from brinell.models.reference import exact_margin, linear_network
from brinell.perturb.autoattack import AutoAttack

X = derive(0, "x", ids=range(8)).uniform(1, 4, 4, low=0.3, high=0.7)
WEIGHT = derive(5, ids=range(4)).normal(16)


def test_the_published_sequence():
    ball = Ball(eps=0.1)
    names = [part.spec() for part in AutoAttack(threat=ball).sequence()]
    assert names == [
        "apgd(loss=cross_entropy, steps=100, threat=ball(eps=0.1, norm=inf))",
        "apgd(loss=dlr, steps=100, targets=9, threat=ball(eps=0.1, norm=inf))",
        "fab(bisections=0, goal=misclassify, steps=100, targets=9, threat=ball(eps=0.1, norm=inf))",
        "square(ahead=True, queries=5000, rescale=False, threat=ball(eps=0.1, norm=inf))",
    ]
    l1 = AutoAttack(threat=Ball(norm=1, eps=12.0)).sequence()
    assert (l1[0].restarts, l1[1].restarts, l1[1].targets) == (5, 1, 5)
    random = [part.spec() for part in AutoAttack(version="rand", threat=ball).sequence()]
    assert random == [
        f"eot(attack=apgd(loss={loss}, steps=100, threat=ball(eps=0.1, norm=inf)), samples=20)" for loss in ("cross_entropy", "dlr")
    ]
    goal = parse("autoattack(goal=target(2))")
    assert all(part.goal == goal.goal for part in goal.sequence())


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_exact_on_linear_networks(norm, classes):
    """Every sample beyond its exact margin is broken, no other one; the note tells where DLR was not used."""
    weight = WEIGHT[:classes]
    net = linear_network(weight)
    y = net(X).argmax(1).detach()
    margins = exact_margin(weight, None, X, y, norm)
    for factor, flips in ((1.02, True), (0.999, False)):
        row = int(margins.argsort()[4])
        ball, at = Ball(norm=norm, eps=float(margins[row]) * factor, low=-math.inf, high=math.inf), slice(row, row + 1)
        made = AutoAttack(threat=ball, steps=30, queries=30)(net, X[at], y[at], draws=derive(0, ids=[row]))
        assert isinstance(made, Attempt) and ball.contains(X[at], made.z).all()
        assert bool(net(made.z).argmax(1) != y[row]) == flips
        assert (made.note == "") == (classes == 4) and (classes == 4 or f"the network has {classes}" in made.note)


def test_a_random_network():
    """Noise on the logits hides the gradient of one pass; the mean of twenty does not."""
    net = linear_network(WEIGHT[:2])
    y = net(X).argmax(1).detach()
    ball = Ball(eps=float(exact_margin(WEIGHT[:2], None, X, y, math.inf).max()) * 1.5)
    state = torch.Generator().manual_seed(0)

    def noisy(z):
        return net(z) + 0.2 * torch.randn(len(z), 2, generator=state)

    z = points(AutoAttack(version="rand", threat=ball, steps=10)(noisy, X, y, draws=derive(0, ids=range(8))))
    assert ball.contains(X, z).all() and (net(z).argmax(1) != y).sum() >= 7


@pytest.mark.slow
def test_as_strong_as_pyautoattack():
    peer = pytest.importorskip("pyautoattack.autoattack", reason="pyautoattack is not installed; benchmarks/attacks.py compares the two")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 32), torch.nn.ReLU(), torch.nn.Linear(32, 6)).requires_grad_(
            False
        )
        x = derive(0, "peer", ids=range(128)).uniform(3, 4, 4)
        y, ball = net(x).argmax(1), Ball(eps=0.02)
        theirs = peer.AutoAttack(net, norm="Linf", eps=0.02, seed=0, version="standard").run_standard_evaluation(x, y, batch_size=128)[0]
    ours = points(AutoAttack(threat=ball)(net, x, y, draws=derive(0, ids=range(128))))
    kept = [(net(z).argmax(1) == y) for z in (ours, theirs)]
    assert 0.1 < kept[0].double().mean() < 0.9 and (kept[0] != kept[1]).sum() <= 2
