"""Items on their way to another process: classes of a user's own files travel with them, not only by their names."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from brinell.core.component import Component, walk
from brinell.core.network import NetReference, Network


class Portable:
    """Holds an item; what is unpickled is the item itself.

    Example:
        >>> import pickle
        >>> pickle.loads(pickle.dumps(Portable((lambda x: x + 1, 3))))[1]
        3
    """

    def __init__(self, item: Any) -> None:
        self.item = item

    def __reduce__(self) -> Any:
        import cloudpickle

        own = {module.__name__: module for module in _own_modules(self.item)}
        for module in own.values():
            cloudpickle.register_pickle_by_value(module)
        try:
            return _unpacked, (cloudpickle.dumps(self.item),)
        finally:
            for module in own.values():
                cloudpickle.unregister_pickle_by_value(module)


def _unpacked(body: bytes) -> Any:
    import cloudpickle

    return cloudpickle.loads(body)


def _own_modules(item: Any) -> Iterator[ModuleType]:
    """The modules of a network's classes that a worker cannot be expected to have: those of no installed package."""
    installed = {Path(path).resolve() for name, path in sysconfig.get_paths().items() if "lib" in name}
    ours = Path(__file__).resolve().parents[1]
    for net in _networks_of(item):
        for kind in {type(part) for part in net.module.modules()}:
            module = sys.modules.get(kind.__module__)
            file = getattr(module, "__file__", None)
            if module is not None and file and not {ours, *installed} & set(Path(file).resolve().parents):
                yield module


def _networks_of(item: Any) -> Iterator[Network]:
    if isinstance(item, Network):
        yield item
    elif isinstance(item, tuple):
        for part in item:
            yield from _networks_of(part)
    elif isinstance(item, Component):
        yield from (part.network for part in walk(item) if isinstance(part, NetReference))
