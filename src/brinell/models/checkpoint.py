"""Weights files: read without running anything in them, and fitted to a network or refused with every reason."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brinell.core.errors import WeightsError
from brinell.models.normalize import Normalize

_NESTS = ("state_dict", "model_state_dict", "model", "net", "network", "state_dict_ema", "model_ema", "ema")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
_SHOWN = 10
_MAX_DEPTH = 8


def read_weights(file: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a weights file by name, and notes on where they lay in it.

    `.safetensors` is read by safetensors; anything else by `torch.load(weights_only=True)`, which builds tensors and plain
    containers only. Mappings under a customary key (`state_dict`, `model`, ...) are opened.

    Raises:
        WeightsError: the file is missing, damaged, holds code (none of which runs), or holds no tensors.
    """
    found: Any = read_safetensors(file)[0] if file.suffix == ".safetensors" else _read_torch(file)
    notes: list[str] = []
    for _ in range(_MAX_DEPTH):
        nests = [key for key in _NESTS if isinstance(found, Mapping) and isinstance(found.get(key), Mapping)]
        if not nests:
            break
        others = f" ({', '.join(map(repr, nests[1:]))} left aside)" if nests[1:] else ""
        notes.append(f"weights taken from {nests[0]!r} of the file{others}")
        found = found[nests[0]]
    if not isinstance(found, Mapping) or not any(isinstance(value, Tensor) for value in found.values()):
        what = f"a mapping with {_some(map(repr, found))}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise WeightsError(f"{file} holds {what}, but no named tensors; save them with torch.save(net.state_dict(), path)")
    odd = [repr(key) for key, value in found.items() if not isinstance(value, Tensor) or not isinstance(key, str)]
    if odd:
        raise WeightsError(f"{file} holds entries that are not named tensors among its weights: {_some(odd)}; save net.state_dict() alone")
    return {key: value.detach() for key, value in found.items()}, tuple(notes)


def read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file.

    Raises:
        WeightsError: the file is missing, damaged, or of another format.
    """
    from safetensors import SafetensorError, safe_open

    _check_file(file)
    try:
        with safe_open(file, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata() or {}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{file} is not a whole safetensors file ({error}); nothing of it was used. Copy it again, or, if it was written by "
            f"torch.save, name it .pt"
        ) from error


def _read_torch(file: Path) -> Any:
    _check_file(file)
    try:
        with warnings.catch_warnings():  # about formats that are refused below anyway
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{file} is not weights alone, and opening the rest could run code; nothing of it was run ({_reason(error)}). Where it "
            f"comes from someone you trust, open it yourself and save the weights alone: torch.save(net.state_dict(), path)"
        ) from error
    except Exception as error:  # a damaged pickle can end in any exception of the reader
        raise WeightsError(
            f"{file} is not a whole PyTorch weights file ({_reason(error)}); copy it again, or save net.state_dict() once more"
        ) from error


def _check_file(file: Path) -> None:
    if not file.exists():
        raise WeightsError(f"there is no weights file {file} (seen from {Path.cwd()}); correct the path")
    if not file.is_file():
        what = "a folder, not a weights file; name the file in it" if file.is_dir() else "no regular file; copy the weights to one"
        raise WeightsError(f"{file} is {what}")
    if file.stat().st_size == 0:
        raise WeightsError(f"{file} is empty; copy it again")


def _reason(error: Exception) -> str:
    """The one telling line of torch's page-long messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if re.search("GLOBAL|operand|Can only|persistent", line)]
    return ": ".join([type(error).__name__, *(telling or lines)[:1]])[:200]


def load_weights(
    module: nn.Module,
    state: Mapping[str, Tensor],
    file: Path,
    recipe: str,
    *,
    shape: Sequence[int] | None = None,
    classes: int | None = None,
) -> tuple[str, ...]:
    """Put tensors into a module, exactly: every name, shape and kind must agree, and every number be finite.

    Forgiven and said in the notes that are returned: a common prefix of all names (`module.`, `_orig_mod.`, `model.`, `net.`),
    another floating-point type, and counters that old checkpoints lack. Of tied tensors one name is enough. A module that is a
    `Normalize` and a network also takes the weights of the network alone.

    Arguments:
        file, recipe: what to call the weights and the network in messages. shape, classes: of the data, for explanations.

    Raises:
        WeightsError: they do not fit; one message lists what is missing, unexpected, of wrong shape or type, or not finite.
    """
    choices = [(prefix, names, target) for target in _targets(module) for prefix, names in _stripped(list(state))]
    prefix, names, target = min(choices, key=lambda choice: len(set(choice[1]) ^ set(_tensors(choice[2]))))
    given = {name: state[prefix + name] for name in names}
    own = _tensors(target)
    notes = [f"prefix {prefix!r} removed from the names of the weights"] if prefix else []
    notes += ["the normalisation is the recipe's, not of the weights file"] if target is not module else []

    held = {_place(own[name]) for name in given if name in own}
    absent = [name for name in own if name not in given and _place(own[name]) not in held]
    counters = [name for name in absent if name.endswith("num_batches_tracked")]
    notes += [f"{len(counters)} counters of batches are not in the file and keep their value"] if counters else []
    shared = [name for name in given if name in own]
    wrong = [name for name in shared if own[name].shape != given[name].shape]
    cast = {name: given[name].to(own[name].dtype) for name in shared if name not in wrong and _castable(given[name], own[name])}
    problems = {
        "missing": [name for name in absent if name not in counters],
        "unexpected": [name for name in given if name not in own],
        "of wrong shape": [f"{name}: expected {tuple(own[name].shape)}, got {tuple(given[name].shape)}" for name in wrong],
        "of wrong type": [
            f"{name}: expected {own[name].dtype}, got {given[name].dtype} ({given[name].layout})"
            for name in shared
            if name not in wrong and name not in cast
        ],
        "not finite": [f"{name}: {count} of {cast[name].numel()}" for name in cast if (count := _broken(cast[name], own[name]))],
    }
    if any(problems.values()):
        listed = "; ".join(f"{len(found)} {kind} ({_some(found)})" for kind, found in problems.items() if found)
        raise WeightsError(f"{file} does not fit {recipe}: {listed}. {_remedy(problems, wrong, own, given, shape, classes)}")
    kinds = sorted({f"{given[name].dtype} to {own[name].dtype}" for name in cast if given[name].dtype != own[name].dtype})
    notes += [f"weights converted from {kind}".replace("torch.", "") for kind in kinds]
    target.load_state_dict(cast, strict=False)  # names were compared above; of tied tensors one is enough
    return tuple(notes)


def _targets(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[0], Normalize):
        return [module, module[1]]
    return [module]


def _stripped(names: list[str]) -> Iterator[tuple[str, list[str]]]:
    prefix = ""
    yield prefix, names
    while names and (found := [p for p in _PREFIXES if all(name.startswith(p) for name in names)]):
        prefix += found[0]
        names = [name.removeprefix(found[0]) for name in names]
        yield prefix, names


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def _place(value: Tensor) -> tuple[Any, ...]:
    """Where a tensor lies: equal for tied tensors (an empty one is tied to nothing)."""
    return (value.data_ptr() or id(value), value.shape, value.stride()) if value.numel() else (id(value),)


def _castable(given: Tensor, own: Tensor) -> bool:
    if given.layout != torch.strided or given.is_quantized:
        return False
    return given.dtype == own.dtype or (given.is_floating_point() and own.is_floating_point())


def _broken(new: Tensor, own: Tensor) -> int:
    """How many entries are NaN or infinite without being meant so (a mask of -inf is, if the fresh module has the same)."""
    if not (new.is_floating_point() or new.is_complex()):
        return 0
    return int((~new.isfinite() & (new != own.to(new.device))).sum())


def _some(found: Any) -> str:
    found = list(found)
    return ", ".join(map(str, found[:_SHOWN])) + (f", ... {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def _remedy(
    problems: Mapping[str, list[str]],
    wrong: list[str],
    own: dict[str, Tensor],
    given: dict[str, Tensor],
    shape: Sequence[int] | None,
    classes: int | None,
) -> str:
    """What a person should do about it, where the cause can be seen."""
    if list(filter(None, problems.values())) == [problems["not finite"]]:
        return "These weights come from a training run that diverged, or the file is damaged"
    same_names = wrong and not any(problems[kind] for kind in ("missing", "unexpected", "of wrong type"))
    outputs = classes if classes is not None else next((len(value) for value in reversed(own.values()) if value.ndim), 0)
    heads = {
        (given[name].shape[0], own[name].shape[0]) for name in wrong if given[name].shape[1:] == own[name].shape[1:] and own[name].ndim
    }
    if same_names and len(heads) == 1 and all(given[name].shape[1:] == own[name].shape[1:] for name in wrong):
        theirs, ours = heads.pop()
        if ours == outputs:
            return (
                f"The weights belong to a network that tells {theirs} classes apart, but {ours} are asked for: they were trained on "
                f"other data. Measure them on data with those {theirs} classes, or give weights trained on these {ours}"
            )
    first = wrong[0] if wrong else ""
    if same_names and len(wrong) == 1 and shape and own[first].ndim == 4 and own[first].shape[1] == shape[0]:
        return f"The weights take images with {given[first].shape[1]} channels, the data has {shape[0]}"
    return "Give the network these weights were trained in, with its own settings (`brinell list` shows what there is)"
