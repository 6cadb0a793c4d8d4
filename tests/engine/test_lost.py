"""A sample that cannot be measured is recorded with its reason while the others go on; too little memory halves the batch."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import brinell as br
from brinell.core.errors import NetworkError, SampleError
from brinell.engine import observing
from brinell.engine.progress import Silent

PERTURBATIONS = ["gaussian_noise", "pgd(steps=3, threat=ball(eps=4/255))"]
PROBES = ["accuracy", "calibration", "class_selectivity", "diagnostics"]
SUMMARIES = ["bound", "checks"]


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Forty images of two classes in a folder; two of them are damaged."""
    rng = np.random.default_rng(0)
    for number in range(40):
        place = tmp_path / "images" / ("bright" if number % 2 else "dark") / f"{number:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 120, (8, 8), dtype=np.uint8) + np.uint8(100 * (number % 2))).save(out, "PNG")
        place.write_bytes(out.getvalue() if number not in (11, 26) else out.getvalue()[:60])
    return tmp_path / "images"


def network(side: int = 8, classes: int = 2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(side * side, 12), nn.ReLU(), nn.Linear(12, classes))


@pytest.mark.parametrize("batch_size", [40, 7, 1])
def test_unreadable_images_are_named_and_the_others_measured(images, batch_size):
    data = br.load_dataset(f"folder({str(images)!r})")
    table = br.Lab(batch_size=batch_size).measure(network(), data, PERTURBATIONS, PROBES, SUMMARIES)
    good = np.delete(np.arange(40), sorted(bad := _damaged(data)))
    whole = br.Lab(batch_size=38).measure(network(), data.take(good), PERTURBATIONS, PROBES, SUMMARIES)
    assert len(bad) == 2
    for spec in ("clean", *(p.spec() for p in table.perturbations()[1:])):
        row = table.row("lost", perturbation=spec)
        assert row["value"] == 2 and row["n"] == 40 and "11.png" in row["reason"] and "26.png" in row["reason"]
        assert sorted(table.array(row).tolist()) == sorted(data.ids[bad].tolist())
        assert table.row("accuracy", perturbation=spec)["n"] == 38
        assert table.value("accuracy", perturbation=spec) == whole.value("accuracy", perturbation=spec)
        assert set(table.samples("net", spec)["id"]) == set(data.ids[good])
    finding = next(finding for finding in table.findings if finding.name == "lost_samples")
    assert str(finding.verdict) == "flag" and "2 of 40 samples" in finding.message
    assert not any(finding.name == "lost_samples" for finding in whole.findings)


def _damaged(data: br.Dataset) -> list[int]:
    found = []
    for position in range(len(data)):
        try:
            data.x(np.array([position]))
        except SampleError:
            found.append(position)
    return found


def test_data_without_one_readable_image_have_no_numbers(images):
    for file in images.glob("*/*.png"):
        file.write_bytes(b"nothing")
    with pytest.raises(SampleError, match="not a readable image"):
        br.load_dataset(f"folder({str(images)!r})")
    data = br.Dataset("gone", (1, 8, 8), np.arange(40) % 2, np.arange(40), ("a", "b"), _Unreadable(), "gone")
    with pytest.raises(SampleError, match="not one sample can be read; sample 39 is damaged"):
        br.Lab(batch_size=16).measure(network(), data, PERTURBATIONS)
    table = br.Lab(batch_size=16).measure(network(), data, ["clean"])
    assert {row["status"] for row in table.rows} == {"failed"}
    assert "not one sample could be measured; sample 0: SampleError: sample 0 is damaged" in table.rows[0]["reason"]


class _Unreadable:
    def __call__(self, ids: np.ndarray) -> torch.Tensor:
        raise SampleError(f"sample {ids[0]} is damaged")


class Allergic(nn.Module):
    """Fails on a batch with a very dark image."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if float(x.flatten(1).mean(1).min()) < 0.05:
            raise ZeroDivisionError("this image has no light")
        return self.net(x)


def test_samples_that_the_network_alone_fails_on_are_lost():
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2
    x[[3, 4, 17]] *= 0.01
    table = br.Lab(batch_size=8).measure(Allergic(), (x, np.arange(20) % 2), ["clean"])
    row = table.row("lost")
    assert sorted(table.array(row).tolist()) == [3, 4, 17] and "ZeroDivisionError: this image has no light" in row["reason"]
    assert table.row("accuracy")["n"] == 17


def test_a_network_that_fails_on_every_sample_is_an_error():
    with pytest.raises(NetworkError, match=r"fails on .*\(a batch of shape \(20, 1, 8, 8\)\): ZeroDivisionError"):
        br.Lab().measure(Allergic(), (torch.zeros(20, 1, 8, 8), np.arange(20) % 2), ["clean"])


class Greedy(nn.Module):
    """Needs memory for every sample, and there is enough for `most` of them; `gradients`: only when gradients are recorded."""

    def __init__(self, most: int, error: BaseException, gradients: bool = False) -> None:
        super().__init__()
        self.net, self.most, self.gradients, self.largest = network(), most, gradients, 0
        self.error = error

    def __deepcopy__(self, memo: object) -> "Greedy":
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most and (x.requires_grad or not self.gradients):
            raise self.error
        self.largest = max(self.largest, len(x))
        return self.net(x)


ERRORS = [
    MemoryError("no memory"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
]


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__ + str(error)[:4])
def test_too_little_memory_halves_the_batch_and_is_said(error, gradients):
    x = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    data, said = (x, np.arange(50) % 2), Said()
    net = Greedy(13, error, gradients)
    table = br.Lab(batch_size=32, progress=said, device="cpu").measure(net, data, PERTURBATIONS, PROBES[:3], SUMMARIES)
    assert all(row["status"] == "ok" for row in table.select(name="accuracy")) and not table.select(name="lost")
    whole = br.Lab(batch_size=32, device="cpu").measure(Greedy(50, error), data, PERTURBATIONS, PROBES[:3], SUMMARIES)
    for row, twin in zip(whole.rows, table.rows, strict=True):
        assert all(row[column] == twin[column] for column in ("perturbation", "probe", "name", "layer", "status"))
        assert row["value"] is None or twin["value"] == pytest.approx(row["value"], rel=1e-5, abs=1e-6), row["name"]
    assert any("the memory does not hold 32 samples at once" in line and "going on with 16" in line for line in said.lines)


def test_too_little_memory_for_what_the_lab_itself_computes_halves_too(monkeypatch):
    length, said = observing.norms.length, Said()

    def greedy(v, p):
        if len(v) > 13:
            raise ERRORS[2]
        return length(v, p)

    monkeypatch.setattr(observing.norms, "length", greedy)
    data = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)), np.arange(40) % 2
    table = br.Lab(batch_size=32, progress=said, device="cpu").measure(network(), data, ["gaussian_noise"], ["accuracy"])
    assert all(row["status"] == "ok" for row in table.select(name="accuracy")) and len(table.samples("net", "clean")["id"]) == 40
    assert any("going on with 16" in line for line in said.lines)


def test_one_sample_that_does_not_fit_the_memory_is_an_error_of_its_cell():
    net = Greedy(0, MemoryError("no memory"), gradients=True)
    table = br.Lab(batch_size=4).measure(net, (torch.rand(4, 1, 8, 8), np.arange(4) % 2), ["fgsm"])
    assert table.row("accuracy")["status"] == "ok"
    (row,) = [row for row in table.select(status="failed") if row["perturbation"] == table.perturbations()[1].spec()]
    assert "MemoryError: no memory" in row["reason"]


class Fussy(nn.Module):
    """Fails on any batch that holds a certain image."""

    spoilt: torch.Tensor

    def __init__(self, inner: nn.Module, spoilt: torch.Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("spoilt", spoilt)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x - self.spoilt).abs().flatten(1).amax(1).lt(0.06).any():
            raise RuntimeError("not this one")
        return self.inner(x)


def test_a_network_that_lost_a_sample_is_compared_with_its_source_on_the_others():
    lot = torch.Generator().manual_seed(0)
    x = torch.rand(30, 1, 8, 8, generator=lot)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    plain[1].weight.data = torch.randn(2, 64, generator=lot)
    plain[1].bias.data = -plain[1].weight.data.sum(1) / 2  # both classes occur
    with torch.no_grad():
        y = plain(x).argmax(1)
    nets: dict[str, nn.Module] = {"a": Fussy(plain, x[4]), "b": plain}
    attack = "transfer(source=net(b), attack=pgd(steps=8, threat=ball(eps=0.3)))"
    data = br.Dataset.from_arrays(x, y, classes=2)
    table = br.Lab(batch_size=30, device="cpu").measure(nets, data, [attack], ["accuracy"], ["checks"])
    assert table.row("lost", net="a")["value"] == 1
    (found,) = [each for each in table.findings if each.name == "transfer_failure" and each.net == "a"]
    there, here = (table.samples(net, attack) for net in "ba")
    broken = [number for number, right in zip(there["id"], there["correct"], strict=True) if not right]
    kept = [right for number, right in zip(here["id"], here["correct"], strict=True) if number in broken]
    assert len(kept) == len(set(broken) & set(here["id"].tolist())) > 0 and found.value == np.mean(kept)
