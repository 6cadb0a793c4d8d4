"""The identity: the clean arm of every comparison."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.perturbation import Corruption


class Clean(Corruption, name="clean"):
    """The samples themselves: how does the network do when nothing is perturbed?

        z = x, in memory of its own.

    It stays in every threat and takes inputs of any shape, type and domain.

    Example:
        >>> import torch
        >>> from brinell.core.draws import derive
        >>> x = torch.rand(2, 3)
        >>> z = Clean()(None, x, torch.tensor([0, 1]), draws=derive(0, ids=[0, 1]))
        >>> bool((z == x).all()), z.data_ptr() == x.data_ptr()
        (True, False)
    """

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        return x.clone()
