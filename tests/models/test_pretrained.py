"""timm networks, with a stand-in for timm: its absence, its normalisation, its heads."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from brinell.core.errors import NetworkError, WeightsError
from brinell.models.loading import load_network, save_network

MEAN, STD = (0.5, 0.25, 0.125), (0.5, 0.5, 0.25)


class Flat(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.head = nn.Linear(3, num_classes)

    def forward(self, x):
        return self.head(x.mean((2, 3)))


@pytest.fixture
def timm(monkeypatch):
    fake, data, calls = ModuleType("timm"), ModuleType("timm.data"), []

    def create_model(name, *, pretrained, num_classes=1000):
        calls.append(SimpleNamespace(name=name, pretrained=pretrained, num_classes=num_classes))
        if name != "flat.a1_in1k":
            raise RuntimeError(f"Unknown model ({name})")
        return Flat(num_classes)

    fake.create_model, fake.data = create_model, data
    data.resolve_model_data_config = lambda _: {
        "input_size": (3, 16, 16), "mean": MEAN, "std": STD, "interpolation": "bicubic", "crop_pct": 0.95,
    }  # fmt: skip
    monkeypatch.setitem(sys.modules, "timm", fake)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    return calls


def test_the_normalisation_is_put_in_front(timm):
    net = load_network("timm:flat.a1_in1k", shape=(3, 16, 16), classes=1000)
    x = torch.rand(2, 3, 16, 16)
    scaled = torch.stack([(x[:, c] - MEAN[c]) / STD[c] for c in range(3)], 1)
    torch.testing.assert_close(net(x), net.module[1](scaled))
    assert timm[0].pretrained and net.recipe == "timm:flat.a1_in1k" and not net.module.training
    assert net.notes[0] == "timm:flat.a1_in1k expects 3 x 16 x 16 inputs (bicubic, crop 0.95)"
    assert net.notes[-1] == "timm's published weights"


def test_another_input_size_is_said_and_other_channels_are_refused(timm):
    assert "; the data has 3 x 8 x 8" in load_network("timm:flat.a1_in1k", shape=(3, 8, 8), classes=1000).notes[0]
    with pytest.raises(NetworkError, match=r"takes images with 3 channels; the data has shape \(1, 8, 8\)"):
        load_network("timm:flat.a1_in1k", shape=(1, 8, 8), classes=1000)


def test_a_published_head_must_know_the_classes(timm):
    with pytest.raises(NetworkError, match="trained to tell 1000 classes apart, but the data has 10"):
        load_network("timm:flat.a1_in1k", shape=(3, 16, 16), classes=10)


def test_given_weights_replace_the_published_ones(timm, tmp_path):
    trained = Flat(10)
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    net = load_network("timm:flat.a1_in1k", weights=tmp_path / "w.pt", shape=(3, 16, 16), classes=10)
    assert not timm[0].pretrained and timm[0].num_classes == 10
    assert torch.equal(net.module[1].head.weight, trained.head.weight)
    path = save_network(net, tmp_path / "net.safetensors")
    again = load_network(path)
    assert again.digest == net.digest
    assert not timm[-1].pretrained
    torch.save(Flat(100).state_dict(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="tells 100 classes apart, but 10"):
        load_network("timm:flat.a1_in1k", weights=tmp_path / "w.pt", shape=(3, 16, 16), classes=10)


@pytest.mark.parametrize("name", ["hf-hub:someone/net", "hf_hub:x", "../net", "/tmp/net", "local-dir:/tmp", ""])
def test_only_names_of_the_registry(timm, name):
    with pytest.raises(NetworkError, match="is not a name of timm's registry"):
        load_network(f"timm:{name}", shape=(3, 16, 16), classes=10)
    assert not timm


def test_unknown_names(timm):
    with pytest.raises(NetworkError, match=r"timm cannot make this network: Unknown model \(nope\)"):
        load_network("timm:nope", shape=(3, 16, 16), classes=10)


def test_without_timm_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(NetworkError, match=r"timm:resnet18 needs timm, which is not installed: pip install 'brinell\[models\]'"):
        load_network("timm:resnet18", shape=(3, 16, 16), classes=10)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'torchvision'", name="torchvision"), "does not import without 'torchvision'"),
        (RuntimeError("operator torchvision::nms does not exist"), "fails to import .*torchvision built for this torch"),
    ],
)
def test_a_broken_timm_is_told_from_a_missing_one(monkeypatch, error, message):
    def failing(name):
        raise error

    monkeypatch.setattr("brinell.models.pretrained.importlib.import_module", failing)
    with pytest.raises(NetworkError, match=message):
        load_network("timm:resnet18", shape=(3, 16, 16), classes=10)
