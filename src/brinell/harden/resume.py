"""Training states: all that a training needs to go on as if it had never stopped, in one safetensors file."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from brinell.core.errors import StoreError, WeightsError
from brinell.models.checkpoint import read_safetensors


def write_state(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write named tensors and a JSON description; the file appears whole, and replaces the last one at one stroke.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    content = save(plain, {"training": json.dumps(about)})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_state(path: Path, identity: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description that `write_state` left, if they belong to the training with this identity.

    Arguments:
        identity: entries that the stored description must hold unchanged (recipe, digests, seed).

    Raises:
        StoreError: the file is damaged, is no training state, or is that of another training; the message names what differs.
    """
    remedy = "Delete it to train anew, or give another checkpoint path"
    try:
        tensors, metadata = read_safetensors(path)
    except WeightsError as error:
        raise StoreError(f"cannot resume from {path}: {error.__cause__ or error}. {remedy}") from error
    try:
        about = json.loads(metadata.get("training", "null"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"cannot resume from {path}: its description is damaged ({error}). {remedy}") from error
    if not isinstance(about, dict):
        raise StoreError(f"cannot resume from {path}: it holds weights, but not the state of a training. {remedy}")
    other = [f"{key} {about.get(key)!r}, but {value!r} is asked for" for key, value in identity.items() if about.get(key) != value]
    if other:
        raise StoreError(f"cannot resume from {path}: it belongs to another training, with {'; '.join(other)}. {remedy}")
    return tensors, about
