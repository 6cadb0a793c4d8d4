"""load_network and save_network: every kind of spec, and what may not be loaded."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from brinell.core.component import parse
from brinell.core.errors import NetworkError, SpecError, WeightsError
from brinell.core.network import Network
from brinell.models.loading import load_network, save_network

DIGITS = {"shape": (1, 8, 8), "classes": 10}


def states() -> tuple[bytes, object, object]:
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002 - the global state is what is watched


def test_an_architecture_is_initialised_by_its_seed_alone():
    before = states()
    first = load_network("small_cnn", **DIGITS)
    assert states() == before
    torch.manual_seed(99)
    again, other = load_network("small_cnn", **DIGITS), load_network("small_cnn", seed=1, **DIGITS)
    assert first.digest == again.digest != other.digest
    assert first.notes == ("randomly initialised (seed 0), not trained",)
    assert other.notes == ("randomly initialised (seed 1), not trained",)
    assert not first.module.training
    assert (first.shape, first.classes) == ((1, 8, 8), 10)


def test_the_recipe_rebuilds_the_structure():
    for text in ("resnet20(width=4, shortcut=B)", "mlp(widths=(5, 4))", "normalized(small_cnn, mean=(0.5,), std=(0.25,))"):
        net = load_network(text, **DIGITS)
        again = load_network(net.recipe, **DIGITS)
        assert again.recipe == net.recipe == parse(text).spec()
        assert again.digest == net.digest
    component = parse("mlp(widths=(5, 4))")
    assert load_network(component, **DIGITS).digest == load_network("mlp(widths=(5, 4))", **DIGITS).digest


def test_weights_are_loaded_and_the_network_is_no_longer_called_random(tmp_path):
    trained = load_network("small_cnn", seed=5, **DIGITS)
    torch.save({"state_dict": {f"module.{k}": v for k, v in trained.module.state_dict().items()}}, tmp_path / "w.pt")
    net = load_network("small_cnn", weights=tmp_path / "w.pt", **DIGITS)
    assert net.digest == trained.digest
    assert net.notes == (
        f"weights from {tmp_path / 'w.pt'}",
        "weights taken from 'state_dict' of the file",
        "prefix 'module.' removed from the names of the weights",
    )


def test_misfits_name_the_file_and_the_classes(tmp_path):
    torch.save(load_network("mlp", shape=(1, 8, 8), classes=100).module.state_dict(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"w\.pt does not fit mlp: 2 of wrong shape .* tells 100 classes apart, but 10 are asked for"):
        load_network("mlp", weights=tmp_path / "w.pt", **DIGITS)


def test_a_live_module_is_itself_and_is_never_changed(tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).train()
    net = load_network(module, **DIGITS)
    assert net.module is module and module.training and net.recipe == "torch.nn.modules.container.Sequential"
    assert load_network(net).module is module
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    torch.save(other.state_dict(), tmp_path / "w.pt")
    before = net.digest
    filled = load_network(module, weights=tmp_path / "w.pt")
    assert filled.module is not module
    assert net.digest == before != filled.digest
    assert torch.equal(filled.module[1].weight, other[1].weight)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("resnet21", SpecError, "did you mean resnet.*resnet20"),
        ("ball(eps=0.1)", SpecError, "architecture is wanted"),
        ("net.pt", NetworkError, r"is a weights file; say which network .* --weights net\.pt"),
        ("nets.py", NetworkError, "name the function in it"),
        ("__import__('os').system('true')", SpecError, "not allowed"),
        ("none.py:build", NetworkError, r"there is no file none\.py"),
        ("no_such_package.nets:build", NetworkError, "importing no_such_package.nets failed"),
        ("json:dumpling", NetworkError, "json has no function 'dumpling'; it has .*dumps"),
        ("none.safetensors", WeightsError, "there is no weights file"),
    ],
)
def test_specs_that_name_no_network(spec, error, message):
    with pytest.raises(error, match=message):
        load_network(spec, **DIGITS)


def test_an_architecture_needs_its_data():
    for about in ({}, {"shape": (1, 8, 8)}, {"classes": 10}):
        with pytest.raises(NetworkError, match="give shape and classes"):
            load_network("mlp", **about)
    for shape, classes, message in (
        ((), 10, "shape="),
        ((0, 8), 10, "shape="),
        ((1, 8.0), 10, "shape="),
        ((4,), 1, "at least 2"),
        ((4,), True, "at least 2"),
    ):
        with pytest.raises(NetworkError, match=message):
            load_network("mlp", shape=shape, classes=classes)


def test_save_and_load_is_the_same_network(tmp_path):
    net = load_network("normalized(small_cnn, mean=(0.5,), std=(0.25,))", seed=3, **DIGITS)
    path = save_network(net, tmp_path / "deep" / "net.safetensors")
    assert [file.name for file in path.parent.iterdir()] == ["net.safetensors"]
    again = load_network(path)
    assert (again.recipe, again.shape, again.classes, again.digest) == (net.recipe, net.shape, net.classes, net.digest)
    assert again.notes == ("randomly initialised (seed 3), not trained", f"weights from {path}")
    assert not again.module.training
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(again(x), net(x))
    assert load_network(str(path), **DIGITS).digest == net.digest
    assert load_network(net.recipe, weights=path, **DIGITS).digest == net.digest


def test_saved_networks_and_other_data(tmp_path):
    path = save_network(load_network("small_cnn", **DIGITS), tmp_path / "net.safetensors")
    larger = load_network(path, shape=(1, 16, 12), classes=10)
    assert "saved for inputs of shape (1, 8, 8), used with (1, 16, 12)" in larger.notes
    assert larger(torch.rand(2, 1, 16, 12)).shape == (2, 10)
    with pytest.raises(WeightsError, match="tells 10 classes apart, but the data has 7"):
        load_network(path, shape=(1, 8, 8), classes=7)
    with pytest.raises(WeightsError, match="take images with 1 channels, the data has 3"):
        load_network(path, shape=(3, 8, 8), classes=10)
    with pytest.raises(NetworkError, match="holds weights already"):
        load_network(path, weights=path)


def test_a_saved_network_never_chooses_code(tmp_path):
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\ndef build(): ...\n")
    for recipe in (f"{tmp_path / 'evil.py'}:build", "os:system", f"net({tmp_path / 'evil.py'}:build)", "__import__('os').mkdir('x')"):
        save_file({"w": torch.ones(1)}, tmp_path / "net.safetensors", {"recipe": recipe, "shape": "[4]", "classes": "3"})
        with pytest.raises((NetworkError, SpecError)):
            load_network(tmp_path / "net.safetensors")
        assert not mark.exists()


@pytest.mark.parametrize(
    "metadata",
    [{"shape": "[0]"}, {"shape": "{"}, {"classes": '"ten"'}, {"notes": "3"}, {"shape": "[" * 5000}, {"shape": "3"}],
)
def test_damaged_descriptions(tmp_path, metadata):
    save_file({"w": torch.ones(1)}, tmp_path / "net.safetensors", {"recipe": "mlp", **metadata})
    with pytest.raises(NetworkError, match=r"description in .* is damaged"):
        load_network(tmp_path / "net.safetensors")


def test_saved_files_without_a_recipe_or_of_a_live_module(tmp_path):
    save_file({"w": torch.ones(1)}, tmp_path / "net.safetensors")
    with pytest.raises(NetworkError, match=r"not the name of their network; .* --weights"):
        load_network(tmp_path / "net.safetensors")
    live = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    path = save_network(Network(live), tmp_path / "live.safetensors")
    with pytest.raises(NetworkError, match=r"live module of class torch\.nn\.modules\.container\.Sequential"):
        load_network(path)
    assert torch.equal(load_network(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), weights=path).module[1].weight, live[1].weight)


def test_tied_and_strided_tensors_are_saved(tmp_path):
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    module.register_buffer("slanted", torch.rand(3, 2).T)
    path = save_network(Network(module), tmp_path / "net.safetensors")
    twin = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    twin[1].weight = twin[0].weight
    twin.register_buffer("slanted", torch.zeros(2, 3))
    filled = load_network(twin, weights=path).module
    for name, value in module.state_dict().items():
        assert torch.equal(filled.state_dict()[name], value)


def test_only_safetensors_are_written_and_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    net = load_network("mlp", **DIGITS)
    with pytest.raises(NetworkError, match=r"saved as \.safetensors"):
        save_network(net, tmp_path / "net.pt")
    path = save_network(net, tmp_path / "net.safetensors")
    whole = path.read_bytes()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_network(load_network("mlp", seed=1, **DIGITS), path)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]
    assert json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["__metadata__"]["recipe"] == "mlp"


def test_importing_the_loader_is_light():
    code = "import sys, brinell.models.loading as m; print(*[k for k in ('timm', 'scipy', 'sklearn', 'torchvision') if k in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
