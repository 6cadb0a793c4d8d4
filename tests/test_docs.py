"""The documentation: every item has an up-to-date page, and every command and script in README and docs runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import Argument

from brinell.cli.app import app
from brinell.core.component import Component, index, items

ROOT = Path(__file__).parent.parent
PROSE = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "howto").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fences(file: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(file.read_text(encoding="utf-8")) if kind == language]


def commands(file: Path) -> list[str]:
    bodies = [*fences(file, "console"), *fences(file, "sh")]
    lines = [line.strip().removeprefix("$ ") for body in bodies for line in body.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("brinell ")]


def told(option: Argument) -> bool:
    return len((option.parameter.help or "").strip()) > 7


def test_every_item_has_an_up_to_date_page() -> None:
    made = subprocess.run([sys.executable, ROOT / "docs" / "make_pages.py", "--check"], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.mark.parametrize("name", [name for name, (module, _) in index().items() if module.startswith("brinell.")])
def test_every_item_says_what_it_is(name: str) -> None:
    cls = items()[name]
    assert cls.__doc__ and cls.__doc__ != cls.__base__.__doc__, f"{name} has no docstring of its own"
    assert len(cls.summary_line()) > 20, f"the first line of {name} says nothing"
    told = " ".join(base.__doc__ or "" for base in cls.__mro__ if issubclass(base, Component))
    silent = [field for field in cls.model_fields if not re.search(rf"\b{field}\b", told)]
    assert not silent, f"the docstring of {name} does not name its fields {', '.join(silent)}"


COMMANDS = sorted(name for name in app if not name.startswith("-"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented(command: str) -> None:
    assert len(app[command].help) > 20
    silent = [option.name for option in app[command].assemble_argument_collection(parse_docstring=True) if not told(option)]
    assert not silent, f"brinell {command} does not say what {', '.join(silent)} are"
    used = [line for file in PROSE for line in commands(file)]
    inline = [text for file in PROSE for text in re.findall(r"`(brinell [^`]+)`", file.read_text(encoding="utf-8"))]
    assert any(line.split()[1] == command for line in [*used, *inline]), f"no page shows brinell {command}"


def test_json_of_every_command_is_documented() -> None:
    page = (ROOT / "docs" / "howto" / "read-the-output.md").read_text(encoding="utf-8")
    able = [name for name in COMMANDS if any("--json" in option.names for option in app[name].assemble_argument_collection())]
    assert len(able) > 7 and all(f"`{name}`" in page for name in able)


def test_the_two_commands_of_the_readme_exist() -> None:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    wanted = {target for file in PROSE for body in fences(file, "console") for target in re.findall(r"^make (\w+)", body, re.MULTILINE)}
    assert {"demo", "test"} <= wanted
    assert all(re.search(rf"^{target}:", rules, re.MULTILINE) for target in wanted), wanted


def kinds(file: Path, command: str) -> set[str]:
    """The kinds of fences a command stands in; `sh` holds commands on files that the reader has, whose outcome is the reader's."""
    return {kind for kind in ("console", "sh") if any(command in body for body in fences(file, kind))}


def files_of_a_reader(place: Path) -> None:
    """The files that the commands of the README are about, as far as a script has not written them."""
    import io

    import duckdb
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    import brinell as br

    code = "from torch import nn\n\ndef build(shape, classes):\n    size = shape[0] * shape[1] * shape[2]\n"
    if not (place / "my_nets.py").exists():
        (place / "my_nets.py").write_text(f"{code}    return nn.Sequential(nn.Flatten(), nn.Linear(size, classes))\n", encoding="utf-8")
    data = br.load_dataset("digits", limit=60)
    net = br.load_network("resnet20", shape=data.shape, classes=10)
    save_file(net.module.state_dict(), place / "w.safetensors")
    torch.save(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(data.x([0]).numel(), 10)).state_dict(), place / "mine.pt")
    table = duckdb.connect()
    table.execute("create table t (image blob, label bigint)")
    for image, label in zip((data.x()[:, 0] * 255).byte().numpy(), data.y.tolist(), strict=True):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        table.execute("insert into t values (?, ?)", [stream.getvalue(), label])
    table.execute(f"copy (select {{'bytes': image, 'path': ''}} as image, label from t) to '{place / 'test.parquet'}' (format parquet)")


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
    files_of_a_reader(tmp_path)
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    for command in [*commands(file), "python script.py"]:
        done = subprocess.run(
            shlex.split(command, comments=True), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        allowed = (0, 3) if command.startswith("brinell gate") and "sh" in kinds(file, command) else (0,)
        assert done.returncode in allowed, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
