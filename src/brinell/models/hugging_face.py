"""Image classifiers of Hugging Face transformers, as `hf:DIRECTORY` or `hf:OWNER/NAME` (extra `models`)."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brinell.core.errors import NetworkError, WeightsError
from brinell.core.place import place_of
from brinell.models.checkpoint import read_safetensors
from brinell.models.extras import agreeing, imported, unfetched
from brinell.models.normalize import normalizing

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?\Z")
_FILES = ("config.json", "preprocessor_config.json", "model.safetensors.index.json", "model*.safetensors")
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}  # Pillow's numbers
_PREPARED = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}
_CODE = ("auto_map", "attn_implementation", "_attn_implementation", "quantization_config", "experts_implementation")
"""Entries of a configuration that name code, kernels or back ends to be used; they are left out."""


def hugging_face_network(
    name: str, *, trained: bool, shape: tuple[int, ...] | None, classes: int | None, download: bool
) -> tuple[nn.Module, tuple[str, ...]]:  # fmt: skip
    """An image classifier behind its processor's rescaling and normalisation, so that it takes images in [0, 1], and notes.

    The directory holds what `save_pretrained` writes: `config.json`, `preprocessor_config.json`, and weights as safetensors in one
    file or in parts. Only classes of the installed transformers are built, never code beside the weights; of several files of
    weights only such as lie in the directory itself are read. The network computes in float32 with plain attention, whose gradients
    exist to any order.

    Arguments:
        name: a directory, or a name on the Hugging Face hub that is looked up in the cache of this machine. trained: with its
            weights; else random ones, for weights that follow. shape, classes: of the data, checked against the network.
        download: a name that is not in the cache may be fetched.

    Raises:
        NetworkError: transformers is missing or does not import; there is no such directory or name; the files describe no image
            classifier, or steps before it that brinell does not do; the network does not go with the data.
        WeightsError: the weights are missing, unsafe, damaged, or do not fit the configuration.
    """
    place = f"hf:{name}"
    imported(place, "transformers")
    folder = _folder(place, name, download)
    about, prepares = _json(place, folder / "config.json"), _json(place, folder / "preprocessor_config.json")
    if trained is False and classes is not None:
        about |= {"id2label": {str(k): f"LABEL_{k}" for k in range(classes)}, "label2id": {f"LABEL_{k}": k for k in range(classes)}}
    with _quiet():
        config, maker = _class(place, about)
        state = weights_in(place, folder) if trained else None
        module = _made(place, maker, config, state)
        mean, std, told = _preparation(place, folder, prepares)
    agreeing(place, getattr(config, "num_labels", None), classes)
    if shape is not None and shape[0] != len(mean):
        raise NetworkError(f"{place} takes images with {len(mean)} channels; the data has shape {shape} (mode=rgb makes three of one)")
    said = ", ".join(f"{number}={text}" for number, text in list(dict(config.id2label).items())[:3])
    notes = [told, "logits are the entry 'logits' of what it returns", f"its labels begin {said}; the data must number its classes so"]
    return normalizing(module, mean, std), (*notes, *([f"weights of {folder}"] if trained else []))


def _folder(place: str, name: str, download: bool) -> Path:
    folder = place_of(name, NetworkError)
    if folder.is_dir():
        return folder
    if not _NAME.match(name):
        raise NetworkError(f"{place}: there is no directory {name!r} (seen from {Path.cwd()}), and it is no name such as OWNER/NAME")
    hub = imported(place, "huggingface_hub", "errors")
    try:
        return Path(hub.snapshot_download(name, local_files_only=not download, allow_patterns=list(_FILES)))
    except hub.errors.LocalEntryNotFoundError as error:
        raise unfetched(place, f"neither a directory {name} nor a network of that name in the cache") from error
    except Exception as error:  # the hub answers with errors of many kinds
        raise NetworkError(f"{place} cannot be fetched: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


def _json(place: str, file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        what = "is missing" if not file.exists() else f"cannot be read ({error})"
        raise NetworkError(f"{place}: {file} {what}; give a directory that save_pretrained of network and processor wrote") from error
    if not isinstance(found, dict):
        raise NetworkError(f"{place}: {file} holds a {type(found).__name__}, not the settings that save_pretrained writes")
    return found


def _class(place: str, about: dict[str, Any]) -> tuple[Any, Any]:
    """The configuration, and the class of image classifiers that goes with it."""
    configurations = import_module("transformers.models.auto.configuration_auto").CONFIG_MAPPING
    classifiers = import_module("transformers.models.auto.modeling_auto").MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    kind = about.get("model_type")
    if not isinstance(kind, str) or kind not in configurations:
        raise NetworkError(f"{place}: transformers has no networks of type {str(kind)[:60]!r}; code beside the weights is not run")
    try:
        config = configurations[kind].from_dict({key: value for key, value in about.items() if key not in _CODE})
        return config, classifiers[type(config)]
    except KeyError as error:
        raise NetworkError(f"{place}: transformers has no image classifier of type {kind!r}") from error
    except Exception as error:  # whatever the checks of a configuration raise
        raise NetworkError(f"{place}: its config.json is refused: {_line(error)}") from error


def weights_in(place: str, folder: Path) -> dict[str, Tensor]:
    """All tensors of `model.safetensors`, or of the parts that `model.safetensors.index.json` names.

    Raises:
        WeightsError: there are none, they are damaged, or the index names something else than files of this directory.
    """
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        whole = folder / "model.safetensors"
        if not whole.exists():
            raise WeightsError(f"{place}: {whole} is missing; other forms of weights can hold code: save_pretrained writes this one")
        return read_safetensors(whole)[0]
    parts = _json(place, index).get("weight_map")
    if not isinstance(parts, dict) or not parts or not all(isinstance(part, str) for part in parts.values()):
        raise WeightsError(f"{place}: {index} maps no names of weights to files")
    strange = [part for part in parts.values() if Path(part).name != part or not part.endswith(".safetensors") or "\0" in part]
    if strange:
        raise WeightsError(
            f"{place}: {index} names {strange[0][:80]!r}, which is no .safetensors file of its own directory; nothing was read"
        )
    return {name: value for part in sorted(set(parts.values())) for name, value in read_safetensors(folder / part)[0].items()}


def _made(place: str, maker: Any, config: Any, state: dict[str, Tensor] | None) -> nn.Module:
    plain: dict[str, Any] = {"attn_implementation": "eager", "dtype": torch.float32}
    try:
        if state is None:
            return maker._from_config(config, **plain)
        module, told = maker.from_pretrained(None, config=config, state_dict=state, output_loading_info=True, **plain)
    except Exception as error:  # constructors and loaders raise errors of many kinds, on hostile settings above all
        raise WeightsError(f"{place}: transformers cannot build this network: {_line(error)}") from error
    wrong = {kind: sorted(map(str, told.get(f"{kind}_keys", ()))) for kind in ("missing", "unexpected", "mismatched")}
    listed = "; ".join(f"{len(names)} {kind} ({', '.join(names[:5])})" for kind, names in wrong.items() if names)
    if listed or told.get("error_msgs"):
        raise WeightsError(f"{place}: its weights do not fit its config.json: {listed or told['error_msgs']}. Get both files again")
    broken = [name for name, value in module.state_dict().items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise WeightsError(f"{place}: {len(broken)} of its tensors are not finite ({', '.join(broken[:5])}); the file is damaged")
    return module


def _preparation(place: str, folder: Path, prepares: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Mean and standard deviation for images in [0, 1], and how its processor makes them."""
    try:
        processor = import_module("transformers").AutoImageProcessor.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        given = {key: value for key, value in processor.to_dict().items() if value is not None}
    except Exception as error:  # settings of other versions, unknown processors
        raise NetworkError(f"{place}: its preprocessor_config.json is refused: {_line(error)}") from error
    more = sorted(key for key in given | prepares if key.startswith("do_") and key not in _PREPARED and (given | prepares)[key])
    if more or given.get("rescale_offset"):
        raise NetworkError(
            f"{place}: its processor also does {', '.join(more) or 'an offset'}, which cannot be put in front of the network; "
            f"write a function that builds both (file.py:function)"
        )
    try:
        level = 255 * (given.get("rescale_factor", 1 / 255) if given.get("do_rescale") else 1.0)  # what white becomes
        mean, std = (given.get("image_mean", 0.0), given.get("image_std", 1.0)) if given.get("do_normalize") else (0.0, 1.0)
        shift, scale = (
            tuple(part / level for part in (value if isinstance(value, list | tuple) else (value,) * 3)) for value in (mean, std)
        )
        told = f"normalised inside the network, mean={_short(shift)}, std={_short(scale)}; {framing(given)}"
    except (TypeError, ValueError, ArithmeticError) as error:
        raise NetworkError(f"{place}: the numbers in its preprocessor_config.json make no sense: {_line(error)}") from error
    return shift, scale, told


def _short(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)


def framing(given: dict[str, Any]) -> str:
    """The fields of a source of images that frame them as a processor of these settings does.

    Example:
        >>> framing({"do_resize": True, "size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224}})
        'images as its processor makes them: resize=256, crop=224, interpolation=bilinear'
    """
    size, crop = dict(given.get("size") or {}), dict(given.get("crop_size") or {})
    short, cut = size.get("shortest_edge", size.get("height")), crop.get("height") if given.get("do_center_crop") else None
    if not given.get("do_resize") or short is None:
        return "its processor leaves the size of images as it is"
    if given.get("crop_pct") and short < 384:  # as ConvNeXt does: larger first, then the centre
        short, cut = int(short / given["crop_pct"]), short
    elif "height" in size and cut is None:
        cut = short
    asked = ", ".join(f"{name}={value}" for name, value in (("resize", short), ("crop", cut)) if value is not None)
    squashed = " (its processor squeezes images that are not square)" if "height" in size else ""
    return f"images as its processor makes them: {asked}, interpolation={_FILTERS.get(int(given.get('resample', 2)), 'bilinear')}{squashed}"


def _line(error: Exception) -> str:
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and reports of transformers while inside: what they say is an error or a note here."""
    logging = import_module("transformers.utils").logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
