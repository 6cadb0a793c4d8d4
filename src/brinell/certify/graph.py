"""The graph of a network: which operations it applies to a sample, found by passing a sample without values through it.

A symbol stands for a batch of which only shape and type are known. What the network does with it arrives here as calls of
torch's elementary operations, however they are spelled in the module (`nn.ReLU`, `F.relu`, `x.relu_()`); those that
`certify.elementary` knows become nodes. As there are no values, nothing can depend on them unseen: a branch on an entry, a round trip
through numpy, a custom function or an unknown operation is refused by name, and so is what mixes the samples of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from brinell.certify.elementary import ALIASES, BUILDERS, Call, Unsupported
from brinell.certify.operations import Input, Operation, Reshape, Scale, Weighted
from brinell.core.errors import NetworkError
from brinell.core.network import logits_of, module_of

_ROWS = 2  # of a traced batch


@dataclass(frozen=True)
class Node:
    """An operation, the nodes whose values it takes, and the layer of the network it belongs to."""

    op: Operation
    inputs: tuple[int, ...]
    layer: str = ""


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which each comes after those it takes; the first is the sample, the last the logits.

    Example:
        >>> [type(node.op).__name__ for node in trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), torch.zeros(1, 2)).nodes]
        ['Input', 'Linear', 'ReLU']
    """

    nodes: tuple[Node, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """The logits, (n, K), by the graph's own operations."""
        left = {place: sum(place in node.inputs for node in self.nodes) for place in range(len(self.nodes))}
        values: dict[int, Tensor] = {0: x}
        for place, node in enumerate(self.nodes):
            if place:
                values[place] = node.op.value(*(values[k] for k in node.inputs))
            for k in set(node.inputs):
                left[k] -= 1
                if not left[k]:
                    del values[k]
        return values[len(self.nodes) - 1]

    def to(self, dtype: torch.dtype) -> Graph:
        """The same with its weights in another floating-point type."""
        return Graph(tuple(replace(node, op=node.op.to(dtype)) for node in self.nodes))

    @property
    def entries(self) -> int:
        """How many numbers all nodes have for one sample."""
        return sum(_count(node.op.shape) for node in self.nodes)

    @cached_property
    def below(self) -> tuple[float, ...]:
        """For each node, the share of the network's multiplications that lie on the way to it."""
        found: list[float] = []
        for place in range(len(self.nodes)):
            on_way, todo = set(), [place]
            while todo:
                here = todo.pop()
                if here not in on_way:
                    on_way.add(here)
                    todo += self.nodes[here].inputs
            found.append(float(sum(_work(self.nodes[k].op) for k in on_way)))
        return tuple(work / max(found[-1], 1.0) for work in found)

    @cached_property
    def entrywise(self) -> tuple[bool, ...]:
        """Does each node hold the sample's own entries, each once, scaled and shifted?"""
        found: list[bool] = []
        for node in self.nodes:
            kind = isinstance(node.op, Input | Scale | Reshape)
            found.append(kind and all(found[k] for k in node.inputs))
        return tuple(found)


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _work(op: Operation) -> int:
    return _count(op.shape) * op.weight[0].numel() if isinstance(op, Weighted) else 0


def trace(net: Any, x: Tensor) -> Graph:
    """The graph of a network in evaluation mode, for samples like those of `x`. Its weights are the module's own, with their gradients.

    Arguments:
        net: a module, or what holds one as `.module`. x: (n, *d); only its shape, type and device are looked at.

    Raises:
        Unsupported: the network does something that has no bounds here; the message names the layer and the operation.
    """
    module = module_of(net)
    if module is None:
        raise Unsupported(f"{type(net).__name__} is no torch.nn.Module and holds none as .module; bounds need its layers")
    tracer = _Tracer(tuple(x.shape[1:]))
    symbol = tracer.symbol(x.new_zeros(_ROWS, *x.shape[1:]), None)
    with without_draws(x.device), _watched(module, tracer), _evaluating(module), torch.inference_mode(False):
        try:
            out = logits_of(module(symbol), symbol)
        except Unsupported:
            raise
        except NetworkError:
            raise
        except Exception as error:  # the network is the user's code, and may do anything with a tensor without values
            reason = (str(error).splitlines() or [""])[0]
            raise Unsupported(f"{tracer.where} cannot be followed without values ({type(error).__name__}: {reason})") from error
    if not isinstance(out, _Symbol):
        raise Unsupported("the logits do not depend on the input by any operation that can be followed")
    tracer.fresh(out)
    return _folded(tracer.graph(out.node))


def faithful(graph: Callable[[Tensor], Tensor], logits: Tensor, x: Tensor) -> Tensor:
    """(n,) bool: does the graph give the network's own logits at x, up to rounding? A network that draws random numbers fails this."""
    with torch.no_grad():
        again = graph(x)
    size = logits.abs().amax(1).clamp(min=1.0)
    return (again - logits).abs().amax(1) <= 1e-3 * size


@contextmanager
def without_draws(device: torch.device) -> Iterator[None]:
    """Refuse what draws random numbers from torch's generators inside.

    Raises:
        Unsupported: a generator of the device or the processor has moved.
    """
    before = _random_states(device)
    yield
    if any(not torch.equal(old, new) for old, new in zip(before, _random_states(device), strict=True)):
        raise Unsupported("the network draws random numbers, so what is true of one answer is not true of the next")


def _random_states(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


class _Symbol(Tensor):
    """A batch without values: shape, type, and the node that would compute it. `blank` has the shape, and zeros that nobody sees."""

    blank: Tensor
    node: int
    tracer: _Tracer
    memory: list[int]  # the node that wrote last into the memory this shares with its views
    seen: int

    @staticmethod
    def __new__(cls, blank: Tensor) -> _Symbol:
        made = Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls, blank.shape, strides=blank.stride(), dtype=blank.dtype, device=blank.device
        )
        made.blank = blank
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tracer = next(item.tracer for item in tree_flatten((args, kwargs))[0] if isinstance(item, _Symbol))
        return tracer.call(func, args, kwargs or {})


@dataclass(frozen=True, eq=False)
class _Called:
    """A call as it was traced, its layer, and the node that each of its symbols stood for then."""

    call: Call
    name: str
    layer: str
    nodes: dict[int, int]

    def built(self) -> Node:
        try:
            op, sources = BUILDERS[self.name](self.call)
        except Unsupported as error:
            raise Unsupported(f"layer {self.layer!r} uses {self.name}, {error}") from error
        if (_ROWS, *op.shape) != tuple(self.call.out.shape):
            raise Unsupported(
                f"layer {self.layer!r} uses {self.name} to make {tuple(self.call.out.shape)} of {_ROWS} samples, which mixes them"
            )
        return Node(op, tuple(self.nodes[id(source)] for source in sources), self.layer)


class _Tracer:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.calls: list[_Called | None] = []  # None for the sample
        self.stack: list[str] = []

    @property
    def layer(self) -> str:
        return next((path for path in reversed(self.stack) if path), "root")

    @property
    def where(self) -> str:
        return f"layer {self.layer!r}"

    def symbol(self, blank: Tensor, called: _Called | None) -> _Symbol:
        self.calls.append(called)
        return self.stand_in(blank, len(self.calls) - 1)

    def stand_in(self, blank: Tensor, node: int) -> _Symbol:
        made = _Symbol(blank)
        made.node, made.tracer = node, self
        made.memory, made.seen = [node], node
        return made

    def fresh(self, symbol: _Symbol) -> None:
        """Refuse a tensor whose memory was written to through another view of it, and one that no node stands for."""
        if symbol.memory[0] != symbol.seen:
            raise Unsupported(f"{self.where} reads a tensor that was overwritten through another view of it")
        if symbol.node < 0:
            raise Unsupported(f"{self.where} uses where a maximum was, or another second result, for which there are no bounds")

    def call(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        name = func.overloadpacket.__name__
        inplace = name.endswith("_") and not name.endswith("__")
        plain = name[:-1] if inplace else name
        if plain not in BUILDERS:
            raise Unsupported(f"{self.where} uses {plain}, for which there are no bounds")
        given = [item for item in tree_flatten((args, kwargs))[0] if isinstance(item, _Symbol)]
        for item in given:
            self.fresh(item)
        with torch.no_grad():
            made = func(*tree_map(_blank, args), **tree_map(_blank, kwargs))
        out = made[0] if isinstance(made, tuple) else made
        call = Call(func, tuple(args), kwargs, out, _Symbol)
        symbol = self.symbol(out, _Called(call, plain, self.layer, {id(item): item.node for item in given}))
        if inplace:
            target = args[0]
            if not isinstance(target, _Symbol) or target.shape != symbol.shape:
                raise Unsupported(f"{self.where} writes into a tensor by {name}")
            target.node = target.seen = target.memory[0] = symbol.node
            return target
        if plain in ALIASES:
            symbol.memory, symbol.seen = given[0].memory, given[0].seen
        return (symbol, *(self.stand_in(item, -1) for item in made[1:])) if isinstance(made, tuple) else symbol

    def graph(self, last: int) -> Graph:
        """The nodes on the way from the sample to the logits. They are built only now, as within a call autograd sees nothing of what
        is done with the weights."""
        nodes: dict[int, Node] = {0: Node(Input(self.shape, ()), ())}
        wanted = [last]
        while wanted:
            place = wanted.pop()
            called = self.calls[place]
            if place not in nodes and called is not None:
                nodes[place] = called.built()
                wanted += nodes[place].inputs
        return _chosen(nodes, sorted(nodes))


def _blank(item: Any) -> Any:
    return item.blank if isinstance(item, _Symbol) else item


@contextmanager
def _watched(module: nn.Module, tracer: _Tracer) -> Iterator[None]:
    """The tracer knows which module is running."""

    def leave(*_: Any) -> None:
        tracer.stack.pop()

    handles = []
    for path, part in module.named_modules():
        handles.append(part.register_forward_pre_hook(lambda *_, path=path: tracer.stack.append(path), prepend=True))
        handles.append(part.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode while inside; parameters keep their gradients, which `core.network.frozen` would take from them."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _chosen(nodes: Mapping[int, Node], kept: Sequence[int]) -> Graph:
    """Some nodes, numbered anew."""
    place = {old: new for new, old in enumerate(kept)}
    return Graph(tuple(replace(nodes[old], inputs=tuple(place[k] for k in nodes[old].inputs)) for old in kept))


def _folded(graph: Graph) -> Graph:
    """Scales moved into the weights beside them: batch normalisation into the convolution before it, normalisation into the one behind."""
    nodes, last = list(graph.nodes), len(graph.nodes) - 1
    gone: set[int] = set()

    def readers(place: int) -> list[int]:
        return [k for k, node in enumerate(nodes) if k not in gone and place in node.inputs]

    for place, node in enumerate(nodes):
        if not isinstance(node.op, Scale):
            continue
        (source,) = node.inputs
        inner = nodes[source].op
        if isinstance(inner, Weighted) and readers(source) == [place] and (made := inner.scaled(node.op.factor, node.op)) is not None:
            nodes[place] = Node(made, nodes[source].inputs, nodes[source].layer)
            gone.add(source)
    for place, node in enumerate(nodes):
        op, inputs = node.op, node.inputs
        while isinstance(op, Weighted) and isinstance(before := nodes[inputs[0]].op, Scale):
            made = op.scaling(before.factor, before)
            if made is None:
                break
            op, inputs = made, nodes[inputs[0]].inputs
        nodes[place] = Node(op, inputs, node.layer)
    unread = {place for place in range(1, last) if not readers(place)}
    while unread - gone:
        gone |= unread
        unread = {place for place in range(1, last) if place not in gone and not readers(place)}
    return _chosen(dict(enumerate(nodes)), [place for place in range(len(nodes)) if place not in gone])
