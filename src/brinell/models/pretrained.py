"""Networks of the timm collection, as `timm:NAME` (extra `models`)."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from torch import nn

from brinell.core.errors import NetworkError
from brinell.models.extras import agreeing, imported, unfetched
from brinell.models.normalize import normalizing

_NAME = re.compile(r"[A-Za-z0-9_.]+\Z")


def timm_network(
    name: str, *, trained: bool, shape: tuple[int, ...] | None, classes: int | None, download: bool
) -> tuple[nn.Module, tuple[str, ...]]:  # fmt: skip
    """A network of timm behind its own normalisation, so that it takes images in [0, 1], and notes on how it wants them.

    Arguments:
        name: of timm's registry, such as `resnet50.a1_in1k`; other sources that timm knows (hubs, folders) are refused, as they
            would choose code or files. trained: with timm's published weights; else random ones, for weights that follow.
        shape: of the data, checked against the channels the network takes. classes: of the data; published heads must agree.
        download: published weights that are not in the cache of this machine may be fetched.

    Raises:
        NetworkError: timm is missing or does not import, knows no such name, the network does not go with the data, or its
            weights are not here.
    """
    place = f"timm:{name}"
    if not _NAME.match(name):
        raise NetworkError(f"{place}: {name!r} is not a name of timm's registry, such as resnet50.a1_in1k")
    timm = imported(place, "timm", "data")
    if not timm.is_model(name):
        raise NetworkError(f"{place}: timm has no network of that name; `timm.list_models()` shows all")
    own_head = {} if trained or classes is None else {"num_classes": classes}
    try:
        file = str(_weights(timm, place, name, download)) if trained else ""
        published = {"pretrained_cfg_overlay": {"file": file, "custom_load": False}} if trained else {}
        module = timm.create_model(name, pretrained=trained, **published, **own_head)
    except NetworkError:
        raise
    except Exception as error:  # timm raises RuntimeError, or whatever a model's constructor or a damaged file does
        raise NetworkError(f"{place}: timm cannot make this network: {error}") from error
    agreeing(place, getattr(module, "num_classes", None), classes)
    config = timm.data.resolve_model_data_config(module)
    size, mean, std = tuple(config["input_size"]), tuple(config["mean"]), tuple(config["std"])
    if shape is not None and shape[0] != len(mean):
        raise NetworkError(f"{place} takes images with {len(mean)} channels; the data has shape {shape}")
    filtering, crop = config.get("interpolation", "bicubic"), config.get("crop_pct", 1.0)
    wants = f"expects {' x '.join(map(str, size))} inputs ({filtering}, crop {crop:g})"
    notes = [f"{place} {wants}" if shape in (None, size) else f"{place} {wants}; the data has {' x '.join(map(str, shape))}"]
    notes += [f"images as timm makes them: resize={math.floor(size[-1] / crop)}, crop={size[-1]}, interpolation={filtering}"]
    notes += [f"normalised inside the network, mean={mean}, std={std}", *(["timm's published weights"] if trained else [])]
    return normalizing(module, mean, std), tuple(notes)


def _weights(timm: Any, place: str, name: str, download: bool) -> Path:
    """The file of the published weights, in the cache of the Hugging Face hub."""
    config = timm.get_pretrained_cfg(name)
    repository = getattr(config, "hf_hub_id", None)
    if not repository:
        raise NetworkError(f"{place}: timm publishes no weights for it on the Hugging Face hub; give --weights FILE")
    hub = imported(place, "huggingface_hub")
    files = (config.hf_hub_filename,) if config.hf_hub_filename else ("model.safetensors", "pytorch_model.bin")
    cached = (hub.try_to_load_from_cache(repository, file) for file in files)
    found = next((file for file in cached if isinstance(file, str)), None)
    if found is not None:
        return Path(found)
    if download:
        return Path(hub.hf_hub_download(repository, next(file for file in files if hub.file_exists(repository, file))))
    raise unfetched(place, f"the file of timm's published weights ({repository})")
