"""Transfer: points of one network on another, in a lab and with a source that is built."""

import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.draws import derive
from brinell.core.errors import NetworkError
from brinell.core.perturbation import points
from brinell.models.reference import linear_network

DATA = br.load_dataset("digits(side=8)", limit=100)
PGD = "pgd(steps=10, threat=ball(eps=0.2))"


def trained(seed: int, classes: slice = slice(None)) -> nn.Module:
    """Ridge regression onto the classes: two of them differ in the half of the samples that they have seen."""
    train = br.load_dataset("digits(side=8, split=train)")
    x, y = train.x().flatten(1).double()[seed::2], train.labels()[seed::2]
    ones = torch.nn.functional.one_hot(y, 10).double()
    weight = torch.linalg.solve(x.T @ x + torch.eye(64, dtype=torch.float64), x.T @ ones)
    return linear_network(weight.T.float()).eval()


def test_points_of_one_network_break_another():
    nets = {"a": trained(0), "b": trained(1)}
    transfer = f"transfer(source=net(a), attack={PGD})"
    table = br.Lab(device="cpu").measure(nets, DATA, [PGD, transfer], ["accuracy"])
    clean, own, moved = (table.value("accuracy", net="b", perturbation=br.parse(p).spec()) for p in ("clean", PGD, transfer))
    assert own <= moved < clean - 0.2
    same, direct = (table.value("accuracy", net="a", perturbation=br.parse(p).spec()) for p in (transfer, PGD))
    assert abs(same - direct) <= 0.05  # from itself: white-box, with other random starts
    forwards = [row["forwards"] for row in table.select(net="b", perturbation=br.parse(transfer).spec())]
    assert set(forwards) == {len(DATA)}  # the network under test is asked once, to judge the points


def test_the_source_of_a_transfer_is_prepared_and_frozen():
    source = trained(0).train()
    nets = {"a": source, "b": trained(1)}
    br.Lab(device="cpu").measure(nets, DATA, [f"transfer(source=net(a), attack={PGD})"], ["accuracy"])
    assert source.training and all(p.grad is None for p in source.parameters())


def test_an_architecture_as_source_is_built_with_fresh_weights():
    x, y = DATA.x(), DATA.labels()
    attack = br.parse(f"transfer(source=mlp(widths=(16,)), attack={PGD})")
    z = points(attack(trained(0), x, y, draws=derive(0, ids=DATA.ids)))
    net = br.load_network("mlp(widths=(16,))", shape=DATA.shape, classes=10)
    want = points(br.parse(PGD)(net, x, y, draws=derive(0, ids=DATA.ids)))
    assert torch.equal(z, want)


def test_an_unknown_source_says_who_is_there():
    table = br.Lab(device="cpu").measure({"a": trained(0)}, DATA, [f"transfer(source=net(c), attack={PGD})"], ["accuracy"])
    (row,) = [row for row in table.rows if row["status"] == "failed" and row["probe"] == ""]
    assert "no network of this run is called 'c'; there are a" in row["reason"]
    with pytest.raises(NetworkError, match="let a lab measure"):
        br.parse("transfer(source=net(a))")(trained(0), DATA.x(), DATA.labels(), draws=derive(0, ids=DATA.ids))
