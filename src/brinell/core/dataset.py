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

from brinell.core.component import Component, parse
from brinell.core.draws import derive
from brinell.core.errors import DataError, SampleError

Reader = Callable[[np.ndarray], Tensor]
"""Reads samples given by their ids: (m,) int64 in, (m, *shape) float32 in the domain out. An instance of a class with
`__call__` rather than a nested function, so that a dataset can be pickled and sent to another process."""

_AT_ONCE = 256
MOST_CLASSES = 1_000_000
"""A larger label, where no class names are given, is taken for a mistake."""


@dataclass(frozen=True)
class Dataset:
    """n labelled samples of one shape; the inputs are read when they are asked for, `x(rows)`.

    Arguments:
        source: the spec it was made by. shape: of one sample, (channels, height, width) or (features,).
        y: (n,) int64 labels in 0..K-1. ids: (n,) int64, unique and stable (the row in the source): they name a sample in
            every table and seed its randomness. classes: the K class names.
        read: reads samples given by their *ids*. domain: the smallest and largest legal input value.
        columns: optional per-sample arrays; `group` (readings per group) and `cluster` (intervals resample whole clusters)
            are known to the product, others are carried along.
        content: digest of the bytes the samples come from. note: what a reader must be told (a subset was taken, say).

    Raises:
        DataError: there are no samples; lengths differ; ids repeat; a label is fractional or outside 0..K-1.

    Example:
        >>> data = Dataset.from_arrays(torch.zeros(3, 2), [0, 1, 1])
        >>> len(data), data.shape, data.classes, data.x([2]).shape
        (3, (2,), ('0', '1'), torch.Size([1, 2]))
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
        # classes may be called after files, whose names need not be text: what is none is spelled out
        plain = {
            "y": whole_numbers(self.y, f"{self.source}: label"),
            "ids": whole_numbers(self.ids, f"{self.source}: id"),
            "shape": tuple(int(size) for size in self.shape),
            "classes": tuple(str(name).encode(errors="backslashreplace").decode() for name in self.classes),
            "columns": {name: np.asarray(values) for name, values in self.columns.items()},
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        n = len(self.y)
        if n == 0:
            raise DataError(f"{self.source}: no samples; give a source, split or subset with at least one")
        wrong = [f"{name} ({len(values)})" for name, values in {"ids": self.ids, **self.columns}.items() if len(values) != n]
        if wrong:
            raise DataError(f"{self.source}: {n} labels, but another number of rows in {', '.join(wrong)}")
        found, counts = np.unique(self.ids, return_counts=True)
        if len(found) != n:
            raise DataError(f"{self.source}: sample ids must be unique, but id {found[counts > 1][0]} occurs {counts.max()} times")
        if not self.shape or min(self.shape) < 1:
            raise DataError(f"{self.source}: samples of shape {self.shape} are empty; one sample needs at least one entry")
        if not self.domain[0] < self.domain[1]:
            raise DataError(f"{self.source}: the domain {self.domain} must be (low, high) with low < high")
        bad = np.flatnonzero((self.y < 0) | (self.y >= len(self.classes)))
        if len(bad):
            raise DataError(
                f"{self.source}: row {self.ids[bad[0]]} has label {self.y[bad[0]]}, outside 0..{len(self.classes) - 1} "
                f"({len(bad)} such rows); remove or relabel them, or name all classes"
            )

    @classmethod
    def from_arrays(
        cls, x: Any, y: Any, classes: Sequence[str] | int | None = None, domain: tuple[float, float] = (0.0, 1.0),
        name: str = "arrays", ids: Any = None, **columns: Any,
    ) -> Dataset:  # fmt: skip
        """A dataset from a tensor or array already in memory; it is copied and checked here.

        Arguments:
            x: (n, *shape) inputs: floats in `domain`, or uint8 images, which are divided by 255 when read.
            y: (n,) labels. classes: the K names, or K (then "0".."K-1"), or None (K = largest label + 1).
            domain: smallest and largest legal value. ids: (n,) integers, 0..n-1 by default.
            columns: further (n,) arrays, such as `group=` and `cluster=`.

        Raises:
            DataError: x holds NaN or leaves the domain, is neither float nor uint8; lengths or labels are wrong.

        Example:
            >>> data = Dataset.from_arrays(np.full((2, 1, 2, 2), 255, dtype=np.uint8), [0, 2], classes=3)
            >>> data.x().max().item(), data.classes
            (1.0, ('0', '1', '2'))
        """
        try:
            inputs = x.detach().cpu() if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
            inputs = inputs.to_dense() if inputs.is_sparse else inputs
        except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, texts, objects, tensors without data
            raise DataError(f"{name}: x is no array of numbers ({error}); give (n, *shape) floats or uint8 images") from error
        if inputs.dtype != torch.uint8 and not inputs.is_floating_point():
            raise DataError(f"{name}: x has type {inputs.dtype}; give floats in [{domain[0]:g}, {domain[1]:g}], or uint8 images")
        values = inputs.to(torch.uint8 if inputs.dtype == torch.uint8 else torch.float32, copy=True).contiguous()
        labels = whole_numbers(y, f"{name}: label")
        if values.ndim < 2 or len(values) != len(labels):
            raise DataError(f"{name}: x has shape {tuple(values.shape)} for {len(labels)} labels; expected (n, *shape) and (n,)")
        content = hashlib.blake2b(f"{values.dtype} {tuple(values.shape)}\0".encode(), digest_size=16)
        content.update(values.numpy().reshape(-1).view(np.uint8).data)
        rows = np.arange(len(labels)) if ids is None else whole_numbers(ids, f"{name}: id")
        made = cls(
            source=name, shape=tuple(values.shape[1:]), y=labels, ids=rows, classes=class_names(classes, labels, name),
            read=InMemory(values, rows), content=content.hexdigest(), domain=(float(domain[0]), float(domain[1])), columns=columns,
        )  # fmt: skip
        for positions in made.shards(1024):
            made.x(positions)
        return made

    def __len__(self) -> int:
        return len(self.y)

    @property
    def digest(self) -> str:
        """Names the samples: content, shape, domain, ids, labels, class names and columns."""
        state = hashlib.blake2b(digest_size=16)
        head = [self.content, self.classes, self.shape, self.domain, len(self), sorted(self.columns)]
        state.update(json.dumps(head).encode())
        for array in (self.ids, self.y, *(self.columns[name] for name in sorted(self.columns))):
            numeric = array.dtype.kind in "biuf"
            state.update(f"\0{array.dtype.str if numeric else 'text'}\0".encode())
            state.update(np.ascontiguousarray(array).tobytes() if numeric else json.dumps(array.tolist(), default=repr).encode())
        return state.hexdigest()

    def x(self, rows: Sequence[int] | np.ndarray | slice | None = None) -> Tensor:
        """(m, *shape) float32 inputs of some positions (all by default), checked against the shape and the domain.

        Raises:
            DataError: a row cannot be read, has another shape, holds NaN, or lies outside the domain; the message names it.
        """
        ids = self.ids if rows is None else self.ids[rows]
        x = self.read(ids)
        if tuple(x.shape) != (len(ids), *self.shape) or x.dtype != torch.float32:
            raise DataError(
                f"{self.source}: {len(ids)} rows were read as {x.dtype} of shape {tuple(x.shape)}; "
                f"expected float32 of shape {(len(ids), *self.shape)}"
            )
        if x.numel():
            low, high = x.aminmax()  # NaN wherever there is one
            if not (low >= self.domain[0] and high <= self.domain[1]):
                raise self._illegal(ids, x.flatten(1))
        return x

    def _illegal(self, ids: np.ndarray, flat: Tensor) -> DataError:
        wrong = ~((flat >= self.domain[0]) & (flat <= self.domain[1]))
        row = int(wrong.any(1).nonzero()[0, 0])
        value = float(flat[row][wrong[row]][0])
        return DataError(
            f"{self.source}: row {ids[row]} holds {'NaN' if np.isnan(value) else f'the value {value:g}'}; inputs must lie in "
            f"[{self.domain[0]:g}, {self.domain[1]:g}]. Rescale them or give the domain; normalisation belongs inside the network"
        )

    def labels(self, rows: Any = slice(None)) -> Tensor:
        """(m,) int64 labels of some positions, as a tensor."""
        return torch.from_numpy(self.y[rows].copy())

    def take(self, positions: np.ndarray | Sequence[int] | slice, note: str = "") -> Dataset:
        """The samples at some positions (indices, a mask or a slice), with their ids."""
        return replace(
            self, y=self.y[positions], ids=self.ids[positions], note="; ".join(filter(None, (self.note, note))),
            columns={name: values[positions] for name, values in self.columns.items()},
        )  # fmt: skip

    def readable(self, most: int | None = None) -> Dataset:
        """Without the samples that cannot be read; with `most`, the first so many of those that can.

        Raises:
            SampleError: of none. DataError: the samples are not what the data say they are.
        """
        kept: list[int] = []
        for positions in self.shards(_AT_ONCE if most is None else most):
            try:
                self.x(positions)
                kept += positions.tolist()
            except SampleError as error:
                kept += [position for position in positions.tolist() if self._reads(position)]
                if not kept and positions[-1] + 1 == len(self):
                    raise SampleError(f"{self.source}: not one sample can be read; {error}") from error
            if most is not None and len(kept) >= most:
                break
        return self if len(kept) == len(self) else self.take(kept[:most], "unreadable samples left out" if most is None else "")

    def _reads(self, position: int) -> bool:
        try:
            self.x([position])
        except SampleError:
            return False
        return True

    def limit(self, n: int | None, seed: int = 0) -> Dataset:
        """A stratified sample of n, in the old order; the whole set where n is None or not below its size.

        Class k of c_k of N samples keeps floor(c_k n / N), and the classes with the largest remainders one more (equal
        remainders: by lot), so n in all. Who is kept is drawn by (seed, id), whatever the order of the set.

        Raises:
            DataError: n is not positive.

        Example:
            >>> data = Dataset.from_arrays(torch.zeros(100, 1), [0] * 75 + [1] * 25)
            >>> np.bincount(data.limit(8, seed=3).y)
            array([6, 2])
        """
        if n is not None and n < 1:
            raise DataError(f"{self.source}: a limit of {n} samples leaves nothing to measure; give at least 1")
        if n is None or n >= len(self):
            return self
        keep, remainder = np.divmod(np.bincount(self.y, minlength=len(self.classes)) * n, len(self))
        tie = _lots(seed, "dataset.limit.class", np.arange(len(keep)))
        keep[np.lexsort((tie, -remainder))[: n - keep.sum()]] += 1
        order = np.lexsort((_lots(seed, "dataset.limit", self.ids), self.y))  # class by class, within a class by lot
        first = np.searchsorted(self.y[order], np.arange(len(keep)))
        chosen = order[np.arange(len(self)) - first[self.y[order]] < keep[self.y[order]]]
        return self.take(np.sort(chosen), f"stratified sample of {n} of {len(self)}, seed {seed}")

    def shards(self, size: int) -> Iterator[np.ndarray]:
        """Consecutive positions, `size` at a time.

        Raises:
            DataError: size is not positive.
        """
        if size < 1:
            raise DataError(f"{self.source}: shards of {size} samples; give at least 1")
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)))


class Lookup:
    """Finds the positions of ids.

    Example:
        >>> Lookup(np.array([30, 10, 20]))(np.array([10, 30]))
        array([1, 0])
    """

    def __init__(self, ids: np.ndarray) -> None:
        self.order = np.argsort(ids, kind="stable")
        self.sorted = ids[self.order]

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """(m,) positions of (m,) ids.

        Raises:
            DataError: an id is unknown.
        """
        place = np.searchsorted(self.sorted, ids).clip(max=len(self.sorted) - 1)
        unknown = np.flatnonzero(self.sorted[place] != ids)
        if len(unknown):
            raise DataError(f"no sample has id {ids[unknown[0]]}; ids run from {self.sorted[0]} to {self.sorted[-1]}")
        return self.order[place]


class InMemory:
    """Reads rows of a tensor held in memory: float32 as it is, uint8 divided by 255."""

    def __init__(self, values: Tensor, ids: np.ndarray) -> None:
        self.values, self.lookup = values, Lookup(ids)

    def __call__(self, ids: np.ndarray) -> Tensor:
        picked = self.values[torch.from_numpy(self.lookup(ids))]
        return picked.float().div_(255) if picked.dtype == torch.uint8 else picked


def whole_numbers(values: Any, what: str) -> np.ndarray:
    """(n,) int64 from anything that holds n whole numbers.

    Arguments:
        values: an array, tensor or sequence of integers, booleans, or floats without a fraction.
        what: the request and the thing, for the message: "file.npz: label".

    Raises:
        DataError: another shape or type, a missing or fractional number; the message names the row.
    """
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.ndim != 1:
        raise DataError(f"{what}s have shape {array.shape}; expected one whole number per row, shape (n,)")
    if array.dtype.kind == "f":
        bad = np.flatnonzero(~(np.abs(array) < 2**53) | (np.trunc(array) != array))
        if len(bad):
            raise DataError(
                f"{what} of row {bad[0]} is {array[bad[0]]:g}, not a whole number ({len(bad)} such rows); remove or relabel them"
            )
    elif array.dtype.kind == "u":
        bad = np.flatnonzero(array > np.iinfo(np.int64).max)
        if len(bad):
            raise DataError(f"{what} of row {bad[0]} is {array[bad[0]]}, above 2^63 - 1 ({len(bad)} such rows); remove or relabel them")
    elif array.dtype.kind not in "bi" and array.size:
        raise DataError(f"{what}s have type {array.dtype}; expected whole numbers")
    return array.astype(np.int64)


def class_names(names: Sequence[str] | int | None, y: np.ndarray, source: str) -> tuple[str, ...]:
    """The names as given, or "0".."K-1" with K given or the largest label + 1.

    Raises:
        DataError: K would exceed `MOST_CLASSES`: such labels are identifiers, or damaged; or the names are one text.
    """
    if isinstance(names, str) or (isinstance(names, int) and not 0 < names <= MOST_CLASSES):
        raise DataError(f"{source}: classes={str(names)[:60]!r}; give the class names in a list, or their number (1 to {MOST_CLASSES})")
    if names is None:
        if len(y) and y.max() >= MOST_CLASSES:
            raise DataError(f"{source}: row {y.argmax()} has label {y.max()}; labels number the classes 0..K-1, K at most {MOST_CLASSES}")
        names = int(y.max(initial=-1)) + 1
    return tuple(str(k) for k in range(names)) if isinstance(names, int) else tuple(names)


def _lots(seed: int, use: str, ids: np.ndarray) -> np.ndarray:
    return derive(seed, use, ids=ids).words(1).squeeze(1).numpy()


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
    source = parse(spec, Source) if isinstance(spec, str) else spec
    return source.load().limit(limit, seed)
