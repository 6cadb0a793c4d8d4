"""The spatial attack: the worst of a grid of rotations and translations."""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.perturbation import Attack
from brinell.perturb.geometric import Border, moved
from brinell.perturb.severity import check_images


class Spatial(Attack, name="spatial"):
    """The worst of a grid of rotations and translations: does the network know what it sees from where it is and how it stands?

        z = x turned by t and shifted by (u, v),   t in `turns` steps of [-degrees, degrees], u and v in `shifts` steps of [-pixels, pixels]

    A rotation of 0 and no shift are tried first, then the rest in order of their size; a sample leaves at the first one that
    reaches the goal, otherwise the one with the largest loss is returned. No gradient is asked for: the search is complete on its
    grid. There is no ball that these points lie in; the accuracy that is left stands in the attack's own row.

    Arguments:
        degrees, pixels: the ends of the grid. turns, shifts: its steps per axis; 1 leaves the axis out. border: what is seen
            beyond the border (`geometric`).

    Raises:
        DataError: the inputs are not a batch of images in [0, 1].

    References: Engstrom, Tran, Tsipras, Schmidt & Madry (2019), "Exploring the Landscape of Spatial Robustness", ICML, arXiv 1712.02779,
        section 4: a grid of 31 rotations up to 30 degrees and 5 shifts per axis up to 3 pixels (CIFAR-10), black borders.

    Example:
        >>> import brinell as br
        >>> left = lambda x: torch.stack((x[..., :2].sum((1, 2, 3)), x[..., 2:].sum((1, 2, 3))), 1)
        >>> x = torch.zeros(1, 1, 4, 4).index_fill_(3, torch.tensor([1]), 1.0)          # a bar left of the middle
        >>> z = br.parse("spatial(pixels=1, turns=1, shifts=3)")(left, x, torch.tensor([0]), draws=br.derive(0, ids=[0]))
        >>> z[0, 0, 0].round()
        tensor([0., 0., 1., 0.])
    """

    telling = ("degrees", "pixels")
    degrees: float = Field(default=30.0, ge=0, le=180)
    pixels: float = Field(default=3.0, ge=0, allow_inf_nan=False)
    turns: int = Field(default=31, ge=1)
    shifts: int = Field(default=5, ge=1)
    border: Border = "black"

    @property
    def cost(self) -> tuple[int, int]:
        return self.turns * self.shifts**2 + 1, 0

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        check_images(x, self.spec())
        best = x.clone()
        with torch.no_grad():
            clean = net(x)
            loss = self.goal.loss(clean.double(), y, clean.double(), "margin")
            rows = (~self.goal.reached(clean, y, clean)).nonzero().squeeze(1)
            for amounts in self.grid().to(x.device):
                if not len(rows):
                    break
                z = moved(x[rows], amounts.expand(len(rows), 5), self.border)
                logits = net(z)
                arrived = self.goal.reached(logits, y[rows], clean[rows])
                value = self.goal.loss(logits.double(), y[rows], clean[rows].double(), "margin")
                better = arrived | (value > loss[rows])
                best[rows[better]], loss[rows[better]] = z[better], value[better]
                rows = rows[~arrived]
        return best

    def grid(self) -> Tensor:
        """(m, 5) amounts for `moved`: the grid without its centre, smallest moves first."""
        turn = math.radians(self.degrees) * _steps(self.turns)
        shift = self.pixels * _steps(self.shifts)
        right, down, angle = (axis.flatten() for axis in torch.meshgrid(shift, shift, turn, indexing="ij"))
        size = sum((axis / axis.abs().amax().clamp(min=1e-30)).square() for axis in (right, down, angle))
        order = torch.as_tensor(size).argsort(stable=True)
        grid = torch.stack((right, down, angle, torch.zeros_like(right), torch.zeros_like(right)), 1)[order]
        return grid[grid.abs().amax(1) > 0]


def _steps(count: int) -> Tensor:
    """`count` numbers, evenly spread over [-1, 1]; 0 for one."""
    return torch.linspace(-1, 1, count, dtype=torch.float64) if count > 1 else torch.zeros(1, dtype=torch.float64)
