"""Known answers: networks whose robustness follows from a formula, measured by the whole lab on a device."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from brinell.core.component import parse
from brinell.core.dataset import Dataset
from brinell.core.draws import derive
from brinell.core.lab import Table
from brinell.core.network import Network
from brinell.core.record import record, whole
from brinell.core.threat import Ball
from brinell.engine.lab import Lab
from brinell.laws.law import require
from brinell.laws.specimen import images, linear
from brinell.models.reference import OneHotUnits, RankFeatures, exact_margin, one_hot_samples

N = 32
WIDE = 100.0
"""The formula knows no domain, so the samples get one that no attack reaches the end of."""


def linear_margin(device: str) -> None:
    """On a linear network exactly the samples whose margin exceeds eps survive FGSM and PGD, in every norm."""
    draws = derive(0, "laws", "known", ids=range(3))
    weight, bias = draws.normal(64), draws.normal(1).squeeze(1)
    x, _, _ = images(N, (1, 8, 8))
    net = linear(weight, bias)
    with torch.no_grad():
        y = net(x).argmax(1)
    data = Dataset.from_arrays(x, y, domain=(-WIDE, WIDE), classes=3)
    for norm in (1.0, 2.0, math.inf):
        margins = exact_margin(weight, bias, x, y, norm)
        eps, share = _between(sorted(margins.tolist()))
        ball = Ball(norm=norm, eps=eps, low=-WIDE, high=WIDE)
        attacks = [f"{attack}(threat={ball.spec()})" for attack in ("fgsm", "pgd")]
        table = Lab(device=device).measure(Network(net), data, attacks, ["accuracy"], ["bound"])
        for attack in attacks[1:] if norm == 1 else attacks:  # one step cannot choose among the entries that L1 may share
            found = table.value("accuracy", perturbation=parse(attack).spec())
            require(found is not None and found >= share - 1e-9, f"{attack} leaves {found}; {share} of the samples cannot be flipped")
        found = table.value("accuracy", perturbation=parse(attacks[1]).spec())
        require(found == share, f"{attacks[1]} leaves {found}, but {share} of the margins exceed eps")
        upper = table.value("robust_accuracy", perturbation="", layer=ball.spec(), bound="upper")
        require(upper == share, f"R(T) <= {upper} in {ball.spec()}, but it is {share}")


def _between(margins: list[float]) -> tuple[float, float]:
    """A size in the widest relative gap between margins, and the share of samples beyond it."""
    middle = range(len(margins) // 4, 3 * len(margins) // 4)
    at = max(middle, key=lambda k: margins[k + 1] / margins[k])
    return math.sqrt(margins[at] * margins[at + 1]), (len(margins) - at - 1) / len(margins)


def one_hot_selectivity(device: str) -> None:
    """Units that respond to one class each have class selectivity 1, and the network is always right."""
    y = torch.arange(40) % 4
    data = Dataset.from_arrays(one_hot_samples(y, (1, 4, 4)), y)
    table = Lab(device=device).measure(Network(OneHotUnits().build((1, 4, 4), 4)), data, (), ["accuracy", "class_selectivity"])
    require(table.value("accuracy") == 1, f"accuracy {table.value('accuracy')} instead of 1")
    for row in table.select(name="selectivity"):
        require(row["value"] is not None and abs(row["value"] - 1) < 1e-5, f"selectivity of {row['layer']} is {row['value']} instead of 1")


def rank_of_features(device: str) -> None:
    """Features that repeat 3 numbers have rank 3 as they are recorded."""
    with torch.random.fork_rng(devices=[]):
        net = RankFeatures(rank=3, width=12).build((1, 4, 4), 4).to(device)
    x = derive(0, "laws", "rank", ids=range(64)).uniform(1, 4, 4).to(device)
    with torch.no_grad(), record(net, keep=whole) as found:
        net(x)
    require(found, "no non-linearity was recorded")
    for name in found:
        rank = int(torch.linalg.matrix_rank(found[name].flatten(1).double().cpu(), tol=1e-5))
        require(rank == 3, f"the features at {name} have rank {rank} instead of 3")


def device_agrees(device: str) -> None:
    """The device gives the noise and the answers of the CPU: distances to 1e-4, and predictions where no logits are level."""
    x, y, _ = images(N, (1, 8, 8))
    net = nn.Sequential(*linear(derive(0, "laws", "known", ids=range(2)).normal(64)))
    noise = "uniform_noise(threat=ball(eps=0.1))"

    def measured(where: str) -> Table:
        return Lab(device=where, seed=3).measure(Network(net), Dataset.from_arrays(x, y), [noise], ["accuracy"])

    here, there = (measured(where).samples("net", noise) for where in ("cpu", device))
    far = abs(here["l2"] - there["l2"]).max()
    require(far < 1e-4, f"noise differs from the CPU's by {far:.3g} in L2")
    other = int((here["prediction"] != there["prediction"]).sum())
    require(other <= 1, f"{other} of {N} predictions differ from the CPU's")


KNOWN: tuple[Callable[[str], None], ...] = (linear_margin, one_hot_selectivity, rank_of_features, device_agrees)
