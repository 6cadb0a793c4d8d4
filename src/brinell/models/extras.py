"""Optional packages: imported when a network asks for them, and their absence or failure said in one sentence."""

from __future__ import annotations

import importlib
import sys
from importlib import util
from typing import Any

import torch

from brinell.core.errors import NetworkError

EXTRA = "pip install 'brinell[models]'"


def imported(place: str, package: str, *inner: str) -> Any:
    """A package with some of its modules, once torchvision beside it, which it may import, is known to be sound.

    Published builds of torchvision hold compiled code for one build of torch and fail to import beside any other, and take down
    what imports them; so torchvision is tried first and named where it is the cause.

    Arguments:
        place: the spec that asks, for the message. package: its name. inner: modules of it that are needed.

    Raises:
        NetworkError: the package is not installed, or it or torchvision fails to import.
    """
    if util.find_spec("torchvision") is not None:
        _tried(place, "torchvision", ())
    return _tried(place, package, inner)


def _tried(place: str, package: str, inner: tuple[str, ...]) -> Any:
    before = set(sys.modules)
    try:
        module = importlib.import_module(package)
        for name in inner:
            importlib.import_module(f"{package}.{name}")
    except Exception as error:  # what a package does on import may fail in any way
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == package:
                sys.modules.pop(name)  # a half-imported package would fail in another way the next time
        raise NetworkError(f"{place} needs {package}, {_fact(package, error)}") from error
    return module


def _fact(package: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and (error.name or package).partition(".")[0] == package:
        return f"which is not installed: {EXTRA}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"which does not import without {error.name!r}; pip install {error.name}"
    said = " ".join(str(error).split())[:200]
    remedy = f"install {package} again"
    if package == "torchvision":
        remedy = (
            f"install the torchvision made for torch {torch.__version__}, from where that torch came from (https://pytorch.org), or "
            f"uninstall it where only hf: is used"
        )
    return f"which is installed but fails to import ({type(error).__name__}: {said}); {remedy}"


def agreeing(place: str, outputs: int | None, classes: int | None) -> None:
    """Refuse a trained network with another number of classes than the data.

    Raises:
        NetworkError: both are known and differ.
    """
    if classes is not None and outputs is not None and outputs != classes:
        raise NetworkError(
            f"{place} was trained to tell {outputs} classes apart, but the data has {classes}. Measure it on data of its own classes, "
            f"or give weights trained on these {classes} (--weights FILE)"
        )


def unfetched(place: str, what: str) -> NetworkError:
    """The error for published weights that are not on this machine and that nobody asked to fetch."""
    return NetworkError(
        f"{place}: {what} is not on this machine, and nothing is fetched unasked. To let it be downloaded, say so (--download, or "
        f"load_network(..., download=True)), or give the weights (--weights FILE)"
    )
