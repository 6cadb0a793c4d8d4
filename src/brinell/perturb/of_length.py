"""A corruption brought to a given size, so that what causes a change can be told apart from how large it is."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from brinell.core import norms
from brinell.core.draws import Draws
from brinell.core.perturbation import Corruption, points
from brinell.core.threat import Ball
from brinell.perturb.noise import GaussianNoise


class OfLength(Corruption, name="of_length"):
    """Another corruption's change, stretched or shrunk to one L2 norm in every sample.

        z = clip(x + t (c(x) - x), 0, 1),   t such that |z - x|_2 = eps

    c(x) is the corrupted image. Attack, corruption and noise of one norm (`pgd` in an L2 ball, this, `l2_noise`) differ only in their
    direction. Samples that the corruption leaves unchanged stay unchanged; where clipping leaves no room z is the nearest thing.

    Arguments:
        corruption: whose direction is taken. eps: the L2 norm, in the units of x.

    Example:
        >>> import torch
        >>> from brinell.core.component import parse
        >>> from brinell.core.draws import derive
        >>> x = torch.rand(2, 1, 8, 8)
        >>> z = parse("of_length(corruption=contrast(severity=1), eps=0.25)")(None, x, torch.tensor([0, 1]), draws=derive(0, ids=[0, 1]))
        >>> (z - x).flatten(1).norm(dim=1)
        tensor([0.2500, 0.2500])
    """

    telling = ("corruption", "eps")
    corruption: Corruption = GaussianNoise()
    eps: float = Field(default=1.0, ge=0, allow_inf_nan=False)

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        corrupted = points(self.corruption(net, x, y, draws=draws))
        return Ball(norm=2, eps=self.eps).project(x, norms.stretch(x, corrupted - x, self.eps))
