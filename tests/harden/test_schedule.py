import math
import warnings

import pytest
import torch

from brinell.core.component import parse
from brinell.harden.fit import Fit
from brinell.harden.schedule import learning_rate


def peer(steps: int, peak: float, rising: float) -> list[float]:
    """The rates of torch's own one-cycle schedule."""
    p = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([p], lr=peak)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=rising, cycle_momentum=False)
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < steps:
            scheduler.step()
    return rates


@pytest.mark.parametrize(("steps", "warmup", "rising"), [(20, 0, 0.3), (50, 10, 0.2), (7, 0, 0.3), (101, 50, 50 / 101)])
def test_one_cycle_is_that_of_torch(steps, warmup, rising):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = peer(steps, 0.4, rising)
    assert [learning_rate("onecycle", s, steps, 0.4, warmup=warmup) for s in range(steps)] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_one_cycle_has_rates_for_very_few_steps(steps):
    rates = [learning_rate("onecycle", s, steps, 1.0) for s in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)


def test_cosine_after_warm_up():
    rates = [learning_rate("cosine", s, 10, 2.0, warmup=4) for s in range(10)]
    assert rates[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rates[4] == pytest.approx(2.0)
    assert rates[7] == pytest.approx(1.0)  # half-way through the six steps that are left
    assert rates[9] == pytest.approx(1 + math.cos(5 * math.pi / 6))


def test_steps_and_constant():
    rates = [learning_rate("step", s, 10, 1.0, milestones=(3, 6), gamma=0.5, warmup=2) for s in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25])
    assert [learning_rate("constant", s, 3, 0.7) for s in range(3)] == [0.7] * 3


def test_fit_counts_epochs_in_steps():
    fit = parse("fit(epochs=4, lr=1, schedule=step, milestones=(2, 3), warmup=0.5)")
    assert [fit.rate(s, per_epoch=4) for s in range(16)] == pytest.approx([0.5] + [1] * 7 + [0.1] * 4 + [0.01] * 4)
    assert Fit(epochs=2, lr=1.0).rate(4, per_epoch=4) == pytest.approx(0.5)
