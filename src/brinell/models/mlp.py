"""Multi-layer perceptrons."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from brinell.core.network import Architecture
from brinell.models.shapes import features


class MLP(Architecture, name="mlp"):
    """Fully connected layers with ReLU between them: `mlp(widths=(64,))` on 8x8 digits is 64-64-10.

    The input is flattened. Weights and biases have torch's default initialisation, uniform in +-1 / sqrt(fan_in).

    Arguments:
        widths: of the hidden layers; () gives a linear network.

    Example:
        >>> [tuple(p.shape) for p in MLP(widths=(128,)).build((1, 8, 8), 10).parameters()]
        [(128, 64), (128,), (10, 128), (10,)]
    """

    widths: tuple[Annotated[int, Field(ge=1, le=1 << 20)], ...] = (128,)

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        inputs = features(shape)
        for width in self.widths:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        return nn.Sequential(*layers, nn.Linear(inputs, classes))
