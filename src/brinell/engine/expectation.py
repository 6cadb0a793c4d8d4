"""Expectations: what a plan will cost on this machine, from short timings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.network import Network
from brinell.core.perturbation import Corruption, Perturbation
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
    data = plan.data.readable(_BATCH)
    x, y, ids = data.x().to(plan.device), data.labels().to(plan.device), data.ids
    made: dict[str, float] = {}
    for perturbation in plan.perturbations:
        if isinstance(perturbation, Corruption):
            draws = derive(plan.seed, "expect", ids=ids, device=plan.device)
            made[perturbation.spec()] = _seconds(lambda p=perturbation, d=draws: p(None, x, y, draws=d)) / len(data)
    speed = {name: _passes(net, x) for name, net in plan.nets.items()}
    found = []
    for cell in plan.cells():
        forwards, backwards = plan.passes(cell)
        forward, backward = speed[cell.net]
        each = forwards * forward + backwards * backward + made.get(cell.perturbation.spec(), 0.0)
        found.append(Expectation(cell, forwards, backwards, each * len(plan.data)))
    return found


def limited(plan: Plan, minutes: float, stored: Mapping[str, Any] | None = None) -> Plan:
    """The plan with the budget of every attack that takes one (a field `passes`) cut to what a time allows, at 50 passes least.

    The time is shared equally among the cells of these attacks and their samples; a pass costs what a short timing says. It is a limit
    for samples that withstand everything; others leave earlier. A run that goes on keeps the budgets it began with.

    Arguments:
        minutes: for all these attacks together. stored: the plan.json of the run that goes on.

    Raises:
        SpecError: minutes is not positive.
    """
    if not 0 < minutes < math.inf:
        raise SpecError(f"a time limit of {minutes} minutes leaves nothing to attack with; give a positive number")
    if stored and stored.get("minutes") == minutes:
        return replace(plan, perturbations=tuple(parse(text, Perturbation) for text in stored["perturbations"]), minutes=minutes)
    able = [p for p in plan.perturbations if "passes" in type(p).model_fields]
    if not able:
        return replace(plan, minutes=minutes)
    x = plan.data.readable(_BATCH).x().to(plan.device)
    both = sum(sum(_passes(net, x)) for net in plan.nets.values())  # a forward and a backward pass on every network
    passes = max(int(minutes * 60 / (len(able) * len(plan.data) * both / 2)), 50)
    cut = {p.spec(): p.replace(passes=min(passes, getattr(p, "passes", passes))) for p in able}
    return replace(plan, perturbations=tuple(cut.get(p.spec(), p) for p in plan.perturbations), minutes=minutes)


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
