"""Small networks and data, and how two tables are compared."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.measurement import COST


def net_of(width: int = 16, seed: int = 0, classes: int = 10, outputs: int | None = None) -> nn.Module:
    """A multilayer perceptron on digits of 8x8."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, outputs or classes))


def answers(table: br.Table) -> list[dict[str, Any]]:
    """The rows without what they cost."""
    return [{column: value for column, value in row.items() if column not in COST} for row in table.rows]


def same(a: br.Table, b: br.Table) -> None:
    """Fails unless rows, findings, samples and arrays of two tables are equal to the last bit."""
    assert answers(a) == answers(b)
    assert a.findings == b.findings
    for net in a.networks:
        for perturbation in a.plan["perturbations"]:
            left, right = a.samples(net, perturbation), b.samples(net, perturbation)
            assert left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)
    for one, two in zip(a.rows, b.rows, strict=True):
        left, right = a.array(one), b.array(two)
        assert (left is None) == (right is None) and (left is None or np.array_equal(left, right, equal_nan=left.dtype.kind == "f"))


def near(a: br.Table, b: br.Table, tolerance: float = 1e-5) -> None:
    """Fails unless all texts and counts of two tables are equal and all numbers nearly."""
    assert len(a.rows) == len(b.rows)
    for left, right in zip(answers(a), answers(b), strict=True):
        for column, value in left.items():
            if isinstance(value, float):
                assert right[column] == pytest.approx(value, rel=tolerance, abs=tolerance), (column, left, right)
            else:
                assert right[column] == value, (column, left, right)


@pytest.fixture(scope="session")
def data() -> br.Dataset:
    return br.load_dataset("digits(side=8)", limit=60)


@pytest.fixture(scope="session")
def make_net() -> Callable[..., nn.Module]:
    return net_of


@pytest.fixture(scope="session")
def without_cost() -> Callable[[br.Table], list[dict[str, Any]]]:
    return answers


@pytest.fixture(scope="session")
def assert_same() -> Callable[[br.Table, br.Table], None]:
    return same


@pytest.fixture(scope="session")
def assert_near() -> Callable[..., None]:
    return near
