"""Hand-built tables of graded corruptions: every error is known beforehand."""

import numpy as np

from brinell.core.lab import Table
from brinell.core.perturbation import Corruption
from brinell.perturb.clean import Clean


def corruption(kind, severity, family="noise", main=True, **fields):
    """A graded corruption of any name, which need not exist; it is never called."""
    settings = {"severity": severity, **fields}
    space = {"__annotations__": {name: type(value) for name, value in settings.items()}, "telling": ("severity",), "__module__": __name__}
    cls = type("Stand", (Corruption,), {**space, **({"quantize": True} if "quantize" in fields else {})})
    cls.name, cls.family, cls.main = kind, family, main  # not given as name=, so it is not registered
    return cls(**settings)


def flags(share, n=100):
    """(n,) bool, correct but for the last round(share n)."""
    return np.arange(n) < n - round(share * n)


def graded_table(nets, shape=(3, 224, 224), classes=1000):
    """A table of networks.

    Arguments:
        nets: per network, cells by corruption (or "clean"): the share of wrong samples of 100, or the (n,) flags of correct ones, or all
            columns, or None for a cell that failed.
    """
    clean = Clean()
    items = list(dict.fromkeys(clean if item == "clean" else item for cells in nets.values() for item in cells))
    found = {}
    for net, cells in nets.items():
        for item, given in cells.items():
            spec = "clean" if item == "clean" else item.spec()
            if given is None:
                found[net, spec] = {}
                continue
            columns = given if isinstance(given, dict) else {"correct": flags(given) if isinstance(given, float) else np.asarray(given)}
            n = len(next(iter(columns.values())))
            found[net, spec] = {"id": np.arange(n), "correct": np.ones(n, bool), "finite": np.ones(n, bool),
                                "prediction": np.zeros(n, int), **columns}  # fmt: skip
    n = max(len(columns["id"]) for columns in found.values() if columns)
    data = {"shape": list(shape), "classes": [str(k) for k in range(classes)], "n": n, "domain": [0, 1]}
    table = Table({"networks": {net: {} for net in nets}, "data": data, "perturbations": [i.spec() for i in items]}, [],
                  load_samples=lambda net, spec: found.get((net, spec), {}))  # fmt: skip
    table.perturbations = lambda: items
    return table


def read(summary, table):
    """Readings by network, name and layer."""
    return {(net, reading.name, reading.layer): reading for net, reading in summary(table)}
