"""timm networks, with a stand-in for timm: its absence, its normalisation, its heads, and that nothing is fetched unasked."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
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
def timm(monkeypatch, tmp_path):
    """The calls that a stand-in for timm has got; the hub holds the weights of `flat.a1_in1k`, and only asked for by name."""
    fake, data, hub, calls = ModuleType("timm"), ModuleType("timm.data"), ModuleType("huggingface_hub"), []
    stored, cached = tmp_path / "hub.safetensors", []
    save_file(Flat(1000).state_dict(), stored)

    def create_model(name, *, pretrained, num_classes=1000, pretrained_cfg_overlay=None):
        calls.append(SimpleNamespace(name=name, pretrained=pretrained, num_classes=num_classes))
        net = Flat(num_classes)
        if pretrained:
            net.load_state_dict(load_file(pretrained_cfg_overlay["file"]))
        return net

    def fetch(repository, file):
        calls.append(SimpleNamespace(fetched=(repository, file)))
        cached.append(str(stored))
        return str(stored)

    fake.create_model, fake.data, fake.is_model = create_model, data, lambda name: name.split(".")[0] == "flat"
    ids = {"flat.a1_in1k": "timm/flat.a1_in1k", "flat.unpublished": None}
    fake.get_pretrained_cfg = lambda name: SimpleNamespace(hf_hub_id=ids[name], hf_hub_filename=None)
    data.resolve_model_data_config = lambda _: {
        "input_size": (3, 16, 16), "mean": MEAN, "std": STD, "interpolation": "bicubic", "crop_pct": 0.95,
    }  # fmt: skip
    hub.try_to_load_from_cache = lambda repository, file: cached[0] if cached and file == "model.safetensors" else None
    hub.hf_hub_download, hub.file_exists = fetch, lambda repository, file: file == "model.safetensors"
    for module in (fake, data, hub):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("brinell.models.extras.util.find_spec", lambda name: None)  # whatever torchvision there is
    return calls


def test_published_weights_are_fetched_only_when_asked_for_and_then_kept(timm):
    with pytest.raises(NetworkError, match=r"is not on this machine, and nothing is fetched unasked. .*--download"):
        load_network("timm:flat.a1_in1k", shape=(3, 16, 16), classes=1000)
    assert timm == []
    net = load_network("timm:flat.a1_in1k", shape=(3, 16, 16), classes=1000, download=True)
    assert timm[0].fetched == ("timm/flat.a1_in1k", "model.safetensors")
    again = load_network("timm:flat.a1_in1k", shape=(3, 16, 16), classes=1000)
    assert again.digest == net.digest and [hasattr(call, "fetched") for call in timm] == [True, False, False]
    with pytest.raises(NetworkError, match="timm publishes no weights for it on the Hugging Face hub; give --weights FILE"):
        load_network("timm:flat.unpublished", shape=(3, 16, 16), classes=1000, download=True)


def test_the_normalisation_is_put_in_front(timm):
    net = load_network("timm:flat.a1_in1k", shape=(3, 16, 16), classes=1000, download=True)
    x = torch.rand(2, 3, 16, 16)
    scaled = torch.stack([(x[:, c] - MEAN[c]) / STD[c] for c in range(3)], 1)
    torch.testing.assert_close(net(x), net.module[1](scaled))
    assert timm[-1].pretrained and net.recipe == "timm:flat.a1_in1k" and not net.module.training
    assert net.notes[:2] == (
        "timm:flat.a1_in1k expects 3 x 16 x 16 inputs (bicubic, crop 0.95)",
        "images as timm makes them: resize=16, crop=16, interpolation=bicubic",
    )
    assert net.notes[-1] == "timm's published weights"


def test_another_input_size_is_said_and_other_channels_are_refused(timm):
    net = load_network("timm:flat.a1_in1k", shape=(3, 8, 8), classes=1000, download=True)
    assert "; the data has 3 x 8 x 8" in net.notes[0]
    with pytest.raises(NetworkError, match=r"takes images with 3 channels; the data has shape \(1, 8, 8\)"):
        load_network("timm:flat.a1_in1k", shape=(1, 8, 8), classes=1000)


def test_a_published_head_must_know_the_classes(timm):
    with pytest.raises(NetworkError, match="trained to tell 1000 classes apart, but the data has 10"):
        load_network("timm:flat.a1_in1k", shape=(3, 16, 16), classes=10, download=True)


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


@pytest.mark.parametrize("name", ["hf-hub:someone/net", "hf_hub:x", "../net", "/tmp/net", "local-dir:/tmp"])
def test_only_names_of_the_registry(timm, name):
    with pytest.raises(NetworkError, match="is not a name of timm's registry"):
        load_network(f"timm:{name}", shape=(3, 16, 16), classes=10)
    assert not timm


def test_unknown_names(timm):
    with pytest.raises(NetworkError, match="timm:nope: timm has no network of that name"):
        load_network("timm:nope", shape=(3, 16, 16), classes=10)


@pytest.mark.parametrize(("spec", "package"), [("timm:resnet18", "timm"), ("hf:net", "transformers"), ("torchvision:x", "torchvision")])
def test_without_the_package_the_remedy_is_said(monkeypatch, spec, package):
    monkeypatch.setattr("brinell.models.extras.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NetworkError, match=rf"{spec} needs {package}, which is not installed: pip install 'brinell\[models\]'"):
        load_network(spec, shape=(3, 16, 16), classes=10)


@pytest.mark.parametrize("spec", ["timm:resnet18", "hf:net", "torchvision:resnet18"])
def test_a_broken_torchvision_is_named_by_all_that_would_import_it(monkeypatch, tmp_path, spec):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "ops.py").write_text("")
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "import torchvision.ops\nraise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    for _ in range(2):  # the second attempt says the same
        with pytest.raises(NetworkError, match=r"nms does not exist\); install the torchvision made for torch \d"):
            load_network(spec, shape=(3, 16, 16), classes=10)
        assert not [name for name in sys.modules if name.partition(".")[0] == "torchvision"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'yaml'", name="yaml"), "does not import without 'yaml'; pip install yaml"),
        (RuntimeError("odd"), r"is installed but fails to import \(RuntimeError: odd\); install timm again"),
    ],
)
def test_a_broken_timm_is_told_from_a_missing_one(monkeypatch, error, message):
    def failing(name):
        raise error

    monkeypatch.setattr("brinell.models.extras.util.find_spec", lambda name: None)
    monkeypatch.setattr("brinell.models.extras.importlib.import_module", failing)
    with pytest.raises(NetworkError, match=message):
        load_network("timm:resnet18", shape=(3, 16, 16), classes=10)
