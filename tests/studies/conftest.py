"""Networks trained with selectivity terms of several strengths, shared by the tests of the claims; each is made when first asked for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import brinell as br
from brinell.core.hardening import Hardening
from brinell.core.perturbation import points

DATA = "digits(side=8, split=all)"
FIT = "fit(batch_size=128, epochs=40, milestones=(20, 30), nesterov=False, schedule=step, weight_decay=0.0001)"
PGD = "pgd(steps=20, step_size=0.025, threat=ball(eps=0.1))"
PROBE = {
    "selectivity": "class_selectivity(permutations=0)",
    "input_gradient_cv_samples": "input_gradient",
    "input_gradient_cv_units": "input_gradient",
    "components_90": "dimensionality(sample=0)",
}


def conditions(x: Tensor, seed: int) -> dict[str, Tensor]:
    """Ten mild corruptions: Gaussian noise, contrast about the image's mean, brightness, a 3 x 3 box blur."""
    noise = br.derive(seed, "conditions", ids=range(len(x))).normal(*x.shape[1:])
    mean = x.mean((1, 2, 3), keepdim=True)
    made = {f"noise {sigma}": x + sigma * noise for sigma in (0.1, 0.2, 0.3, 0.4)}
    made |= {f"contrast {c}": mean + c * (x - mean) for c in (0.6, 0.4, 0.2)}
    made |= {f"brightness {b}": x + b for b in (0.2, 0.4)}
    made["blur"] = F.avg_pool2d(x, 3, 1, padding=1)
    return {name: z.clamp(0, 1) for name, z in made.items()}


@dataclass
class Trained:
    """One network; every number is measured when it is first asked for, on the test images."""

    net: br.Network
    test: br.Dataset
    seed: int
    numbers: dict[tuple[str, int], float] = field(default_factory=dict)

    def __call__(self, name: str, layer: int) -> float:
        """A reading of a layer, numbered from the input; 0 is the whole network."""
        if (name, layer) not in self.numbers:
            table = br.Lab(device="cpu", exact=True).measure({"net": self.net}, self.test, (), (PROBE[name],))
            places = {name: place for place, name in enumerate(dict.fromkeys(row["layer"] for row in table.rows if row["layer"]), 1)}
            self.numbers |= {(row["name"], places.get(row["layer"], 0)): row["value"] for row in table.rows}
        return self.numbers[name, layer]

    @cached_property
    def clean(self) -> float:
        return self._right(self.test.x())

    @cached_property
    def corrupted(self) -> float:
        """Mean accuracy over the conditions."""
        return self.over(("",))

    @cached_property
    def conditions(self) -> dict[str, float]:
        return {name: self._right(z) for name, z in conditions(self.test.x(), self.seed).items()}

    def over(self, kinds: tuple[str, ...]) -> float:
        """Mean accuracy over the conditions whose names begin so."""
        parts = [value for name, value in self.conditions.items() if name.startswith(kinds)]
        return sum(parts) / len(parts)

    @cached_property
    def attacked(self) -> float:
        """Accuracy under PGD, Linf 0.1."""
        x, y = self.test.x(), self.test.labels()
        return self._right(points(br.parse(PGD)(self.net, x, y, draws=br.derive(self.seed, "pgd", ids=self.test.ids))))

    def _right(self, z: Tensor) -> float:
        with torch.no_grad():
            return float((self.net(z).argmax(1) == self.test.labels()).float().mean())


def halves(seed: int) -> tuple[br.Dataset, br.Dataset]:
    """70 % of the digits of every class to learn from and the others to be tested on: each seed draws its own."""
    data = br.load_dataset(DATA)
    lot = np.random.default_rng(seed)
    tested = [lot.permutation(rows)[: round(0.3 * len(rows))] for rows in (np.flatnonzero(data.y == k) for k in range(10))]
    chosen = np.isin(np.arange(len(data)), np.concatenate(tested))
    return data.take(np.flatnonzero(~chosen)), data.take(np.flatnonzero(chosen))


@dataclass
class Sweep:
    """The networks by alpha and seed."""

    made: dict[tuple[float, int], Trained] = field(default_factory=dict)

    def __call__(self, alpha: float, seed: int) -> Trained:
        if (alpha, seed) not in self.made:
            train, test = halves(seed)
            start = br.load_network("small_cnn", shape=train.shape, classes=10, seed=seed)
            net = br.parse(f"selectivity(alpha={alpha}, fit={FIT})", Hardening)(start, train, seed=seed)
            self.made[alpha, seed] = Trained(net, test, seed)
        return self.made[alpha, seed]

    def mean(self, what: Callable[[Trained], float], alpha: float, seeds: int = 3) -> float:
        return sum(what(self(alpha, seed)) for seed in range(seeds)) / seeds


@pytest.fixture(scope="session")
def sweep() -> Sweep:
    return Sweep()
