"""Recording: the outputs of a network's non-linearities, by name, during a forward pass.

Module hooks alone see nothing where a network calls `F.relu`, `torch.relu` or `x.relu()`, which most networks do. Here a
`TorchFunctionMode` sees every such call, and hooks on the modules say which module was running, so that the k-th
non-linearity inside module `layer1.0` is always called `layer1.0:k`. An `nn.ReLU` is a module of its own: `layer1.0.act:0`, and
`layer1.0.act:1` when it is used a second time. What the outermost module calls itself is named `root:k`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from brinell.core.errors import NetworkError
from brinell.core.network import module_of

KINDS: dict[str, tuple[Callable[..., Any], ...]] = {
    "relu": (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    "relu6": (F.relu6,),
    "leaky_relu": (F.leaky_relu, F.leaky_relu_),
    "prelu": (F.prelu, torch.prelu, Tensor.prelu),
    "elu": (F.elu, F.elu_),
    "celu": (F.celu, torch.celu, F.celu_, torch.celu_),
    "selu": (F.selu, torch.selu, F.selu_, torch.selu_),
    "gelu": (F.gelu,),
    "silu": (F.silu,),
    "mish": (F.mish,),
    "softplus": (F.softplus,),
    "hardtanh": (F.hardtanh, F.hardtanh_),
    "hardswish": (F.hardswish,),
    "tanh": (F.tanh, torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_),
    "sigmoid": (F.sigmoid, torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_),
}
"""The non-linearities that can be recorded, by name, with every way of calling them."""

_SILENT = {f"torch.nn.modules.{family}" for family in ("batchnorm", "container", "conv", "dropout", "flatten", "linear", "pooling")}
"""Where the modules are defined that call no non-linearity themselves, and need not be watched."""

_UNCOUNTED = (Tensor.data.__get__, Tensor.numpy, Tensor.__array__)  # pyright: ignore[reportAttributeAccessIssue]
"""What hands out memory of a tensor in which writes are not counted."""

_KIND_OF = {function: kind for kind, functions in KINDS.items() for function in functions}

Keep = Callable[[Tensor], Tensor]


def whole(activation: Tensor) -> Tensor:
    """The activation itself, copied: a later in-place operation of the network cannot change what was recorded."""
    return activation.clone()


def pooled(activation: Tensor) -> Tensor:
    """Mean over positions, (n, u): of maps (n, u, *positions), and of token sequences (n, t, u) over t."""
    if activation.ndim == 2:
        return activation.clone()
    return activation.mean(1) if activation.ndim == 3 else activation.flatten(2).mean(2)


def itself(activation: Tensor) -> Tensor:
    """The activation, not copied: maps are large, and copying them takes a good part of a pass. Ask `Recording.overwritten` afterwards."""
    return activation


class Recording(dict[str, Tensor]):
    """Recorded tensors by layer name, in the order of the forward pass; a second pass replaces the first.

    `kinds` says which non-linearity each layer is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kinds: dict[str, str] = {}
        self._pooled: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        self.exposed = False

    def add(self, name: str, kind: str, activation: Tensor) -> None:
        self[name], self.kinds[name] = activation, kind
        self._versions[name] = _version(activation)

    def overwritten(self) -> bool:
        """May somebody have written into a recorded tensor since? `itself` lends the network's own, and some networks work in place."""
        return self.exposed or any(_version(activation) != self._versions[name] for name, activation in self.items())

    def clear(self) -> None:
        super().clear()
        self._pooled.clear()
        self.exposed = False

    def pooled(self, name: str) -> Tensor:
        """The mean of a layer over positions, `pooled`; computed once, however many ask."""
        if name not in self._pooled:
            self._pooled[name] = pooled(self[name])
        return self._pooled[name]

    def pick(self, layers: tuple[str, ...], kinds: tuple[str, ...]) -> dict[str, Tensor]:
        """The layers whose names match and whose non-linearity is one of `kinds`.

        Raises:
            NetworkError: a name in `layers` matches nothing.
        """
        named = [name for name in self if self.kinds[name] in kinds]
        missing = [layer for layer in layers if not fnmatch.filter(named, layer)]
        if missing:
            raise NetworkError(f"no recorded layer is called {', '.join(missing)}; this network has {', '.join(named) or 'none'}")
        return {name: self[name] for name in named if not layers or any(fnmatch.fnmatchcase(name, layer) for layer in layers)}


class _Watch(TorchFunctionMode):
    def __init__(self, layers: tuple[str, ...], kinds: tuple[str, ...], keep: Keep, found: Recording) -> None:
        super().__init__()
        self.layers, self.kinds, self.keep, self.found = layers, kinds, keep, found
        self.stack: list[str] = []
        self.calls: dict[str, int] = {}
        self.names: list[str] = []
        self.rows = -1

    def begin(self, arguments: tuple[Any, ...]) -> None:
        """A forward pass of the outermost module starts."""
        self.stack, self.calls, self.names = [], {}, []
        self.found.clear()
        self.rows = next((len(a) for a in arguments if isinstance(a, Tensor) and a.ndim), -1)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _UNCOUNTED:
            self.found.exposed = True
        if isinstance(out, Tensor) and func in _KIND_OF and out.ndim > 1 and self.rows in (-1, len(out)):
            place = self.stack[-1] if self.stack and self.stack[-1] else "root"
            call = self.calls.get(place, 0)
            self.calls[place] = call + 1  # of all kinds: a name does not depend on which of them are recorded
            kind = "relu6" if _KIND_OF[func] == "hardtanh" and _zero_to_six(*args, **(kwargs or {})) else _KIND_OF[func]
            if kind in self.kinds:
                name = f"{place}:{call}"
                self.names.append(name)
                if not self.layers or any(fnmatch.fnmatchcase(name, layer) for layer in self.layers):
                    self.found.add(name, kind, self.keep(out))
        return out


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _zero_to_six(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> bool:  # noqa: A002 - as in torch
    """Is this hardtanh a ReLU6? `nn.ReLU6` calls it so."""
    return (min_val, max_val) == (0, 6)


@contextmanager
def record(
    net: Any, layers: tuple[str, ...] = (), *, kinds: tuple[str, ...] = ("relu",), keep: Keep = whole
) -> Iterator[Recording]:  # fmt: skip
    """Record the outputs of the non-linearities of every forward pass made inside the `with` block.

    Arguments:
        net: an `nn.Module`, or anything that holds one as `.module`.
        layers: names, or patterns such as `"layer1.*"`; () for all. kinds: keys of `KINDS`.
        keep: what is kept of each (n, u, *positions) output: `whole` (a copy), `itself` (no copy), or `pooled` ((n, u) means over
            positions).

    Raises:
        NetworkError: the network is compiled or scripted (its inner calls cannot be seen), a kind is unknown, or a name in
            `layers` matches nothing of the last pass.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with record(net) as activations:
        ...     out = net(torch.ones(5, 2))
        >>> {name: tuple(value.shape) for name, value in activations.items()}
        {'1:0': (5, 3)}
    """
    module = module_of(net)
    if module is None:
        raise NetworkError(f"cannot record {type(net).__name__}: it is not a torch.nn.Module and holds none as .module")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise NetworkError(f"cannot record {', '.join(unknown)}: the known non-linearities are {', '.join(KINDS)}")
    modules = list(module.named_modules())
    _refuse_compiled(modules)
    found = Recording()
    watch = _Watch(layers, kinds, keep, found)
    handles = []
    for path, part in modules:
        if path and type(part).__module__ in _SILENT and "forward" not in vars(part):
            continue
        handles.append(part.register_forward_pre_hook(_enter(watch, path), prepend=True))
        handles.append(part.register_forward_hook(_leave(watch), always_call=True))
    try:
        with watch:
            yield found
    finally:
        for handle in handles:
            handle.remove()
    missing = [layer for layer in layers if watch.names and not fnmatch.filter(watch.names, layer)]
    if missing:
        raise NetworkError(f"no recorded layer is called {', '.join(missing)}; this network has {', '.join(watch.names)}")


def _enter(watch: _Watch, path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not path:
            watch.begin(arguments)
        watch.stack.append(path)

    return hook


def _leave(watch: _Watch) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_: nn.Module, arguments: Any, out: Any) -> None:
        if watch.stack:
            watch.stack.pop()

    return hook


def _refuse_compiled(modules: list[tuple[str, nn.Module]]) -> None:
    for path, part in modules:
        where = f"module {path!r}" if path else "the network"
        compiled = hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None
        if compiled or hasattr(part.forward, "_torchdynamo_orig_callable"):
            raise NetworkError(
                f"cannot record {where}: it is compiled, and compiled code ignores hooks. Pass the module from before torch.compile "
                f"(compiled._orig_mod)"
            )
        if isinstance(part, torch.jit.ScriptModule):
            raise NetworkError(f"cannot record {where}: it is a TorchScript module; pass the nn.Module it was scripted from")
