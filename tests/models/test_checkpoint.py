"""Weights files: hostile, damaged, differently packed, and not fitting."""

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from brinell.core.component import parse
from brinell.core.errors import WeightsError
from brinell.models.checkpoint import load_weights, read_weights


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def small(classes: int = 3, channels: int = 1) -> nn.Module:
    return parse("small_cnn(widths=(4, 4))").build((channels, 8, 8), classes).eval()


def fitted(module: nn.Module, file: Path, **about) -> tuple[str, ...]:
    state, notes = read_weights(file)
    return notes + load_weights(module, state, file, "small_cnn", **about)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def hostile_files(folder: Path, bomb: Bomb) -> list[Path]:
    weights = small().state_dict()
    torch.save(bomb, folder / "zip.pt")
    torch.save({"epoch": 3, "state_dict": {**weights, "extra": bomb}}, folder / "nested.pt")
    torch.save({"state_dict": weights, "optimizer": [bomb]}, folder / "beside.pth")
    torch.save({"state_dict": weights, "args": bomb}, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    for name in ("plain.pkl", "plain.pt", "misnamed.safetensors"):
        (folder / name).write_bytes(pickle.dumps({"state_dict": bomb}))
    (folder / "protocol0.pt").write_bytes(pickle.dumps(bomb, protocol=0))
    torch.save(bomb, folder / "zipped.safetensors")
    return sorted(folder.glob("*.*"))


def test_the_bomb_works(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "mark")))
    assert (tmp_path / "mark").is_dir()


def test_hostile_files_are_refused_and_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # a user's setting cannot open the door
    (tmp_path / "files").mkdir()
    mark = tmp_path / "mark"
    files = hostile_files(tmp_path / "files", Bomb(mark))
    assert len(files) == 9
    for file in files:
        with pytest.raises(WeightsError) as caught:
            read_weights(file)
        assert str(file) in str(caught.value)
        assert "nothing of it was" in str(caught.value)
        assert not mark.exists()


def test_a_whole_pickled_module_is_refused_with_the_remedy(tmp_path):
    torch.save(small(), tmp_path / "module.pt")
    with pytest.raises(
        WeightsError, match=r"could run code; nothing of it was run \(UnpicklingError: .*GLOBAL .* torch\.save\(net\.state_dict\(\), path\)"
    ):
        read_weights(tmp_path / "module.pt")


@pytest.mark.parametrize("name", ["net.pt", "legacy.pt", "net.safetensors"])
def test_truncated_files(tmp_path, name):
    file, state = tmp_path / name, small().state_dict()
    if name == "net.safetensors":
        save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=name == "net.pt")
    whole = file.read_bytes()
    for share in (0.0, 0.01, 0.3, 0.6, 0.9, 0.999):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(WeightsError, match=name):
            read_weights(file)


@pytest.mark.parametrize("name", ["noise.pt", "noise.safetensors"])
def test_files_of_noise_end_in_one_kind_of_error(tmp_path, name):
    file = tmp_path / name
    for seed in range(200):
        noise = torch.randint(0, 256, (64,), generator=torch.Generator().manual_seed(seed)).to(torch.uint8).numpy().tobytes()
        file.write_bytes((b"\x80\x02" if seed % 2 else b"") + noise)
        with pytest.raises(WeightsError):
            read_weights(file)


def test_missing_files_folders_and_other_archives(tmp_path):
    with pytest.raises(WeightsError, match="there is no weights file"):
        read_weights(tmp_path / "none.pt")
    with pytest.raises(WeightsError, match="is a folder"):
        read_weights(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(WeightsError, match="not a whole PyTorch weights file"):
        read_weights(tmp_path / "a.pt")


@pytest.mark.parametrize("value", [3, [1, 2], {"epoch": 3}, {"state_dict": {}}])
def test_files_without_tensors(tmp_path, value):
    torch.save(value, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="no named tensors"):
        read_weights(tmp_path / "w.pt")


def test_other_things_among_the_weights(tmp_path):
    torch.save({**small().state_dict(), "lr": 0.1, 5: torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="not named tensors among its weights: 'lr', 5"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "model.module."])
@pytest.mark.parametrize("nests", [(), ("state_dict",), ("model_state_dict",), ("model",), ("net",), ("ema",), ("model", "state_dict")])
def test_prefixes_and_nesting(tmp_path, prefix, nests):
    source, target = small(), small()
    packed = {prefix + name: value for name, value in source.state_dict().items()}
    for nest in nests:
        packed = {"epoch": 7, nest: OrderedDict(packed)}
    torch.save(packed, tmp_path / "w.pt")
    assert not same(source, target)
    notes = fitted(target, tmp_path / "w.pt")
    assert same(source, target)
    assert len(notes) == len(nests) + bool(prefix)
    assert all(f"{nest!r}" in " ".join(notes) for nest in (*nests, *([prefix] if prefix else [])))


def test_the_plain_weights_come_before_the_averaged_ones_and_it_is_said(tmp_path):
    plain, averaged, target = small(), small(), small()
    torch.save({"ema": averaged.state_dict(), "state_dict": plain.state_dict()}, tmp_path / "w.pt")
    assert fitted(target, tmp_path / "w.pt") == ("weights taken from 'state_dict' of the file ('ema' left aside)",)
    assert same(plain, target)


def test_a_prefix_the_network_has_itself_stays(tmp_path):
    def wrapped() -> nn.Module:
        return nn.ModuleDict({"model": small()})

    source, target = wrapped(), wrapped()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    assert fitted(target, tmp_path / "w.pt") == ()
    assert same(source, target)


def test_everything_that_does_not_fit_is_listed_at_once(tmp_path):
    state = small().state_dict()
    del state["0.weight"]
    state["extra"] = torch.ones(1)
    state["1.bias"] = torch.ones(4, 2)
    state["3.weight"] = state["3.weight"].long()
    state["4.weight"] = torch.tensor([1.0, float("nan"), float("inf"), 1.0])
    torch.save(state, tmp_path / "w.pt")
    target, before = small(), small()
    before.load_state_dict(target.state_dict())
    with pytest.raises(WeightsError) as caught:
        fitted(target, tmp_path / "w.pt")
    text = str(caught.value)
    for part in (
        "w.pt does not fit small_cnn", "1 missing (0.weight)", "1 unexpected (extra)",
        "1 of wrong shape (1.bias: expected (4,), got (4, 2))", "1 of wrong type (3.weight: expected torch.float32, got torch.int64",
        "1 not finite (4.weight: 2 of 4)", "Give the network these weights were trained in",
    ):  # fmt: skip
        assert part in text
    assert same(target, before)  # nothing was loaded by halves


def test_long_lists_are_cut(tmp_path):
    torch.save({f"w{i}": torch.ones(1) for i in range(25)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"25 unexpected \(w0, w1, .*w9, \.\.\. 15 more\)"):
        fitted(small(), tmp_path / "w.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path, value):
    state = small().state_dict()
    state["0.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"1 not finite \(0\.weight: 1 of 36\)\. These weights come from a training run that diverged"):
        fitted(small(), tmp_path / "w.pt")


def test_masks_may_be_infinite(tmp_path):
    module = nn.Linear(2, 2)
    module.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    torch.save(module.state_dict(), tmp_path / "w.pt")
    assert fitted(module, tmp_path / "w.pt") == ()


def test_another_number_of_classes_or_channels_is_explained(tmp_path):
    torch.save(small(classes=100).state_dict(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"tells 100 classes apart, but 3 are asked for"):
        fitted(small(), tmp_path / "w.pt", classes=3)
    with pytest.raises(WeightsError, match=r"tells 100 classes apart, but 3 are asked for"):
        fitted(small(), tmp_path / "w.pt")
    torch.save(small(channels=3).state_dict(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"take images with 3 channels, the data has 1"):
        fitted(small(), tmp_path / "w.pt", shape=(1, 8, 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_are_converted_and_said(tmp_path, dtype):
    source, target = small().to(dtype), small()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    assert fitted(target, tmp_path / "w.pt") == (f"weights converted from {str(dtype).removeprefix('torch.')} to float32",)
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name].to(value.dtype))
    assert all(p.dtype == torch.float32 for p in target.parameters())


def test_float64_weights_beyond_float32_are_not_finite(tmp_path):
    state = small().double().state_dict()
    state["0.weight"][0, 0, 0, 0] = 1e300
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="1 not finite"):
        fitted(small(), tmp_path / "w.pt")


def test_old_checkpoints_without_batch_counters(tmp_path):
    source, target = small(), small()
    torch.save({k: v for k, v in source.state_dict().items() if "num_batches" not in k}, tmp_path / "w.pt")
    assert fitted(target, tmp_path / "w.pt") == ("2 counters of batches are not in the file and keep their value",)
    assert same(source, target)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight


@pytest.mark.parametrize("dropped", [None, "a.weight", "b.weight"])
def test_tied_tensors_need_one_name(tmp_path, dropped):
    source, target = Tied(), Tied()
    torch.save({name: value for name, value in source.state_dict().items() if name != dropped}, tmp_path / "w.pt")
    assert fitted(target, tmp_path / "w.pt") == ()
    assert same(source, target)
    assert target.a.weight is target.b.weight


def test_weights_of_the_bare_network_fit_behind_a_normalisation(tmp_path):
    text = "normalized(small_cnn(widths=(4, 4)), mean=(0.5,), std=(0.25,))"
    source, target = small(), parse(text).build((1, 8, 8), 3)
    torch.save({f"module.{name}": value for name, value in source.state_dict().items()}, tmp_path / "bare.pt")
    notes = fitted(target, tmp_path / "bare.pt")
    assert notes[-1] == "the normalisation is the recipe's, not of the weights file"
    assert same(source, target.net)
    assert target.normalize.mean.item() == 0.5
    torch.save(target.state_dict(), tmp_path / "whole.pt")
    again = parse(text).build((1, 8, 8), 3)
    assert fitted(again, tmp_path / "whole.pt") == ()
    assert same(target, again)
