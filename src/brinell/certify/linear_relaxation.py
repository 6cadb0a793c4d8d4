"""Backward linear relaxation: which samples do linear bounds, carried back through the network, prove safe?"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from brinell.certify.backward import Backward, Rows
from brinell.certify.certificate import Certificate
from brinell.certify.enclosure import Enclosure
from brinell.certify.graph import Graph
from brinell.certify.operations import MaxPool, ReLU
from brinell.certify.problem import Problem, margin_rows
from brinell.core.threat import Ball

ROWS_AT_ONCE = 1 << 21
"""Coefficients that one step backwards may hold; more rows wait."""
Matters = Literal["open", "positive", "all"]
"""Entries of open sign; those that a ReLU lets through to a max-pool, open or not; every one."""
FEW = 96  # rows that a step should have at least, to be worth its calls


def linear_bounds(
    net: Any, x: Tensor, ball: Ball, C: Tensor | None = None, *, rounding: bool = True, passes: int | None = None
) -> tuple[Tensor, Tensor]:
    """Bounds of the logits, or of linear functions C of them, that hold at every input of each sample's ball.

    Every ReLU and max-pool is put between two lines that hold on an interval of its input; the functions are then carried
    back through the network as linear functions of the layer before, down to the sample, where they are least at a known value (see
    `Backward`). The intervals come from the same procedure, for the inputs that `interval_bounds` leaves on both sides of 0; what
    is returned is the tighter of both methods, number by number. Exact for affine networks.

    Arguments:
        net, x, ball, C, rounding: as in `interval_bounds`.
        passes: of each sample, the most passes through the network for the intervals in between, a row's way back counting by its share
            of the network's multiplications; a layer for which they do not suffice keeps its box. None for no limit. The last
            step, one row for each row of C, is always taken.

    Returns: (n, r) lower and upper, r = K where C is None. Infinite where nothing is known.

    Raises: as `interval_bounds`.

    References: Zhang et al. (2018), "Efficient Neural Network Robustness Certification with General Activation Functions",
        NeurIPS, arXiv 1811.00866 (CROWN). Departures: boxes first, and linear bounds only where they leave a sign open; round balls
        are cut by the domain.

    Example:
        >>> from brinell.models.reference import linear_network
        >>> net = linear_network(torch.tensor([[1.0, -2.0], [0.0, 1.0]]))
        >>> margin = torch.tensor([[-1.0, 1.0]])
        >>> [ends.round(decimals=4).tolist() for ends in linear_bounds(net, torch.tensor([[0.5, 0.5]]), Ball(eps=0.1), margin)]
        [[[0.6]], [[1.4]]]
    """

    def solve(part: Problem, rows: Tensor) -> tuple[Tensor, Tensor]:
        return _last(refined(part, passes), rows, both=True)[:2]

    with torch.no_grad():
        return Problem.pose(net, x, ball, rounding=rounding).bounds(C, solve)


def refined(part: Problem, passes: int | None) -> Enclosure:
    """The intervals of all nodes, those before a ReLU or a max-pool tightened by linear bounds."""
    around = Enclosure(part.graph, part.x, part.ball, part.unit)
    back = Backward(around, relax=True)
    left = torch.full((len(part.x),), math.inf if passes is None else float(passes), dtype=torch.float64, device=part.x.device)
    asked = _asked(part.graph)
    for place in range(1, len(part.graph.nodes)):
        around.advance()
        if place in asked and not around.exact(place):
            _tighten(around, back, place, left, asked[place])
    return around


def _asked(graph: Graph) -> dict[int, Matters]:
    """The nodes whose intervals decide lines, and which of their entries do."""
    found: dict[int, Matters] = {}
    for node in graph.nodes:
        if isinstance(node.op, ReLU):
            found.setdefault(node.inputs[0], "open")
        elif isinstance(node.op, MaxPool):
            source = graph.nodes[node.inputs[0]]
            found |= {source.inputs[0]: "positive"} if isinstance(source.op, ReLU) else {node.inputs[0]: "all"}
    return found


def _tighten(around: Enclosure, back: Backward, place: int, left: Tensor, matters: Matters) -> None:
    """Linear bounds of the entries of a node that matter, for the samples that can still afford them."""
    found = around[place]
    open_ = found.lower < found.upper
    if matters != "all":
        open_ = open_ & (found.upper > 0) & ((found.lower < 0) | (matters == "positive"))
    need = 2 * open_.flatten(1).sum(1) * around.graph.below[place]
    able = need <= left
    left -= torch.where(able, need, 0.0).to(left)
    open_ = open_ & able.reshape(-1, *(1,) * (open_.ndim - 1))
    if not bool(open_.any()):
        return
    lower, upper = torch.full_like(found.lower, -math.inf), torch.full_like(found.upper, math.inf)
    for window in _tiles(around.graph, place, open_):
        part = open_[(slice(None), slice(None), *window)] if window else open_
        flat = part.flatten(1)
        most = int(flat.sum(1).max())
        if not most:
            continue
        order = flat.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        low, high = (torch.full_like(flat, end, dtype=lower.dtype) for end in (-math.inf, math.inf))
        for columns in order.split(_width(around.graph, place, part), 1):
            rows = torch.zeros(*columns.shape, flat.shape[1], dtype=lower.dtype, device=lower.device)
            rows.scatter_(2, columns[..., None], flat.gather(1, columns)[..., None].to(lower.dtype))
            corner = (window[0].start, window[1].start) if window else None
            ends = back.bounds(place, Rows(rows.unflatten(2, part.shape[1:]), corner))
            low.scatter_(1, columns, ends[0])
            high.scatter_(1, columns, ends[1])
        where = (slice(None), slice(None), *window) if window else ...
        lower[where] = torch.where(part, low.unflatten(1, part.shape[1:]), -math.inf)
        upper[where] = torch.where(part, high.unflatten(1, part.shape[1:]), math.inf)
    around.intervals[place] = found.within(
        lower.nan_to_num(-math.inf, math.inf, -math.inf), upper.nan_to_num(math.inf, math.inf, -math.inf)
    )


def _tiles(graph: Graph, place: int, open_: Tensor) -> list[tuple[slice, slice] | None]:
    """Windows of a map in which there are rows enough for a step: near values see near inputs, so that small windows stay small."""
    shape = graph.nodes[place].op.shape
    if len(shape) != 3:
        return [None]
    per_place = float(open_.sum()) / (shape[1] * shape[2])
    side = max(round(math.sqrt(FEW / max(per_place, 1e-9))), 1)
    if side >= max(shape[1:]) / 2:
        return [None]
    return [
        (slice(top, min(top + side, shape[1])), slice(start, min(start + side, shape[2])))
        for top in range(0, shape[1], side)
        for start in range(0, shape[2], side)
    ]


def _width(graph: Graph, place: int, part: Tensor) -> int:
    """Rows of each sample that are carried at once."""
    widest = max(math.prod(node.op.shape) for node in graph.nodes[: place + 1])
    return max(ROWS_AT_ONCE // (len(part) * widest), 1)


def _last(around: Enclosure, rows: Tensor, *, both: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The tighter of both methods' bounds of functions of the logits, and the coefficients of the lower linear ones at the sample."""
    place = len(around.graph.nodes) - 1
    lines, boxes = Backward(around, relax=True), Backward(around, relax=False)
    found = []
    for columns in rows.split(_width(around.graph, place, rows), 1):
        linear, boxed = (back.bounds(place, Rows(columns), both=both, exact=True) for back in (lines, boxes))
        found.append((torch.maximum(linear[0], boxed[0]), torch.minimum(linear[1], boxed[1]), lines.at_sample[:, : columns.shape[1]]))
    lower, upper, slopes = (torch.cat(ends, 1) for ends in zip(*found, strict=True))
    return lower, upper, slopes


class CROWN(Certificate, name="crown"):
    """The share of samples that linear bounds, carried backwards, prove to be classified correctly everywhere in a ball.

    A sample is safe where the lower bound of its least margin z_y - max_k z_k over the ball is above 0 (`linear_bounds`); the bound is
    never looser than that of `ibp`. Where it fails, the point of the ball at which the linear bound of the least margin is least is
    tried as a counterexample. The price grows with the units whose sign the ball leaves open; `passes` limits it.

    Arguments:
        threat: the ball, in any norm; its domain is the data's. passes: most passes of one sample, see `linear_bounds`; None for no limit.

    Readings: see `Certificate`.

    References: as `linear_bounds`.

    Example:
        >>> import brinell as br
        >>> br.parse("crown(passes=500, threat=ball(eps=0.01))").passes
        500
    """

    passes: int | None = Field(default=None, ge=0)

    @property
    def cost(self) -> tuple[int, int]:
        return 5, 1000 if self.passes is None else self.passes

    def floors(self, net: Any, x: Tensor, y: Tensor, ball: Ball) -> tuple[Tensor, Tensor | None]:
        points: list[Tensor] = []

        def solve(part: Problem, rows: Tensor) -> tuple[Tensor, Tensor]:
            lower, upper, slopes = _last(refined(part, self.passes), rows, both=False)
            worst = lower.argmin(1).reshape(-1, 1, *(1,) * (slopes.ndim - 2)).expand(-1, 1, *slopes.shape[2:])
            points.append(slopes.gather(1, worst).squeeze(1))
            return lower, upper

        with torch.no_grad():
            problem = Problem.pose(net, x, ball, rounding=True)
            floors = problem.bounds(margin_rows(y, problem.classes), solve)[0].amin(1)
        down = self.threat.steepest(-torch.cat(points).to(x.dtype).nan_to_num())
        return floors, self.threat.project(x, x + (self.threat.eps if math.isfinite(self.threat.eps) else 1e6) * down)

    def bounds(self, net: Any, x: Tensor, threat: Any, C: Tensor) -> tuple[Tensor, Tensor]:
        return linear_bounds(net, x, threat, C, passes=self.passes)
