import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from brinell.core.component import parse
from brinell.core.errors import SpecError
from brinell.data.digits import Digits

SPLITS = ("train", "valid", "test")


def test_pixels_and_labels_are_scikit_learns():
    data = Digits(side=8, split="all").load()
    pixels, labels = load_digits(return_X_y=True)
    assert np.array_equal(data.x().flatten(1).double().numpy() * 16, pixels)
    assert np.array_equal(data.y, labels)
    assert np.array_equal(data.ids, np.arange(1797))
    assert data.classes == tuple("0123456789")


def test_splits_are_disjoint_together_everything_and_fixed():
    parts = {split: Digits(side=8, split=split).load() for split in SPLITS}
    ids = np.concatenate([part.ids for part in parts.values()])
    assert sorted(ids) == list(range(1797))
    assert [len(part) for part in parts.values()] == [1078, 180, 539]
    assert parts["test"].ids[:8].tolist() == [1, 2, 3, 6, 9, 12, 14, 19]
    whole = Digits(side=8, split="all").load()
    for part in parts.values():
        assert torch.equal(part.x(), whole.x(part.ids))
        assert np.array_equal(part.y, whole.y[part.ids])


@pytest.mark.parametrize(("split", "share"), [("train", 0.6), ("valid", 0.1), ("test", 0.3)])
def test_splits_are_stratified(split, share):
    whole = np.bincount(load_digits(return_X_y=True)[1])
    assert np.abs(np.bincount(Digits(split=split).load().y) - share * whole).max() <= 1


def bilinear(image):
    """8x8 to 32x32: new pixel i lies at (i + 1/2)/4 - 1/2 of the old ones; beyond the edge the edge is repeated."""
    place = ((np.arange(32) + 0.5) / 4 - 0.5).clip(0, 7)
    low = np.floor(place).astype(int)
    high, part = np.minimum(low + 1, 7), place - low
    rows = image[low] * (1 - part)[:, None] + image[high] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, high] * part


def test_side_32_is_the_stated_up_sampling():
    large, small = Digits(split="valid").load(), Digits(side=8, split="valid").load()
    assert large.shape == (1, 32, 32)
    expected = np.stack([bilinear(image) for image in small.x().squeeze(1).double().numpy()])
    np.testing.assert_allclose(large.x().squeeze(1).numpy(), expected, atol=1e-6)
    assert "up-sampled" in large.note
    assert large.digest != small.digest


def test_it_can_be_pickled_and_its_text_brings_it_back():
    data = Digits(split="valid").load()
    twin = pickle.loads(pickle.dumps(data))
    assert torch.equal(twin.x([0, 5]), data.x([0, 5]))
    assert parse(data.source).load().digest == data.digest


@pytest.mark.parametrize("fields", [{"side": 16}, {"split": "dev"}])
def test_other_sides_and_splits_are_refused(fields):
    with pytest.raises(SpecError, match=next(iter(fields))):
        Digits(**fields)


@pytest.mark.slow
def test_a_resnet20_learns_them_to_97_percent():
    train, test = Digits(split="train").load(), Digits(split="test").load()
    x, y = train.x(), train.labels()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = parse("resnet20").build(train.shape, 10).to(memory_format=torch.channels_last)
        order = torch.cat([torch.randperm(len(x))[: len(x) // 64 * 64] for _ in range(10)]).split(64)
    optimiser = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=len(order))
    for rows in order:
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        optimiser.step()
        rate.step()
    net.eval()
    with torch.inference_mode():
        assert (net(test.x()).argmax(1) == test.labels()).float().mean() >= 0.97
