"""Real images that come with scikit-learn, and one way to ask a corruption."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from brinell.core.draws import derive
from brinell.core.perturbation import Corruption, points

Ask = Callable[..., Tensor]


@pytest.fixture(scope="session")
def ask() -> Ask:
    """ask(corruption, x, ids=0..n-1, seed=0): the corrupted images."""

    def asked(corruption: Corruption, x: Tensor, ids: list[int] | None = None, seed: int = 0) -> Tensor:
        ids = list(range(len(x))) if ids is None else ids
        y = torch.zeros(len(x), dtype=torch.int64)
        return points(corruption(None, x, y, draws=derive(seed, "test", ids=ids)))

    return asked


@pytest.fixture(scope="session")
def photos() -> Callable[..., Tensor]:
    """photos(height, width, n): n crops of two photographs, (n, 3, height, width) float32 in [0, 1], 8-bit."""
    from sklearn.datasets import load_sample_images

    pictures = load_sample_images().images

    def cropped(height: int, width: int, n: int = 4) -> Tensor:
        rng = np.random.default_rng(height * 1000 + width)
        crops = []
        for i in range(n):
            picture = pictures[i % 2]
            top, left = rng.integers(0, picture.shape[0] - height + 1), rng.integers(0, picture.shape[1] - width + 1)
            crops.append(picture[top : top + height, left : left + width].transpose(2, 0, 1))
        return torch.from_numpy(np.stack(crops).astype(np.float32) / np.float32(255))

    return cropped


@pytest.fixture(scope="session")
def digits() -> Callable[..., Tensor]:
    """digits(times, n): n handwritten digits, each pixel repeated `times` times each way, (n, 1, side, side), 8-bit."""
    from sklearn.datasets import load_digits

    images = np.floor(load_digits().images / 16 * 255)

    def enlarged(times: int, n: int = 4) -> Tensor:
        large = images[:n].repeat(times, 1).repeat(times, 2)[:, None]
        return torch.from_numpy(large.astype(np.float32) / np.float32(255))

    return enlarged
