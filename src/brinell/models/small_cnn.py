"""A small convolutional network that trains in seconds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from torch import Tensor, nn

from brinell.core.errors import NetworkError
from brinell.core.network import Architecture
from brinell.models.shapes import image_channels

Count = Annotated[int, Field(ge=1, le=4096)]


class SmallCNN(Architecture, name="small_cnn"):
    """Convolutions 3x3, each with batch normalisation and ReLU, a max-pool, global average pool, linear.

    By default three convolutions of 16, 32 and 32 channels with a 2x2 max-pool after the second; every padding is 1. Weights
    have torch's default initialisation. `small_cnn(hidden=(64,), pool=(), strides=(1, 2), widths=(16, 32))` is the classifier
    conv16 - conv32 with stride 2 - fully connected 64.

    Arguments:
        widths: channels of the convolutions, at least one.
        strides: of the convolutions, as many as widths; () for 1 everywhere.
        pool: the convolutions (counted from 1) that a 2x2 max-pool follows.
        hidden: widths of fully connected layers with ReLU between the average pool and the output.

    Raises:
        SpecError: strides or pool do not go with widths.
        NetworkError: the data are not images, or are so small that the pooling leaves no pixel.

    Example:
        >>> net = SmallCNN().build((1, 8, 8), 10)
        >>> sum(p.numel() for p in net.parameters())
        14458
    """

    widths: tuple[Count, ...] = Field((16, 32, 32), min_length=1)
    strides: tuple[Count, ...] = ()
    pool: tuple[Count, ...] = (2,)
    hidden: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> SmallCNN:
        if self.strides and len(self.strides) != len(self.widths):
            raise ValueError(f"{len(self.strides)} strides for {len(self.widths)} convolutions")
        if any(place > len(self.widths) for place in self.pool) or len(set(self.pool)) != len(self.pool):
            raise ValueError(f"pool={self.pool} must name different convolutions out of 1..{len(self.widths)}")
        return self

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        inputs, sides = image_channels(shape, self.name), shape[1:]
        layers: list[nn.Module] = []
        for place, (width, stride) in enumerate(zip(self.widths, self.strides or (1,) * len(self.widths), strict=True), 1):
            layers += [nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            inputs, sides = width, tuple((side - 1) // stride + 1 for side in sides)
            if place in self.pool:
                layers.append(nn.MaxPool2d(2))
                sides = tuple(side // 2 for side in sides)
            if min(sides) < 1:
                raise NetworkError(f"{self.spec()} has no pixel left of {shape[1]} x {shape[2]} after convolution {place}; pool less")
        head: list[nn.Module] = []
        for width in self.hidden:
            head += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        return nn.Sequential(*layers, GlobalAverage(), *head, nn.Linear(inputs, classes))


class GlobalAverage(nn.Module):
    """The mean over height and width: (n, c, h, w) to (n, c)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))
