"""Bounds of linear functions of a layer, carried backwards through the network to the sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from brinell.certify.enclosure import _OWN, Enclosure, Interval
from brinell.certify.operations import Affine, Conv, Input, MaxPool, ReLU, Scale, Sum
from brinell.core import norms

_MOSTLY = 0.6
"""A window that covers more of its map than this is carried on as the whole map."""


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Lines through which a ReLU lies: low x <= relu(x) <= (low + rise) x + over, for all x of its interval; (n, *shape) each."""

    low: Tensor
    rise: Tensor
    over: Tensor

    @classmethod
    def of(cls, found: Interval) -> Relaxation:
        """The chord from above; from below the line of slope 1 where the interval reaches further up than down, else of slope 0."""
        lower, upper = found.lower, found.upper
        width = (upper - lower).clamp(min=torch.finfo(lower.dtype).tiny)
        chord = torch.where(lower >= 0, 1.0, torch.where(upper <= 0, 0.0, upper / width))
        low = torch.where(lower >= 0, 1.0, torch.where(upper <= 0, 0.0, (upper > -lower).to(lower.dtype)))
        crosses = (lower < 0) & (upper > 0)
        return cls(low, chord - low, torch.where(crosses, -lower * chord, 0.0))


@dataclass(frozen=True, eq=False)
class Choice:
    """Bounds of a max-pool: at least the entry at `best`, (n, c, outputs); at most that entry where `decided`, else at most `over`."""

    best: Tensor
    decided: Tensor
    over: Tensor

    @classmethod
    def of(cls, op: MaxPool, found: Interval) -> Choice:
        """best: the entry of the largest lower bound, of equals that of the largest upper one; decided: no other can exceed it."""
        lowers, uppers = op.windows(found.lower, -math.inf), op.windows(found.upper, -math.inf)
        most, at = lowers.max(-1, keepdim=True)
        decided = uppers.scatter(-1, at, -math.inf).amax(-1, keepdim=True) <= most
        at = torch.where(decided, at, uppers.masked_fill(lowers < most, -math.inf).argmax(-1, keepdim=True))
        table = op.table.to(at.device).expand(*lowers.shape[:2], -1, -1)
        best, decided = table.gather(-1, at).squeeze(-1), decided.squeeze(-1)
        return cls(best, decided.to(most.dtype), torch.where(decided, 0.0, uppers.amax(-1)))


@dataclass(frozen=True, eq=False)
class Rows:
    """Coefficients of a node's values, (n, r, *shape); with a corner, those of a window (rows, columns) of its map, and 0 elsewhere."""

    a: Tensor
    corner: tuple[int, int] | None = None

    def whole(self, shape: tuple[int, ...]) -> Tensor:
        """The coefficients of all values."""
        if self.corner is None:
            return self.a
        (top, left), (height, width) = self.corner, self.a.shape[-2:]
        return F.pad(self.a, (left, shape[2] - left - width, top, shape[1] - top - height))

    def cut(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        """(n or 1, 1, *) what of these per-sample values the coefficients belong to."""
        full = values.expand(len(values), *shape)[:, None]
        if self.corner is None:
            return full
        (top, left), (height, width) = self.corner, self.a.shape[-2:]
        return full[..., top : top + height, left : left + width]

    def dot(self, a: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        """(n, r) the sum of coefficients `a` (laid out like these) times the values."""
        return torch.matmul(a.flatten(2), self.cut(values, shape).flatten(2).transpose(1, 2)).squeeze(2)

    def plus(self, other: Rows, shape: tuple[int, ...]) -> Rows:
        if self.corner is None or other.corner is None:
            return Rows(self.whole(shape) + other.whole(shape))
        first = [min(a, b) for a, b in zip(self.corner, other.corner, strict=True)]
        last = [max(a + s, b + t) for a, b, s, t in zip(self.corner, other.corner, self.a.shape[-2:], other.a.shape[-2:], strict=True)]

        def widened(part: Rows) -> Tensor:
            (top, left), (height, width) = part.corner or (0, 0), part.a.shape[-2:]
            return F.pad(part.a, (left - first[1], last[1] - left - width, top - first[0], last[0] - top - height))

        return Rows(widened(self) + widened(other), (first[0], first[1]))


class Backward:
    """Lower and upper bounds of C z over a ball, for z the values of a node: C is replaced, node by node, by the coefficients of the
    nodes before, until the sample is reached.

        a^T (L x + b)     =   (L^T a)^T x + a^T b                          minus |a|^T s, the node's own rounding
        a^T relu(x)      >=   (low a^+ + (low + rise) a^-)^T x + over^T a^-       a^+ = max(a, 0), a^- = min(a, 0)
        a^T x            >=   a^T x_0 - h(-a) at the sample,  h(a) = max of a^T v over x_0 + v in the ball

    With relax=False it ends at the first ReLU or max-pool, whose interval takes the place of the ball. Where a convolution lies
    before a window of a map, only the window that it can see is computed.

    Arguments:
        around: the intervals of all nodes up to the one that is bounded.

    References: Zhang et al. (2018), "Efficient Neural Network Robustness Certification with General Activation Functions",
        NeurIPS, arXiv 1811.00866, theorem 3.2 and table 2 (with its adaptive lower line).
    """

    def __init__(self, around: Enclosure, *, relax: bool) -> None:
        self.around, self.graph, self.relax = around, around.graph, relax
        self.at_sample = around.x.new_zeros(0)
        """The coefficients of the last rows where they reached the sample, (n, r, *d)."""
        self._lines: dict[int, Relaxation | Choice] = {}

    def bounds(self, place: int, rows: Rows, *, both: bool = True, exact: bool = False) -> tuple[Tensor, Tensor]:
        """(n, r) lower and upper bounds of the rows' functions of the values of a node.

        Arguments:
            both: without, the upper ones are not computed, and are inf. exact: h as it is where the ball is round and the domain cuts it;
                otherwise the smaller of its values for the ball and for the box around both.
        """
        state = _State(self, place, rows, both, exact)
        self.at_sample = self.around.x.new_zeros(*rows.a.shape[:2], *self.around.x.shape[1:])
        while state.pending:
            state.advance()
        lower = state.total - state.loss
        if not state.doubled:
            return lower, torch.full_like(lower, math.inf)
        r = lower.shape[1] // 2
        return lower[:, :r], -lower[:, r:]

    def lines(self, place: int) -> Relaxation | Choice:
        """The bounds of a ReLU or a max-pool, from the interval before it."""
        if place not in self._lines:
            node = self.graph.nodes[place]
            before = self.around[node.inputs[0]]
            self._lines[place] = Choice.of(node.op, before) if isinstance(node.op, MaxPool) else Relaxation.of(before)
        return self._lines[place]


class _State:
    """One pass backwards: the rows that wait at each node, and the constants so far."""

    def __init__(self, how: Backward, place: int, rows: Rows, both: bool, exact: bool) -> None:
        self.how, self.around, self.both, self.exact = how, how.around, both, exact
        self.pending = {place: rows}
        self.total = rows.a.new_zeros(rows.a.shape[:2])
        self.loss = torch.zeros_like(self.total)
        self.doubled = False
        if self.around.unit is not None:  # rounding of the products with the rows themselves
            shape = how.graph.nodes[place].op.shape
            self.loss += 4 * _OWN * math.prod(shape) * rows.dot(rows.a.abs(), self.around[place].size, shape)

    def advance(self) -> None:
        place = max(self.pending)
        rows, node = self.pending.pop(place), self.how.graph.nodes[place]
        op = node.op
        if isinstance(op, Affine):
            self._affine(place, rows, op, node.inputs)
            return
        if self.both and not self.doubled:
            self._double()
            rows = Rows(torch.cat((rows.a, -rows.a), 1), rows.corner)
        if isinstance(op, Input):
            self._end(place, rows, at_sample=True)
        elif not self.how.relax:
            self._end(place, rows, at_sample=False)
        elif isinstance(op, ReLU):
            self._relu(place, rows, op, node.inputs[0])
        elif isinstance(op, MaxPool):
            self._max_pool(place, rows, op, node.inputs[0])

    def _double(self) -> None:
        """An upper bound is minus the lower bound of the opposite: from the first node on where the two differ, both are carried."""
        self.doubled = True
        self.total, self.loss = torch.cat((self.total, -self.total), 1), torch.cat((self.loss, self.loss), 1)
        self.pending = {place: Rows(torch.cat((rows.a, -rows.a), 1), rows.corner) for place, rows in self.pending.items()}

    def _wait(self, place: int, rows: Rows) -> None:
        shape = self.how.graph.nodes[place].op.shape
        if rows.corner is not None and math.prod(rows.a.shape[-2:]) >= _MOSTLY * math.prod(shape[1:]):
            rows = Rows(rows.whole(shape))
        self.pending[place] = self.pending[place].plus(rows, shape) if place in self.pending else rows

    def _affine(self, place: int, rows: Rows, op: Affine, inputs: tuple[int, ...]) -> None:
        if op.bias is not None:
            self.total = self.total + rows.dot(rows.a, op.bias, op.shape)
        slack = self.around[place].slack
        if slack is not None:
            self.loss = self.loss + rows.dot(rows.a.abs(), slack, op.shape)
        n, r = rows.a.shape[:2]
        if rows.corner is not None and isinstance(op, Conv) and op.windowed:
            a, corner = op.adjoint_of_window(rows.a.flatten(0, 1), rows.corner)
            if a.numel():
                self._wait(inputs[0], Rows(a.unflatten(0, (n, r)), corner))
            return
        if rows.corner is not None and isinstance(op, Sum):
            for source, c in zip(inputs, op.coefficients, strict=True):
                self._wait(source, Rows(rows.a if c == 1 else c * rows.a, rows.corner))
            return
        if rows.corner is not None and isinstance(op, Scale):
            self._wait(inputs[0], Rows(rows.a * rows.cut(op.factor.expand(1, *op.shape), op.shape), rows.corner))
            return
        for source, a in zip(inputs, op.adjoint(rows.whole(op.shape).flatten(0, 1)), strict=True):
            self._wait(source, Rows(a.unflatten(0, (n, r))))

    def _relu(self, place: int, rows: Rows, op: ReLU, source: int) -> None:
        lines = self.how.lines(place)
        if not isinstance(lines, Relaxation):
            raise TypeError(f"node {place} is no ReLU")
        falling = rows.a.clamp(max=0)
        self.total = self.total + rows.dot(falling, lines.over, op.shape)
        a = torch.addcmul(rows.a * rows.cut(lines.low, op.shape), falling, rows.cut(lines.rise, op.shape))
        self._wait(source, Rows(a, rows.corner))

    def _max_pool(self, place: int, rows: Rows, op: MaxPool, source: int) -> None:
        lines = self.how.lines(place)
        if not isinstance(lines, Choice):
            raise TypeError(f"node {place} is no max-pool")
        a = rows.whole(op.shape).flatten(3)
        falling = a.clamp(max=0)
        self.total = self.total + (falling * lines.over[:, None]).sum((2, 3))
        a = a - falling * (1 - lines.decided[:, None])
        shape = op.given[0]
        spread = a.new_zeros(*a.shape[:3], math.prod(shape[1:])).scatter_add(3, lines.best[:, None].expand(a.shape), a)
        self._wait(source, Rows(spread.reshape(*a.shape[:2], *shape)))

    def _end(self, place: int, rows: Rows, *, at_sample: bool) -> None:
        """The least value over the ball, or over the interval of a node."""
        found, ball = self.around[place], self.around.ball
        if at_sample:
            self.how.at_sample = rows.whole(found.lower.shape[1:])
        shape = self.how.graph.nodes[place].op.shape
        size = rows.a.abs()
        fall = rows.dot(size, found.radius, shape)
        if self.around.unit is not None:
            self.loss = self.loss + 4 * _OWN * math.prod(shape) * rows.dot(size, found.size, shape)
        least = rows.dot(rows.a, found.middle, shape) - fall
        if at_sample and ball.norm != math.inf and math.isfinite(ball.eps):
            a, x = rows.whole(shape), self.around.x
            middle = Rows(a).dot(a, x, shape)
            flat = a.flatten(0, 1)
            reach = ball.eps * norms.length(flat, norms.dual(ball.norm))
            if self.exact:
                low, high = (edge.repeat_interleave(a.shape[1], 0) for edge in (found.lower - x, found.upper - x))
                reach = torch.minimum(reach, norms.support(-flat, ball.eps, ball.norm, low.clamp(max=0), high.clamp(min=0)))
            least = torch.maximum(least, middle - reach.reshape(middle.shape))
        self.total = self.total + least
