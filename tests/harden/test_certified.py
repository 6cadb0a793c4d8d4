"""Certified training: floors that prove something, the schedule, and what its loss is."""

import copy

import pytest
import torch
from torch import nn

import brinell as br
from brinell.certify.graph import Unsupported
from brinell.certify.interval import interval_margins
from brinell.core.errors import SpecError
from brinell.core.network import Network
from brinell.core.threat import Ball
from brinell.harden.certified import batch_statistics

FIT = "fit(epochs={}, optimizer=adamw, lr=0.003, clip=10, weight_decay=0, batch_size=64)"


def test_the_schedule_waits_rises_and_stays():
    how = br.parse(f"ibp_training(warmup=2, ramp=4, fit={FIT.format(9)})")
    assert [how.share(epoch) for epoch in range(9)] == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1]
    assert br.parse(f"ibp_training(warmup=1, ramp=0, fit={FIT.format(3)})").share(1) == 1
    with pytest.raises(SpecError, match="leave no epoch of 5 at the full radius"):
        br.parse(f"ibp_training(warmup=2, ramp=3, fit={FIT.format(5)})")


def test_kappa_1_is_plain_training(toy, small, same):
    fit = "fit(epochs=2, batch_size=16)"
    bare = br.parse(fit)(small, toy, seed=0)
    assert same(bare, br.parse(f"ibp_training(kappa=1, warmup=0, ramp=1, fit={fit})")(small, toy, seed=0))
    assert not same(bare, br.parse(f"ibp_training(warmup=0, ramp=1, fit={fit})")(small, toy, seed=0))


def test_gradients_of_the_bounds_equal_finite_differences():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).double()
    x, y = torch.rand(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2])

    def total():
        return interval_margins(net, x, y, Ball(eps=0.1)).sum()

    total().backward()
    assert all(p.grad is not None for p in net.parameters())
    for p in net.parameters():
        flat, slope = p.data.view(-1), p.grad.view(-1)
        for at in range(0, len(flat), 7):
            kept, ends = float(flat[at]), []
            for step in (1e-6, -1e-6):
                flat[at] = kept + step
                ends.append(total().item())
            flat[at] = kept
            assert slope[at] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-4)


def test_a_network_without_bounds_is_refused(toy):
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3)))
    with pytest.raises(Unsupported, match="layer '2' uses tanh"):
        br.parse(f"ibp_training(warmup=0, ramp=1, fit={FIT.format(3)})")(net, toy, seed=0)


def test_batch_statistics_are_those_of_training_with_their_gradient(small, toy):
    """In a ball of radius 0 the bounds are the training network's own margins, and so are their derivatives."""
    net = copy.deepcopy(small.module).train()
    net[6].p = 0.0
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x, y = toy.x()[:8], toy.labels()[:8]
    with batch_statistics(net, x):
        floors = interval_margins(net, x, y, Ball(eps=0.0))
    assert net.training and all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    logits = net(x)
    margins = torch.stack([logits[torch.arange(8), y] - logits[torch.arange(8), (y + k) % 3] for k in (1, 2)], 1)
    assert torch.allclose(floors, margins, atol=1e-4)
    weights = list(net.parameters())
    for ours, theirs in zip(*(torch.autograd.grad(value.sum(), weights) for value in (floors, margins)), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "eps", "fit"),
    [
        ("mlp(widths=(64,))", 0.1, FIT.format(12)),
        ("small_cnn(widths=(8, 16), strides=(1, 2), pool=(), hidden=(32,))", 0.02,
         "fit(epochs=14, optimizer=adamw, lr=0.01, clip=10, weight_decay=0, batch_size=32)"),
    ],
)  # fmt: skip
def test_certified_training_gives_floors_where_plain_training_gives_none(spec, eps, fit):
    train, test = (br.load_dataset(f"digits(side=8, split={part})") for part in ("train", "test"))
    net, ball = br.load_network(spec, shape=train.shape, classes=10), Ball(eps=eps)
    plain = br.parse(fit)(net, train, seed=0)
    hard = br.parse(f"ibp_training(threat={ball.spec()}, warmup=2, ramp=6, fit={fit})")(net, train, seed=0)
    ibp, crown, pgd = f"ibp(threat={ball.spec()})", f"crown(passes=100, threat={ball.spec()})", f"pgd(steps=20, threat={ball.spec()})"
    table = br.Lab(device="cpu").measure({"plain": plain, "hard": hard}, test, [pgd], [ibp, crown], ["bound"])
    found = {name: table.value("certified", net=name, probe=ibp) for name in ("plain", "hard")}
    assert found["hard"] > 0.1 and found["plain"] < 0.02
    lower, upper = (
        table.value("robust_accuracy", net="hard", perturbation="", bound=side, layer=ball.spec()) for side in ("lower", "upper")
    )
    assert found["hard"] <= lower <= upper
    assert not any(item.name == "contradiction" and item.verdict == "fail" for item in table.findings)
