"""Interval bound propagation: which samples does a box around every layer's values prove safe?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from brinell.certify.backward import Backward, Rows
from brinell.certify.certificate import Certificate
from brinell.certify.enclosure import Enclosure
from brinell.certify.graph import Graph, trace
from brinell.certify.problem import Problem, margin_rows
from brinell.core.threat import Ball


def interval_bounds(net: Any, x: Tensor, ball: Ball, C: Tensor | None = None, *, rounding: bool = True) -> tuple[Tensor, Tensor]:
    """Bounds of the logits, or of linear functions C of them, that hold at every input of each sample's ball.

        lower <= C f(z) <= upper      for all z with |z - x|_p <= eps and low <= z <= high

    Boxes are carried forwards (see `Enclosure`); the affine layers after the last ReLU are folded into C, so that a margin is bounded
    as one number and not as the difference of two. Exact for affine networks.

    Arguments:
        net: a module, or what holds one as `.module`; it is taken in evaluation mode. x: (n, *d) in the ball's domain.
        C: (r, K), or (n, r, K) of each sample; None for the logits themselves.
        rounding: the bounds hold for what the network computes in the type of x, in any order of summation; they are computed in
            float64 with outward slack, and returned so. False: in the type of x and without slack, for comparison with other
            programs. TensorFloat-32, bfloat16 and Winograd's convolution round more than is allowed for here; underflow is left out.

    Returns: (n, r) lower and upper, r = K where C is None. Infinite where nothing is known.

    Raises:
        Unsupported: the network does something that has no bounds; names the layer. DataError: x or C does not fit.

    References: Gowal et al. (2018), "On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust Models",
        arXiv 1810.12715, section 3 (with its folded last layer).

    Example:
        >>> from brinell.models.reference import linear_network
        >>> net = linear_network(torch.tensor([[1.0, -2.0], [0.0, 1.0]]))
        >>> [ends.round(decimals=4).tolist() for ends in interval_bounds(net, torch.tensor([[0.5, 0.5]]), Ball(eps=0.1))]
        [[[-0.8, 0.4]], [[-0.2, 0.6]]]
    """

    def solve(part: Problem, rows: Tensor) -> tuple[Tensor, Tensor]:
        around = Enclosure(part.graph, part.x, part.ball, part.unit).all()
        return Backward(around, relax=False).bounds(len(part.graph.nodes) - 1, Rows(rows), exact=True)

    with torch.no_grad():
        return Problem.pose(net, x, ball, rounding=rounding).bounds(C, solve)


def interval_margins(net: Any, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """(n, K - 1) lower bounds of the margins of class y over the others, from y + 1 on, with their graph: what a training can raise.

    In the type of x and without slack for rounding. The network is taken in evaluation mode, so that batch normalisation has its
    running statistics; gradients flow into all its parameters.

    Raises: as `interval_bounds`.
    """
    graph: Graph = trace(net, x)
    around = Enclosure(graph, x, ball, None).all()
    rows = margin_rows(y, graph.nodes[-1].op.shape[0]).to(x)
    return Backward(around, relax=False).bounds(len(graph.nodes) - 1, Rows(rows), both=False)[0]


class IBP(Certificate, name="ibp"):
    """The share of samples that interval bounds prove to be classified correctly everywhere in a ball.

    A sample is safe where the lower bound of its least margin z_y - max_k z_k over the ball is above 0 (`interval_bounds`). It
    costs about three passes, works for networks of any size, and proves little unless the network was trained for it
    (`ibp_training`): boxes forget how values depend on each other, and grow from layer to layer.

    Arguments:
        threat: the ball, in any norm; its domain is the data's.

    Readings: see `Certificate`.

    References: as `interval_bounds`.

    Example:
        >>> import brinell as br
        >>> br.parse("ibp(threat=ball(eps=0.01))").threat.eps
        0.01
    """

    @property
    def cost(self) -> tuple[int, int]:
        return 4, 0

    def floors(self, net: Any, x: Tensor, y: Tensor, ball: Ball) -> tuple[Tensor, Tensor | None]:
        classes = trace(net, x[:1]).nodes[-1].op.shape[0]
        return interval_bounds(net, x, ball, margin_rows(y, classes))[0].amin(1), None

    def bounds(self, net: Any, x: Tensor, threat: Any, C: Tensor) -> tuple[Tensor, Tensor]:
        return interval_bounds(net, x, threat, C)
