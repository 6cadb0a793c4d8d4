"""What every bound starts from: a network's graph, samples that lie in their ball, and the arithmetic to compute in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from brinell.certify.graph import Graph, trace
from brinell.core.errors import DataError
from brinell.core.threat import Ball

AT_ONCE = 1 << 23
"""Numbers that the intervals of all samples in work may have together; the rest waits."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A graph, samples and their ball. With a unit roundoff everything is computed in float64 and covers the network's own rounding."""

    graph: Graph
    x: Tensor
    ball: Ball
    unit: float | None

    @classmethod
    def pose(cls, net: Any, x: Tensor, ball: Ball, *, rounding: bool) -> Problem:
        """The problem of bounding a network's logits around samples.

        Raises:
            DataError: x is no floating-point batch (n, *d), or leaves the ball's domain. Unsupported: the network has no bounds here.
        """
        if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64) or x.ndim < 2:
            what = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise DataError(f"bounds need float32 or float64 inputs of shape (n, *d); got {what}")
        if not bool(((x >= ball.low) & (x <= ball.high)).all()):
            raise DataError(f"bounds in {ball.spec()} need inputs in [{ball.low:g}, {ball.high:g}]; give the ball the data's domain")
        graph, unit = trace(net, x), torch.finfo(x.dtype).eps / 2
        return cls(graph.to(torch.float64), x.detach().double(), ball, unit) if rounding else cls(graph, x.detach(), ball, None)

    @property
    def classes(self) -> int:
        return self.graph.nodes[-1].op.shape[0]

    def rows(self, C: Tensor | None) -> Tensor:
        """The functions of the logits that are asked for, (n, r, K); the logits themselves where C is None.

        Raises:
            DataError: C is neither (r, K) nor (n, r, K).
        """
        n, k = len(self.x), self.classes
        if C is None:
            C = torch.eye(k)
        if C.shape[-1:] != (k,) or C.ndim not in (2, 3) or (C.ndim == 3 and len(C) != n):
            raise DataError(f"C holds functions of {k} logits as (r, {k}), or as ({n}, r, {k}) of each sample; got {tuple(C.shape)}")
        return C.to(self.x).expand(n, -1, -1)

    def bounds(self, C: Tensor | None, solve: Callable[[Problem, Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """`solve` for some samples at a time, put together; what is not a number is no bound."""
        rows = self.rows(C)
        found = [solve(Problem(self.graph, self.x[part], self.ball, self.unit), rows[part]) for part in self._parts()]
        lower, upper = (
            torch.cat(ends) if ends else rows.new_zeros(rows.shape[:2]) for ends in ([a for a, _ in found], [b for _, b in found])
        )
        return lower.nan_to_num(-torch.inf, torch.inf, -torch.inf), upper.nan_to_num(torch.inf, torch.inf, -torch.inf)

    def _parts(self) -> Iterator[slice]:
        step = max(AT_ONCE // max(self.graph.entries, 1), 1)
        for start in range(0, len(self.x), step):
            yield slice(start, start + step)


def margin_rows(y: Tensor, classes: int) -> Tensor:
    """(n, K - 1, K) the rows e_y - e_k for the other classes k, from y + 1 on: their values are the margins of class y.

    Example:
        >>> margin_rows(torch.tensor([1]), 3).tolist()
        [[[0.0, 1.0, -1.0], [-1.0, 1.0, 0.0]]]
    """
    others = (y[:, None] + torch.arange(1, classes, device=y.device)) % classes
    eye = torch.eye(classes, device=y.device)
    return eye[y][:, None] - eye[others]
