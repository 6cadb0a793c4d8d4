"""Networks whose gradients mislead, with known exact robust error: an evaluation that believes them is caught by the difference.

All answers depend on one number of the input, its brightness t = (mean(x) - 1/2) / width. A step of length r in the L_p norm changes
t by at most r / width in Linf, r / (width sqrt(D)) in L2 and r / (width D) in L1, D being the number of entries.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from brinell.core.errors import NetworkError
from brinell.core.network import Architecture

_DECOY = ((-1.0, -0.5, 0.0, 0.3, 1.0), (-9.0, -9.0, -1.0, -0.2, -0.2), (0.5, -2.0, -3.0, -3.0, -3.0))
"""t, and there the logits of classes 1 and 2; straight in between, constant outside; that of class 0 is 0."""
_CROSSING = -0.9  # where class 2 passes 0
_LOST = -20.0  # the logit of all further classes


class Decoy(Architecture, name="decoy"):
    """A class that looks easy to reach and is not hides another that is: cross-entropy and margin climb the wrong hill.

    For t near 0, class 0 is predicted and class 1 comes second. Its logit rises with t, but stays below that of class 0 for ever.
    Class 2, far behind, wins for t < -0.9. Whoever follows the runner-up walks away from it; attacks aimed at each class find it.

    Arguments:
        width: by how much the mean of an input differs from 1/2 at t = 1.

    Raises:
        NetworkError: less than three classes.

    Example:
        >>> net, x = Decoy().build((2,), 3), torch.tensor([[0.5, 0.5]])
        >>> net(x).tolist(), net(x - 8 / 255).argmax(1).item()
        ([[0.0, -1.0, -3.0]], 2)
    """

    width: float = Field(default=8 / 255, gt=0)

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        if classes < 3:
            raise NetworkError(f"{self.spec()} needs three classes: predicted, decoy and true rival; got {classes}")
        return _Profile(self.width, classes, 0)


class Quantised(Architecture, name="quantised"):
    """Logits rounded to steps: the gradient is zero wherever it exists, so that no gradient attack moves at all.

        logits = (0, round(levels (t - 1/2)) / levels, -20, ...)

    Class 0 is predicted for t <= 1/2 + 1/(2 levels), class 1 beyond.

    Arguments:
        width: by how much the mean of an input differs from 1/2 at t = 1. levels: steps per unit of t.

    Example:
        >>> net, x = Quantised(levels=4).build((2,), 2), torch.tensor([[0.5, 0.5]])
        >>> net(x).tolist(), net(x + 8 / 255).tolist()
        ([[0.0, -0.5]], [[0.0, 0.5]])
    """

    width: float = Field(default=8 / 255, gt=0)
    levels: int = Field(default=16, ge=1)

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        return _Profile(self.width, classes, self.levels)


class _Profile(nn.Module):
    def __init__(self, width: float, classes: int, levels: int) -> None:
        super().__init__()
        self.width, self.classes, self.levels = width, classes, levels
        self.register_buffer("knots", torch.tensor(_DECOY))

    def extra_repr(self) -> str:
        return f"width={self.width!r}, classes={self.classes}, levels={self.levels}"

    def forward(self, x: Tensor) -> Tensor:
        t = brightness(x, self.width)
        if self.levels:
            parts = [torch.round(self.levels * (t - 0.5)) / self.levels]
        else:
            parts = [_interpolated(t, *(row.to(t) for row in self.get_buffer("knots")[[0, rival]])) for rival in (1, 2)]
        lost = torch.full_like(t, _LOST)
        return torch.stack([torch.zeros_like(t), *parts, *[lost] * (self.classes - 1 - len(parts))], 1)


def _interpolated(t: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Straight lines between the knots, as a sum of ramps, which has its gradient."""
    slopes = (values[1:] - values[:-1]) / (knots[1:] - knots[:-1])
    ramps = (t[:, None] - knots[:-1]).clamp(min=0).minimum(knots[1:] - knots[:-1])
    return values[0] + ramps @ slopes


def brightness(x: Tensor, width: float) -> Tensor:
    """(n,) the number t that all answers depend on."""
    return (x.flatten(1) - 0.5).mean(1) / width


def misleading_margin(architecture: Decoy | Quantised, x: Tensor, norm: float) -> Tensor:
    """(n,) float64: how far each sample of class 0 is from another class, in the norm 1, 2 or inf and no domain; 0 where it has left.

    Example:
        >>> misleading_margin(Decoy(width=0.1), torch.tensor([[0.5, 0.5]]), float("inf")).item()
        0.09...
    """
    t, count = brightness(x.double(), architecture.width), x[0].numel()
    gap = t - _CROSSING if isinstance(architecture, Decoy) else 0.5 + 0.5 / architecture.levels - t
    return (gap * architecture.width * {1: count, 2: math.sqrt(count), math.inf: 1}[norm]).clamp(min=0)
