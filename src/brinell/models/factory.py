"""Networks made by a user's own function: `nets.py:build` or `package.module:build`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from brinell.core.errors import NetworkError
from brinell.core.place import place_of


def build_by_function(place: str, shape: tuple[int, ...] | None, classes: int | None) -> tuple[nn.Module, str]:
    """The module that the function at `FILE.py:FUNCTION` or `PACKAGE.MODULE:FUNCTION` returns, and the source text of its file.

    The function takes no arguments, or any of the keywords `shape` and `classes`. It is the user's own code and is run as such;
    a weights file is never allowed to name one. Modules beside a FILE.py can be imported by it; only the text of the file itself
    becomes part of the network's digest.

    Raises:
        NetworkError: the file, module or function does not exist or fails, or returns no `nn.Module`.
    """
    where, _, name = place.rpartition(":")
    beside = str(place_of(where, NetworkError).resolve().parent) if where.endswith(".py") else None
    with _importable(beside):
        module, source = _of_file(Path(where), place) if beside else _of_package(where, place)
        function = getattr(module, name, None)
        if not callable(function):
            own = [key for key, value in vars(module).items() if inspect.isroutine(value) and value.__module__ == module.__name__]
            raise NetworkError(f"{place}: {where} has no function {name!r}; it has {', '.join(own) or 'none'}")
        built = _call(function, place, shape, classes)
    if not isinstance(built, nn.Module):
        raise NetworkError(f"{place}() returned {type(built).__name__}; it must return a torch.nn.Module")
    return built, source


def _call(function: Callable[..., Any], place: str, shape: tuple[int, ...] | None, classes: int | None) -> Any:
    try:
        wanted = inspect.signature(function).parameters
    except (ValueError, TypeError) as error:
        raise NetworkError(f"{place} is not a Python function whose arguments can be read ({error}); write one that calls it") from error
    anything = any(part.kind is part.VAR_KEYWORD for part in wanted.values())
    known = {"shape": shape, "classes": classes}
    given = {key: value for key, value in known.items() if value is not None and (anything or key in wanted)}
    left = [
        part.name
        for part in wanted.values()
        if part.default is part.empty and part.kind not in (part.VAR_KEYWORD, part.VAR_POSITIONAL) and part.name not in given
    ]
    if left:
        raise NetworkError(
            f"{place} wants {', '.join(left)}, which is not known here; a factory takes no arguments, or the keywords "
            f"shape and classes (given with the data, or as load_network(..., shape=..., classes=...))"
        )
    try:
        return function(**given)
    except Exception as error:  # it is the user's function: whatever it raises is reported as its failure
        raise NetworkError(f"{place} failed: {type(error).__name__}: {error}") from error


def _of_file(file: Path, place: str) -> tuple[ModuleType, str]:
    if not file.is_file():
        raise NetworkError(f"{place}: there is no file {file} (seen from {Path.cwd()}); correct the path")
    source = file.read_text(encoding="utf-8", errors="replace")
    path = str(file.resolve())
    name = f"brinell_factory_{hashlib.blake2b(source.encode(), digest_size=8).hexdigest()}"  # no path: digests are the same elsewhere
    if name in sys.modules and sys.modules[name].__file__ == path:
        return sys.modules[name], source
    module = ModuleType(name)
    module.__file__ = path
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses and pickling look classes up there
    try:
        exec(compile(source, path, "exec"), module.__dict__)  # this very text, never a stale compiled file: the digest names it
    except Exception as error:  # the user's file may raise anything
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise NetworkError(f"{place}: running {file} failed: {type(error).__name__}: {error}") from error
    return module, source


def _of_package(where: str, place: str) -> tuple[ModuleType, str]:
    try:
        module = importlib.import_module(where)
    except Exception as error:  # a user's module may raise anything on import
        raise NetworkError(f"{place}: importing {where} failed: {type(error).__name__}: {error}") from error
    try:
        return module, inspect.getsource(module)
    except (OSError, TypeError):  # compiled modules and namespaces have no source text
        return module, ""


@contextmanager
def _importable(folder: str | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:  # the user's code may have tidied up
            sys.path.remove(folder)
