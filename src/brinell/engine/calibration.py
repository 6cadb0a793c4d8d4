"""Calibration: when the laws were last tried on this machine, and what came of it. `brinell calibrate` writes it; plans quote it."""

from __future__ import annotations

import json
import os
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from brinell.core.errors import StoreError


@dataclass(frozen=True)
class Calibration:
    """The outcome of one `brinell calibrate`.

    Arguments:
        date: when. device: what the known answers were computed on. machine, versions: where and with what.
        passed: how many laws and known answers held. failed: `law: spec` of those that did not. seconds: how long it took.
    """

    date: str
    device: str
    machine: str
    versions: dict[str, str]
    passed: int
    failed: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        said = f"{len(self.failed)} of {self.passed + len(self.failed)} laws FAILED" if self.failed else f"all {self.passed} laws held"
        return f"{self.date} on {self.device}: {said} ({', '.join(f'{name} {version}' for name, version in self.versions.items())})"


def place() -> Path:
    """Where the latest calibration is kept: `$BRINELL_HOME`, else `$XDG_CACHE_HOME/brinell`, else `~/.cache/brinell`."""
    home, cache = os.environ.get("BRINELL_HOME"), os.environ.get("XDG_CACHE_HOME")
    folder = Path(home) if home else (Path(cache) if cache else Path.home() / ".cache") / "brinell"
    return folder / "calibration.json"


def keep(calibration: Calibration, path: Path | None = None) -> Path:
    """Write a calibration in one step; without a path it becomes the latest one of this machine.

    Raises:
        StoreError: the file cannot be written.
    """
    final = path or place()
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(calibration), indent=1) + "\n", encoding="utf-8")
        temporary.replace(final)
    except OSError as error:
        raise StoreError(f"cannot write {final}: {error.strerror or error}. Set BRINELL_HOME to a folder that can be written") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return final


def latest() -> Calibration | None:
    """The latest calibration of this machine; None where there is none that can be read."""
    try:
        found = json.loads(place().read_text(encoding="utf-8"))
        return Calibration(**{**found, "failed": tuple(found["failed"])})
    except (OSError, ValueError, TypeError, KeyError, RuntimeError):  # RuntimeError: there is no home
        return None
