"""A corrupted image does not depend on the device it was made on."""

import pytest
import torch

from brinell.core.component import items
from brinell.perturb.severity import Graded

TYPES = {name: kind for name, kind in items(Graded).items() if kind.__module__.startswith("brinell.")}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(("side", "n"), [(32, 64), (64, 16), (224, 4)])
def test_a_gpu_gives_what_a_cpu_gives(ask, photos, name, side, n):
    """Within one grey level; float32 may put one value in 10,000 on the other side of a threshold (of a flake, a drop, a hit)."""
    x = photos(side, side, n=n)
    for severity in (1, 3, 5):
        corruption = TYPES[name](severity=severity)
        apart = (ask(corruption, x.cuda()).cpu() - ask(corruption, x)).abs() * 255
        assert float((apart > 1.01).double().mean()) <= 1e-4
