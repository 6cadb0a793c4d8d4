"""`import brinell` and `brinell --help` cost nothing, and every public name is where it is said to be."""

import importlib
import subprocess
import sys

import pytest

import brinell as br

HEAVY = ("torch", "numpy", "scipy", "sklearn", "duckdb", "PIL", "plotly", "pydantic", "rich", "safetensors", "jinja2")


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nsys.stdout.write('|' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("|")[2].split())


def test_importing_brinell_imports_nothing_heavy():
    assert not loaded_after("import brinell") & set(HEAVY)
    found = loaded_after("import brinell as br; br.PGD")
    assert "torch" in found and not found & {"scipy", "sklearn", "duckdb", "PIL", "plotly", "rich", "jinja2"}


@pytest.mark.parametrize("arguments", [["--help"], ["audit", "--help"], ["--version"], []])
def test_help_does_not_wait_for_torch(arguments):
    found = loaded_after(f"from brinell.cli import main\nassert main({arguments!r}) == 0")
    assert not found & {"torch", "numpy", "scipy", "sklearn", "duckdb", "PIL", "plotly"}


@pytest.mark.parametrize("name", br._PLACES)
def test_every_public_name_is_where_it_is_said_to_be(name):
    value = getattr(br, name)
    home = importlib.import_module(f"brinell.{br._PLACES[name]}")
    assert value is getattr(home, name) and getattr(value, "__module__", home.__name__) == home.__name__


def test_public_names():
    assert set(dir(br)) == set(br.__all__) == {"__version__", *br._PLACES}
    with pytest.raises(AttributeError, match="module 'brinell' has no attribute 'Pgd'"):
        _ = br.Pgd  # pyright: ignore[reportAttributeAccessIssue]


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert version("brinell") == br.__version__
