"""Image classifiers of transformers: small random ones, saved and loaded from disk, with no connection open."""

import json
import shutil
import socket

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from brinell.cli import main
from brinell.core.errors import NetworkError, WeightsError
from brinell.engine.table import open_table
from brinell.models.hugging_face import weights_in
from brinell.models.loading import load_network, save_network


@pytest.fixture(scope="module")
def transformers():
    """Imported for the tests that need it alone: it takes seconds."""
    try:
        import transformers
    except Exception as error:  # whatever keeps it from being imported
        pytest.skip(f"transformers cannot be imported here ({type(error).__name__}: {error})")
    return transformers


@pytest.fixture(autouse=True)
def no_connection(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def saved(transformers, tmp_path_factory):
    """Two networks as `save_pretrained` leaves them, with their processors."""
    root = tmp_path_factory.mktemp("hf")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4, num_labels=5
        )  # fmt: skip
        resnet = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5)
        transformers.ViTForImageClassification(vit).eval().save_pretrained(root / "vit")
        transformers.ResNetForImageClassification(resnet).eval().save_pretrained(root / "resnet")
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(root / "vit")
    about = {
        "image_processor_type": "ConvNextImageProcessor", "do_resize": True, "size": {"shortest_edge": 16}, "crop_pct": 1.0,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225], "resample": 3,
    }  # fmt: skip
    (root / "resnet" / "preprocessor_config.json").write_text(json.dumps(about))
    return root


@pytest.fixture
def vit(saved, tmp_path):
    """A copy of one of them, to be spoilt."""
    return shutil.copytree(saved / "vit", tmp_path / "vit")


def change(file, **entries):
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_what_it_answers_is_what_transformers_answers(transformers, saved, name):
    levels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(saved / name)
    model = transformers.AutoModelForImageClassification.from_pretrained(saved / name)
    expected = model(**processor(list(levels), return_tensors="pt")).logits.detach()
    net = load_network(f"hf:{saved / name}", shape=(3, 16, 16), classes=5)
    x = torch.from_numpy(levels).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(net(x).detach(), expected, rtol=1e-4, atol=1e-5)
    filtering = {"vit": "bilinear", "resnet": "bicubic"}[name]
    assert f"images as its processor makes them: resize=16, crop=16, interpolation={filtering}" in net.notes[0]
    assert "logits are the entry 'logits' of what it returns" in net.notes and any("0=LABEL_0" in note for note in net.notes)
    assert not net.module.training and net.digest == load_network(f"hf:{saved / name}", classes=5).digest


@pytest.mark.slow
def test_an_audit_of_one(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(saved)
    rng = np.random.default_rng(1)
    np.savez("set.npz", x=rng.random((8, 3, 16, 16), dtype=np.float32), y=np.arange(8) % 5)
    out = str(tmp_path / "run")
    asked = ["audit", "hf:vit", "--data", "npz('set.npz', layout=first)", "--perturb", "pgd(steps=2)", "--probe", "class_selectivity"]
    assert main([*asked, "--device", "cpu", "--out", out]) == 0, capsys.readouterr().err
    table = open_table(out)
    assert {row["status"] for row in table.select(name="accuracy")} == {"ok"}
    assert table.samples("hf:vit", table.plan["perturbations"][1])["linf"].max() > 0.01
    assert "logits are the entry 'logits' of what it returns" in table.plan["networks"]["hf:vit"]["notes"]


@pytest.mark.slow
def test_weights_in_parts(transformers, saved, tmp_path):
    model = transformers.AutoModelForImageClassification.from_pretrained(saved / "vit")
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    shutil.copy(saved / "vit" / "preprocessor_config.json", tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(load_network(f"hf:{tmp_path}")(x), load_network(f"hf:{saved / 'vit'}")(x))


@pytest.mark.slow
def test_other_weights_and_other_classes(saved, tmp_path):
    with pytest.raises(NetworkError, match="was trained to tell 5 classes apart, but the data has 7"):
        load_network(f"hf:{saved / 'vit'}", shape=(3, 16, 16), classes=7)
    with pytest.raises(NetworkError, match="takes images with 3 channels; the data has shape"):
        load_network(f"hf:{saved / 'vit'}", shape=(1, 16, 16), classes=5)
    net = load_network(f"hf:{saved / 'vit'}", shape=(3, 16, 16), classes=5)
    kept = save_network(net, tmp_path / "net.safetensors")
    with pytest.raises(NetworkError, match="A weights file may not choose what is read: name the directory yourself"):
        load_network(kept)
    assert load_network(f"hf:{saved / 'vit'}", weights=kept, classes=5).digest == net.digest
    state = {name: value + 1 for name, value in net.module[1].state_dict().items()}
    torch.save(state, tmp_path / "tuned.pt")
    tuned = load_network(f"hf:{saved / 'vit'}", weights=tmp_path / "tuned.pt", classes=5)
    assert torch.equal(tuned.module[1].classifier.bias, state["classifier.bias"])


def spoil_unknown_type(folder):
    change(folder / "config.json", model_type="my_net", auto_map={"AutoModelForImageClassification": "code.Net", "AutoConfig": "code.C"})
    (folder / "code.py").write_text("open('was_run', 'w')")


def spoil_head(folder):
    state = load_file(folder / "model.safetensors")
    del state["classifier.weight"]
    save_file(state, folder / "model.safetensors")


def spoil_numbers(folder):
    state = load_file(folder / "model.safetensors")
    state["classifier.bias"][0] = torch.nan
    save_file(state, folder / "model.safetensors")


SPOILT = {
    "unknown type with code": (spoil_unknown_type, "transformers has no networks of type 'my_net'; code beside the weights is not run"),
    "another kind of network": (lambda f: change(f / "config.json", model_type="bert"), "has no image classifier of type 'bert'"),
    "a type that is no text": (lambda f: change(f / "config.json", model_type=["vit"]), "has no networks of type"),
    "no head": (spoil_head, r"its weights do not fit its config.json: 1 missing \(classifier.weight\)"),
    "other sizes": (lambda f: change(f / "config.json", hidden_size=32), "mismatch|do not fit"),
    "impossible sizes": (lambda f: change(f / "config.json", hidden_size=10**12), "cannot build this network"),
    "wrong kinds": (lambda f: change(f / "config.json", hidden_size="many"), "refused|cannot build"),
    "weights that are not finite": (spoil_numbers, r"1 of its tensors are not finite \(classifier.bias\)"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "other forms of weights can hold code"),
    "half the weights": (lambda f: (f / "model.safetensors").write_bytes(b"\x10" + bytes(40)), "is not a whole safetensors file"),
    "no configuration": (lambda f: (f / "config.json").unlink(), "config.json is missing; give a directory that save_pretrained"),
    "a list as configuration": (lambda f: (f / "config.json").write_text("[1]"), "holds a list, not the settings"),
    "a deep configuration": (lambda f: (f / "config.json").write_text("[" * 100_000), "cannot be read"),
    "no processor": (lambda f: (f / "preprocessor_config.json").unlink(), "preprocessor_config.json is missing"),
    "an unknown processor": (lambda f: change(f / "preprocessor_config.json", image_processor_type="Trainer"), "is refused"),
    "channels turned round": (lambda f: change(f / "preprocessor_config.json", do_flip_channel_order=True), "do_flip_channel_order"),
    "a mean of words": (lambda f: change(f / "preprocessor_config.json", image_mean=["a", "b", "c"]), "make no sense|is refused"),
    "no rescaling at all": (lambda f: change(f / "preprocessor_config.json", rescale_factor=0), "make no sense"),
    "a scale of zero": (lambda f: change(f / "preprocessor_config.json", image_std=[0, 1, 1]), "positive standard deviations"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_directory_gets_one_clear_message(vit, monkeypatch, case):
    spoil, said = SPOILT[case]
    monkeypatch.chdir(vit)
    spoil(vit)
    with pytest.raises((NetworkError, WeightsError), match=said) as caught:
        load_network(f"hf:{vit}", shape=(3, 16, 16), classes=5)
    assert str(caught.value).count("\n") == 0 and len(str(caught.value)) < 800
    assert not (vit / "was_run").exists()


@pytest.mark.slow
def test_what_names_code_or_other_networks_is_left_out(vit):
    expected = load_network(f"hf:{vit}")(torch.ones(1, 3, 16, 16))
    (vit / "code.py").write_text("raise SystemExit('run')")
    change(vit / "config.json", auto_map={"AutoModelForImageClassification": "code.Net"}, _attn_implementation="someone/kernel")
    change(vit / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}, dtype="float16")
    change(vit / "preprocessor_config.json", auto_map={"AutoImageProcessor": "code.Processor"})
    (vit / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else", "peft_type": "LORA"}')
    assert torch.equal(load_network(f"hf:{vit}")(torch.ones(1, 3, 16, 16)), expected)


@pytest.mark.slow
@pytest.mark.usefixtures("transformers")
def test_a_name_that_is_not_here_is_not_fetched():
    with pytest.raises(NetworkError, match="is not on this machine, and nothing is fetched unasked"):
        load_network("hf:nobody/no-such-net", shape=(3, 16, 16), classes=5)
    with pytest.raises(NetworkError, match=r"there is no directory '\.\./gone'"):
        load_network("hf:../gone", shape=(3, 16, 16), classes=5)


@pytest.mark.parametrize("part", ["../other.safetensors", "/tmp/x.safetensors", "a/b.safetensors", "..", "weights.bin", "x\0.safetensors"])
def test_an_index_names_files_of_its_own_directory_alone(tmp_path, part):
    save_file({"w": torch.ones(1)}, tmp_path / "other.safetensors")
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": part}}))
    with pytest.raises(WeightsError, match=r"which is no .safetensors file of its own directory; nothing was read"):
        weights_in("hf:net", folder)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"w": 3}}'])
def test_an_index_of_nothing(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(WeightsError, match="maps no names of weights to files"):
        weights_in("hf:net", tmp_path)
