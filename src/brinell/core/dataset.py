"""Datasets: labelled samples with stable ids, read lazily, in the units an epsilon is given in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brinell.core.component import Component
from brinell.core.draws import derive
from brinell.core.errors import DataError

Reader = Callable[[np.ndarray], Tensor]
"""Reads rows of the source: (m,) row numbers in, (m, *shape) float32 in the domain out."""


@dataclass(frozen=True)
class Dataset:
    """n labelled samples of one shape.

    Arguments:
        source: the spec it was made by. shape: of one sample, (channels, height, width) or (features,).
        y: (n,) int64 labels in 0..K-1. ids: (n,) int64, unique and stable (the row in the source): they name a sample in
            every table and seed its randomness. classes: the K class names.
        read: reads rows given by their *ids*. domain: the smallest and largest legal input value.
        columns: optional per-sample arrays; `group` (readings per group) and `cluster` (intervals resample whole clusters)
            are known to the product, others are carried along.
        content: digest of the bytes the samples come from. note: what a reader must be told (a subset was taken, say).
    """

    source: str
    shape: tuple[int, ...]
    y: np.ndarray
    ids: np.ndarray
    classes: tuple[str, ...]
    read: Reader
    content: str
    domain: tuple[float, float] = (0.0, 1.0)
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        n = len(self.y)
        if n == 0:
            raise DataError(f"{self.source}: no samples")
        wrong = [name for name, values in {"ids": self.ids, **self.columns}.items() if len(values) != n]
        if wrong:
            raise DataError(f"{self.source}: {n} labels, but {', '.join(wrong)} have another number of rows")
        if len(np.unique(self.ids)) != n:
            raise DataError(f"{self.source}: sample ids repeat")
        bad = np.flatnonzero((self.y < 0) | (self.y >= len(self.classes)))
        if len(bad):
            raise DataError(
                f"{self.source}: row {self.ids[bad[0]]} has label {self.y[bad[0]]}, outside 0..{len(self.classes) - 1} "
                f"({len(bad)} such rows)"
            )

    def __len__(self) -> int:
        return len(self.y)

    @property
    def digest(self) -> str:
        """Names the samples: content, ids, labels and class names."""
        state = hashlib.blake2b(digest_size=16)
        for part in (self.content, json.dumps([list(self.classes), list(self.shape), list(self.domain)])):
            state.update(part.encode() + b"\0")
        for array in (self.ids, self.y, *(self.columns[name] for name in sorted(self.columns))):
            state.update(np.ascontiguousarray(array).tobytes() if array.dtype != object else repr(array.tolist()).encode())
        return state.hexdigest()

    def x(self, rows: Sequence[int] | np.ndarray | slice | None = None) -> Tensor:
        """(m, *shape) float32 inputs of some positions (all by default), checked against the shape and the domain.

        Raises:
            DataError: the reader returns another shape, NaN, or values outside the domain; the message names the row.
        """
        ids = self.ids if rows is None else self.ids[rows]
        x = self.read(ids)
        if tuple(x.shape) != (len(ids), *self.shape):
            raise DataError(f"{self.source}: samples have shape {tuple(x.shape[1:])}, expected {self.shape}")
        flat = x.reshape(len(ids), -1)
        for fact, wrong in (("NaN", flat.isnan()), ("a value outside the domain", (flat < self.domain[0]) | (flat > self.domain[1]))):
            if bool(wrong.any()):
                row = int(wrong.any(1).nonzero()[0, 0])
                value = float(flat[row][wrong[row]][0])
                raise DataError(
                    f"{self.source}: row {ids[row]} holds {fact} ({value:g}); inputs must lie in "
                    f"[{self.domain[0]:g}, {self.domain[1]:g}]. Normalisation belongs inside the network (models.Normalize)"
                )
        return x

    def take(self, positions: np.ndarray, note: str = "") -> Dataset:
        """The samples at some positions, with their ids."""
        return replace(
            self, y=self.y[positions], ids=self.ids[positions], note="; ".join(filter(None, (self.note, note))),
            columns={name: values[positions] for name, values in self.columns.items()},
        )  # fmt: skip

    def limit(self, n: int | None, seed: int = 0) -> Dataset:
        """A stratified sample of n: every class keeps its share (largest remainders), drawn by seed and id, in the old order.

        Raises:
            DataError: n is not positive.
        """
        if n is None or n >= len(self):
            return self
        if n < 1:
            raise DataError(f"a limit of {n} samples leaves nothing to measure; give at least 1")
        counts = np.bincount(self.y, minlength=len(self.classes))
        share = counts * n / len(self)
        keep = np.floor(share).astype(np.int64)
        order = np.argsort(-(share - keep), kind="stable")
        keep[order[: n - keep.sum()]] += 1
        lot = derive(seed, "dataset.limit", ids=self.ids).words(1).squeeze(1).numpy()
        chosen = [np.flatnonzero(self.y == k)[np.argsort(lot[self.y == k], kind="stable")[: keep[k]]] for k in range(len(keep))]
        return self.take(np.sort(np.concatenate(chosen)), f"stratified sample of {n} of {len(self)}, seed {seed}")

    def shards(self, size: int) -> Iterator[np.ndarray]:
        """Consecutive positions, `size` at a time."""
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)))

    def labels(self, rows: Any = slice(None)) -> Tensor:
        """(m,) int64 labels as a tensor."""
        return torch.from_numpy(np.ascontiguousarray(self.y[rows]).astype(np.int64))


class Source(Component):
    """A component that loads a dataset: `digits(side=32)`, `parquet(path)`, ... Text in, samples out."""

    def load(self) -> Dataset:
        """Read what is needed to know the labels; inputs are read later, shard by shard.

        Raises:
            DataError: a file is missing or damaged; the message names the file and the row.
        """
        raise TypeError(f"{type(self).__name__} does not say how it is loaded")


def load_dataset(spec: str | Source, *, limit: int | None = None, seed: int = 0) -> Dataset:
    """A dataset from its spec, or a stratified part of it.

    Example:
        >>> data = load_dataset("digits(side=8)", limit=100)
        >>> len(data), data.shape, len(data.classes)
        (100, (1, 8, 8), 10)
    """
    from brinell.core.component import parse

    source = parse(spec, Source) if isinstance(spec, str) else spec
    return source.load().limit(limit, seed)
