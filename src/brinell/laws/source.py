"""Laws of data sources."""

from __future__ import annotations

import numpy as np
import torch

from brinell.core.dataset import Source
from brinell.laws.law import require


def samples_are_stable(source: Source) -> None:
    """Loading twice gives the same digest; a sample read alone equals the same sample read among others."""
    data = source.load()
    require(source.load().digest == data.digest, "loading twice gives another digest")
    require(torch.equal(data.x([2])[0], data.x([0, 1, 2])[2]), "a sample depends on what is read with it")
    require(np.array_equal(data.limit(20, 1).ids, source.load().limit(20, 1).ids), "the stratified sample is not repeatable")
