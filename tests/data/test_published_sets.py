"""Real published sets, where they lie beside the repository."""

import io
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

from brinell.core.dataset import load_dataset

SETS = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("name", "rows", "shape", "first"), [
    ("mnist/test", 10_000, (1, 28, 28), "0"), ("mnist/train", 60_000, (1, 28, 28), "0"),
    ("cifar10-jpeg/test", 10_000, (3, 32, 32), "airplane"), ("cifar10-jpeg/train", 50_000, (3, 32, 32), "airplane"),
])  # fmt: skip
def test_published_sets_load_whole(name, rows, shape, first):
    path = SETS / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    data = load_dataset(f"parquet('{path}')")
    counts = dict(duckdb.execute(f"select label, count(*) from '{path}' group by label").fetchall())
    assert (len(data), data.shape, len(data.classes), data.classes[0]) == (rows, shape, 10, first)
    assert np.bincount(data.y).tolist() == [counts[k] for k in range(10)]
    part = data.limit(500)
    x = part.x()
    assert x.shape == (500, *shape)
    assert 0.05 < x.mean() < 0.6
    assert float(x.max()) == 1.0
    for position in (0, 250, 499):
        row = int(part.ids[position])
        ((blob, label),) = duckdb.execute(f"select image.bytes, label from '{path}' limit 1 offset {row}").fetchall()
        assert label == part.y[position]
        assert np.abs(decoded(blob, shape) - x[position].numpy()).max() == 0


def decoded(blob, shape):
    array = np.asarray(Image.open(io.BytesIO(blob))).astype(np.float32) / np.float32(255)
    return array.reshape(shape[1], shape[2], shape[0]).transpose(2, 0, 1)
