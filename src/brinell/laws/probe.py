"""Laws of probes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from brinell.core.draws import derive
from brinell.core.measurement import Reading
from brinell.core.probe import Probe, View
from brinell.core.tally import Tally
from brinell.laws.law import require
from brinell.laws.specimen import part, view


def _observe(probe: Probe, seen: View) -> Tally:
    return probe.observe(seen, draws=derive(3, ids=seen.ids))


def _same_readings(a: list[Reading], b: list[Reading], tolerance: float) -> bool:
    def near(p: Any, q: Any) -> bool:
        return p is q if p is None or q is None else np.allclose(p, q, rtol=tolerance, atol=tolerance, equal_nan=True)

    return len(a) == len(b) and all(
        all(getattr(p, fact) == getattr(q, fact) for fact in ("name", "layer", "status", "n"))
        and all(near(getattr(p, number), getattr(q, number)) for number in ("value", "low", "high", "array"))
        for p, q in zip(a, b, strict=True)
    )


def tally_is_a_monoid(probe: Probe) -> None:
    """Readings are the same however the samples are cut into shards and in whatever order the shards are added."""
    whole = view()
    expected = probe.read(_observe(probe, whole))
    rows = torch.arange(len(whole.ids))
    cuts = [rows[:5], rows[5:6], rows[6:]]
    for order in ((0, 1, 2), (2, 0, 1)):
        shards = [_observe(probe, part(whole, cuts[k])) for k in order]
        require(_same_readings(expected, probe.read((shards[0] + shards[1]) + shards[2]), 1e-6), f"shards in order {order} read otherwise")
        require(_same_readings(expected, probe.read(shards[0] + (shards[1] + shards[2])), 1e-6), "addition is not associative")


def sample_order_is_irrelevant(probe: Probe) -> None:
    """Readings are the same for any order of the samples."""
    whole = view()
    back = torch.arange(len(whole.ids) - 1, -1, -1)
    require(_same_readings(probe.read(_observe(probe, whole)), probe.read(_observe(probe, part(whole, back))), 1e-6), "the order matters")


def single_agrees_with_double(probe: Probe) -> None:
    """float32 and float64 give the same readings to 1e-3."""
    a, b = (probe.read(_observe(probe, view(dtype=dtype))) for dtype in (torch.float32, torch.float64))
    require(_same_readings(a, b, 1e-3), "float32 and float64 read otherwise")
