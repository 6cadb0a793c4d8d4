"""A toy every network learns, small networks with fixed weights, and a way to stop a training half-way."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brinell.core.dataset import Dataset
from brinell.core.network import Network


@pytest.fixture
def toy() -> Dataset:
    """48 images (1, 6, 6) of three classes, told apart by which rows are bright; values k / 255."""
    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    x = rng.integers(0, 80, (48, 1, 6, 6))
    for row, label in enumerate(y):
        x[row, 0, 2 * label : 2 * label + 2] += 150
    return Dataset.from_arrays(x.astype(np.uint8), y, classes=3, name="toy", ids=np.arange(48) * 7 + 3)


@pytest.fixture
def small() -> Network:
    """Convolutions with batch normalisation, dropout, linear; the weights are fixed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(216, 3),
        )  # fmt: skip
    return Network(module, "small", ("randomly initialised (seed 5), not trained",), shape=(1, 6, 6), classes=3)


@pytest.fixture
def weights() -> Callable[[Network | nn.Module], dict[str, Tensor]]:
    """The state of a network, copied."""

    def copied(net: Network | nn.Module) -> dict[str, Tensor]:
        module = net.module if isinstance(net, Network) else net
        return {name: value.detach().clone() for name, value in module.state_dict().items()}

    return copied


@pytest.fixture
def same(weights) -> Callable[..., bool]:
    """Have two networks bit for bit the same state?"""

    def compared(a: Network | nn.Module, b: Network | nn.Module) -> bool:
        one, two = weights(a), weights(b)
        return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)

    return compared


class Watcher:
    """A progress display that remembers, and interrupts the training in a given epoch."""

    def __init__(self, stop_in: int = 0) -> None:
        self.stop_in, self.calls, self.passed = stop_in, [], 0.0

    def start(self, title: str, total: float, done: float = 0.0) -> None:
        self.calls.append(("start", title, total, done))

    def advance(self, amount: float, text: str = "") -> None:
        self.passed += amount
        self.calls.append(("advance", amount, text))
        if self.stop_in and text.startswith(f"epoch {self.stop_in} "):
            raise KeyboardInterrupt

    def say(self, text: str) -> None:
        self.calls.append(("say", text))

    def stop(self) -> None:
        self.calls.append(("stop",))


@pytest.fixture
def watcher() -> type[Watcher]:
    return Watcher
