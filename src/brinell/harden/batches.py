"""The inputs of training: samples held in memory, batches in an order drawn by epoch, and their augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from brinell.core.dataset import Dataset
from brinell.core.draws import Draws, derive
from brinell.core.perturbation import Perturbation, points

MEMORY = 2 << 30
"""Bytes of inputs that are held decoded in memory; a larger set is read again batch by batch."""

_BLOCK = 1024

Held = Callable[[np.ndarray], Tensor]
"""Gives the inputs at some positions of a dataset, (m,) int64 in, (m, *shape) float32 out."""


def held(data: Dataset, device: torch.device, memory: int = MEMORY) -> Held:
    """The inputs of a dataset on a device, decoded once where they fit into `memory` bytes.

    Images whose every value is k / 255 in float32 are held as uint8, and come back bit for bit; others are held as float32.
    """
    entries = len(data) * int(np.prod(data.shape))
    if entries <= memory and (eight_bit := _as_bytes(data)) is not None:
        return _Memory(eight_bit.to(device))
    if 4 * entries <= memory:
        return _Memory(data.x().to(device))
    return lambda rows: data.x(rows).to(device)


class _Memory:
    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __call__(self, rows: np.ndarray) -> Tensor:
        picked = self.values[torch.from_numpy(rows).to(self.values.device)]
        return picked.float().div_(255) if picked.dtype == torch.uint8 else picked


def _as_bytes(data: Dataset) -> Tensor | None:
    """The whole set as uint8; None as soon as a value is not k / 255."""
    values = torch.empty(len(data), *data.shape, dtype=torch.uint8)
    for rows in data.shards(_BLOCK):
        x = data.x(rows)
        levels = x.mul(255).round_().clamp_(0, 255).to(torch.uint8)
        if not torch.equal(levels.float().div_(255), x):
            return None
        values[torch.from_numpy(rows)] = levels
    return values


def count_batches(n: int, size: int) -> int:
    """How many batches `batches` makes of n samples."""
    whole, rest = divmod(n, size)
    return max(whole + (rest > 0) - (rest == 1 and size > 1), 1)


def batches(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The positions of an order, `size` at a time; the last batch is smaller, or one larger where a single one would be left.

    A batch of one has no variance, which batch normalisation needs.

    Example:
        >>> [len(batch) for batch in batches(np.arange(9), 4)], [len(batch) for batch in batches(np.arange(10), 4)]
        ([4, 5], [4, 4, 2])
    """
    count = count_batches(len(order), size)
    for number in range(count):
        yield order[number * size : (number + 1) * size if number + 1 < count else None]


def shuffled(ids: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """The positions 0..n-1 in the order of an epoch, drawn by id."""
    return np.argsort(derive(seed, "fit.order", epoch, ids=ids).words(1).squeeze(1).numpy(), kind="stable")


def moved(x: Tensor, draws: Draws, *, shift: int, flip: bool) -> Tensor:
    """Images each shifted by whole pixels, and mirrored left to right with probability 1/2 where `flip`.

    Arguments:
        x: (n, c, h, w). shift: both offsets are uniform on -shift, ..., shift; the border that opens holds zeros.

    Example:
        >>> x = torch.ones(1, 1, 3, 3)
        >>> z = moved(x, derive(0, ids=[0]), shift=1, flip=False)
        >>> z.shape == x.shape, bool(((z == 0) | (z == 1)).all())
        (True, True)
    """
    n, channels, height, width = x.shape
    offsets = draws.integers(-shift, shift + 1, 2)
    rows = torch.arange(height, device=x.device) + shift + offsets[:, :1]
    columns = torch.arange(width, device=x.device) + shift + offsets[:, 1:]
    if flip:
        columns = torch.where(draws.signs(1) > 0, columns, columns.flip(1))
    padded = torch.nn.functional.pad(x, (shift,) * 4)
    sample = torch.arange(n, device=x.device)[:, None, None, None]
    channel = torch.arange(channels, device=x.device)[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


def corrupted(x: Tensor, y: Tensor, draws: Draws, choices: tuple[Perturbation, ...]) -> Tensor:
    """Each sample under one of the choices or clean, with equal probability; x is not changed."""
    lot = draws.integers(0, len(choices) + 1).reshape(-1)
    z = x.clone()
    for number, perturbation in enumerate(choices):
        rows = (lot == number).nonzero().squeeze(1)
        if len(rows):
            z[rows] = points(perturbation(None, x[rows], y[rows], draws=draws.at("augment", number)[rows]))
    return z
