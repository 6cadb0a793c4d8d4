"""Recordings of whole maps: their memory is used again, and nobody notices."""

import numpy as np
import torch
from torch import nn

import brinell as br
from brinell.core.measurement import Reading
from brinell.core.perturbation import Perturbation
from brinell.core.probe import Needs, Probe
from brinell.core.record import record
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


def test_a_spent_recording_lends_its_memory_where_it_fits():
    net, x = maps()
    with torch.no_grad():
        with record(net) as first:
            net(x)
        old, places = {name: value.clone() for name, value in first.items()}, {name: value.data_ptr() for name, value in first.items()}
        with record(net, spent=first) as second:
            net(x + 1)
        assert {name: value.data_ptr() for name, value in second.items()} == places and not first
        with record(net) as fresh:
            net(x + 1)
        assert all(torch.equal(second[name], fresh[name]) and not torch.equal(second[name], old[name]) for name in fresh)
        with record(net, spent=second) as few:
            net(x[:7])
        assert all(len(value) == 7 for value in few.values())
    with record(net, spent=fresh) as graph:
        net(x.clone().requires_grad_(True))
    assert all(value.requires_grad for value in graph.values())
