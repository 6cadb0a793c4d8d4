"""Handwritten digits that need no download: the real images that come with scikit-learn."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from brinell.core.dataset import Dataset, Source
from brinell.core.draws import derive

CUTS = {"train": (0.0, 0.6), "valid": (0.6, 0.7), "test": (0.7, 1.0), "all": (0.0, 1.0)}
"""The part of each class, in the order of its hashes, that a split takes."""


class Digits(Source, name="digits"):
    """1,797 real handwritten digits, 8x8 grey images: small enough to try anything in seconds.

    Pixels are scikit-learn's counts 0..16 divided by 16, in [0, 1]; one channel. `side=32` is an up-sampling by 4
    (bilinear, pixel centres aligned: `align_corners=False`); it adds no information, it makes the images fit networks
    built for 32x32.

    The split is fixed. Within each class of c digits the rows are put in the order of the keyed hash
    `derive(0, "digits.split", ids=row)`; the first round(0.6 c) are `train`, those up to round(0.7 c) `valid`, the rest
    `test`: 1,078 / 180 / 539 digits. Ids are rows of scikit-learn's data, so the splits share no id. All splits come from
    the same 13 writers (the data do not say who wrote which digit): this is a test of new digits, not of new writers.

    Arguments:
        side: 32 or 8. split: train, valid, test, or all of them together.

    References:
        E. Alpaydin, C. Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
        https://doi.org/10.24432/C50P49; scikit-learn's `load_digits` is its test part.

    Example:
        >>> data = Digits(side=8, split="test").load()
        >>> len(data), data.shape, data.x([0, 1]).shape
        (539, (1, 8, 8), torch.Size([2, 1, 8, 8]))
    """

    side: Literal[8, 32] = 32
    split: Literal["train", "valid", "test", "all"] = "test"

    def load(self) -> Dataset:
        counts, labels = _originals()
        rows = _rows(labels, *CUTS[self.split])
        return Dataset(
            source=self.spec(), shape=(1, self.side, self.side), y=labels[rows], ids=rows,
            classes=tuple(str(k) for k in range(10)), read=_Digits(self.side),
            content=hashlib.blake2b(counts.tobytes() + bytes([self.side]), digest_size=16).hexdigest(),
            note="" if self.side == 8 else "8x8 digits up-sampled to 32x32",
        )  # fmt: skip


class _Digits:
    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, ids: np.ndarray) -> Tensor:
        x = torch.from_numpy(_originals()[0][ids]).float().div_(16).unsqueeze(1)
        return x if self.side == 8 else functional.interpolate(x, size=self.side, mode="bilinear", align_corners=False).clamp_(0, 1)


@cache
def _originals() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8).astype(np.uint8), labels.astype(np.int64)


def _rows(labels: np.ndarray, low: float, high: float) -> np.ndarray:
    lot = derive(0, "digits.split", ids=np.arange(len(labels))).words(1).squeeze(1).numpy()
    chosen = []
    for digit in range(10):
        rows = np.flatnonzero(labels == digit)
        rows = rows[np.argsort(lot[rows], kind="stable")]
        chosen.append(rows[round(low * len(rows)) : round(high * len(rows))])
    return np.sort(np.concatenate(chosen))
