"""The adapter to auto_LiRPA: against our own bounds where the library can be imported, and plain words where it cannot be."""

import sys
import warnings

import pytest
import torch
from torch import nn

import brinell as br
from brinell.certify.auto_lirpa import AutoLiRPA
from brinell.certify.graph import Unsupported
from brinell.certify.linear_relaxation import linear_bounds
from brinell.certify.problem import margin_rows
from brinell.core.network import Network
from brinell.core.threat import Ball

BALLS = [Ball(eps=0.01, low=-9, high=9), Ball(eps=0.01), Ball(norm=2, eps=0.05, low=-9, high=9), Ball(norm=1, eps=0.1, low=-9, high=9)]
SMALL = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)).eval().requires_grad_(False)


@pytest.fixture
def library():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("auto_LiRPA", reason="auto_LiRPA cannot be imported; put a checkout of its repository on the path")


def certified(net, *probes):
    x = torch.rand(12, 6, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(1)
    table = br.Lab(device="cpu").measure(Network(net), br.Dataset.from_arrays(x, y, classes=3), ["clean"], ["accuracy", *probes])
    return {row["probe"].partition("(")[0]: row for row in table.select(name="certified")}


def test_without_the_library_everything_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "auto_LiRPA", None)
    row = certified(SMALL, "auto_lirpa(threat=ball(eps=0.001))")["auto_lirpa"]
    assert row["value"] == 0 and "auto_LiRPA cannot be imported" in row["reason"]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("ball", BALLS, ids=Ball.spec)
@pytest.mark.parametrize("name", ["mlp", "two classes", "strides", "option B"])
def test_its_bounds_are_ours_and_hold(name, ball, make_net, samples, inside):
    net, shape = make_net(name)
    x = samples(4, shape)
    with torch.no_grad():
        y = net(x).argmax(1)
        logits = net(x)
    theirs, _ = AutoLiRPA(threat=ball).floors(Network(net), x, y, ball)
    ours = linear_bounds(net, x, ball, margin_rows(y, logits.shape[1]), rounding=False)[0].amin(1)
    for seed in range(12):
        moved = net(inside(ball, x, seed))
        mine = moved.gather(1, y[:, None]).squeeze(1)
        assert (theirs <= mine - moved.scatter(1, y[:, None], -torch.inf).amax(1) + 1e-6).all()
    margin = logits.gather(1, y[:, None]).squeeze(1) - logits.scatter(1, y[:, None], -torch.inf).amax(1)
    ours_wider, theirs_wider = theirs - ours, ours - theirs
    width, rounding = margin - ours, 2e-5 * logits.abs().amax(1)  # theirs are lowered for it
    assert (ours_wider <= 1e-4 * width + rounding).all()
    if name != "option B" and ball.low < 0:  # elsewhere ours may be tighter: they are cut by boxes, and by the domain
        assert (theirs_wider <= 0.02 * width + rounding).all()


@pytest.mark.usefixtures("library")
def test_it_certifies_what_ours_does_not_know_and_prints_nothing(capsys):
    ball = "threat=ball(eps=0.001)"
    found = certified(SMALL, f"crown({ball})", f"auto_lirpa(method='alpha-CROWN', {ball})")
    assert found["crown"]["value"] == 0 and "tanh" in found["crown"]["reason"]
    assert found["auto_lirpa"]["value"] > 0.5
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("library")
def test_pooling_that_its_faster_way_refuses_is_bounded(make_net):
    net = br.load_network("small_cnn(widths=(4, 5), pool=(1,))", shape=(1, 8, 8), classes=4).module.requires_grad_(False)
    x, ball = torch.rand(2, 1, 8, 8), Ball(eps=0.002)
    floors, _ = AutoLiRPA(threat=ball, method="alpha-CROWN").floors(Network(net), x, net(x).argmax(1), ball)
    assert floors.isfinite().all()


class Noisy(nn.Module):
    """Drops entries also in evaluation mode, though hardly ever."""

    def forward(self, x):
        return SMALL(nn.functional.dropout(x, 1e-7, training=True))


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Noisy(), "auto_LiRPA cannot bound this network"),
        (nn.Sequential(SMALL, nn.Softsign(), nn.GELU()), "auto_LiRPA cannot bound this network"),
    ],
)
def test_what_it_cannot_take_is_unknown_with_the_reason(net, said):
    with pytest.raises(Unsupported, match=said):
        AutoLiRPA().followed(Network(net.eval()), torch.rand(2, 6))
    row = certified(net, "auto_lirpa(threat=ball(eps=0.001))")["auto_lirpa"]
    assert row["value"] == 0 and said in row["reason"]
