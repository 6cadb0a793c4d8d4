"""The binarisation test: the planted example is there, a working attack finds it, a blinded one does not."""

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.measurement import Status
from brinell.core.network import Counted
from brinell.core.probe import View
from brinell.core.threat import Ball
from brinell.probe.binarisation import Features, Readout, boundary_point, separating

X = derive(0, "x", ids=range(12)).uniform(1, 5, 5, low=0.2, high=0.8)
DRAWS = derive(0, ids=range(12))


class Network(nn.Module):
    """Random ReLU features of the input as a step leaves it."""

    def __init__(self, step) -> None:
        super().__init__()
        weight = derive(0, "features", ids=range(160)).normal(25)
        self.step, self.first, self.last = step, nn.Linear(25, 160), nn.Linear(160, 3)
        with torch.no_grad():
            self.first.weight.copy_(weight / 5)

    def forward(self, x):
        return self.last(self.first(self.step(x).flatten(1)).relu())


@pytest.fixture
def nets():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = {"plain": Network(lambda x: x), "fine": Network(lambda x: (x * 64).round() / 64)}
    return {name: net.eval().requires_grad_(False) for name, net in made.items()}


def view(net) -> View:
    with torch.no_grad():
        logits = net(X)
    return View(X, X, torch.zeros(12, dtype=torch.int64), torch.arange(12), logits, net=Counted(net))


def read(text, net):
    probe = parse(text)
    return {reading.name: reading for reading in probe.read(probe.observe(view(net), draws=DRAWS))}


def test_a_separating_function_is_negative_inside_and_positive_on_the_edge():
    rng = np.random.default_rng(0)
    inner, edge = torch.tensor(rng.normal(size=(5, 20, 40))), torch.tensor(rng.normal(size=(5, 40)))
    weight, bias, valid = separating(inner, edge)
    assert valid.all()  # 21 points in 40 dimensions can always be told apart
    assert ((inner * weight[:, None]).sum(2) + bias[:, None]).amax(1).tolist() == pytest.approx([-1] * 5)
    assert ((edge * weight).sum(1) + bias).tolist() == pytest.approx([1] * 5)


def test_a_point_among_the_others_cannot_be_separated():
    inner = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]]]).double()
    assert not separating(inner, torch.tensor([[1.0, 1.0]]).double())[2]
    assert separating(inner, torch.tensor([[3.0, 3.0]]).double())[2]


@pytest.mark.parametrize("norm", [1, 2, float("inf")])
def test_the_edge_point_lies_on_the_edge(norm):
    ball = Ball(norm=norm, eps=0.1)
    edge = boundary_point(X, ball, DRAWS.at("b"))
    assert torch.allclose(ball.distance(X, edge), torch.full((12,), 0.1, dtype=torch.float64), atol=1e-6) and ball.contains(X, edge).all()


def test_features_are_the_input_of_the_last_linear_layer(nets):
    net = nets["plain"]
    want = net.first(X.flatten(1)).relu()
    assert torch.equal(Features(net)(X), want) and not net.last._forward_pre_hooks
    assert torch.equal(Features(lambda x: x.flatten(1)[:, :4])(X), X.flatten(1)[:, :4])


def test_each_point_is_read_by_its_own_readout(nets):
    features = Features(nets["plain"])
    weight, bias = torch.randn(12, 160, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.arange(12.0).double()
    readout = Readout(features, X, weight, bias)
    rows = torch.tensor([7, 2, 2, 11])
    got = readout(X[rows] + 0.01)
    want = (features(X[rows] + 0.01).double() * weight[rows]).sum(1) + bias[rows]
    assert torch.allclose(got[:, 1], want.float()) and torch.allclose(got[:, 0], -want.float())


PGD = "pgd(steps=30, restarts=3, threat=ball(eps=0.1))"


def test_a_working_attack_finds_what_is_planted(nets):
    found = read(f"binarisation(attack={PGD}, inner=60, share=1)", nets["plain"])
    assert found["binarisation_valid"].value == 1.0 and found["binarisation_valid"].n == 12
    assert found["binarisation_success"].value == 1.0
    assert found["binarisation_random"].value <= 0.25


def test_an_attack_without_gradients_to_follow_does_not(nets):
    found = read(f"binarisation(attack={PGD}, inner=60, share=1)", nets["fine"])
    assert found["binarisation_success"].value < 0.5
    mended = "backward_as(attack=pgd(steps=30, threat=ball(eps=0.1)), module='step')"
    net = nets["fine"]
    net.step = type("Quantise", (nn.Module,), {"forward": lambda self, x: (x * 64).round() / 64})()
    assert read(f"binarisation(attack={mended}, inner=60, share=1)", net)["binarisation_success"].value > 0.9


def test_it_has_no_answer_where_nothing_can_be_separated(nets):
    found = read(f"binarisation(attack={PGD}, inner=2, share=1)", lambda x: 0 * x.flatten(1)[:, :3])
    assert found["binarisation_valid"].value == 0.0
    assert found["binarisation_success"].status is Status.UNDEFINED


@pytest.mark.parametrize("attack", ["fmn", "pgd(goal=target(1))", "spatial"])
def test_it_needs_a_ball_and_a_wrong_answer(attack):
    with pytest.raises(SpecError, match="must look for a wrong answer"):
        parse(f"binarisation(attack={attack})")


def test_other_cells_are_left_alone(nets):
    probe, seen = parse(f"binarisation(attack={PGD})"), view(nets["plain"])
    other = View(X, X + 0.1, seen.y, seen.ids, seen.logits, net=seen.net)
    assert probe.read(probe.observe(other, draws=DRAWS)) == []


def test_in_a_lab_it_becomes_a_finding():
    data = br.load_dataset("digits(side=8)", limit=80)
    net = br.load_network("mlp(widths=(64,))", shape=data.shape, classes=10)
    table = br.Lab(device="cpu").measure(net, data, probes=[f"binarisation(attack={PGD}, inner=30, share=0.5)"], summaries=["checks"])
    (found,) = [item for item in table.findings if item.name == "binarisation"]
    assert found.verdict == "pass" and found.value == 1.0 and found.perturbation == br.parse(PGD).spec()
