"""Hand-built tables: what a summary reads of a run, without any network."""

import numpy as np
import pytest

from brinell.core.component import parse
from brinell.core.lab import Table
from brinell.core.perturbation import Perturbation
from brinell.core.probe import Certifier
from brinell.core.threat import Ball


class HandMade(Certifier, name="test_hand_made"):
    """A certifier whose verdicts the test writes."""

    threat: Ball = Ball()


def table_of(cells, *, certificates=None, shape=(4,), domain=(0.0, 1.0), probes=(), rows=(), notes=(), training=False) -> Table:
    """A table of the network `net`.

    Arguments:
        cells: samples by perturbation spec; columns that are not given are: id 0.., label 0, finite, all distances 0. A text in
            their place is the reason why the cell failed. certificates: verdicts by threat.
    """
    rows, samples, arrays = list(rows), {}, {}
    for text, columns in cells.items():
        spec = parse(text, Perturbation).spec()
        if isinstance(columns, str):
            rows.append({"net": "net", "perturbation": spec, "probe": "", "name": "perturbation", "layer": "", "value": None,
                         "status": "failed", "reason": columns})  # fmt: skip
            samples[spec] = {}
            continue
        columns = {name: np.asarray(value) for name, value in columns.items()}
        n = len(columns["correct"])
        empty = {"id": np.arange(n), "label": np.zeros(n, dtype=int), "finite": np.ones(n, dtype=bool),
                 **{f"l{p}": np.zeros(n) for p in ("0", "1", "2", "inf")}}  # fmt: skip
        samples[spec] = {**empty, **columns, "correct": columns["correct"].astype(bool)}
    proofs = [HandMade(threat=threat).spec() for threat in certificates or {}]
    for proof, verdicts in zip(proofs, (certificates or {}).values(), strict=True):
        arrays[proof] = np.asarray(verdicts)
        rows.append({"net": "net", "perturbation": "clean", "probe": proof, "name": "certified", "layer": "", "status": "ok"})
    n = next(len(columns["id"]) for columns in samples.values() if columns)
    plan = {
        "networks": {"net": {"notes": list(notes), "training": training}},
        "data": {"shape": list(shape), "domain": list(domain), "n": n},
        "perturbations": list(samples),
        "probes": [*probes, *proofs],
    }
    return Table(plan, rows, load_samples=lambda _, spec: samples[spec], load_array=lambda row: arrays.get(row["probe"]))


@pytest.fixture
def make_table():
    return table_of
