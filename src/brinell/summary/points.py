"""Which measured points lie in which threat: what bounds and checks of several cells share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from brinell.core import norms
from brinell.core.component import parse
from brinell.core.goal import Misclassify
from brinell.core.lab import Samples, Table
from brinell.core.perturbation import Attack, Perturbation
from brinell.core.probe import Certifier, Probe
from brinell.core.threat import Ball


@dataclass(frozen=True, eq=False)
class Cell:
    """The samples of one network under one perturbation, in the order of ids."""

    perturbation: Perturbation
    samples: Samples

    @property
    def spec(self) -> str:
        return self.perturbation.spec()

    @property
    def correct(self) -> np.ndarray:
        """(n,) bool; a sample with NaN or inf among its logits is not correct."""
        return self.samples["correct"]

    @property
    def attacks(self) -> bool:
        """Is it an attack that wants a wrong answer?"""
        return isinstance(self.perturbation, Attack) and isinstance(self.perturbation.goal.aim, Misclassify)


def cells(table: Table, net: str) -> list[Cell]:
    """The cells of a network that did not fail, in the plan's order."""
    found = [Cell(item, table.samples(net, item)) for item in table.perturbations()]
    return [cell for cell in found if cell.samples]


def certifiers(table: Table) -> list[Certifier]:
    """The certifiers of the plan."""
    probes = [parse(text, Probe) for text in table.plan.get("probes", ())]
    return [probe for probe in probes if isinstance(probe, Certifier)]


def balls(items: Iterable[Perturbation | Certifier]) -> list[Ball]:
    """The distinct balls among the threats of perturbations and certifiers, in their order; those without an end are left out."""
    found = [threat for item in items for threat in (item.threats if isinstance(item, Perturbation) else (item.threat,))]
    return list(dict.fromkeys(ball for ball in found if isinstance(ball, Ball) and math.isfinite(ball.eps)))


def covers(outer: Ball, inner: Ball, entries: int) -> bool:
    """Does the outer ball contain the inner one around every x of D = `entries` numbers, wherever the domain lies?

    In R^D, |v|_q <= D^max(0, 1/q - 1/p) |v|_p, and equality occurs; so the ball of norm p and radius e lies in that of norm q
    and radius e' when D^max(0, 1/q - 1/p) e <= e'. Where the domain cuts off corners it may contain it sooner.

    Example:
        >>> covers(Ball(norm=2, eps=0.5), Ball(norm=2, eps=0.25), 100), covers(Ball(eps=0.5), Ball(norm=2, eps=0.5), 100)
        (True, True)
        >>> covers(Ball(norm=2, eps=0.5), Ball(eps=0.1), 100)             # reaches as far as 0.1 * sqrt(100)
        False
    """
    factor = entries ** max(0.0, 1 / outer.norm - 1 / inner.norm)
    return inner.eps * factor <= outer.eps and outer.low <= inner.low and inner.high <= outer.high


class Room:
    """The data's shape and domain: what decides whether a measured point lies in a ball."""

    def __init__(self, table: Table) -> None:
        self.shape = tuple(int(size) for size in table.plan["data"]["shape"])
        self.entries = math.prod(self.shape)
        self.low, self.high = (float(end) for end in table.plan["data"]["domain"])  # an infinite end may be a text

    def inside(self, cell: Cell, ball: Ball) -> np.ndarray:
        """(n,) bool: does the point of each sample lie in the ball, by its measured distance or because the lab has checked it?

        A ball that does not contain the data's domain asks for more than a distance; there only points of perturbations whose
        own threat lies in it count.
        """
        own = cell.perturbation.threat
        if isinstance(own, Ball) and covers(ball, own, self.entries):
            return np.ones(len(cell.correct), dtype=bool)
        if not (ball.low <= self.low and self.high <= ball.high):
            return np.zeros(len(cell.correct), dtype=bool)
        reach = ball.eps + ball.slack(torch.empty(0, *self.shape))
        return cell.samples[f"l{ball.norm:g}"] <= reach

    def holds_domain(self, ball: Ball) -> bool:
        """Does the ball around any sample hold the whole domain? No, where the domain has no end."""
        width = self.high - self.low
        corner = norms.length(torch.full((1, self.entries), width, dtype=torch.float64), ball.norm)
        return math.isfinite(width) and ball.eps >= float(corner) and ball.low <= self.low and self.high <= ball.high

    def survived(self, found: Iterable[Cell], ball: Ball) -> np.ndarray | None:
        """(n,) bool: is the sample correct at all of its points that lie in the ball? None where there is no point at all."""
        flags = None
        for cell in found:
            inside = self.inside(cell, ball)
            if inside.any():
                kept = cell.correct | ~inside
                flags = kept if flags is None else flags & kept
        return flags
