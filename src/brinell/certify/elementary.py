"""Which of torch's elementary operations have bounds, and as what; everything else is refused by name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from brinell.certify.operations import Concat, Conv, Linear, MaxPool, Mixing, Operation, ReLU, Reshape, Scale, Shape, Sum
from brinell.core.errors import NetworkError


class Unsupported(NetworkError):
    """A network does something that has no bounds here; the message names the layer."""


@dataclass(frozen=True)
class Call:
    """A call of an elementary operation. out: the shape of its result, batch included. symbol: the type of what stands for a batch."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Tensor
    symbol: type[Tensor]

    def get(self, place: int, default: Any = None) -> Any:
        """A positional argument, or what torch takes in its place."""
        return self.args[place] if place < len(self.args) else default

    @property
    def shape(self) -> Shape:
        return tuple(self.out.shape[1:])

    def source(self, place: int = 0) -> Tensor:
        """The one argument that stands for a batch."""
        found = self.get(place)
        others = [item for k, item in enumerate(self.args) if k != place and isinstance(item, self.symbol)]
        if not isinstance(found, self.symbol) or others:
            raise Unsupported("with more than its input depending on the sample; there are no bounds for that")
        if found.dtype != self.out.dtype:
            raise Unsupported(f"which turns {found.dtype} into {self.out.dtype}; bounds are of one type")
        return found


Builder = Callable[[Call], tuple[Operation, Sequence[Any]]]
BUILDERS: dict[str, Builder] = {}
ALIASES = {
    "view", "_unsafe_view", "reshape", "flatten", "squeeze", "unsqueeze", "permute", "transpose", "t", "slice", "select",
    "detach", "alias", "unflatten", "as_strided",
}  # fmt: skip
"""Operations whose result may share memory with their argument."""


def _for(*names: str) -> Callable[[Builder], Builder]:
    def register(builder: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(names, builder))
        return builder

    return register


def _shape(x: Tensor) -> Shape:
    return tuple(x.shape[1:])


def _constant(value: Any, call: Call) -> Tensor:
    """A constant as a batch of one row, which stands for all samples."""
    if not isinstance(value, Tensor):
        return torch.full((1,) * call.out.ndim, float(value), dtype=call.out.dtype)
    if isinstance(value, call.symbol):
        raise Unsupported("of two things that depend on the sample; there are no bounds for that")
    if value.ndim > call.out.ndim:
        raise Unsupported("with a constant of more dimensions than the batch")
    value = value.to(call.out.dtype)
    if value.ndim == call.out.ndim and len(value) > 1:  # made in the forward pass for the traced batch: zeros to pad with, say
        if not bool((value == value[:1]).all()):
            raise Unsupported("with a constant that differs from sample to sample")
        value = value[:1]
    return value.reshape((1,) * (call.out.ndim - value.ndim) + tuple(value.shape))


def _scale(call: Call, x: Tensor, factor: Tensor, shift: Tensor | None, bulk: Tensor | None, terms: int) -> tuple[Operation, Sequence[Any]]:
    if x.shape != call.out.shape:
        raise Unsupported("which widens a batch by broadcasting; there are no bounds for that")
    return Scale(call.shape, (_shape(x),), shift, bulk, terms, factor=factor), [x]


@_for("addmm")
def _addmm(call: Call) -> tuple[Operation, Sequence[Any]]:
    x, w, b = call.source(1), call.args[2].to(call.out.dtype), _constant(call.args[0], call)
    if any(call.kwargs.get(name, 1) != 1 for name in ("alpha", "beta")):
        raise Unsupported("with factors; there are no bounds for that")
    b = b.expand(1, *call.shape)
    return Linear(call.shape, (_shape(x),), b, b.abs(), x.shape[1] + 1, weight=w.T), [x]


@_for("mm")
def _mm(call: Call) -> tuple[Operation, Sequence[Any]]:
    x = call.source()
    if isinstance(call.args[1], call.symbol) or len(call.args[1]) != x.shape[1]:
        raise Unsupported("of two things that depend on the sample; there are no bounds for that")
    return Linear(call.shape, (_shape(x),), terms=x.shape[1], weight=call.args[1].to(x.dtype).T), [x]


@_for("convolution")
def _convolution(call: Call) -> tuple[Operation, Sequence[Any]]:
    x = call.source()
    weight, bias = call.args[1], call.args[2]
    transposed, groups = bool(call.args[6]), int(call.args[8])
    each = weight[0].numel() if not transposed else weight[:, 0].numel() // groups
    b = None if bias is None else bias.reshape(1, -1, *(1,) * (x.ndim - 2))
    stride, padding, dilation, extra = (tuple(call.args[k]) for k in (3, 4, 5, 7))
    return Conv(
        call.shape, (_shape(x),), b, None if b is None else b.abs(), each + 1, weight=weight, stride=stride, padding=padding,
        dilation=dilation, transposed=transposed, output_padding=extra, groups=groups,
    ), [x]  # fmt: skip


def with_gradient(statistic: Tensor) -> Tensor:
    """A running statistic that bounds can be differentiated in; torch refuses one that has a gradient, so it is carried beside it."""
    carrier = statistic.detach()
    carrier.live = statistic  # pyright: ignore[reportAttributeAccessIssue]
    return carrier


@_for("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit_no_training")
def _batch_norm(call: Call) -> tuple[Operation, Sequence[Any]]:
    x, (weight, bias, mean, variance) = call.source(), call.args[1:5]
    fixed = "no_training" in str(call.func)
    if (not fixed and call.args[5]) or mean is None:
        raise Unsupported("which normalises by the batch: put the network into evaluation mode, and let it keep running statistics")
    mean, variance = (getattr(value, "live", value) for value in (mean, variance))
    form = (1, -1, *(1,) * (x.ndim - 2))
    factor = (variance + call.args[6 if fixed else 7]).rsqrt() * (1 if weight is None else weight)
    moved = mean * factor
    shift, bulk = -moved, moved.abs()
    if bias is not None:
        shift, bulk = shift + bias, bulk + bias.abs()
    return _scale(call, x, factor.reshape(form), shift.reshape(form), bulk.reshape(form), 8)


@_for("add", "sub", "rsub")
def _add(call: Call) -> tuple[Operation, Sequence[Any]]:
    a, b = call.args[:2]
    signs = {"add": (1.0, 1.0), "sub": (1.0, -1.0), "rsub": (-1.0, 1.0)}[call.func.overloadpacket.__name__.rstrip("_")]
    alpha = float(call.kwargs.get("alpha", call.get(2, 1)))
    signs = (signs[0] * alpha, signs[1]) if signs[0] < 0 else (signs[0], signs[1] * alpha)
    if isinstance(a, call.symbol) and isinstance(b, call.symbol):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise Unsupported("of two batches of different shapes or types; there are no bounds for that")
        return Sum(call.shape, (_shape(a), _shape(b)), terms=2, coefficients=signs), [a, b]
    first = isinstance(a, call.symbol)
    moving, fixed = (a, b) if first else (b, a)
    sign, other = signs if first else signs[::-1]
    shift = _constant(fixed, call) * other
    return _scale(call, moving, _constant(sign, call), shift, shift.abs(), 2)


@_for("mul", "div")
def _mul(call: Call) -> tuple[Operation, Sequence[Any]]:
    a, b = call.args[:2]
    divides = call.func.overloadpacket.__name__.startswith("div")
    if call.kwargs.get("rounding_mode") is not None or (divides and not isinstance(a, call.symbol)):
        raise Unsupported("for which there are no bounds")
    moving, fixed = (a, b) if isinstance(a, call.symbol) else (b, a)
    factor = _constant(fixed, call)
    return _scale(call, moving, factor.reciprocal() if divides else factor, None, None, 3)


@_for("neg")
def _neg(call: Call) -> tuple[Operation, Sequence[Any]]:
    return _scale(call, call.source(), _constant(-1.0, call), None, None, 0)


@_for("relu")
def _relu(call: Call) -> tuple[Operation, Sequence[Any]]:
    x = call.source()
    return ReLU(call.shape, (_shape(x),)), [x]


@_for("clamp", "clamp_min")
def _clamp(call: Call) -> tuple[Operation, Sequence[Any]]:
    low, high = call.get(1, call.kwargs.get("min")), call.get(2, call.kwargs.get("max"))
    if isinstance(low, Tensor) or low != 0 or high is not None:
        raise Unsupported("to other ends than 0 from below; there are no bounds for that")
    return _relu(call)


@_for("view", "_unsafe_view", "reshape", "flatten", "squeeze", "unsqueeze", "unflatten", "detach", "alias", "clone", "contiguous",
      "lift_fresh", "_to_copy")  # fmt: skip
def _same(call: Call) -> tuple[Operation, Sequence[Any]]:
    x = call.source()
    return Reshape(call.shape, (_shape(x),)), [x]


@_for("as_strided")
def _relaid(call: Call) -> tuple[Operation, Sequence[Any]]:
    """What adaptive pooling to one entry does to maps that are laid out channels-last: strides change only where there is one entry."""
    x = call.source()
    moved = [old != new for size, old, new in zip(x.shape, x.stride(), call.out.stride(), strict=False) if size > 1]
    if call.out.shape != x.shape or any(moved) or call.get(3) is not None:
        raise Unsupported("to read its memory in another order; there are no bounds for that")
    return _same(call)


def _mixing(call: Call, terms: int, function: Callable[[Tensor], Tensor], bias: Tensor | None = None) -> tuple[Operation, Sequence[Any]]:
    x = call.source()
    return Mixing(call.shape, (_shape(x),), bias, None if bias is None else bias.abs(), terms, function=function), [x]


def _own(call: Call, axes: Sequence[int]) -> list[int]:
    """Dimensions counted from 0, the batch not among them."""
    found = [int(axis) % call.args[0].ndim for axis in axes]
    if 0 in found:
        raise Unsupported("across the samples of a batch")
    return found


@_for("permute", "transpose", "t")
def _permute(call: Call) -> tuple[Operation, Sequence[Any]]:
    axes = call.get(1, ()) if call.func.overloadpacket.__name__ == "permute" else None
    if axes is None:
        _own(call, call.args[1:3] or (0,))
    elif not axes or axes[0] % call.args[0].ndim != 0:
        raise Unsupported("across the samples of a batch")
    return _mixing(call, 0, lambda x: call.func(x, *call.args[1:]))


@_for("slice", "select", "flip")
def _slice(call: Call) -> tuple[Operation, Sequence[Any]]:
    axes = call.get(1, 0)
    whole = call.func.overloadpacket.__name__ == "slice" and axes == 0 and call.out.shape == call.args[0].shape
    if whole:
        return _same(call)
    _own(call, axes if isinstance(axes, list | tuple) else (axes,))
    return _mixing(call, 0, lambda x: call.func(x, *call.args[1:]))


@_for("constant_pad_nd")
def _pad(call: Call) -> tuple[Operation, Sequence[Any]]:
    pads, value = list(call.args[1]), float(call.get(2, 0.0))
    if len(pads) >= 2 * call.out.ndim and any(pads[2 * call.out.ndim - 2 :]):
        raise Unsupported("across the samples of a batch")
    x = call.source()
    bias = None
    if value:
        bias = torch.ops.aten.constant_pad_nd(torch.zeros(1, *x.shape[1:], dtype=x.dtype), pads, value)
    return _mixing(call, 0, lambda z: torch.ops.aten.constant_pad_nd(z, pads, 0.0), bias)


@_for("mean", "sum")
def _mean(call: Call) -> tuple[Operation, Sequence[Any]]:
    axes = call.get(1)
    if not axes:
        raise Unsupported("across the samples of a batch")
    own, keep = _own(call, axes if isinstance(axes, list | tuple) else [axes]), bool(call.get(2, False))
    function = torch.mean if call.func.overloadpacket.__name__ == "mean" else torch.sum
    return _mixing(call, math.prod(call.args[0].shape[axis] for axis in own) + 1, lambda x: function(x, own, keepdim=keep))


@_for("avg_pool2d", "avg_pool3d")
def _avg_pool(call: Call) -> tuple[Operation, Sequence[Any]]:
    if isinstance(call.get(6), int) and call.args[6] <= 0:
        raise Unsupported("with a divisor that is not positive")
    return _mixing(call, math.prod(call.args[1]) + 1, lambda x: call.func(x, *call.args[1:]))


@_for("_adaptive_avg_pool2d", "_adaptive_avg_pool3d")
def _adaptive_avg_pool(call: Call) -> tuple[Operation, Sequence[Any]]:
    sides = zip(call.args[0].shape[2:], call.out.shape[2:], strict=True)
    return _mixing(call, math.prod(-(-have // want) + 1 for have, want in sides) + 1, lambda x: call.func(x, *call.args[1:]))


@_for("cat")
def _cat(call: Call) -> tuple[Operation, Sequence[Any]]:
    pieces = call.args[0]
    axis = int(call.get(1, call.kwargs.get("dim", 0))) % call.out.ndim
    if axis == 0:
        raise Unsupported("across the samples of a batch")
    moving = tuple(isinstance(piece, call.symbol) for piece in pieces)
    sizes = tuple(piece.shape[axis] for piece in pieces)
    symbols = [piece for piece, moves in zip(pieces, moving, strict=True) if moves]
    bias = None
    if not all(moving):
        zeros = (torch.zeros(1, *piece.shape[1:], dtype=call.out.dtype) for piece in pieces)
        fixed = [zero if moves else _constant(piece, call) for zero, piece, moves in zip(zeros, pieces, moving, strict=True)]
        bias = torch.cat(fixed, axis)
    given = tuple(_shape(piece) for piece in symbols)
    return Concat(call.shape, given, bias, None if bias is None else bias.abs(), axis=axis, sizes=sizes, moving=moving), symbols


@_for("max_pool2d_with_indices", "max_pool2d", "max_pool3d_with_indices", "max_pool3d")
def _max_pool(call: Call) -> tuple[Operation, Sequence[Any]]:
    x = call.source()
    rank = x.ndim - 2
    kernel = _per_axis(call.args[1], rank)
    stride, padding, dilation = (_per_axis(call.get(k) or default, rank) for k, default in ((2, kernel), (3, 0), (4, 1)))

    def window(axis: int, place: int) -> list[int]:
        start = place * stride[axis] - padding[axis]
        return [start + step * dilation[axis] for step in range(kernel[axis])]

    return _windows(call, x, window)


@_for("adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_max_pool(call: Call) -> tuple[Operation, Sequence[Any]]:
    x = call.source()

    def window(axis: int, place: int) -> list[int]:
        have, want = x.shape[2 + axis], call.out.shape[2 + axis]
        return list(range(place * have // want, -(-(place + 1) * have // want)))

    return _windows(call, x, window)


def _windows(call: Call, x: Tensor, window: Callable[[int, int], list[int]]) -> tuple[Operation, Sequence[Any]]:
    """Max-pooling whose window at a place of an axis holds the given positions; those outside the map are left out."""
    sides, outputs = tuple(x.shape[2:]), tuple(call.out.shape[2:])
    per_axis = [
        [[k if 0 <= k < sides[axis] else -1 for k in window(axis, place)] for place in range(outputs[axis])] for axis in range(len(sides))
    ]
    rows = []
    for places in itertools.product(*(range(side) for side in outputs)):
        row = []
        for point in itertools.product(*(per_axis[axis][place] for axis, place in enumerate(places))):
            flat = 0
            for axis, k in enumerate(point):
                flat = flat * sides[axis] + k
            row.append(-1 if min(point) < 0 else flat)
        rows.append(row)
    width = max(len(row) for row in rows)
    table = torch.tensor([row + [-1] * (width - len(row)) for row in rows], dtype=torch.int64)
    return MaxPool(call.shape, (_shape(x),), table=table), [x]


def _per_axis(value: Any, rank: int) -> tuple[int, ...]:
    found = tuple(value) if isinstance(value, list | tuple) else (value,)
    return tuple(int(k) for k in (found * rank if len(found) == 1 else found))
