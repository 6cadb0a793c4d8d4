"""Tallies: what a probe keeps of the samples it has seen. Every tally is a commutative monoid.

Law: the reading of `observe(a) + observe(b)` equals that of `observe(a ++ b)`, in whatever order. So memory is bounded, a crash
costs one shard, and shards may be observed on different machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from brinell.core.draws import derive

_kinds: dict[str, type[Tally]] = {}


class Tally:
    """Named tensors with an addition. Subclasses say how two values of one name are added."""

    kind: ClassVar[str] = ""

    def __init__(self, values: Mapping[str, Tensor] | None = None) -> None:
        self.values: dict[str, Tensor] = dict(values or {})

    def __init_subclass__(cls, *, kind: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.kind = kind
        if kind:
            _kinds[kind] = cls

    @classmethod
    def of(cls, values: Mapping[str, Tensor] | None = None, /, **named: Tensor) -> Self:
        """A tally of named tensors, moved to the CPU."""
        return cls({name: value.detach().cpu() for name, value in {**(values or {}), **named}.items()})

    def __add__(self, other: Tally) -> Self:
        if type(other) is not type(self):
            raise TypeError(f"cannot add a {type(other).__name__} tally to a {type(self).__name__} tally")
        return self._joined(other)

    def _joined(self, other: Tally) -> Self:
        merged = dict(self.values)
        for name, value in other.values.items():
            merged[name] = self._add(merged[name], value) if name in merged else value
        return type(self)(merged)

    def _add(self, a: Tensor, b: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not say how values are added")

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def pack(self) -> tuple[str, dict[str, Tensor]]:
        """The kind and the tensors that `unpack` needs."""
        return self.kind, self.values


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
    """Entry-wise maxima (a minimum is the maximum of the negative)."""

    def _add(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b)


class Rows(Tally, kind="rows"):
    """Per-sample scalars keyed by the column `id`; read in the order of ids.

    Example:
        >>> (Rows.of(id=torch.tensor([7]), hit=torch.tensor([1])) + Rows.of(id=torch.tensor([2]), hit=torch.tensor([0]))).sorted()["hit"]
        tensor([0, 1])
    """

    def _add(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat((a, b))

    def sorted(self) -> Rows:
        """The same rows in the order of ids; a row present twice (a shard run twice) counts once."""
        ids, first = torch.unique(self["id"], return_inverse=True)
        place = torch.full((len(ids),), len(first), dtype=torch.int64)
        place.scatter_reduce_(0, first, torch.arange(len(first)), "amin")
        return Rows({name: value[place] for name, value in self.values.items()})


class Sample(Tally, kind="sample"):
    """The rows whose ids have the k smallest hashes: an exact, order-free, bounded random subset of all rows seen.

    Build with `Sample.pick(k, ids, columns)`; the column `id` and the hidden column `#` (hash) are kept, `#k` holds k.
    """

    @classmethod
    def pick(cls, k: int, ids: Tensor, columns: Mapping[str, Tensor]) -> Sample:
        """The sample of one batch. ids: (n,) int64; columns: tensors with n rows."""
        hashes = derive(0, "tally.Sample", ids=ids.cpu()).words(1).squeeze(1)
        values = {"#": hashes, "id": ids.detach().cpu(), **{name: value.detach().cpu() for name, value in columns.items()}}
        return cls({**values, "#k": torch.tensor(k)})._kept()

    def _kept(self) -> Sample:
        k = int(self["#k"])
        order = torch.argsort(self["#"], stable=True)[:k]
        return Sample({name: value if name == "#k" else value[order] for name, value in self.values.items()})

    def _joined(self, other: Tally) -> Sample:
        rows = {name: torch.cat((self[name], other[name])) for name in self.values if name != "#k"}
        return Sample({**rows, "#k": torch.maximum(self["#k"], other["#k"])})._kept()

    def _add(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cat((a, b))


class Tallies(Tally, kind="tallies"):
    """Several tallies under names, added name by name."""

    def __init__(self, parts: Mapping[str, Tally] | None = None) -> None:
        super().__init__()
        self.parts: dict[str, Tally] = dict(parts or {})

    def _joined(self, other: Tally) -> Tallies:
        merged = dict(self.parts)
        for name, part in (other.parts if isinstance(other, Tallies) else {}).items():
            merged[name] = merged[name] + part if name in merged else part
        return Tallies(merged)

    def pack(self) -> tuple[str, dict[str, Tensor]]:
        tensors: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            kind, values = part.pack()
            tensors |= {f"{name}\t{kind}\t{key}": value for key, value in values.items()}
        return self.kind, tensors


def unpack(kind: str, tensors: Mapping[str, Tensor]) -> Tally:
    """The tally that `pack` wrote."""
    if kind != "tallies":
        return _kinds[kind](tensors)
    groups: dict[tuple[str, str], dict[str, Tensor]] = {}
    for path, value in tensors.items():
        name, inner, key = path.split("\t", 2)
        groups.setdefault((name, inner), {})[key] = value
    return Tallies({name: unpack(inner, values) for (name, inner), values in groups.items()})
