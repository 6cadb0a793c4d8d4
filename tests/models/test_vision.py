"""Networks of torchvision and timm themselves, where they can be imported: random weights, saved and loaded from disk."""

import socket

import pytest
import torch
from safetensors.torch import save_file

from brinell.core.errors import NetworkError, WeightsError
from brinell.models.loading import load_network, save_network


def trouble(package: str) -> str:
    """Why a package cannot be imported here; empty where it can."""
    try:
        __import__(package)
    except Exception as error:  # a torchvision made for another torch fails in ways of its own
        return f"{package} cannot be imported here ({type(error).__name__}: {error})"
    return ""


needs_torchvision = pytest.mark.skipif(bool(trouble("torchvision")), reason=trouble("torchvision"))
needs_timm = pytest.mark.skipif(bool(trouble("timm")), reason=trouble("timm"))


@pytest.fixture(autouse=True)
def no_connection(monkeypatch, tmp_path):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))


@needs_torchvision
def test_a_classifier_of_torchvision_from_disk(tmp_path):
    from torchvision.models import squeezenet1_1

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = squeezenet1_1(num_classes=4).eval()
    torch.save(made.state_dict(), tmp_path / "w.pt")
    net = load_network("torchvision:squeezenet1_1", weights=tmp_path / "w.pt", shape=(3, 64, 64), classes=4)
    x = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(net(x), made((x - mean) / std))
    assert net.notes[0] == "images as torchvision makes them: resize=256, crop=224, interpolation=bilinear"
    again = load_network(save_network(net, tmp_path / "net.safetensors"))
    assert again.digest == net.digest


@needs_torchvision
def test_published_weights_come_from_the_cache_or_not_at_all(tmp_path):
    from torchvision.models import squeezenet1_1

    with pytest.raises(
        NetworkError, match=r"weights \(squeezenet1_1-b8a52dc0.pth\) is not on this machine, and nothing is fetched unasked"
    ):
        load_network("torchvision:squeezenet1_1", shape=(3, 64, 64), classes=1000)
    cached = tmp_path / "cache" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    cached.parent.mkdir(parents=True)
    torch.save(squeezenet1_1().state_dict(), cached)
    net = load_network("torchvision:squeezenet1_1", shape=(3, 64, 64), classes=1000)
    assert any("torchvision's published weights" in note for note in net.notes)
    with pytest.raises(NetworkError, match="was trained to tell 1000 classes apart, but the data has 4"):
        load_network("torchvision:squeezenet1_1", shape=(3, 64, 64), classes=4)
    cached.write_bytes(b"half")
    with pytest.raises(WeightsError, match=r"is not a whole PyTorch weights file|not weights alone"):
        load_network("torchvision:squeezenet1_1", shape=(3, 64, 64), classes=1000)


@needs_torchvision
@pytest.mark.parametrize("name", ["resnet19", "fasterrcnn_resnet50_fpn", "../resnet18", "get_model", "__import__"])
def test_only_classifiers_of_its_list(name):
    with pytest.raises(NetworkError, match="torchvision has no classifier of that name; it has "):
        load_network(f"torchvision:{name}", shape=(3, 64, 64), classes=4)


@needs_timm
@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_a_network_of_timm_from_disk(tmp_path, ending):
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = timm.create_model("test_resnet.r160_in1k", num_classes=4).eval()
    file = tmp_path / f"w{ending}"
    (save_file if ending == ".safetensors" else torch.save)(made.state_dict(), file)
    net = load_network("timm:test_resnet.r160_in1k", weights=file, shape=(3, 32, 32), classes=4)
    x = torch.rand(2, 3, 32, 32)
    config = timm.data.resolve_model_data_config(made)
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(net(x), made((x - mean) / std))
    assert load_network(save_network(net, tmp_path / "net.safetensors")).digest == net.digest


@needs_timm
def test_published_weights_of_timm_come_from_the_cache_or_not_at_all(tmp_path, monkeypatch):
    import huggingface_hub
    import timm

    asked = {"shape": (3, 32, 32), "classes": 1000}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: None)
    with pytest.raises(NetworkError, match="is not on this machine, and nothing is fetched unasked"):
        load_network("timm:test_resnet.r160_in1k", **asked)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = timm.create_model("test_resnet.r160_in1k")
    save_file(made.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: str(tmp_path / file))
    net = load_network("timm:test_resnet.r160_in1k", **asked)
    own = dict(net.module[1].named_parameters())
    assert all(torch.equal(own[name], value) for name, value in made.named_parameters())
