"""Hand-built views: what a probe sees of one shard, without any network."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from brinell.core.draws import derive
from brinell.core.measurement import Reading
from brinell.core.probe import Probe, View


def view_of(logits, y, *, ids=None, activations=None, classes=(), **columns) -> View:
    logits, y = torch.as_tensor(logits), torch.as_tensor(y)
    ids = torch.arange(len(y)) if ids is None else torch.as_tensor(ids)
    x = torch.zeros(len(y), 1)
    columns = {name: np.asarray(values) for name, values in columns.items()}
    return View(x=x, z=x, y=y, ids=ids, logits=logits, activations=activations or {}, classes=tuple(classes), columns=columns)


def rows_of(view: View, rows: np.ndarray) -> View:
    keep = torch.as_tensor(rows)
    return replace(
        view,
        **{name: getattr(view, name)[keep] for name in ("x", "z", "y", "ids", "logits")},
        activations={name: value[keep] for name, value in view.activations.items()},
        columns={name: value[rows] for name, value in view.columns.items()},
    )


def readings_of(probe: Probe, *views: View) -> list[Reading]:
    tallies = [probe.observe(view, draws=derive(0, ids=view.ids)) for view in views]
    total = tallies[0]
    for tally in tallies[1:]:
        total = total + tally
    return probe.read(total)


@pytest.fixture
def make_view() -> Callable[..., View]:
    return view_of


@pytest.fixture
def take() -> Callable[[View, np.ndarray], View]:
    return rows_of


@pytest.fixture
def measure() -> Callable[..., list[Reading]]:
    """The readings of one or more shards."""
    return readings_of


@pytest.fixture
def find(measure) -> Callable[..., Reading]:
    """The one reading of a name and layer."""

    def one(probe: Probe, view: View, name: str, layer: str = "") -> Reading:
        (found,) = [reading for reading in measure(probe, view) if (reading.name, reading.layer) == (name, layer)]
        return found

    return one
