"""The probe `parameter_surface`: invariances of filter normalisation, and a slow twin."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.network import Counted
from brinell.core.probe import View
from brinell.probe.parameter_surface import ParameterSurface, filter_direction


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3))
        .to(dtype)
        .eval()
    )


def rescaled(net: nn.Sequential, a: float) -> nn.Sequential:
    """The same function: the first linear layer times a, the next one over a."""
    twin = copy.deepcopy(net)
    for p in (twin[4].weight, twin[4].bias):
        p.data *= a  # pyright: ignore[reportOperatorIssue]
    twin[6].weight.data /= a  # pyright: ignore[reportOperatorIssue]
    return twin


def read(probe: ParameterSurface, net: nn.Module, n: int = 9) -> dict[tuple[str, str], br.Reading]:
    ids = torch.arange(n)
    x = derive(0, ids=ids).uniform(1, 6, 6, dtype=torch.float64).to(next(net.parameters()).dtype)
    view = View(x, x, ids % 3, ids, torch.zeros(n, 3), net=Counted(net))
    return {(found.name, found.layer): found for found in probe.read(probe.observe(view, draws=derive(1, ids=ids)))}


def surface(probe: ParameterSurface, net: nn.Module, what: str = "cross_entropy") -> np.ndarray:
    found = read(probe, net)["parameter_surface", what].array
    assert found is not None
    return found


def test_filter_normalisation_sees_through_rescaling():
    net = network()
    for a in (10.0, 0.01):
        np.testing.assert_allclose(surface(ParameterSurface(grid=5), net), surface(ParameterSurface(grid=5), rescaled(net, a)), rtol=1e-9)
    bare = ParameterSurface(grid=5, normalise="none")
    change = np.abs(surface(bare, net) - surface(bare, rescaled(net, 10.0)))
    assert change.max() > 0.1
    assert change[2, 2] < 1e-9  # the function itself is the same


def test_a_slow_twin():
    net, probe = network(), ParameterSurface(grid=3, radius=0.5, samples=4)
    found, table = surface(probe, net), read(probe, net)
    used = derive(0, "tally.Sample", ids=range(9)).words(1).squeeze(1).argsort()[:4]
    x = derive(0, ids=torch.arange(9)).uniform(1, 6, 6, dtype=torch.float64)[used]
    y = used % 3
    for j, b in enumerate((-0.5, 0, 0.5)):
        for i, a in enumerate((-0.5, 0, 0.5)):
            twin = copy.deepcopy(net)
            for name, p in twin.named_parameters():
                if p.ndim < 2:
                    continue
                for f in range(len(p)):
                    for which, share in (("first", a), ("second", b)):
                        d = derive(0, "parameter_surface", which, name, ids=[f]).normal(*p.shape[1:], dtype=torch.float64)[0]
                        p.data[f] += share * d / d.norm() * dict(net.named_parameters())[name][f].norm().detach()
            with torch.no_grad():
                loss = nn.functional.cross_entropy(twin(x), y)
                wrong = (twin(x).argmax(1) != y).double().mean()
            assert found[j, i] == pytest.approx(float(loss), abs=1e-9)
            errors = table["parameter_surface", "error"].array
            assert errors is not None and errors[j, i] == float(wrong)
    assert table["parameter_surface_rise", ""].value == pytest.approx(found.mean() - found[1, 1])
    assert table["parameter_surface", "cross_entropy"].n == 4


def test_passes_are_counted_and_the_network_is_left_alone():
    net = network().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    counted = Counted(net)
    ids = torch.arange(5)
    x = torch.rand(5, 1, 6, 6, dtype=torch.float64)
    ParameterSurface(grid=3).observe(View(x, x, ids % 3, ids, torch.zeros(5, 3), net=counted), draws=derive(0, ids=ids))
    assert counted.forwards == 9 * 5
    assert net.training and all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_small_vectors_do_not_move():
    found = filter_direction(network(), lambda name, filters: derive(0, name, ids=range(filters)))
    assert list(found) == ["0.weight", "4.weight", "6.weight"]


def test_it_runs_in_a_lab_whatever_the_batch():
    x, y = torch.rand(14, 1, 6, 6, generator=torch.Generator().manual_seed(0)), np.arange(14) % 3
    net = network(torch.float32)
    tables = [br.Lab(batch_size=size).measure(net, (x, y), probes=["parameter_surface(grid=3, samples=6)"]) for size in (14, 4)]
    rows = [table.row("parameter_surface", layer="cross_entropy") for table in tables]
    assert rows[0]["n"] == rows[1]["n"] == 6
    a, b = (table.array(row) for table, row in zip(tables, rows, strict=True))
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_what_has_no_answer_says_why():
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :2]

    table = br.Lab().measure(Fixed(), (torch.rand(4, 1, 3, 3), [0, 1, 0, 1]), probes=["parameter_surface(grid=3)"])
    (row,) = table.select(status="failed")
    assert "no weights of two dimensions" in row["reason"]
    with pytest.raises(SpecError, match="odd number"):
        ParameterSurface(grid=4)
