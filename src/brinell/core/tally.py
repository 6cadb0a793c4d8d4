"""Tallies: what a probe keeps of the samples it has seen. Every tally is a commutative monoid.

Law: the reading of `observe(a) + observe(b)` equals that of `observe(a ++ b)`, in whatever order. So memory is bounded, a crash
costs one shard, and shards may be observed on different machines. The empty tally `Kind()` changes nothing it is added to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from brinell.core.draws import derive

_kinds: dict[str, type[Tally]] = {}
_TOGETHER = 16  # a power of 2


class Tally:
    """Named tensors with an addition; subclasses say how two values of one name are added. Treat the tensors as read-only."""

    kind: ClassVar[str] = ""

    def __init__(self, values: Mapping[str, Tensor] | None = None) -> None:
        self.values: dict[str, Tensor] = dict(values or {})
        self.parts: dict[str, Tally] = {}

    def __init_subclass__(cls, *, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.kind = kind
        if kind:
            _kinds[kind] = cls

    @classmethod
    def of(cls, values: Mapping[str, Tensor] | None = None, /, **named: Tensor) -> Self:
        """A tally of named tensors, copied to the CPU: it keeps no graph and no memory of the batch it was made from."""
        return cls({name: _own(value) for name, value in {**(values or {}), **named}.items()})

    def __add__(self, other: Tally) -> Self:
        if type(other) is not type(self):
            raise TypeError(f"cannot add a {type(other).__name__} tally to a {type(self).__name__} tally")
        return self._joined(other)

    def _joined(self, other: Tally) -> Self:
        merged = dict(self.values)
        for name, value in other.values.items():
            if name in merged and value.shape != merged[name].shape:
                raise TypeError(
                    f"{type(self).__name__} tallies hold {name!r} with shapes {tuple(merged[name].shape)} and {tuple(value.shape)}; "
                    "every shard must give it the same shape"
                )
            merged[name] = self._add(merged[name], value) if name in merged else value
        return type(self)(merged)

    def _add(self, a: Tensor, b: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not say how values are added")

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]

    def __contains__(self, name: str) -> bool:
        return name in self.values or name in self.parts

    def pack(self) -> tuple[str, dict[str, Tensor]]:
        """The kind and the tensors that `unpack` needs."""
        return self.kind, self.values


class _Adding(Protocol):
    """What can be added to its own kind: a tally, or the shard of a run."""

    def __add__(self, other: Self, /) -> Self: ...


_Part = TypeVar("_Part", bound=_Adding)


class Total(Generic[_Part]):
    """The sum of parts that come one after the other.

    Neighbours are added first, then pairs of them, up to 16 parts; these are added to all before. So a large sum is copied once for every
    16 parts, and five sums wait at a time at most, however many parts come.
    """

    def __init__(self) -> None:
        self._before: _Part | None = None
        self._waiting: list[tuple[int, _Part]] = []

    def add(self, part: _Part) -> None:
        size = 1
        while self._waiting and self._waiting[-1][0] == size:
            part, size = self._waiting.pop()[1] + part, 2 * size
        if size < _TOGETHER:
            self._waiting.append((size, part))
        else:
            self._before = part if self._before is None else self._before + part

    def sum(self) -> _Part | None:
        """Of all parts in their order; None of none."""
        parts = [part for part in (self._before, *(part for _, part in self._waiting)) if part is not None]
        while len(parts) > 1:
            last = parts.pop()
            parts.append(parts.pop() + last)
        return parts[0] if parts else None


def added(parts: Iterable[_Part]) -> _Part | None:
    """The `Total` of parts.

    Example:
        >>> added(["a", "b", "c"])
        'abc'
    """
    total: Total[_Part] = Total()
    for part in parts:
        total.add(part)
    return total.sum()


def _own(value: Tensor) -> Tensor:
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


class Sum(Tally, kind="sum"):
    """Entry-wise sums, kept in float64 (integers in int64).

    Example:
        >>> (Sum.of(total=torch.tensor([1.0])) + Sum.of(total=torch.tensor([2.5])))["total"].item()
        3.5
    """

    @classmethod
    def of(cls, values: Mapping[str, Tensor] | None = None, /, **named: Tensor) -> Self:
        made = super().of(values, **named)
        return cls({k: v.double() if v.is_floating_point() else v.to(torch.int64) for k, v in made.values.items()})

    def _add(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Max(Tally, kind="max"):
    """Entry-wise maxima (a minimum is the maximum of the negative); adding an equal tally changes nothing, so constants fit too."""

    def _add(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b)


class Rows(Tally, kind="rows"):
    """Per-sample scalars (or vectors) keyed by the column `id`; read in the order of ids.

    Example:
        >>> (Rows.of(id=torch.tensor([7]), hit=torch.tensor([1])) + Rows.of(id=torch.tensor([2]), hit=torch.tensor([0]))).sorted()["hit"]
        tensor([0, 1])
    """

    @classmethod
    def of(cls, values: Mapping[str, Tensor] | None = None, /, **named: Tensor) -> Self:
        made = super().of(values, **named)
        lengths = {name: len(value) for name, value in made.values.items()}
        if "id" not in lengths or len(set(lengths.values())) != 1:
            raise TypeError(f"Rows need a column 'id' and as many rows in every column; got rows {lengths}")
        return made

    def _joined(self, other: Tally) -> Self:
        if not self.values or not other.values:
            return type(self)(self.values or other.values)
        _same_columns(self, other)
        return type(self)({name: torch.cat((value, other[name])) for name, value in self.values.items()})

    def sorted(self) -> Rows:
        """The same rows in the order of ids; a row present twice (a shard run twice) counts once."""
        if not self.values:
            return self
        ids, first = torch.unique(self["id"], return_inverse=True)
        place = torch.full((len(ids),), len(first), dtype=torch.int64)
        place.scatter_reduce_(0, first, torch.arange(len(first)), "amin")
        return Rows({name: value[place] for name, value in self.values.items()})


class Sample(Tally, kind="sample"):
    """The rows whose ids have the k smallest hashes: an exact, order-free, bounded random subset of all rows seen.

    Build with `Sample.pick(k, ids, columns)`; the column `id` and the hidden column `#` (hash) are kept, `#k` holds k. The rows
    lie in the order of their hashes; a row seen twice counts once. The hash depends on the id alone, so the same samples are
    kept for every network and perturbation.

    Example:
        >>> a, b = (Sample.pick(2, torch.tensor(ids), {}) for ids in ([0, 1, 2], [3, 4, 5]))
        >>> bool(((a + b)["id"] == Sample.pick(2, torch.arange(6), {})["id"]).all())
        True
    """

    @classmethod
    def pick(cls, k: int, ids: Tensor, columns: Mapping[str, Tensor]) -> Sample:
        """The sample of one batch. ids: (n,) int64; columns: tensors with n rows."""
        ids = _own(ids)
        rows = {"#": derive(0, "tally.Sample", ids=ids).words(1).squeeze(1), "id": ids}
        kept = _smallest(rows, k)
        given = {name: value.detach()[kept.to(value.device)].cpu().contiguous() for name, value in columns.items()}  # a copy by itself
        return cls({**{name: value[kept] for name, value in rows.items()}, **given, "#k": torch.tensor(k)})

    def _joined(self, other: Tally) -> Self:
        if not self.values or not other.values:
            return type(self)(self.values or other.values)
        _same_columns(self, other)
        if not torch.equal(self["#k"], other["#k"]):
            raise TypeError(f"cannot add a Sample of {int(other['#k'])} rows to one of {int(self['#k'])}")
        rows = {name: torch.cat((value, other[name])) for name, value in self.values.items() if name != "#k"}
        kept = _smallest(rows, int(self["#k"]))
        return type(self)({**{name: value[kept] for name, value in rows.items()}, "#k": self["#k"]})


def _smallest(rows: Mapping[str, Tensor], k: int) -> Tensor:
    """Positions of the k rows with the smallest (hash, id), each id once."""
    order = torch.argsort(rows["id"], stable=True)
    ids = rows["id"][order]
    fresh = torch.ones_like(ids, dtype=torch.bool)
    fresh[1:] = ids[1:] != ids[:-1]
    order = order[fresh]
    return order[torch.argsort(rows["#"][order], stable=True)[:k]]


def _same_columns(a: Tally, b: Tally) -> None:
    if a.values.keys() != b.values.keys():
        raise TypeError(
            f"cannot add {type(a).__name__} with columns {sorted(a.values)} and {sorted(b.values)}: every shard must have the same"
        )


class Tallies(Tally, kind="tallies"):
    """Several tallies under names (without tabs), added name by name; they are in `parts`."""

    def __init__(self, parts: Mapping[str, Tally] | None = None) -> None:
        super().__init__()
        self.parts = dict(parts or {})
        if any("\t" in name for name in self.parts):
            raise TypeError(f"a tally's name holds a tab, which separates names when it is stored: {sorted(self.parts)}")

    def _joined(self, other: Tally) -> Tallies:
        merged = dict(self.parts)
        for name, part in other.parts.items():
            merged[name] = merged[name] + part if name in merged else part
        return Tallies(merged)

    def pack(self) -> tuple[str, dict[str, Tensor]]:
        tensors: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            kind, values = part.pack()
            tensors |= {f"{name}\t{kind}\t{key}": value for key, value in values.items()}
        return self.kind, tensors


def unpack(kind: str, tensors: Mapping[str, Tensor]) -> Tally:
    """The tally that `pack` wrote; parts that hold nothing are not written, and come back as absent."""
    if kind not in _kinds:
        raise TypeError(f"no tally is of kind {kind!r}; known are {', '.join(sorted(_kinds))}")
    if kind != "tallies":
        return _kinds[kind](tensors)
    groups: dict[tuple[str, str], dict[str, Tensor]] = {}
    for path, value in tensors.items():
        name, inner, key = path.split("\t", 2)
        groups.setdefault((name, inner), {})[key] = value
    return Tallies({name: unpack(inner, values) for (name, inner), values in groups.items()})


def encode(column: np.ndarray) -> tuple[Tensor, Max]:
    """Codes of a column of texts or numbers, the same in every shard, and the table of what they stand for.

    Arguments:
        column: (n,) values of any kind; they are told apart by their text.

    Returns:
        (n,) int64 codes (64-bit BLAKE2b of the text), and a `Max` that holds the code of each text under that text.

    Example:
        >>> codes, table = encode(np.array(["left", "right", "left"]))
        >>> bool(codes[0] == codes[2]), sorted(table.values)
        (True, ['left', 'right'])
    """
    texts, which = np.unique(np.array([str(value) for value in column], dtype=np.str_), return_inverse=True)
    words = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts.tolist()]
    codes = torch.tensor([int.from_bytes(word, "little", signed=True) for word in words], dtype=torch.int64)
    return codes[torch.from_numpy(which)], Max({text: code.clone() for text, code in zip(texts.tolist(), codes, strict=True)})
