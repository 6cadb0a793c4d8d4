import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def encode():
    """Encodes an array or a Pillow image as bytes."""

    def made(picture, form="PNG", **options):
        image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
        stream = io.BytesIO()
        image.save(stream, form, **options)
        return stream.getvalue()

    return made


@pytest.fixture
def pictures():
    """n random images: (n, side, side[, 3]) uint8."""

    def made(n, side=6, colour=True):
        shape = (n, side, side, 3) if colour else (n, side, side)
        return np.random.default_rng(n * side + colour).integers(0, 256, shape, dtype=np.uint8)

    return made
