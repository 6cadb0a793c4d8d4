"""Integrity of a run directory: is every file there, whole, and part of this run?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brinell.core.errors import StoreError
from brinell.core.measurement import Status
from brinell.engine.plan import keys_of
from brinell.engine.store import Signature, Store

ENDINGS = {
    "readings": ".parquet", "samples": ".parquet", "arrays": ".safetensors", "shards": ".safetensors", "states": ".safetensors",
    "networks": ".safetensors", "results": ".safetensors",
}  # fmt: skip
"""The folders of a run and what the files in them end with."""

OF_CELLS = ("readings", "samples", "arrays", "shards")
UNFINISHED_TRAINING = "checkpoints"
"""A folder of states that a hardening goes on from; it checks them itself, and they are gone when it has finished."""

OUTPUT = ("report.html", "measurements.csv", "measurements.parquet", "measurements.json")


@dataclass
class Integrity:
    """What was found in a run directory; paths are relative to it.

    Arguments:
        checked: files that are whole. undated: those of them that hold no digest (written by an older version), only readable.
        damaged: path and why. missing: files that others name, or that a finished run must have. foreign: files in the folders
        of the run that are not part of its plan. beside: other files in the directory, which nothing reads.
        unfinished: (network, perturbation) of cells that are not measured yet.
    """

    directory: str
    checked: list[str] = field(default_factory=list)
    undated: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    unfinished: list[tuple[str, str]] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.damaged or self.missing or self.foreign)

    def to_json(self) -> dict[str, Any]:
        return {"sound": self.sound, **self.__dict__}

    def __str__(self) -> str:
        """What is wrong, a line each, and what was checked."""
        lines = [f"damaged  {path}: {why}" for path, why in self.damaged.items()]
        lines += [f"missing  {path}: {why}" for path, why in self.missing.items()]
        lines += [f"foreign  {path}: not part of this run's plan; move it away" for path in self.foreign]
        lines += [f"other    {path}: nothing reads it" for path in self.beside]
        if self.unfinished:
            lines.append(f"unfinished: {len(self.unfinished)} cells are not measured yet; repeat the command of the run")
        if self.undated:
            lines.append(f"{len(self.undated)} files were written by an older version and hold no digest; they can be read")
        bad = len(self.damaged) + len(self.missing) + len(self.foreign)
        said = f"{bad} files are damaged, missing or foreign" if bad else "every file is as it was written"
        return "\n".join([*lines, f"{self.directory}: {len(self.checked)} files checked; {said}"]) + "\n"


def integrity(directory: str | Path) -> Integrity:
    """Read every file of a run and hold it against its digest, its neighbours' and the plan; nothing is changed.

    Damage by accident is found. A digest is no signature: who can write the files can write other digests as well.

    Raises:
        StoreError: there is no such directory, or it has no plan.json.
    """
    root = Path(directory)
    if not root.is_dir():
        raise StoreError(f"{root} is no directory; give the --out of an earlier run")
    store, found = Store(root), Integrity(str(root))
    if not store.has("plan.json"):
        store.read_json("plan.json")  # says so
    paths = sorted(_paths(root))
    signatures = {path: signature for path in paths if (signature := _checked(store, path, found)) is not None}
    if "plan.json" in signatures:
        _hold_against_plan(store, paths, signatures, found)
    for path in paths:
        for neighbour, digest in signatures.get(path, Signature("")).beside.items():
            if neighbour not in paths:
                found.missing[neighbour] = f"{path} names it; delete {path} and run again"
            elif neighbour in signatures and signatures[neighbour].digest != digest:
                found.damaged[neighbour] = f"it is not the one that {path} was written with; delete both and run again"
    found.checked = [path for path in signatures if path not in found.damaged]
    found.undated = [path for path in found.checked if not signatures[path].digest]
    return found


def _paths(root: Path) -> Iterator[str]:
    """The files of a directory, hidden ones left out, as paths relative to it; links are not followed."""
    for file in root.rglob("*"):
        path = file.relative_to(root)
        if not any(part.startswith(".") for part in path.parts) and (file.is_file() or file.is_symlink()):
            yield path.as_posix()


def _checked(store: Store, path: str, found: Integrity) -> Signature | None:
    """The signature of a file of the run that is whole; what else there is is noted."""
    folder, _, name = path.rpartition("/")
    top = folder.partition("/")[0]
    own = path in ("plan.json", "findings.json", "summary.parquet")
    if not own and (top not in ENDINGS or not name.endswith(ENDINGS[top]) or (store.root / path).is_symlink()):
        if path not in OUTPUT and top != UNFINISHED_TRAINING:
            (found.foreign if top in ENDINGS else found.beside).append(path)
        return None
    try:
        return store.check(path, columns=top == "samples")
    except StoreError as error:
        found.damaged[path] = str(error).partition(" is damaged (")[2].replace("); delete", "; delete") or str(error)
    except FileNotFoundError:  # a run that is going on has removed it
        pass
    return None


def _hold_against_plan(store: Store, paths: list[str], signatures: dict[str, Signature], found: Integrity) -> None:
    plan = store.read_json("plan.json")
    try:
        keys = keys_of(plan)
    except (KeyError, TypeError, AttributeError) as error:
        found.damaged["plan.json"] = f"it is not the plan of a run ({type(error).__name__}: {error})"
        return
    cells = {key: cell for cell, key in keys.items()}
    over = store.has("findings.json")  # written last
    for path in paths:
        folder, _, name = path.partition("/")
        if folder in OF_CELLS and path not in found.foreign:
            key = name.partition("/")[0].partition(".")[0]
            if key not in cells and path != "arrays/summary.safetensors":
                found.foreign.append(path)
    for key, (net, perturbation) in cells.items():
        path = f"readings/{key}.parquet"
        if path in signatures:
            rows = store.read_rows(path)
            if any((row["net"], row["perturbation"]) != (net, perturbation) for row in rows):
                found.damaged[path] = f"it holds readings of another cell than {perturbation} of {net}; delete it and run again"
            failed = any(row["status"] == Status.FAILED and not row["probe"] for row in rows)
            if not failed and f"samples/{key}.parquet" not in paths:
                found.missing[f"samples/{key}.parquet"] = f"samples of {perturbation} of {net}; delete {path} and run again"
        elif path not in paths and over:
            found.missing[path] = f"readings of {perturbation} of {net}; run again"
        elif path not in paths:
            found.unfinished.append((net, perturbation))
    if over and plan.get("summaries") and "summary.parquet" not in paths:
        found.missing["summary.parquet"] = "what the summaries said; run again"
