"""Residual networks for small images: the 6n+2 family (ResNet-20, -32, -44, -56) and ResNet-18.

References: He, Zhang, Ren & Sun (2016), "Deep Residual Learning for Image Recognition", CVPR, https://arxiv.org/abs/1512.03385:
    section 3.3 (shortcut options), section 4.2 (the 6n+2 family), table 1 (ResNet-18).
    He, Zhang, Ren & Sun (2015), "Delving Deep into Rectifiers", ICCV, https://arxiv.org/abs/1502.01852, section 2.2 (initialisation).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brinell.core.network import Architecture
from brinell.models.shapes import image_channels

Option = Literal["A", "B"]


def subsample_and_pad(x: Tensor, channels: int, stride: int) -> Tensor:
    """The parameter-free shortcut (option A): every `stride`-th pixel, and zero channels before and after to make up `channels`.

    Of the c new channels floor(c / 2) come before the old ones and the rest after; the paper does not say where they go, and a
    network with trained weights needs the place it was trained with.

    Arguments:
        x: (n, c, h, w) with c <= channels.

    Returns: (n, channels, ceil(h / stride), ceil(w / stride)).

    Example:
        >>> import torch
        >>> subsample_and_pad(torch.arange(4.0).reshape(1, 1, 2, 2), channels=3, stride=2).flatten().tolist()
        [0.0, 0.0, 0.0]
        >>> subsample_and_pad(torch.ones(1, 2, 3, 3), channels=4, stride=2)[0, :, 0, 0].tolist()
        [0.0, 1.0, 1.0, 0.0]
    """
    new = channels - x.shape[1]
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, new // 2, new - new // 2))


class SubsampleAndPad(nn.Module):
    """`subsample_and_pad` as a module."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        return subsample_and_pad(x, self.channels, self.stride)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, stride={self.stride}"


class BasicBlock(nn.Module):
    """relu(F(x) + shortcut(x)) with F = conv3x3-BN-ReLU-conv3x3-BN; the first convolution has the stride."""

    def __init__(self, inputs: int, outputs: int, stride: int, option: Option) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if (inputs != outputs or stride != 1) and option == "A":
            self.shortcut = SubsampleAndPad(outputs, stride)
        elif inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """conv3x3-BN-ReLU, stages of basic blocks that halve the sides from the second stage on, global average pool, linear."""

    def __init__(self, channels: int, classes: int, *, width: int, blocks: tuple[int, ...], option: Option) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages, inputs = [], width
        for stage, count in enumerate(blocks):
            outputs = width * 2**stage
            strides = [1 if stage == 0 else 2, *(1,) * (count - 1)]
            sides = [inputs, *(outputs,) * (count - 1)]
            stages.append(nn.Sequential(*(BasicBlock(i, outputs, s, option) for i, s in zip(sides, strides, strict=True))))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.linear = nn.Linear(inputs, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        out = self.stages(F.relu(self.bn1(self.conv1(x))))
        return self.linear(out.mean((2, 3)))


class ResNet20(Architecture, name="resnet20"):
    """ResNet-20 for small images: 3 stages of 3 basic blocks with 16, 32 and 64 channels (6n+2 layers, n = 3).

    Any number of channels and any sides, equal or not; below 4 pixels the last stages see a single pixel. Weights: normal with
    variance 2 / fan_out for convolutions and 2 / fan_in for the linear layer, biases 0.

    Arguments:
        width: channels of the first stage; the others have 2 and 4 times as many.
        shortcut: A, the identity at every second pixel with zero channels added (no parameters, as in the paper's CIFAR-10
            networks), or B, a 1x1 convolution with batch normalisation, where a stage begins.

    Raises:
        NetworkError: the data are not images.

    References: He et al. (2016), section 4.2 (see the head of this file). For 3x32x32 images of 10 classes it has 269,722
        parameters with option A and 272,474 with option B (0.27M in table 6).

    Example:
        >>> sum(p.numel() for p in ResNet20().build((3, 32, 32), 10).parameters())
        269722
    """

    blocks: ClassVar[tuple[int, ...]] = (3, 3, 3)
    width: int = Field(16, ge=1, le=4096)
    shortcut: Option = "A"

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        channels = image_channels(shape, self.name)
        return ResNet(channels, classes, width=self.width, blocks=self.blocks, option=self.shortcut)


class ResNet32(ResNet20, name="resnet32"):
    """ResNet-32: as resnet20, with 5 blocks per stage."""

    blocks = (5, 5, 5)


class ResNet44(ResNet20, name="resnet44"):
    """ResNet-44: as resnet20, with 7 blocks per stage."""

    blocks = (7, 7, 7)


class ResNet56(ResNet20, name="resnet56"):
    """ResNet-56: as resnet20, with 9 blocks per stage."""

    blocks = (9, 9, 9)


class ResNet18(ResNet20, name="resnet18"):
    """ResNet-18 for small images: 4 stages of 2 basic blocks with 64 to 512 channels behind a 3x3 stem without max-pool.

    Departs from the paper's ImageNet network in the stem (3x3, stride 1, no max-pool, for images of 32 to 64 pixels).

    Arguments:
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        shortcut: as in resnet20; here B by default.

    References: He et al. (2016), table 1 (see the head of this file). For 3x32x32 images of 10 classes: 11,173,962 parameters.

    Example:
        >>> sum(p.numel() for p in ResNet18(width=8).build((1, 28, 28), 10).parameters())
        176258
    """

    blocks = (2, 2, 2, 2)
    width: int = Field(64, ge=1, le=4096)
    shortcut: Option = "B"
