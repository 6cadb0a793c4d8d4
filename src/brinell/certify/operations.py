"""The operations a certifier knows: affine maps with their adjoints, ReLU and max-pool, each on one sample's shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Operation:
    """One node's function of the values before it. Values are (m, *shape): any number of samples, or of rows of coefficients.

    Arguments:
        shape: of the result for one sample. given: of each argument.
    """

    linear_map: ClassVar[bool] = False
    shape: Shape
    given: tuple[Shape, ...]

    def value(self, *xs: Tensor) -> Tensor:
        """What the network computes."""
        raise TypeError(f"{type(self).__name__} does not say what it computes")

    def to(self, dtype: torch.dtype) -> Self:
        """The same with its tensors in another floating-point type."""
        held = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(self, **{k: v.to(dtype) for k, v in held.items() if isinstance(v, Tensor) and v.is_floating_point()})


@dataclass(frozen=True, eq=False)
class Input(Operation):
    """The sample itself."""


@dataclass(frozen=True, eq=False)
class Affine(Operation):
    """z = L x + b.

    Arguments:
        bias: b, (1, *shape) or what broadcasts to it; None for none. bulk: a bound of |b| and of every term that b is the sum of.
        terms: rounding steps that one entry of the result can go through, whatever the order of summation.
    """

    linear_map: ClassVar[bool] = True
    bias: Tensor | None = None
    bulk: Tensor | None = None
    terms: int = 0

    def linear(self, *xs: Tensor) -> Tensor:
        """L x."""
        raise TypeError(f"{type(self).__name__} does not say its linear part")

    def magnitude(self, *xs: Tensor) -> Tensor:
        """|L| x, for x >= 0."""
        return self.linear(*xs)

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        """L^T a for each argument; a: (m, *shape)."""
        raise TypeError(f"{type(self).__name__} does not say its adjoint")

    def value(self, *xs: Tensor) -> Tensor:
        out = self.linear(*xs)
        return out if self.bias is None else out + self.bias

    @property
    def sources(self) -> int:
        """How many numbers the operation reads."""
        return sum(math.prod(shape) for shape in self.given)


@dataclass(frozen=True, eq=False)
class Weighted(Affine):
    """An affine map with a weight, whose outer or inner scale can be moved into it."""

    weight: Tensor = field(default_factory=lambda: torch.empty(0))

    @cached_property
    def absolute(self) -> Tensor:
        return self.weight.abs()

    def scaled(self, factor: Tensor, by: Affine) -> Self | None:
        """This map followed by z -> factor z + shift; None where the factor is not one per output unit."""
        flat = _per_unit(factor, self.shape)
        if flat is None:
            return None
        bias = by.bias if self.bias is None else self.bias * factor + (0 if by.bias is None else by.bias)
        bulk = by.bulk if self.bulk is None else self.bulk * factor.abs() + (0 if by.bulk is None else by.bulk)
        return replace(self, weight=self._outer(flat), bias=bias, bulk=bulk, terms=self.terms + by.terms)

    def scaling(self, factor: Tensor, by: Affine) -> Self | None:
        """z -> factor z + shift followed by this map; None where the factor is not one per input unit."""
        flat = _per_unit(factor, self.given[0])
        if flat is None:
            return None
        made = self._inner(flat)
        if made is None:
            return None
        bias, bulk = self.bias, self.bulk
        if by.bias is not None and by.bulk is not None:
            moved = self.linear(by.bias.expand(1, *self.given[0]))
            much = self.magnitude(by.bulk.expand(1, *self.given[0]))
            bias, bulk = (moved, much) if bias is None or bulk is None else (bias + moved, bulk + much)
        return replace(self, weight=made, bias=bias, bulk=bulk, terms=self.terms + by.terms)

    def reach(self, size: Tensor, q: float) -> Tensor:
        """A bound of the q-norm of each row of L diag(size), (1, *shape); exact for q = 2, and for q = inf where L is no convolution."""
        raise TypeError(f"{type(self).__name__} does not know its rows")

    def _outer(self, factor: Tensor) -> Tensor:
        raise TypeError

    def _inner(self, factor: Tensor) -> Tensor | None:
        raise TypeError


def _per_unit(factor: Tensor, shape: Shape) -> Tensor | None:
    """The factor as (units,), where it is one number per unit (dimension 0 of a sample)."""
    full = factor.reshape((1,) * (len(shape) + 1 - factor.ndim) + tuple(factor.shape))
    if math.prod(full.shape[2:]) != 1:
        return None
    return full.reshape(-1).expand(shape[0])


@dataclass(frozen=True, eq=False)
class Linear(Weighted):
    """x W^T + b with W (out, in), on the last dimension of flat samples."""

    def linear(self, *xs: Tensor) -> Tensor:
        return xs[0] @ self.weight.T

    def magnitude(self, *xs: Tensor) -> Tensor:
        return xs[0] @ self.absolute.T

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a @ self.weight,)

    def reach(self, size: Tensor, q: float) -> Tensor:
        rows = self.absolute * size.reshape(1, -1)
        return (rows.amax(1) if q == math.inf else torch.linalg.vector_norm(rows, dim=1))[None]

    def _outer(self, factor: Tensor) -> Tensor:
        return self.weight * factor[:, None]

    def _inner(self, factor: Tensor) -> Tensor | None:
        return self.weight * factor


@dataclass(frozen=True, eq=False)
class Conv(Weighted):
    """A convolution in any number of dimensions, or a transposed one; the arguments are torch's."""

    stride: Shape = ()
    padding: Shape = ()
    dilation: Shape = ()
    transposed: bool = False
    output_padding: Shape = ()
    groups: int = 1

    @property
    def _how(self) -> tuple[Any, ...]:
        return (self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups)

    def linear(self, *xs: Tensor) -> Tensor:
        return torch.ops.aten.convolution(xs[0], self.weight, None, *self._how)

    def magnitude(self, *xs: Tensor) -> Tensor:
        return torch.ops.aten.convolution(xs[0], self.absolute, None, *self._how)

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        shape = a.new_empty(1).expand(len(a), *self.given[0])
        return (torch.ops.aten.convolution_backward(a, shape, self.weight, None, *self._how, (True, False, False))[0],)

    @property
    def windowed(self) -> bool:
        """Can the adjoint be taken of a part of the map?"""
        return not self.transposed and len(self.shape) == 3

    def adjoint_of_window(self, a: Tensor, corner: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        """L^T a for a that is zero outside a window of the map: the window it reaches, and that window's corner.

        Arguments:
            a: (m, channels, h, w), the window's entries. corner: its first row and column.
        """
        out = torch.nn.functional.conv_transpose2d(a, self.weight, None, self.stride, 0, 0, self.groups, self.dilation)
        place, cuts = [], [slice(None), slice(None)]
        for axis in range(2):
            start, side = corner[axis] * self.stride[axis] - self.padding[axis], self.given[0][1 + axis]
            first, last = max(start, 0), min(start + out.shape[2 + axis], side)
            place.append(min(first, side))
            cuts.append(slice(first - start, max(last, first) - start))
        return out[tuple(cuts)], (place[0], place[1])

    def reach(self, size: Tensor, q: float) -> Tensor:
        if q == math.inf:
            own = 1 if self.transposed else 0
            most = self.absolute.amax([axis for axis in range(self.weight.ndim) if axis != own]).repeat(self.groups if own else 1)
            return (most * size.amax()).reshape(1, -1, *(1,) * (len(self.shape) - 1)).expand(1, *self.shape)
        squares = torch.ops.aten.convolution(size.reshape(1, *self.given[0]).square(), self.weight.square(), None, *self._how)
        return squares.clamp(min=0).sqrt()

    def _outer(self, factor: Tensor) -> Tensor:
        if self.transposed:
            each = factor.reshape(self.groups, 1, -1)
            return (self.weight.reshape(self.groups, -1, *self.weight.shape[1:]) * each[..., *(None,) * len(self.stride)]).reshape(
                self.weight.shape
            )
        return self.weight * factor.reshape(-1, *(1,) * (self.weight.ndim - 1))

    def _inner(self, factor: Tensor) -> Tensor | None:
        if self.groups > 1:
            return None
        inputs = 0 if self.transposed else 1
        return self.weight * factor.reshape(*(1,) * inputs, -1, *(1,) * (self.weight.ndim - 1 - inputs))


@dataclass(frozen=True, eq=False)
class Scale(Affine):
    """factor x + shift, entry by entry: normalisation, batch normalisation with fixed statistics, arithmetic with constants."""

    factor: Tensor = field(default_factory=lambda: torch.ones(()))

    def linear(self, *xs: Tensor) -> Tensor:
        return xs[0] * self.factor

    def magnitude(self, *xs: Tensor) -> Tensor:
        return xs[0] * self.factor.abs()

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a * self.factor,)


@dataclass(frozen=True, eq=False)
class Reshape(Affine):
    """The same numbers in another shape, in the same order."""

    def linear(self, *xs: Tensor) -> Tensor:
        return xs[0].reshape(-1, *self.shape)

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a.reshape(-1, *self.given[0]),)


@dataclass(frozen=True, eq=False)
class Mixing(Affine):
    """A linear map without negative coefficients that torch has a function for: means, average pools, slices, padding, permutations."""

    function: Callable[[Tensor], Tensor] = torch.clone

    def linear(self, *xs: Tensor) -> Tensor:
        return self.function(xs[0])

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            z = a.new_zeros(len(a), *self.given[0]).requires_grad_()
            return torch.autograd.grad(self.function(z), z, a, create_graph=a.requires_grad)


@dataclass(frozen=True, eq=False)
class Sum(Affine):
    """The sum of its arguments, each with a coefficient."""

    coefficients: tuple[float, ...] = ()

    def linear(self, *xs: Tensor) -> Tensor:
        return sum((x if c == 1 else c * x for c, x in zip(self.coefficients, xs, strict=True)), start=xs[0].new_zeros(()))

    def magnitude(self, *xs: Tensor) -> Tensor:
        return sum((abs(c) * x for c, x in zip(self.coefficients, xs, strict=True)), start=xs[0].new_zeros(()))

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        return tuple(a if c == 1 else c * a for c in self.coefficients)


@dataclass(frozen=True, eq=False)
class Concat(Affine):
    """Its arguments one after the other along a dimension of the sample; where a constant stands, the bias holds it.

    Arguments:
        axis: counted with the batch as 0. sizes: along the axis. moving: which of the pieces are arguments; the others are constant.
    """

    axis: int = 1
    sizes: Shape = ()
    moving: tuple[bool, ...] = ()

    def linear(self, *xs: Tensor) -> Tensor:
        left = iter(xs)
        pieces = []
        for size, moves in zip(self.sizes, self.moving, strict=True):
            shape = [len(xs[0]), *self.shape]
            shape[self.axis] = size
            pieces.append(next(left) if moves else xs[0].new_zeros(shape))
        return torch.cat(pieces, self.axis)

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        return tuple(piece for piece, moves in zip(a.split(self.sizes, self.axis), self.moving, strict=True) if moves)


@dataclass(frozen=True, eq=False)
class ReLU(Operation):
    """max(x, 0)."""

    def value(self, *xs: Tensor) -> Tensor:
        return xs[0].clamp(min=0)


@dataclass(frozen=True, eq=False)
class MaxPool(Operation):
    """The largest entry of each window of a map.

    Arguments:
        table: (outputs, w) int64 positions of each window's entries in the flattened map, -1 where a window is smaller.
    """

    table: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def windows(self, x: Tensor, empty: float) -> Tensor:
        """(m, channels, outputs, w) entries of the windows, `empty` where there is none."""
        table = self.table.to(x.device)
        flat = x.reshape(len(x), self.given[0][0], -1)
        return flat[:, :, table.clamp(min=0)].masked_fill(table < 0, empty)

    def value(self, *xs: Tensor) -> Tensor:
        return self.windows(xs[0], -math.inf).amax(-1).reshape(-1, *self.shape)
