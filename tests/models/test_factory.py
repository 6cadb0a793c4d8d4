"""Networks made by a user's own function."""

import sys

import pytest
import torch

from brinell.core.errors import NetworkError
from brinell.models.loading import load_network, save_network

NETS = """
import dataclasses
from torch import nn

@dataclasses.dataclass
class Plan:
    width: int = 4

def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def sized(classes, *, shape=(9,)):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[-1] * shape[-2], classes))

def anything(**about):
    return sized(**about)

def greedy(depth):
    return plain()

def broken():
    raise KeyError("no such thing")

def wrong():
    return 3

number = 5
"""
DIGITS = {"shape": (1, 8, 8), "classes": 7}


@pytest.fixture
def nets(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path / "nets.py"


def test_arguments_are_given_where_they_are_wanted(nets):
    x = torch.rand(2, 1, 8, 8)
    assert load_network(f"{nets}:plain", **DIGITS)(x).shape == (2, 10)
    for function in ("sized", "anything"):
        assert load_network(f"{nets}:{function}", **DIGITS)(x).shape == (2, 7)


def test_the_recipe_the_source_and_the_note(nets):
    net = load_network(f"{nets}:plain", seed=4)
    assert net.recipe == f"{nets}:plain"
    assert net.source == NETS
    assert net.notes == (f"weights as {nets}:plain left them (seed 4 for random ones)",)
    assert load_network(net.recipe, seed=4).digest == net.digest


def test_the_seed_rules_and_the_global_state_is_untouched(nets):
    before = torch.get_rng_state()
    a, b, c = (load_network(f"{nets}:plain", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert a.digest == b.digest != c.digest


def test_the_digest_knows_the_text_of_the_file(nets):
    first = load_network(f"{nets}:plain")
    nets.write_text(NETS.replace("number = 5", "number = 6"))  # same length, same second: a stale compiled file would be taken
    second = load_network(f"{nets}:plain")
    assert second.source != first.source
    assert second.digest != first.digest


def test_a_file_may_import_its_neighbours_and_the_search_path_is_put_back(nets):
    (nets.parent / "neighbour_of_nets.py").write_text("from torch import nn\ndef head(): return nn.Linear(64, 3)\n")
    nets.write_text("from torch import nn\nimport neighbour_of_nets as n\ndef build(): return nn.Sequential(nn.Flatten(), n.head())\n")
    before = list(sys.path)
    assert load_network(f"{nets}:build")(torch.rand(2, 64)).shape == (2, 3)
    assert sys.path == before


def test_a_path_with_brackets_and_a_package(nets, monkeypatch):
    odd = nets.parent / "my project (1)"
    odd.mkdir()
    (odd / "nets.py").write_text(NETS)
    (odd / "a_package_of_nets.py").write_text(NETS)
    assert load_network(f"{odd / 'nets.py'}:plain")(torch.rand(2, 64)).shape == (2, 10)
    monkeypatch.syspath_prepend(odd)
    net = load_network("a_package_of_nets:sized", **DIGITS)
    assert net.source == NETS
    assert net(torch.rand(2, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("missing", r"has no function 'missing'; it has plain, sized, anything, greedy, broken, wrong$"),
        ("number", "has no function 'number'"),
        ("greedy", "wants depth, which is not known here"),
        ("broken", "failed: KeyError: 'no such thing'"),
        ("wrong", r"returned int; it must return a torch\.nn\.Module"),
    ],
)
def test_functions_that_make_no_network(nets, function, message):
    with pytest.raises(NetworkError, match=message):
        load_network(f"{nets}:{function}")


def test_functions_without_a_signature():
    with pytest.raises(NetworkError, match="builtins:dict is not a Python function whose arguments can be read"):
        load_network("builtins:dict")


def test_files_that_do_not_run(nets):
    for text, message in (
        ("def (", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("import no_such_module_at_all", "ModuleNotFoundError"),
    ):
        nets.write_text(text)
        known = set(sys.modules)
        with pytest.raises(NetworkError, match=f"running .* failed: {message}"):
            load_network(f"{nets}:build")
        assert not [name for name in set(sys.modules) - known if name.startswith("brinell_factory")]


def test_saved_networks_of_a_function_are_loaded_by_naming_it(nets, tmp_path):
    net = load_network(f"{nets}:plain", seed=9)
    path = save_network(net, tmp_path / "net.safetensors")
    with pytest.raises(NetworkError, match=r"may not choose what code is run: .* load_network\('.*nets\.py:plain', weights='"):
        load_network(path)
    again = load_network(f"{nets}:plain", weights=path)
    assert again.digest == net.digest
    assert again.notes == (f"weights from {path}",)
