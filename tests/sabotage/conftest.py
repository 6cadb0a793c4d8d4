"""A healthy network without any training, samples for it, and a short way to the findings of a run."""

import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.lab import Table
from brinell.core.measurement import Finding


@pytest.fixture(scope="session")
def data() -> br.Dataset:
    return br.load_dataset("digits(side=8)", limit=120)


@pytest.fixture(scope="session")
def healthy() -> nn.Module:
    """The nearest class mean: logits |x|^2 - |x - mean_k|^2, a linear network that knows the digits."""
    train = br.load_dataset("digits(side=8, split=train)")
    x, y = train.x().flatten(1), train.labels()
    means = torch.stack([x[y == k].mean(0) for k in range(10)])
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.copy_(2 * means)
        layer.bias.copy_(-means.square().sum(1))
    return nn.Sequential(nn.Flatten(), layer).eval()


@pytest.fixture
def audit(data):
    """Measure with all checks; `finding(name)` of the result is the one finding of that name."""

    def run(net, perturbations=(), probes=(), summaries=("bound", "checks")) -> Table:
        lab = br.Lab(device="cpu")
        return lab.measure({"net": net}, data, perturbations, ["accuracy", "diagnostics(share=0.5)", *probes], summaries)

    return run


@pytest.fixture
def finding():
    """The one finding of a name; of the gravest verdict where there are several."""

    def one(table: Table, name: str) -> Finding:
        found = [item for item in table.findings if item.name == name]
        assert found, f"no finding called {name}; there are {sorted({item.name for item in table.findings})}"
        return max(found, key=lambda item: ["pass", "flag", "fail"].index(item.verdict))

    return one
