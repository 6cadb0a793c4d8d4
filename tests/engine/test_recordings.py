"""Recordings of whole maps: they are not copied, and nobody notices."""

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.measurement import Reading
from brinell.core.perturbation import Perturbation
from brinell.core.probe import Needs, Probe
from brinell.core.record import itself, record
from brinell.core.tally import Rows
from brinell.engine.observing import observe_shard


def maps():
    lot = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=lot) * 0.3
    return net, torch.rand(20, 1, 8, 8, generator=lot)


class Holding(Probe, name="test_holding"):
    """Puts the activations into its tally as they are, without the copy that `of` makes."""

    @property
    def needs(self):
        return Needs(layers=(), pooled=False)

    def observe(self, view, *, draws):
        return Rows({"id": view.ids, **view.activations})

    def read(self, tally):
        rows = Rows(tally.values).sorted()
        return [Reading(name, float(rows[name].sum()), array=rows[name].numpy(), axis="sample") for name in ("1:0", "3:0")]


def test_what_a_tally_holds_is_never_written_over():
    """Also where a piece of work is done before any of its shards is looked at, as in other processes."""
    net, x = maps()
    data = br.Dataset.from_arrays(x, np.zeros(20, int), classes=2)
    cells = [br.parse(spec, Perturbation) for spec in ("clean", "uniform_noise(threat=ball(eps=0.1))", "gaussian_blur(severity=5)")]
    network = br.Network(net).frozen_copy()
    options = {"seed": 0, "device": torch.device("cpu")}
    late = [list(observe_shard(network, data, part, cells, [Holding()], **options)) for part in data.shards(4)]
    for part, found in zip(data.shards(4), late, strict=True):
        for perturbation, shard in found:
            ((_, alone),) = observe_shard(network.frozen_copy(), data, part, [perturbation], [Holding()], **options)
            held, expected = (each.tallies["test_holding"] for each in (shard, alone))
            assert all(torch.equal(held[name], expected[name]) for name in ("1:0", "3:0"))


class Changes(Holding, name="test_changes"):
    """What the perturbation changed in each layer."""

    @property
    def needs(self):
        return Needs(layers=(), pooled=False, clean=True)

    def observe(self, view, *, draws):
        return Rows.of(id=view.ids, **{name: value - view.clean.activations[name] for name, value in view.activations.items()})


class Working(nn.Module):
    """A network that writes over what its first ReLU has returned: once that has been read, or in the next pass. Or it does not."""

    buffer: torch.Tensor

    def __init__(self, how: str, *, in_place: bool) -> None:
        super().__init__()
        self.how, self.in_place, (self.layers, _) = how, in_place, maps()
        self.register_buffer("buffer", torch.empty(0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers[0](x + 0.1 * torch.rand(len(x), 1, 1, 1) if self.how == "draws" else x)
        if self.how == "buffer" and self.in_place:
            if len(x) != len(self.buffer):
                self.buffer = torch.empty_like(x)
            hidden = self.buffer.copy_(x).relu_()
        else:
            hidden = torch.relu(x)
        out = self.layers[2](hidden)
        if self.how != "buffer" and self.in_place:
            if self.how == "data":
                hidden.data.mul_(7)
            elif self.how == "numpy":
                hidden.numpy()[:] = 7
            else:
                hidden.mul_(7)
        return self.layers[5](self.layers[4](torch.relu(out)))


@pytest.mark.parametrize("how", ["after reading", "data", "numpy", "draws", "buffer"])
def test_a_network_that_works_in_place_is_recorded_before_it_writes(how):
    """The lab records without copying; where that does not do it begins the batch again, as if nothing had been."""
    x = maps()[1]
    data = br.Dataset.from_arrays(x, np.zeros(20, int), classes=2)
    cells = [br.parse(spec, Perturbation) for spec in ("clean", "uniform_noise(threat=ball(eps=0.1))", "gaussian_blur(severity=5)")]
    nets = [br.Network(Working(how, in_place=in_place).eval(), recipe="it").frozen_copy() for in_place in (True, False)]
    for part in data.shards(7):
        options = {"seed": 0, "device": torch.device("cpu")}
        sides = [observe_shard(net, data, part, cells, [Changes(), Holding()], **options) for net in nets]
        for (_, found), (_, expected) in zip(*sides, strict=True):
            assert (found.forwards, found.backwards) == (expected.forwards, expected.backwards)
            for name, tally in expected.tallies.items():
                assert all(torch.equal(found.tallies[name][layer], value) for layer, value in tally.values.items())
                assert set(tally.values) == {"id", "root:0", "root:1"}


def test_a_recording_tells_when_it_is_written_over():
    net, x = maps()
    with torch.no_grad(), record(net, keep=itself) as lent:
        net(x)
    assert not lent.overwritten()
    lent["3:0"].view(-1)[0] = 5  # also through a view
    assert lent.overwritten()
    with torch.inference_mode(), record(net, keep=itself) as untold:
        net(x)
    assert not untold.overwritten() and set(untold) == {"1:0", "3:0"}
