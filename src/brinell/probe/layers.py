"""The units of all recorded layers side by side: one sum over a wide matrix takes less time than one for each layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from brinell.core.tally import Max, Tally


def widths_of(layers: Mapping[str, Tensor]) -> Max:
    """The place and the number of units of each layer, (n, u), in their order; adding that of another shard changes nothing."""
    table = torch.tensor([(place, responses.shape[1]) for place, responses in enumerate(layers.values())])
    return Max(dict(zip(layers, table, strict=True)))


def units_of(widths: Tally) -> dict[str, slice]:
    """Where the units of each layer stand, the layers in the order of the forward pass.

    Example:
        >>> units_of(widths_of({"a:0": torch.ones(5, 2), "b:0": torch.ones(5, 3)}))
        {'a:0': slice(0, 2, None), 'b:0': slice(2, 5, None)}
    """
    found: dict[str, slice] = {}
    first = 0
    for name, (_, width) in sorted(((name, value.tolist()) for name, value in widths.values.items()), key=lambda item: item[1]):
        found[name] = slice(first, first := first + width)
    return found
