"""The documentation: every item has an up-to-date page, and every command and script in README and docs runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from brinell.core.component import index, items

ROOT = Path(__file__).parent.parent
PROSE = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "howto").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fences(file: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(file.read_text(encoding="utf-8")) if kind == language]


def commands(file: Path) -> list[str]:
    lines = [line.strip().removeprefix("$ ") for body in fences(file, "console") for line in body.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("brinell ")]


def test_every_item_has_an_up_to_date_page() -> None:
    made = subprocess.run([sys.executable, ROOT / "docs" / "make_pages.py", "--check"], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.mark.parametrize("name", [name for name, (module, _) in index().items() if module.startswith("brinell.")])
def test_every_item_says_what_it_is(name: str) -> None:
    cls = items()[name]
    assert cls.__doc__ and cls.__doc__ != cls.__base__.__doc__, f"{name} has no docstring of its own"
    assert len(cls.summary_line()) > 20, f"the first line of {name} says nothing"


def test_the_two_commands_of_the_readme_exist() -> None:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    wanted = {target for file in PROSE for body in fences(file, "console") for target in re.findall(r"^make (\w+)", body, re.MULTILINE)}
    assert {"demo", "test"} <= wanted
    assert all(re.search(rf"^{target}:", rules, re.MULTILINE) for target in wanted), wanted


@pytest.mark.slow
@pytest.mark.parametrize("file", [file for file in PROSE if commands(file) or fences(file, "python")], ids=lambda file: file.stem)
def test_commands_and_scripts_run(file: Path, tmp_path: Path) -> None:
    scripts = fences(file, "python")
    defines = [body for body in scripts if "def build(" in body]
    if defines:
        (tmp_path / "my_nets.py").write_text(defines[0], encoding="utf-8")
    (tmp_path / "script.py").write_text(
        "\n\n".join(body for body in scripts if body not in defines and "duckdb" not in body), encoding="utf-8"
    )
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    for command in [*commands(file), "python script.py"]:
        done = subprocess.run(shlex.split(command), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
