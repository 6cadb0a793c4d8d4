"""What corruptions with a colour do with images of any number of channels."""

from __future__ import annotations

from torch import Tensor


def luma(x: Tensor) -> Tensor:
    """The grey of images, (n, c, h, w) to (n, 1, h, w): 0.299 R + 0.587 G + 0.114 B for three channels, else the mean.

    Example:
        >>> import torch
        >>> luma(torch.tensor([1.0, 0.5, 0.0]).reshape(1, 3, 1, 1)).item()
        0.592...
    """
    if x.shape[1] == 3:
        red, green, blue = x.split(1, 1)
        return (red * 0.299).add_(green * 0.587).add_(blue * 0.114)
    total = x[:, :1].clone()
    for channel in x.split(1, 1)[1:]:
        total.add_(channel)
    return total.div_(x.shape[1])


def painted(x: Tensor, keep: Tensor | float, paint: Tensor) -> Tensor:
    """x keep + paint, clipped to [0, 1], with a paint of three channels.

    Images of another number of channels are painted channel by channel, each as a grey image in three equal channels of which the
    mean is kept.

    Arguments:
        x: (n, c, h, w). keep: (n, 1, h, w) or a number. paint: (n, 3, h, w).

    Example:
        >>> import torch
        >>> paint = torch.tensor([0.9, 0.3, 0.0]).reshape(1, 3, 1, 1)
        >>> painted(torch.full((1, 1, 1, 1), 0.5), 1.0, paint).item()              # the mean of 1, 0.8 and 0.5
        0.766...
    """
    if x.shape[1] == 3:
        return (x * keep).add_(paint).clamp_(0, 1)
    red, green, blue = ((x * keep).add_(part).clamp_(0, 1) for part in paint.split(1, 1))
    return red.add_(green).add_(blue).div_(3)
