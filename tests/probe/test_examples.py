"""Examples: the same few samples in every cell, in the order of their ids."""

from __future__ import annotations

import pytest
import torch

import brinell as br
from brinell.core.draws import derive
from brinell.core.probe import View
from brinell.core.tally import Sample
from brinell.probe.examples import Examples, thumbnails


def view(x: torch.Tensor, ids: torch.Tensor) -> View:
    return View(x, x, ids % 2, ids, torch.zeros(len(ids), 2))


def test_kept_are_the_inputs_of_the_ids_with_the_smallest_hashes():
    ids = torch.arange(100, 140)
    x = ids[:, None, None, None] / 256 * torch.ones(1, 1, 2, 3)
    probe = Examples(k=5)
    kept, names = probe.read(probe.observe(view(x, ids), draws=derive(0, ids=ids)))
    hashes = derive(0, "tally.Sample", ids=ids).words(1).squeeze(1)
    expected = ids[hashes.argsort()[:5]].sort().values
    assert names.array is not None and kept.array is not None
    assert names.array.tolist() == expected.tolist()
    assert kept.array.shape == (5, 1, 2, 3) and kept.array.dtype == "float16"
    assert kept.array[:, 0, 0, 0].tolist() == (expected / 256).tolist()
    assert (kept.value, kept.n, kept.axis) == (5.0, 5, "example")


def test_no_sample_is_undefined():
    (reading,) = Examples().read(Sample())
    assert (reading.status, reading.reason) == ("undefined", "there is no sample to keep")


@pytest.mark.parametrize(
    ("shape", "side", "expected"), [((2, 3, 8, 8), 8, (2, 3, 8, 8)), ((2, 3, 9, 20), 8, (2, 3, 3, 6)), ((2, 7), 8, (2, 7))]
)
def test_large_images_are_averaged_over_squares(shape: tuple[int, ...], side: int, expected: tuple[int, ...]):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    small = thumbnails(x, side)
    assert small.shape == expected
    if shape != expected:
        assert torch.allclose(small[0, 0, 0, 0], x[0, 0, :3, :3].mean())


def test_every_cell_of_a_run_keeps_the_same_samples():
    data = br.load_dataset("digits(side=8)", limit=40)
    net = br.load_network("mlp(widths=(8,))", shape=data.shape, classes=10)
    table = br.Lab(batch_size=16).measure(net, data, ["uniform_noise(threat=ball(eps=0.1))"], ["examples(k=6)"])
    (clean_ids, noisy_ids), (clean, noisy) = ([table.array(row) for row in table.select(name=name)] for name in ("example_ids", "examples"))
    assert clean_ids is not None and noisy_ids is not None and clean is not None and noisy is not None
    assert clean_ids.tolist() == noisy_ids.tolist()
    place = {int(name): at for at, name in enumerate(data.ids)}
    assert clean.tolist() == data.x([place[int(name)] for name in clean_ids]).half().tolist()
    assert 0 < abs(noisy.astype("float32") - clean.astype("float32")).max() <= 0.1005
