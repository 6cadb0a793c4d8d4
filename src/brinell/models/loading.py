"""Networks from whatever names them: an architecture, a saved file, a user's function, a public collection, or a live module."""

from __future__ import annotations

import copy
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from brinell import __version__
from brinell.core.component import parse
from brinell.core.errors import NetworkError, WeightsError
from brinell.core.network import Architecture, Network
from brinell.core.place import place_of
from brinell.models.checkpoint import load_weights, read_safetensors, read_weights
from brinell.models.factory import build_by_function
from brinell.models.hugging_face import hugging_face_network
from brinell.models.pretrained import timm_network
from brinell.models.shapes import checked_classes, checked_shape
from brinell.models.vision import torchvision_network

_FUNCTION = re.compile(r"(.*\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*\Z", re.DOTALL)
_CLASS_NAME = re.compile(r"[\w<>]+(\.[\w<>]+)+\Z")
_COLLECTIONS = {"timm": timm_network, "hf": hugging_face_network, "torchvision": torchvision_network}
_WEIGHTS_ENDINGS = (".pt", ".pth", ".ckpt", ".bin", ".tar", ".pkl")


def load_network(
    spec: str | Path | Architecture | nn.Module | Network,
    *,
    weights: str | Path | None = None,
    shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    seed: int = 0,
    download: bool = False,
) -> Network:
    """A network from its spec, with the weights of a file or freshly initialised.

    | spec | what it is |
    |---|---|
    | `resnet20`, `mlp(widths=(64,))` | an architecture, built for the data's shape and classes |
    | `net.safetensors` | a file written by `save_network`: weights, recipe, shape and classes |
    | `nets.py:build`, `package.module:build` | a function of yours that returns a module; it may take shape and classes |
    | `timm:resnet50.a1_in1k` | a network of timm, normalisation included; timm's published weights unless others are given |
    | `hf:DIRECTORY`, `hf:OWNER/NAME` | an image classifier of Hugging Face transformers, its processor's normalisation included |
    | `torchvision:resnet18` | a classifier of torchvision, normalisation included; its published weights unless others are given |
    | a module or a `Network` | itself; a copy of it when weights are given |

    Weights files are read by safetensors or `torch.load(weights_only=True)`; a file that could run code is refused. What was done
    (random initialisation, prefixes removed, types converted) stands in `Network.notes`. Loaded networks are in evaluation mode;
    a live module is left as it is. The network works on the data's own units, images in [0, 1]: `normalized(...)` puts a
    normalisation inside. Published weights are looked up in the caches of this machine; nothing is fetched without `download=True`.

    Arguments:
        weights: a weights file. shape: of one sample, (channels, height, width) or (features,). classes: K.
        seed: of the initialisation where there are no weights; torch's global random state is left as it was.
        download: published weights that are not on this machine may be fetched; the one case in which a connection is opened.

    Raises:
        NetworkError: the spec names nothing that can be built, or not for this data.
        SpecError: the text is not a spec. WeightsError: the weights are unsafe, damaged, or do not fit.

    Example:
        >>> net = load_network("mlp(widths=(64,))", shape=(1, 8, 8), classes=10)
        >>> net.recipe, net.notes
        ('mlp(widths=(64,))', ('randomly initialised (seed 0), not trained',))
        >>> tuple(net(torch.zeros(2, 1, 8, 8)).shape)
        (2, 10)
    """
    asker = f"load_network({spec if isinstance(spec, str) else type(spec).__name__})"
    shape, classes = checked_shape(shape, asker), checked_classes(classes, asker)
    if isinstance(spec, Network | nn.Module):
        return _live(spec, weights, shape, classes)
    if isinstance(spec, str | Path) and str(spec).endswith(".safetensors"):
        if weights is not None:
            raise NetworkError(f"{spec} holds weights already; to use {weights}, give the network they were trained in as the spec")
        return _saved(place_of(spec, WeightsError), shape, classes)
    net = _built(spec, shape, classes, seed, trained=weights is not None, download=download)
    if weights is not None:
        _fill(net, place_of(weights, WeightsError))
    net.module.eval()
    return net


def _live(net: Network | nn.Module, weights: str | Path | None, shape: tuple[int, ...] | None, classes: int | None) -> Network:
    if isinstance(net, nn.Module):
        net = Network(net)
    shape, classes = shape if net.shape is None else net.shape, classes if net.classes is None else net.classes
    if weights is None:
        return Network(net.module, net.recipe, net.notes, net.source, shape=shape, classes=classes)
    twin = Network(copy.deepcopy(net.module), net.recipe, (), net.source, shape=shape, classes=classes)
    _fill(twin, place_of(weights, WeightsError))
    return twin


def _built(
    spec: str | Path | Architecture, shape: tuple[int, ...] | None, classes: int | None, seed: int, *, trained: bool, download: bool = False
) -> Network:  # fmt: skip
    """The network of a spec as it comes into being, before any weights file."""
    text = spec.spec() if isinstance(spec, Architecture) else str(spec).strip()
    source, notes = "", ()
    collection, _, name = text.partition(":")
    with _seeded(seed):
        if collection in _COLLECTIONS and name and not isinstance(spec, Architecture):
            module, notes = _COLLECTIONS[collection](name, trained=not trained, shape=shape, classes=classes, download=download)
        elif _FUNCTION.match(text) and not isinstance(spec, Architecture):
            module, source = build_by_function(text, shape, classes)
            notes = () if trained else (f"weights as {text} left them (seed {seed} for random ones)",)
        else:
            architecture = spec if isinstance(spec, Architecture) else _parsed(text)
            if shape is None or classes is None:
                raise NetworkError(
                    f"{text} is built for its data: give shape and classes, as in load_network({text!r}, shape=(3, 32, 32), classes=10)"
                )
            module, text = architecture.build(shape, classes), architecture.spec()
            notes = () if trained else (f"randomly initialised (seed {seed}), not trained",)
    return Network(module, text, notes, source, shape=shape, classes=classes)


def _parsed(text: str) -> Architecture:
    if text.endswith(_WEIGHTS_ENDINGS):
        raise NetworkError(
            f"{text} is a weights file; say which network they belong to, as in load_network('resnet20', weights={text!r}) "
            f"or `brinell audit resnet20 --weights {text}`"
        )
    if text.endswith(".py"):
        raise NetworkError(f"{text} is a file of Python; name the function in it that makes the network, as in {text}:build")
    return parse(text, Architecture)


def _fill(net: Network, file: Path) -> None:
    state, notes = read_weights(file)
    notes += load_weights(net.module, state, file, net.recipe, shape=net.shape, classes=net.classes)
    net.notes = (*net.notes, f"weights from {file}", *notes)


def save_network(network: Network, path: str | Path) -> Path:
    """Write a network as one safetensors file that `load_network(path)` rebuilds: weights, recipe, shape, classes and notes.

    The file appears whole or not at all. Tied tensors are written under each of their names. The recipe of a user's function is
    recorded but never run from the file: `load_network("nets.py:build", weights=path)` loads such a network.

    Raises:
        NetworkError: the name does not end in .safetensors, or the state holds something else than tensors.

    Example:
        >>> import tempfile
        >>> net = load_network("mlp", shape=(4,), classes=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = load_network(save_network(net, f"{folder}/net.safetensors"))
        >>> again.digest == net.digest
        True
    """
    from safetensors.torch import save

    file = Path(path)
    if file.suffix != ".safetensors":
        raise NetworkError(f"cannot save {network.recipe} as {file}: networks are saved as .safetensors, which cannot hold code")
    state = network.module.state_dict()
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise NetworkError(f"cannot save {network.recipe}: {', '.join(odd)} in its state are not tensors")
    metadata = {
        "brinell": __version__,
        "recipe": network.recipe,
        "shape": json.dumps(network.shape),
        "classes": json.dumps(network.classes),
        "notes": json.dumps(network.notes),
    }
    content = save({name: value.detach().cpu().contiguous().clone() for name, value in state.items()}, metadata)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return file


def _saved(file: Path, shape: tuple[int, ...] | None, classes: int | None) -> Network:
    state, metadata = read_safetensors(file)
    recipe = metadata.get("recipe", "")
    if not recipe:
        raise NetworkError(
            f"{file} holds weights but not the name of their network; give it, as in load_network('resnet20', weights='{file}') "
            f"or `brinell audit resnet20 --weights {file}`"
        )
    if _CLASS_NAME.match(recipe):
        raise NetworkError(
            f"{file} was saved from a live module of class {recipe}, which its weights cannot make again; pass such a module, "
            f"as in load_network(module, weights='{file}'), or a function that makes it"
        )
    if recipe.startswith("hf:"):
        raise NetworkError(
            f"{file} was made by {recipe}. A weights file may not choose what is read: name the directory yourself, as in "
            f"load_network({recipe!r}, weights='{file}')"
        )
    if _FUNCTION.match(recipe) and recipe.partition(":")[0] not in _COLLECTIONS:
        raise NetworkError(
            f"{file} was made by {recipe}. A weights file may not choose what code is run: if you trust that function, name it "
            f"yourself, as in load_network({recipe!r}, weights='{file}')"
        )
    saved_shape, saved_classes, notes = _metadata(file, metadata)
    if classes is not None and saved_classes not in (None, classes):
        raise WeightsError(
            f"{file} ({recipe}) tells {saved_classes} classes apart, but the data has {classes}: it was trained on other data. "
            f"Measure it on data with those {saved_classes} classes, or train {recipe} on these {classes}"
        )
    net = _built(recipe, shape or saved_shape, classes or saved_classes, seed=0, trained=True)
    notes += load_weights(net.module, state, file, recipe, shape=net.shape, classes=net.classes)
    if shape is not None and saved_shape not in (None, shape):
        notes += (f"saved for inputs of shape {saved_shape}, used with {shape}",)
    net.notes = tuple(dict.fromkeys((*net.notes, *notes, f"weights from {file}")))
    net.module.eval()
    return net


def _metadata(file: Path, metadata: dict[str, str]) -> tuple[tuple[int, ...] | None, int | None, tuple[str, ...]]:
    try:
        shape, classes, notes = (json.loads(metadata.get(key, "null")) for key in ("shape", "classes", "notes"))
        return checked_shape(shape, str(file)), checked_classes(classes, str(file)), tuple(map(str, notes or ()))
    except (ValueError, TypeError, RecursionError) as error:
        raise NetworkError(
            f"the description in {file} is damaged ({error}); give the network as the spec and {file} as its weights"
        ) from error


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's CPU random state set to a seed, and put back afterwards; no device's state is touched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
