"""What users may pass to the lab, turned into what it works with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from brinell.core.component import parse
from brinell.core.dataset import Dataset, Source, load_dataset
from brinell.core.errors import DataError, NetworkError, SpecError
from brinell.core.network import Network
from brinell.engine.local import Executor, Local


def as_networks(nets: Any) -> dict[str, Network]:
    """Networks by name from a network, a module, or a mapping of them."""
    named = nets if isinstance(nets, Mapping) else {"net": nets}
    if not named:
        raise NetworkError("no network was given; pass a module, or a dict of modules by name")
    wrapped = {}
    for name, net in named.items():
        if not isinstance(net, Network | nn.Module):
            what = f"the text {net!r}" if isinstance(net, str) else type(net).__name__
            raise NetworkError(f"network {name!r} is {what}; pass an nn.Module or what brinell.load_network returns")
        wrapped[str(name)] = net if isinstance(net, Network) else Network(net)
    return wrapped


def as_dataset(data: Any) -> Dataset:
    """A dataset from itself, a source, a spec, or a pair (x, y)."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Source):
        return load_dataset(data)
    if isinstance(data, tuple | list) and len(data) == 2:
        return Dataset.from_arrays(*data)
    raise DataError(f"data must be a Dataset, a spec such as 'digits(side=32)', or a pair (x, y); got {type(data).__name__}")


def pick_device(name: str) -> torch.device:
    """The device of this name; `auto` takes cuda, then mps, then cpu.

    Raises:
        SpecError: there is no such device here.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, found in there.items() if found))
    kind = name.partition(":")[0]
    if not there.get(kind, False):
        here = ", ".join(kind for kind, found in there.items() if found)
        raise SpecError(f"device {name!r} is not available here; use one of: auto, {here}")
    count = {"cuda": torch.cuda.device_count, "mps": lambda: 1, "cpu": lambda: 1}[kind]()
    number = name.partition(":")[2]
    if name != kind and not (number.isdecimal() and int(number) < count):
        raise SpecError(f"device {name!r} is not available here; {kind} devices number from 0 to {count - 1}")
    return torch.device(name)


def pick_executor(
    name: str, address: str | None = None, *, cpus: float = 1.0, gpus: float = 0.0, device: str | torch.device = "cpu"
) -> Executor:
    """The executor of this name, `local` or `ray`; the local one takes all CUDA devices there are where `device` is `cuda` or `auto`.

    Raises:
        SpecError: there is none of this name, or what was asked of it cannot be.
    """
    if name == "ray":
        from brinell.engine.ray import Ray

        return Ray(address, cpus=cpus, gpus=gpus)
    if name != "local":
        raise SpecError(f"no executor is called {name!r}; choose local or ray")
    if address is not None:
        raise SpecError(f"the local executor has no address, but {address!r} was given; choose --executor ray")
    chosen = pick_device(str(device))
    if chosen == torch.device("cuda") and torch.cuda.device_count() > 1:
        from brinell.engine.devices import Devices

        return Devices([f"cuda:{number}" for number in range(torch.cuda.device_count())])
    return Local()


def as_component(kind: type[Any], item: Any) -> Any:
    """A component of this kind from itself or its spec."""
    if isinstance(item, str):
        return parse(item, kind)
    if not isinstance(item, kind):
        raise SpecError(f"{item!r} is no {kind.__name__.lower()}; pass a component or its spec")
    return item
