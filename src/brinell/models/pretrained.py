"""Networks of the timm collection, as `timm:NAME` (extra `models`)."""

from __future__ import annotations

import importlib
import re
from typing import Any

from torch import nn

from brinell.core.errors import NetworkError
from brinell.models.normalize import normalizing

_NAME = re.compile(r"[A-Za-z0-9_.]+\Z")


def timm_network(name: str, *, pretrained: bool, shape: tuple[int, ...] | None, classes: int | None) -> tuple[nn.Module, tuple[str, ...]]:
    """A network of timm behind its own normalisation, so that it takes images in [0, 1], and notes on how it wants them.

    Arguments:
        name: of timm's registry, such as `resnet50.a1_in1k`; other sources that timm knows (hubs, folders) are refused, as they
            would choose code or files. pretrained: with timm's published weights, which timm downloads; else random ones.
        shape: of the data, checked against the channels the network takes. classes: of the data; pretrained heads must agree.

    Raises:
        NetworkError: timm is missing or does not import, knows no such name, or the network does not go with the data.
    """
    place = f"timm:{name}"
    if not _NAME.match(name):
        raise NetworkError(f"{place}: {name!r} is not a name of timm's registry, such as resnet50.a1_in1k")
    timm = _timm(place)
    own_head = {} if pretrained or classes is None else {"num_classes": classes}
    try:
        module = timm.create_model(name, pretrained=pretrained, **own_head)
    except Exception as error:  # timm raises RuntimeError, network errors, or whatever a model's constructor does
        raise NetworkError(f"{place}: timm cannot make this network: {error}") from error
    outputs = getattr(module, "num_classes", None)
    if classes is not None and outputs is not None and outputs != classes:
        raise NetworkError(
            f"{place} was trained to tell {outputs} classes apart, but the data has {classes}. Measure it on data of its own classes, "
            f"or give weights trained on these {classes} (--weights FILE)"
        )
    config = timm.data.resolve_model_data_config(module)
    size, mean, std = tuple(config["input_size"]), tuple(config["mean"]), tuple(config["std"])
    if shape is not None and shape[0] != len(mean):
        raise NetworkError(f"{place} takes images with {len(mean)} channels; the data has shape {shape}")
    wants = f"expects {' x '.join(map(str, size))} inputs ({config.get('interpolation', 'bicubic')}, crop {config.get('crop_pct', 1.0):g})"
    notes = [f"{place} {wants}" if shape in (None, size) else f"{place} {wants}; the data has {' x '.join(map(str, shape))}"]
    notes += [f"normalised inside the network, mean={mean}, std={std}", *(["timm's published weights"] if pretrained else [])]
    return normalizing(module, mean, std), tuple(notes)


def _timm(place: str) -> Any:
    try:
        timm = importlib.import_module("timm")
        importlib.import_module("timm.data")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != "timm":
            raise NetworkError(f"{place} needs timm, which does not import without {error.name!r}; pip install {error.name}") from error
        raise NetworkError(f"{place} needs timm, which is not installed: pip install 'brinell[models]'") from error
    except Exception as error:  # timm imports torchvision, whose compiled part fails in many ways beside another torch
        raise NetworkError(
            f"{place} needs timm, which is installed but fails to import ({type(error).__name__}: {error}); "
            f"timm needs a torchvision built for this torch"
        ) from error
    return timm
