"""Expectations: what a plan will cost on this machine, from short timings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from brinell.core.draws import derive
from brinell.core.network import Network
from brinell.core.perturbation import Corruption
from brinell.engine.plan import Cell, Plan

_BATCH = 64


@dataclass(frozen=True)
class Expectation:
    """One cell with the passes per sample it costs at most and the seconds all its samples are expected to take."""

    cell: Cell
    forwards: int
    backwards: int
    seconds: float


def expect(plan: Plan) -> list[Expectation]:
    """Time one batch forwards, backwards and under each corruption, and add up.

    Attacks are counted with their whole budget, so a network that yields early takes less.
    """
    positions = np.arange(min(_BATCH, len(plan.data)))
    x, y, ids = plan.data.x(positions).to(plan.device), plan.data.labels(positions).to(plan.device), plan.data.ids[positions]
    made: dict[str, float] = {}
    for perturbation in plan.perturbations:
        if isinstance(perturbation, Corruption):
            draws = derive(plan.seed, "expect", ids=ids, device=plan.device)
            made[perturbation.spec()] = _seconds(lambda p=perturbation, d=draws: p(None, x, y, draws=d)) / len(positions)
    speed = {name: _passes(net, x) for name, net in plan.nets.items()}
    found = []
    for cell in plan.cells():
        forwards, backwards = plan.passes(cell)
        forward, backward = speed[cell.net]
        each = forwards * forward + backwards * backward + made.get(cell.perturbation.spec(), 0.0)
        found.append(Expectation(cell, forwards, backwards, each * len(plan.data)))
    return found


def _passes(net: Network, x: torch.Tensor) -> tuple[float, float]:
    """Seconds per sample of a forward pass, and of a backward pass to the input."""

    def both() -> None:
        z = x.detach().requires_grad_()
        out = net(z).sum()
        if out.requires_grad:
            out.backward()

    with torch.no_grad():
        forward = _seconds(lambda: net(x)) / len(x)
    return forward, max(_seconds(both) / len(x) - forward, 0.0)


def _seconds(work: Callable[[], object]) -> float:
    work()  # the first call pays for set-up
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
