"""Enclosures: intervals that hold each node's values for every input of a ball, as computed by any order of summation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from brinell.certify.graph import Graph, Node
from brinell.certify.operations import Affine, Reshape, Weighted
from brinell.core import norms
from brinell.core.threat import Ball

_OWN = 2.0**-53


@dataclass(frozen=True, eq=False)
class Interval:
    """lower <= values <= upper, (n, *shape) each; slack: how far rounding in this node alone may move its values, None where it cannot."""

    lower: Tensor
    upper: Tensor
    slack: Tensor | None = None

    @property
    def size(self) -> Tensor:
        """The largest absolute value."""
        return torch.maximum(self.lower.abs(), self.upper.abs())

    @property
    def middle(self) -> Tensor:
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        return (self.upper - self.lower) / 2

    def within(self, lower: Tensor, upper: Tensor) -> Interval:
        """The part of it between two other bounds."""
        return Interval(torch.maximum(self.lower, lower), torch.minimum(self.upper, upper), self.slack)


class Enclosure:
    """The intervals of a graph's nodes around some samples.

        box  [m - r, m + r]   ->   L m + b  +-  ( |L| r + s ),       s = 2 (t u + d 2^-53) ( |L| max|box| + |b| )

    for an affine node of t rounding steps an entry and d numbers read; ReLU and max-pool take both ends through themselves. s is the
    classical bound of what rounding can do to a sum in any order, twice: once for the network's own pass, once for this one.
    Where a weighted layer sees the sample's own entries and the ball is round, eps |row|_q about its value at the sample also holds.

    Arguments:
        graph: with the samples' type. x: (n, *d). ball: around each.
        unit: u, the unit roundoff of the arithmetic the network runs in; None leaves rounding out (s = 0).

    References: Gowal et al. (2018), "On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust Models",
        arXiv 1810.12715, equations 6 and 7. Higham (2002), "Accuracy and Stability of Numerical Algorithms", section 3.1 (the bound
        gamma_t of sums in any order).
    """

    def __init__(self, graph: Graph, x: Tensor, ball: Ball, unit: float | None) -> None:
        self.graph, self.x, self.ball, self.unit = graph, x, ball, unit
        low, high = ball.box(x)
        if unit is not None:
            edge = 4 * _OWN * (x.abs() + (ball.eps if math.isfinite(ball.eps) else 0.0))
            low, high = low - edge, high + edge
        self.intervals: list[Interval] = [Interval(low, high)]
        self._centre: dict[int, tuple[Tensor, Tensor]] = {0: (x, torch.ones_like(x[:1]))}

    def __getitem__(self, place: int) -> Interval:
        return self.intervals[place]

    def exact(self, place: int) -> bool:
        """Is this node a weighted layer on the sample's own entries, so that no linear bound is tighter?"""
        node = self.graph.nodes[place]
        return isinstance(node.op, Weighted) and self.graph.entrywise[node.inputs[0]]

    def advance(self) -> Interval:
        """The interval of the next node, from those before it."""
        place = len(self.intervals)
        node = self.graph.nodes[place]
        found = self._step(node)
        if self.graph.entrywise[place]:
            (source,) = node.inputs
            middle, size = self._centre[source]
            if isinstance(node.op, Affine):
                self._centre[place] = node.op.value(middle), node.op.magnitude(size)
        elif self.exact(place) and self.ball.norm != math.inf and math.isfinite(self.ball.eps):
            found = self._round(node, found)
        self.intervals.append(found)
        return found

    def all(self) -> Enclosure:
        """Itself, with the intervals of all nodes."""
        while len(self.intervals) < len(self.graph.nodes):
            self.advance()
        return self

    def _step(self, node: Node) -> Interval:
        before = [self.intervals[k] for k in node.inputs]
        lowers, uppers = [item.lower for item in before], [item.upper for item in before]
        op = node.op
        if not isinstance(op, Affine) or isinstance(op, Reshape):
            return Interval(op.value(*lowers), op.value(*uppers))
        middle, radius = op.value(*(item.middle for item in before)), op.magnitude(*(item.radius for item in before))
        slack = None
        if self.unit is not None:
            much = op.magnitude(*(item.size for item in before))
            slack = 2 * (op.terms * self.unit + op.sources * _OWN) * (much if op.bulk is None else much + op.bulk)
            radius = radius + slack
        return Interval(middle - radius, middle + radius, slack)

    def _round(self, node: Node, found: Interval) -> Interval:
        op = node.op
        if not isinstance(op, Weighted):
            return found
        middle, size = self._centre[node.inputs[0]]
        reach = self.ball.eps * op.reach(size, norms.dual(self.ball.norm))
        value = op.value(middle)
        if found.slack is not None:
            reach = reach + found.slack
        return found.within(value - reach, value + reach)
