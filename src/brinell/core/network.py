"""Networks: a plain `nn.Module` with the recipe that rebuilds it and a digest that names it."""

from __future__ import annotations

import copy
import hashlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from brinell.core.component import Component, walk
from brinell.core.errors import NetworkError


class Architecture(Component):
    """A component that builds an untrained network: `resnet20(shortcut=A)`. Channels and classes come from the data."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A freshly initialised module for inputs of `shape` and `classes` outputs; uses torch's random state."""
        raise TypeError(f"{type(self).__name__} does not say how it is built")


class NetReference(Component, name="net"):
    """A network of the lab by its name, as a field of another item: `transfer(source=net(standard))`.

    Raises:
        NetworkError: it is asked for its network outside a lab, or no network of that name is measured.

    Example:
        >>> NetReference(label="standard").spec()
        'net(standard)'
    """

    positional = ("label",)
    label: str = Field(min_length=1)
    _network: Any = PrivateAttr(default=None)

    @property
    def network(self) -> Network:
        """The network itself, once a lab has put it in place."""
        if self._network is None:
            raise NetworkError(f"{self.spec()} stands for a network of a run; let a lab measure it together with a network {self.label!r}")
        return self._network


def with_networks(item: Any, networks: Mapping[str, Network]) -> Any:
    """A component whose references `net(NAME)`, at any depth, hold the networks of these names.

    Raises:
        NetworkError: there is none of a name.
    """
    if isinstance(item, tuple):
        return tuple(with_networks(part, networks) for part in item)
    if not isinstance(item, Component) or not any(isinstance(part, NetReference) for part in walk(item)):
        return item
    if not isinstance(item, NetReference):
        return item.model_copy(update={field: with_networks(getattr(item, field), networks) for field in type(item).model_fields})
    if item.label not in networks:
        raise NetworkError(f"{item.spec()}: no network of this run is called {item.label!r}; there are {', '.join(networks)}")
    twin = item.model_copy()
    twin._network = networks[item.label]
    return twin


class Network:
    """A module, the text that rebuilds its structure, and notes on how it came to be.

    Arguments:
        module: any `nn.Module` that maps (n, *shape) inputs to (n, K) logits.
        recipe: a spec, `file.py:function`, `package.module:function`, or the class name of a live module.
        notes: what a report must say (random weights, removed prefixes).
        source: source text of a user's factory, part of the digest.
        shape, classes: of one input, and K, where they are known: what the recipe needs besides itself to be built again.

    Raises:
        NetworkError: module is no `nn.Module`.

    Example:
        >>> net = Network(nn.Linear(4, 3))
        >>> net.recipe, tuple(net(torch.zeros(2, 4)).shape)
        ('torch.nn.modules.linear.Linear', (2, 3))
    """

    def __init__(
        self,
        module: nn.Module,
        recipe: str = "",
        notes: tuple[str, ...] = (),
        source: str = "",
        *,
        shape: tuple[int, ...] | None = None,
        classes: int | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise NetworkError(f"a network must be a torch.nn.Module; got {type(module).__name__}")
        self.module, self.notes, self.source = module, notes, source
        self.shape, self.classes = shape, classes
        self.recipe = recipe or f"{type(module).__module__}.{type(module).__qualname__}"

    def __call__(self, x: Tensor) -> Tensor:
        try:
            output = self.module(x)
        except RuntimeError as error:
            self._explain(x, error)
            raise
        if not isinstance(output, Tensor):
            told = f"logits are {_place_of_logits(output, x, self.recipe)[0]} of the {type(output).__name__} it returns"
            if told not in self.notes:
                self.notes = (*self.notes, told)
        return logits_of(output, x, self.recipe)

    def _explain(self, x: Tensor, error: RuntimeError) -> None:
        """Say it where a pass fails because the weights are of another type than the samples."""
        kinds = {p.dtype for p in self.module.parameters() if p.is_floating_point()}
        if kinds and x.dtype not in kinds and "dtype" in str(error).lower().replace("scalar type", "dtype"):
            held = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
            raise NetworkError(
                f"{self.recipe} holds {held} weights and fails on {str(x.dtype).removeprefix('torch.')} samples ({error}). Pass "
                f"module.float(), or a module that converts its input and its logits itself"
            ) from error

    @property
    def digest(self) -> str:
        """Names the function computed: recipe, source of a user's factory, every part's class and settings, every parameter and buffer.

        Two modules of equal weights but other parts (ReLU, Tanh), settings (stride) or class source have other digests. What a
        module keeps neither in its state nor in its `extra_repr` (a global, a closure) cannot be seen.
        """
        state = hashlib.blake2b(f"{self.recipe}\0{self.source}\0".encode(), digest_size=16)
        for name, part in self.module.named_modules():
            settings = re.sub(r" at 0x[0-9a-f]+", "", part.extra_repr())  # addresses differ from run to run
            state.update(f"{name}\0{type(part).__module__}.{type(part).__qualname__}\0{settings}\0".encode())
        for cls in sorted({type(part) for part in self.module.modules()}, key=lambda cls: (cls.__module__, cls.__qualname__)):
            state.update(_source_of(cls).encode())
        buffers = dict(self.module.named_buffers(remove_duplicate=False))  # those that are not saved count too
        for name, value in {**self.module.state_dict(), **buffers}.items():
            if isinstance(value, Tensor):
                plain = value.detach().cpu().contiguous()
                state.update(f"{name}\0{plain.dtype}\0{tuple(plain.shape)}\0".encode())
                state.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
        return state.hexdigest()

    def frozen_copy(self, device: torch.device | str = "cpu") -> Network:
        """A copy for measuring: evaluation mode, no parameter gradients, channels-last where it has 4-D weights."""
        try:
            module = copy.deepcopy(self.module)
        except Exception as error:  # modules may hold anything: locks, generators, graphs
            raise NetworkError(f"{self.recipe} cannot be copied ({error}); pass a module that copy.deepcopy accepts") from error
        module = module.to(device).eval().requires_grad_(False)
        if any(p.ndim == 4 for p in module.parameters()):
            module = module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return Network(module, self.recipe, self.notes, self.source, shape=self.shape, classes=self.classes)


@lru_cache(maxsize=1024)
def _source_of(cls: type) -> str:
    """The source text of a class; nothing for torch's own, whose names say it all, and for classes without a file."""
    if cls.__module__.split(".")[0] == "torch":
        return ""
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        return ""


def logits_of(output: Any, x: Tensor, recipe: str = "the network") -> Tensor:
    """The (n, K) logits in whatever a network returns: a tensor, an entry or attribute `logits`, or the one (n, K) tensor of a tuple.

    Half precision (float16, bfloat16) becomes float32, so that what is computed from them does not overflow.

    Raises:
        NetworkError: there are none, or several tensors that could be them; their shape is not (n, K) with K >= 2, or they are not
            real floating-point numbers.
    """
    found = output if isinstance(output, Tensor) else _place_of_logits(output, x, recipe)[1]
    if found.ndim != 2 or found.shape[0] != len(x) or found.shape[1] < 2:
        raise NetworkError(f"{recipe} returned shape {tuple(found.shape)} for {len(x)} inputs; expected ({len(x)}, K) with K >= 2 classes")
    if found.device != x.device:
        raise NetworkError(f"{recipe} returned logits on {found.device} for inputs on {x.device}; it must answer where it is asked")
    if not found.is_floating_point() or found.layout != torch.strided:
        raise NetworkError(
            f"{recipe} returned {found.dtype} numbers ({found.layout}); expected logits, real floating-point numbers before any argmax"
        )
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) and not torch.is_autocast_enabled(found.device.type) else found


def answered(logits: Tensor) -> Tensor:
    """(n,) whether a row of (n, K) logits is an answer: without NaN and +inf, and not -inf ("never this class") throughout.

    Example:
        >>> answered(torch.tensor([[0.0, -torch.inf], [torch.nan, 1], [1, torch.inf], [-torch.inf, -torch.inf]])).tolist()
        [True, False, False, False]
    """
    return logits.amax(1).isfinite()  # NaN passes through the maximum


def _place_of_logits(output: Any, x: Tensor, recipe: str) -> tuple[str, Tensor]:
    """Where the logits are in what is no tensor, in words, and themselves."""
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(named, Tensor):
        return "the entry 'logits'", named
    entries = dict(output) if isinstance(output, Mapping) else dict(enumerate(output)) if isinstance(output, tuple | list) else {}
    alike = [key for key, value in entries.items() if isinstance(value, Tensor) and value.ndim == 2 and value.shape[0] == len(x)]
    if len(alike) == 1 and not isinstance(output, Mapping):  # the one of another name may hold anything, probabilities above all
        return f"entry {alike[0]}", entries[alike[0]]
    held = ", ".join(
        f"{key}: {tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}" for key, value in entries.items()
    )
    raise NetworkError(
        f"{recipe} returned {type(output).__name__} ({held[:300] or 'no entries'}); expected (n, K) logits alone, under the name 'logits', "
        f"or in a tuple as its only (n, K) tensor"
    )


def module_of(net: Any) -> nn.Module | None:
    """The `nn.Module` behind a network, a counted network, or a plain module."""
    while net is not None and not isinstance(net, nn.Module):
        net = getattr(net, "module", None)
    return net


class Counted:
    """A network that counts the samples it has been passed forwards and backwards, and never computes known logits again."""

    def __init__(self, net: Callable[[Tensor], Tensor]) -> None:
        self.net, self.module = net, module_of(net)
        self.forwards = self.backwards = 0
        self._known: tuple[Tensor, int, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self._known is not None and not x.requires_grad:
            clean, version, logits = self._known
            if (x.data_ptr(), x._version, x.shape) == (clean.data_ptr(), version, clean.shape):
                return logits
        self.forwards += len(x)
        out = logits_of(self.net(x), x)
        if out.requires_grad:
            n = len(x)

            def count(_: Tensor) -> None:
                self.backwards += n

            out.register_hook(count)
        return out

    def remember(self, x: Tensor, logits: Tensor) -> None:
        """The logits at the clean batch `x`: a later call on that very tensor returns them without a pass."""
        self._known = (x.detach(), x._version, logits)  # held: a batch made later must not take its place in memory

    def reset(self) -> tuple[int, int]:
        """The counts so far, which start again from zero."""
        counts, self.forwards, self.backwards = (self.forwards, self.backwards), 0, 0
        return counts


@contextmanager
def frozen(net: Any) -> Iterator[None]:
    """Evaluation mode and no parameter gradients while inside; every module and parameter is put back as it was."""
    module = module_of(net)
    if module is None:
        yield
        return
    training = [part for part in module.modules() if part.training]
    learning = [p for p in module.parameters() if p.requires_grad]
    for part in training:
        part.training = False
    for p in learning:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for part in training:
            part.training = True
        for p in learning:
            p.requires_grad_(True)
