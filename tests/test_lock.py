"""requirements.lock pins, for every supported Python and system, everything that pyproject.toml needs, and nothing that it contradicts."""

import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if line and not line.startswith("#")]
PYTHONS = ("3.11", "3.12", "3.13")


def required_by(name: str) -> list[Requirement]:
    """What an installed package requires; torch's own parts for CUDA are the business of its index."""
    try:
        needs = [Requirement(text) for text in metadata.requires(name) or ()]
    except metadata.PackageNotFoundError:  # for another system
        return []
    return [need for need in needs if not (name == "torch" and need.name.startswith(("nvidia", "cuda", "triton")))]


def closure(environment: dict[str, str]) -> Iterator[Requirement]:
    texts = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    waiting = [(Requirement(text), "") for text in texts]
    seen: set[tuple[str, str]] = set()
    while waiting:
        need, extra = waiting.pop()
        if need.marker and not need.marker.evaluate({**environment, "extra": extra}):
            continue
        yield need
        for wanted in ("", *need.extras):
            if (need.name, wanted) not in seen:
                seen.add((need.name, wanted))
                waiting += [(inner, wanted) for inner in required_by(need.name)]


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_pins_all_that_is_required(python: str, system: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system}
    environment["platform_system"] = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}[system]
    here = [pin for pin in PINS if pin.marker is None or pin.marker.evaluate(environment)]
    pins = {canonicalize_name(pin.name): pin for pin in here}
    assert len(pins) == len(here)
    missing, contradicted = set(), set()
    for need in closure(environment):
        pin = pins.get(canonicalize_name(need.name))
        if pin is None:
            missing.add(str(need))
        elif not need.specifier.contains(str(pin.specifier).removeprefix("==")):
            contradicted.add(f"{need} against {pin}")
    assert (missing, contradicted) == (set(), set())


def test_every_pin_is_one_exact_plain_version() -> None:
    for pin in PINS:
        (version,) = pin.specifier
        assert version.operator == "=="
        assert "+" not in version.version  # a build tag would tie the lock to one index
        assert pin.url is None


def test_the_lock_serves_every_supported_python() -> None:
    supported = {text.rpartition(" ")[2] for text in PROJECT["classifiers"] if "Python :: 3." in text}
    assert supported == set(PYTHONS)
