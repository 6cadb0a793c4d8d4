"""Classifiers of torchvision, as `torchvision:NAME` (torchvision is never imported unless one is asked for)."""

from __future__ import annotations

import difflib
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import nn

from brinell.core.errors import NetworkError
from brinell.models.checkpoint import load_weights, read_weights
from brinell.models.extras import agreeing, imported, unfetched
from brinell.models.normalize import normalizing


def torchvision_network(
    name: str, *, trained: bool, shape: tuple[int, ...] | None, classes: int | None, download: bool
) -> tuple[nn.Module, tuple[str, ...]]:  # fmt: skip
    """A classifier of torchvision behind the normalisation of its published weights, so that it takes images in [0, 1], and notes.

    Arguments:
        name: of torchvision's list, such as `resnet18`. trained: with the published weights (its default ones); else random ones,
            for weights that follow. shape, classes: of the data, checked against the network.
        download: published weights that are not in torch's cache on this machine may be fetched.

    Raises:
        NetworkError: torchvision is missing or does not go with this torch, knows no such classifier, the network does not go with
            the data, or its weights are not here. WeightsError: their file is damaged.
    """
    place = f"torchvision:{name}"
    models = imported(place, "torchvision", "models").models
    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or ["resnet18", "convnext_tiny"]
        raise NetworkError(f"{place}: torchvision has no classifier of that name; it has {', '.join(near)} and {len(known)} in all")
    published = models.get_model_weights(name).DEFAULT
    frame = published.transforms()
    try:
        module = models.get_model(name, weights=None, **({} if trained or classes is None else {"num_classes": classes}))
    except Exception as error:  # whatever a constructor raises
        raise NetworkError(f"{place}: torchvision cannot make this network: {type(error).__name__}: {error}") from error
    if trained:
        agreeing(place, len(published.meta["categories"]), classes)
    if shape is not None and shape[0] != len(frame.mean):
        raise NetworkError(f"{place} takes images with {len(frame.mean)} channels; the data has shape {shape}")
    (resize, *_), (crop, *_) = frame.resize_size, frame.crop_size
    notes = [f"images as torchvision makes them: resize={resize}, crop={crop}, interpolation={frame.interpolation.value}"]
    notes += [f"normalised inside the network, mean={tuple(frame.mean)}, std={tuple(frame.std)}"]
    if trained:
        file = _weights(place, published.url, download)
        notes += [f"torchvision's published weights ({published})", *load_weights(module, read_weights(file)[0], file, place)]
    return normalizing(module, frame.mean, frame.std), tuple(notes)


def _weights(place: str, url: str, download: bool) -> Path:
    """The file of the published weights in torch's cache."""
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    if file.exists():
        return file
    if not download:
        raise unfetched(place, f"the file of torchvision's published weights ({file.name})")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rpartition("-")[2], progress=False)
    except Exception as error:  # errors of the network are of many kinds
        raise NetworkError(f"{place}: {url} cannot be fetched: {type(error).__name__}: {error}") from error
    return file
