"""What a network can be built for: the checks of input shapes that architectures share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from brinell.core.errors import NetworkError


def image_channels(shape: tuple[int, ...], architecture: str) -> int:
    """The channels of a (channels, height, width) shape.

    Raises:
        NetworkError: the shape is not that of an image.

    Example:
        >>> image_channels((3, 32, 48), "resnet20")
        3
    """
    if len(shape) != 3:
        raise NetworkError(f"{architecture} takes images of shape (channels, height, width); the data has {shape}. Use mlp for vectors")
    return shape[0]


def checked_shape(shape: Sequence[int] | None, asker: str) -> tuple[int, ...] | None:
    """The shape of one sample as plain positive integers; None stays None (not known).

    Raises:
        NetworkError: it is empty or holds something else than positive integers.
    """
    if shape is None:
        return None
    plain = tuple(shape)
    if not plain or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in plain):
        raise NetworkError(f"{asker}: shape={shape!r} is not that of one sample, such as (3, 32, 32) or (64,)")
    return plain


def checked_classes(classes: int | None, asker: str) -> int | None:
    """The number of classes; None stays None (not known).

    Raises:
        NetworkError: it is not an integer above 1.
    """
    if classes is not None and (isinstance(classes, bool) or not isinstance(classes, int) or classes < 2):
        raise NetworkError(f"{asker}: classes={classes!r}; a classifier needs at least 2 classes")
    return classes


def features(shape: tuple[int, ...]) -> int:
    """How many numbers one sample holds.

    Example:
        >>> features((3, 8, 8))
        192
    """
    return math.prod(shape)
