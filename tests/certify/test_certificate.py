"""Certifiers in a lab: three verdicts, both sides of R(T), plain words where nothing is proved, and contradictions."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.certify.interval import IBP
from brinell.certify.linear_relaxation import CROWN
from brinell.core.measurement import Verdict
from brinell.core.network import Network
from brinell.core.probe import SAFE, UNKNOWN, UNSAFE
from brinell.core.threat import Ball
from brinell.models.reference import exact_margin, linear_network
from brinell.report.text import summary_text

CERTIFIERS = ["ibp", "crown"]


@pytest.fixture
def linear():
    """A linear network in two classes, samples it gets mostly right, and the exact distance of each to the other class."""
    lot = torch.Generator().manual_seed(0)
    w, b = torch.randn(2, 9, generator=lot), torch.tensor([0.1, -0.1])
    x = torch.rand(40, 9, generator=lot) * 0.4 + 0.3
    net = linear_network(w, b)
    y = net(x).argmax(1)
    y[::10] = 1 - y[::10]
    return net, x, y, {norm: exact_margin(w, b, x, y, norm) for norm in (1, 2, math.inf)}


def measured(net, x, y, probes, perturbations=(), **options):
    data = br.Dataset.from_arrays(x, y, classes=2, domain=options.pop("domain", (0.0, 1.0)))
    return br.Lab(device="cpu", **options).measure({"net": net}, data, perturbations, ["accuracy", *probes], ["bound"])


@pytest.mark.parametrize("norm", [1, 2, math.inf])
@pytest.mark.parametrize("certifier", CERTIFIERS)
def test_on_a_linear_network_both_sides_meet(certifier, norm, linear):
    net, x, y, margins = linear
    eps = float(margins[norm][margins[norm] > 0].median()) * 1.001
    ball = f"ball(norm={norm}, eps={eps}, low=-9, high=9)"
    table = measured(
        net, x, y, [f"{certifier}(threat={ball})"], [f"{attack}(threat={ball})" for attack in ("fgsm", "pgd")], domain=(-9.0, 9.0)
    )
    sides = [table.value("robust_accuracy", perturbation="", bound=side, layer=br.parse(ball).spec()) for side in ("lower", "upper")]
    assert sides[0] == sides[1] == (margins[norm] > eps).double().mean().item()
    row = table.row("certified")
    verdicts = table.array(row)
    assert (verdicts == np.where(margins[norm] > eps, SAFE, np.where((margins[norm] == 0) | (certifier == "crown"), UNSAFE, UNKNOWN))).all()
    assert table.value("refuted") == (verdicts == UNSAFE).mean() and table.value("undecided") == (verdicts == UNKNOWN).mean()
    assert all(finding.verdict is Verdict.PASS for finding in table.findings if finding.name == "contradiction")


def test_the_report_prints_both_sides(linear):
    """The linear network with its outputs cut into positive and negative parts, which boxes take for independent."""
    linear, x, y, margins = linear
    split = nn.Linear(9, 4)
    split.weight.data, split.bias.data = (torch.cat((p, -p)) for p in linear[1].parameters())
    join = nn.Linear(4, 2, bias=False)
    join.weight.data = torch.cat((torch.eye(2), -torch.eye(2)), 1)
    ball = Ball(eps=float(margins[math.inf][margins[math.inf] > 0].median()) * 0.5)
    net = nn.Sequential(split, nn.ReLU(), join).requires_grad_(False)
    table = measured(net, x, y, [f"ibp(threat={ball.spec()})"], [f"pgd(steps=10, threat={ball.spec()})"])
    lower, upper = (table.value("robust_accuracy", perturbation="", bound=side, layer=ball.spec()) for side in ("lower", "upper"))
    text = summary_text(table)
    assert 0 < lower < upper and f"{lower:g} <= R(T) <= {upper:.2f}" in text and "No certificate" not in text


def test_margins_are_lower_bounds_in_the_order_of_ids(linear):
    net, x, y, _ = linear
    data = br.Dataset.from_arrays(x, y, classes=2, ids=np.arange(40)[::-1] * 3)
    tables = [
        br.Lab(device="cpu", batch_size=size).measure({"net": net}, data, (), ["crown(threat=ball(eps=0.02))"]) for size in (40, 7, 1)
    ]
    floors = [table.array(table.row("certified_margin")) for table in tables]
    assert all(np.allclose(floors[0], other, atol=1e-9) for other in floors[1:])
    gaps = net(x)[torch.arange(40), y] - net(x)[torch.arange(40), 1 - y]
    reach = 0.02 * (net[1].weight[0] - net[1].weight[1]).abs().sum()
    assert (
        np.allclose(floors[0], (gaps - reach).detach().flip(0).numpy(), atol=1e-4)
        and (floors[0] < (gaps - reach).detach().flip(0).numpy()).all()
    )


@pytest.mark.parametrize("certifier", CERTIFIERS)
def test_unknown_names_the_layer_and_vacuous_is_said(certifier, linear):
    linear, x, y, _ = linear
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 2)).eval()
    table = measured(net, x, y, [f"{certifier}(threat=ball(eps=0.02))"])
    row = table.row("certified")
    assert row["value"] == 0 and "unknown: layer '1' uses tanh" in row["reason"]
    wrong = (net(x).argmax(1) != y).numpy()
    assert (table.array(row) == np.where(wrong, UNSAFE, UNKNOWN)).all()
    assert table.row("certified_margin")["status"] == "undefined"
    wide = measured(linear, x, y, [f"{certifier}(threat=ball(eps=0.5))"])
    assert "vacuous: no sample is proved safe" in wide.row("certified")["reason"]
    lower = wide.row("robust_accuracy", perturbation="", bound="lower", layer=Ball(eps=0.5).spec())
    assert lower["value"] == 0 and "vacuous" in lower["reason"]


class Noisy(nn.Module):
    """Adds noise to the sample, from torch's own generator or another."""

    def __init__(self, size, generator=None):
        super().__init__()
        self.last, self.size, self.generator = nn.Linear(9, 2), size, generator

    def forward(self, x):
        return self.last(x + self.size * torch.randn(9, generator=self.generator))


@pytest.mark.parametrize("size", [1.0, 1e-7])
@pytest.mark.parametrize("certifier", CERTIFIERS)
def test_a_network_that_draws_random_numbers_is_unknown(certifier, size, linear):
    _, x, y, _ = linear
    table = measured(Noisy(size).eval(), x, y, [f"{certifier}(threat=ball(eps=0.001))"])
    row = table.row("certified")
    assert row["value"] == 0 and "the network draws random numbers" in row["reason"]
    assert (table.array(row) != SAFE).all() and table.row("certified_margin")["status"] == "undefined"


@pytest.mark.parametrize("certifier", CERTIFIERS)
def test_a_network_random_behind_torchs_back_is_unknown(certifier, linear):
    _, x, y, _ = linear
    net = Noisy(1.0, torch.Generator().manual_seed(0)).eval()
    table = measured(net, x, y, [f"{certifier}(threat=ball(eps=0.001))"])
    assert table.value("certified") == 0 and "the traced graph does not give" in table.row("certified")["reason"]


def test_samples_outside_the_balls_domain_are_unknown(linear):
    net, x, y, _ = linear
    x = x.clone()
    x[5] += 2
    table = measured(net, x, y, ["crown(threat=ball(eps=0.001))"], domain=(-3.0, 3.0))
    verdicts = table.array(table.row("certified"))
    assert verdicts[5] != SAFE and (verdicts == SAFE).any() and "1 samples lie outside the domain" in table.row("certified")["reason"]


class LyingIBP(IBP, name="test_lying_ibp"):
    """Looks at the sample alone."""

    def floors(self, net, x, y, ball):
        return super().floors(net, x, y, ball.replace(eps=0.0))


class LyingCROWN(CROWN, name="test_lying_crown"):
    """Looks at a fifth of the ball."""

    def floors(self, net, x, y, ball):
        return super().floors(net, x, y, ball.replace(eps=ball.eps / 5))


@pytest.mark.parametrize("certifier", [LyingIBP(threat=Ball(eps=0.3)), LyingCROWN(threat=Ball(eps=0.3))], ids=lambda item: item.name)
def test_a_bound_that_lies_is_a_contradiction(certifier, linear):
    net, x, y, _ = linear
    table = measured(net, x, y, [certifier], ["fgsm(threat=ball(eps=0.3))"])
    (found,) = [item for item in table.findings if item.name == "contradiction" and item.verdict is Verdict.FAIL]
    assert certifier.name in found.message and found.perturbation.startswith("fgsm") and found.value > 0


def test_rounding_at_the_edge_is_no_contradiction():
    """Points at the very edge, and beyond it by what the lab forgives, are covered."""
    net = linear_network(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([-0.5, 0.0]))
    x, y = torch.tensor([[0.6, 0.5]]).repeat(200, 1), torch.zeros(200, dtype=torch.long)
    x[:, 0] += torch.linspace(-1e-6, 1e-6, 200)
    ball = "ball(eps=0.1)"
    table = measured(net, x, y, [f"ibp(threat={ball})", f"crown(threat={ball})"], [f"fgsm(threat={ball})"])
    assert all(finding.verdict is Verdict.PASS for finding in table.findings if finding.name == "contradiction")


def test_the_standard_suite_certifies(linear):
    from brinell.engine.suite import suite

    data = br.load_dataset("digits(side=8)")
    probes = [br.parse(text) for text in suite("standard", data).probes]
    found = [probe for probe in probes if probe.name == "crown"]
    assert [probe.threat for probe in found] == [
        Ball(eps=2 / 255), Ball(eps=4 / 255), Ball(eps=8 / 255), Ball(norm=2, eps=0.25), Ball(norm=2, eps=0.5)
    ]  # fmt: skip
    assert all(probe.passes is not None for probe in found)
    assert not any(probe.name in ("crown", "ibp") for probe in map(br.parse, suite("quick", data).probes))
    assert "crown" in {br.parse(text).name for text in suite("full", data).probes}


def test_a_perturbed_cell_is_not_certified(linear):
    net, x, y, _ = linear
    table = measured(Network(net), x, y, ["ibp(threat=ball(eps=0.02))"], ["uniform_noise(threat=ball(eps=0.01))"])
    assert [row["perturbation"] for row in table.select(name="certified")] == ["clean"]
