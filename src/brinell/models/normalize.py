"""Normalisation inside the network, so that inputs, epsilons and corruptions keep the data's own units."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from brinell.core.errors import NetworkError
from brinell.core.network import Architecture


class Normalize(nn.Module):
    """Shifts and scales every channel: (x - mean) / std. mean and std are buffers, so they are saved and enter the digest.

    Arguments:
        mean, std: one finite number per channel (dimension 1 of the batch), in the data's units; std > 0.

    Raises:
        NetworkError: mean and std differ in length, are not finite, or std is not positive; on a call: x has another number of
            channels.

    Example:
        >>> Normalize(mean=(0.5, 0.0), std=(0.5, 2.0))(torch.ones(1, 2, 1, 1)).flatten().tolist()
        [1.0, 0.5]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean, std = tuple(map(float, mean)), tuple(map(float, std))
        if len(mean) != len(std) or not mean:
            raise NetworkError(f"Normalize needs as many means as standard deviations, one per channel; got {len(mean)} and {len(std)}")
        if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise NetworkError(f"Normalize needs finite means and positive standard deviations; got mean={mean}, std={std}")
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        channels = len(self.mean)
        if x.ndim < 2 or x.shape[1] != channels:
            raise NetworkError(
                f"Normalize holds {channels} channel(s), but the inputs have shape {tuple(x.shape)}; "
                f"give one mean and one standard deviation per channel of the data"
            )
        shape = (channels, *(1,) * (x.ndim - 2))
        return (x - self.mean.view(shape)) / self.std.view(shape)

    def extra_repr(self) -> str:
        return f"channels={len(self.mean)}"


def normalizing(net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Sequential:
    """The network that normalises its inputs and then applies `net`."""
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), net=net))


class Normalized(Architecture, name="normalized"):
    """An architecture with its data's normalisation in front: `normalized(resnet20, mean=(...), std=(...))`.

    Weights of the bare architecture fit it too: mean and std then come from this recipe.

    Arguments:
        net: the architecture that sees the normalised inputs.
        mean, std: one number per channel, in the data's units; std > 0.

    Raises:
        NetworkError: mean and std do not have one entry per channel of the data (dimension 0 of the sample shape).

    Example:
        >>> from brinell.core.component import parse
        >>> net = parse("normalized(mlp, mean=(0.5,), std=(0.25,))").build((1, 2, 2), 3)
        >>> tuple(net(torch.rand(5, 1, 2, 2)).shape)
        (5, 3)
    """

    positional = ("net",)
    net: Architecture
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        if len(self.mean) != shape[0]:
            raise NetworkError(f"{self.spec()} has {len(self.mean)} mean(s), but the data has {shape[0]} channel(s)")
        return normalizing(self.net.build(shape, classes), self.mean, self.std)
