import numpy as np
import pytest
import torch

from brinell.core.dataset import Dataset
from brinell.core.draws import derive
from brinell.harden.batches import batches, corrupted, count_batches, held, moved, shuffled
from brinell.perturb.noise import GaussianNoise, NormalNoise

CPU = torch.device("cpu")


@pytest.mark.parametrize(("n", "size", "expected"), [
    (10, 4, [4, 4, 2]), (9, 4, [4, 5]), (8, 4, [4, 4]), (1, 4, [1]), (3, 1, [1, 1, 1]), (5, 4, [5]), (3, 7, [3]),
])  # fmt: skip
def test_every_sample_once_and_none_alone(n, size, expected):
    order = np.random.default_rng(0).permutation(n)
    made = list(batches(order, size))
    assert [len(batch) for batch in made] == expected
    assert len(made) == count_batches(n, size)
    assert np.array_equal(np.concatenate(made), order)


def test_order_differs_by_epoch_and_seed_and_goes_by_id():
    ids = np.arange(50) * 3
    first = shuffled(ids, seed=0, epoch=0)
    assert sorted(first) == list(range(50))
    assert np.array_equal(first, shuffled(ids, 0, 0))
    assert not np.array_equal(first, shuffled(ids, 0, 1))
    assert not np.array_equal(first, shuffled(ids, 1, 0))
    turned = ids[::-1].copy()
    assert np.array_equal(turned[shuffled(turned, 0, 0)], ids[first])


def test_eight_bit_images_are_held_as_bytes_and_come_back_exactly():
    levels = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)
    data = Dataset.from_arrays(levels, [0, 1, 0, 1])
    read = held(data, CPU)
    assert read.values.dtype == torch.uint8
    assert torch.equal(read(np.array([3, 0])), data.x([3, 0]))


@pytest.mark.parametrize("x", [torch.rand(2000, 3), torch.rand(2000, 3) * 4 - 2, torch.linspace(0, 1, 17).reshape(1, 17)])
def test_other_values_are_held_as_floats(x):
    data = Dataset.from_arrays(x, torch.zeros(len(x), dtype=torch.int64), classes=2, domain=(-2, 2))
    read = held(data, CPU)
    assert read.values.dtype == torch.float32
    assert torch.equal(read(np.arange(len(x))), x)


def test_a_large_set_is_read_batch_by_batch():
    data = Dataset.from_arrays(torch.rand(6, 5), [0, 1] * 3)
    read = held(data, CPU, memory=100)
    assert not hasattr(read, "values")
    assert torch.equal(read(np.array([4, 1])), data.x([4, 1]))
    eight_bit = Dataset.from_arrays(torch.ones(10, 10, dtype=torch.uint8), [0] * 10, classes=2)
    assert held(eight_bit, CPU, memory=100).values.nbytes == 100


def moved_slowly(image: np.ndarray, down: int, right: int, mirrored: bool) -> np.ndarray:
    out = np.zeros_like(image)
    _, height, width = image.shape
    for i in range(height):
        for j in range(width):
            source = (i + down, (width - 1 - j if mirrored else j) + right)
            if 0 <= source[0] < height and 0 <= source[1] < width:
                out[:, i, j] = image[:, source[0], source[1]]
    return out


def test_moving_is_one_of_the_shifts_and_mirrors():
    x = torch.rand(60, 2, 4, 5)
    z = moved(x, derive(0, "move", ids=range(60)), shift=2, flip=True)
    seen = set()
    for image, found in zip(x.numpy(), z.numpy(), strict=True):
        fits = [
            (down, right, mirrored)
            for down in range(-2, 3) for right in range(-2, 3) for mirrored in (False, True)
            if np.array_equal(moved_slowly(image, down, right, mirrored), found)
        ]  # fmt: skip
        assert len(fits) == 1
        seen |= set(fits)
    assert {mirrored for _, _, mirrored in seen} == {False, True}
    assert {down for down, _, _ in seen} == {right for _, right, _ in seen} == set(range(-2, 3))
    assert torch.equal(moved(x, derive(0, "move", ids=range(60)), shift=0, flip=False), x)


def test_each_sample_is_clean_or_under_one_corruption_alone():
    x, y, ids = torch.rand(300, 1, 8, 8).mul(255).floor().div(255), torch.zeros(300, dtype=torch.int64), np.arange(300)
    choices = (GaussianNoise(severity=2), NormalNoise())
    draws = derive(0, "augment", ids=ids)
    z = corrupted(x, y, draws, choices)
    alone = [x, *(item(None, x, y, draws=draws.fork().at("augment", number)) for number, item in enumerate(choices))]
    which = torch.stack([(z == one).flatten(1).all(1) for one in alone])
    assert bool((which.sum(0) == 1).all())
    assert (which.sum(1) / 300).tolist() == pytest.approx([1 / 3] * 3, abs=0.1)  # 3.7 standard deviations
    some = torch.tensor([7, 250, 3])
    part = corrupted(x[some], y[some], derive(0, "augment", ids=ids[some]), choices)
    assert torch.equal(part, z[some]), "what a sample gets does not depend on its batch"
