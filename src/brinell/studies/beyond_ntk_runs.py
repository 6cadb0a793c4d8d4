"""What the study "beyond NTK" runs: descents of two-layer learners and kernel regressions, as items a lab can keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError, UndefinedReading
from brinell.models.kernel import Kernel
from brinell.models.kernel_ridge import RIDGES, ridge_path
from brinell.models.two_layer import Activation, initial_neurons
from brinell.models.two_layer_descent import Gradient, Stage, descend, on_fresh_samples, on_population, on_samples, stages
from brinell.models.two_layer_loss import population_loss, sample_loss
from brinell.models.two_layer_target import Target, drawn_target, uniform_target
from brinell.models.two_layer_tensors import moment_errors, recovered_mass, tensor_errors

ORDERS = (0, 2, 4, 6)
"""Of the tensor errors that are followed."""
VERSION = 1
"""Part of every key: raised by a change that moves the numbers."""
MARKS = 100
"""Places on a descent where it is measured, in geometric progression."""
_DIVERGED = 1e6
"""A loss at which a descent is given up: that of the zero network is below 1."""
_EXACT = 2000
"""Up to this many samples a kernel is fitted in float64 over all ridges, above in float32 over every second one."""


@dataclass(frozen=True)
class Problem:
    """A drawn target and the samples of it, the same for everyone who names the same numbers.

    Arguments:
        d: dimension. seed: of target and samples. kappa: spread of the weights a. block: of the Hadamard instance, 0 for a random
            rotation. axes: directions along the axes instead, with a = 1/d.
    """

    d: int
    seed: int
    kappa: float = 1.0
    block: int = 0
    axes: bool = False

    def target(self) -> Target:
        if self.axes:
            return uniform_target(self.d)
        return drawn_target(self.d, draws=derive(self.seed, "beyond_ntk", "target", ids=[0]), kappa=self.kappa, block=self.block)

    def samples(self, part: str, n: int) -> Tensor:
        """The first n inputs of a part, (n, d) float32: a larger n begins with those of a smaller one."""
        return derive(self.seed, "beyond_ntk", part, ids=range(n)).normal(self.d)


@dataclass(frozen=True)
class Course:
    """One descent of an ensemble with a common target.

    Arguments:
        problem: the target, and the samples of an empirical descent. width, steps, rate, activation: of the learner and the descent.
            mode: population, empirical (full batch) or online. samples: their number, or the batch size online. members: learners
            with initial neurons of their own; online they also see samples of their own.
    """

    problem: Problem
    width: int
    steps: int
    rate: float = 0.5
    activation: Activation = "relu"
    mode: str = "population"
    samples: int = 0
    members: int = 1

    def __post_init__(self) -> None:
        if self.mode not in ("population", "empirical", "online") or (self.mode != "population" and self.samples < 1) or self.members < 1:
            raise SpecError(f"{self}: mode is population, or empirical or online with at least one sample; members at least 1")

    @property
    def ids(self) -> range:
        """The seeds of the members."""
        return range(self.problem.seed, self.problem.seed + self.members)

    def start(self) -> Tensor:
        """The initial neurons, (members, width, d)."""
        return initial_neurons(self.width, self.problem.d, draws=derive(0, "beyond_ntk", "neurons", self.width, ids=self.ids))

    def plan(self) -> tuple[Stage, ...]:
        return stages(self.problem.d, self.steps, self.rate)

    def marks(self) -> set[int]:
        """The steps after which it is measured: 0, a geometric progression, the last."""
        return {0, self.steps, *(round(step) for step in np.geomspace(1, max(self.steps, 1), MARKS))}


@dataclass(frozen=True)
class Leg:
    """The steps first + 1, ..., last of a course; `w` is where the leg before it arrived."""

    course: Course
    first: int
    last: int
    w: Tensor | None = field(default=None, repr=False)
    device: str = field(default="cpu", repr=False)


@dataclass(frozen=True)
class History:
    """A finished course: what was measured at its marks.

    Arguments:
        step: (marks,). values: name to (marks, members) float64: loss, train, mass, trace, second, largest, and T0, T2, T4, T6.
            w: (members, width, d), where it arrived.
    """

    course: Course
    step: np.ndarray
    values: dict[str, np.ndarray]
    w: Tensor

    @cached_property
    def target(self) -> Target:
        return self.course.problem.target()

    @cached_property
    def floors(self) -> np.ndarray:
        """(marks, members) loss divided by (1 - 3/pi) sum a^2."""
        return self.values["loss"] / self.target.floor


def walk(leg: Leg) -> dict[str, Any]:
    """Descend along a leg, measuring at the marks of its course.

    Raises:
        UndefinedReading: the descent has diverged.
    """
    course = leg.course
    exact = course.problem.target()
    start = w = (course.start() if leg.w is None else leg.w).to(leg.device)
    gradient, seen = _gradient(leg, exact.to(torch.float32, leg.device))
    marks, found = course.marks(), []
    for step, w in descend(start, gradient, course.plan(), done=leg.first):
        if step in marks and (step > leg.first or step == 0):
            values = _measured(w.cpu(), exact, course)
            found.append((step, {"train": _on_samples(w, seen, course) if seen else values["loss"], **values}))
        if step == leg.last:
            break
    names = [*found[0][1]] if found else []
    result: dict[str, Any] = {name: torch.stack([values[name] for _, values in found]) for name in names}
    return {"w": w.cpu(), "step": torch.tensor([step for step, _ in found], dtype=torch.int64), **result}


def _gradient(leg: Leg, target: Target) -> tuple[Gradient, tuple[Tensor, Tensor] | None]:
    course = leg.course
    if course.mode == "population":
        return on_population(target, course.activation), None
    if course.mode == "online":
        draws = derive(course.problem.seed, "beyond_ntk", "batches", leg.first, ids=course.ids, device=leg.device)
        return on_fresh_samples(target, course.samples, draws=draws, activation=course.activation), None
    x = course.problem.samples("train", course.samples).to(leg.device)
    return on_samples(x, target(x), course.activation), (x, target(x))


def _on_samples(w: Tensor, seen: tuple[Tensor, Tensor], course: Course) -> Tensor:
    return sample_loss(w, *seen, course.activation).cpu().double()


def _measured(w: Tensor, target: Target, course: Course) -> dict[str, Tensor]:
    """In float64 and on the CPU, whatever the descent runs on: closed forms near 0 need it, and cost no samples."""
    loss = population_loss(w, target, course.activation)
    if not bool((loss < _DIVERGED).all()):
        raise UndefinedReading(f"{course} has diverged: its loss is {loss.tolist()}; lower the rate")
    errors = tensor_errors(w, target, ORDERS, course.activation)
    trace, second = moment_errors(w, target, course.activation)
    return {
        "loss": loss, "mass": recovered_mass(w, target, activation=course.activation), "trace": trace, "second": second,
        "largest": w.double().square().sum(-1).amax(-1), **{f"T{order}": errors[..., at] for at, order in enumerate(ORDERS)},
    }  # fmt: skip


def follow(lab: Any, courses: Sequence[Course], leg: int) -> list[History]:
    """Run courses to their end, in legs of at most `leg` steps: an interrupted one goes on at the leg it was in."""
    device = str(lab.device)
    made: list[list[dict[str, Any]]] = [[] for _ in courses]
    for first in range(0, max((course.steps for course in courses), default=0), leg):
        going = [at for at, course in enumerate(courses) if course.steps > first]
        legs = [
            Leg(courses[at], first, min(first + leg, courses[at].steps), made[at][-1]["w"] if made[at] else None, device) for at in going
        ]
        for at, result in zip(going, lab.map(walk, legs, key=_key), strict=True):
            made[at].append(result)
    return [_joined(course, parts) for course, parts in zip(courses, made, strict=True)]


def _joined(course: Course, parts: list[dict[str, Any]]) -> History:
    names = [name for name in parts[0] if name not in ("w", "step")]
    values = {name: torch.cat([part[name] for part in parts if name in part]).numpy() for name in names}
    return History(course, torch.cat([part["step"] for part in parts]).numpy(), values, parts[-1]["w"])


@dataclass(frozen=True)
class Regression:
    """A kernel fitted to samples of a problem: the same samples an empirical course of that problem sees.

    Arguments:
        problem, samples: what is learnt, from how many. kernel: its spec. valid, test: further samples to choose the ridge, and to measure.
    """

    problem: Problem
    samples: int
    kernel: str = "ntk"
    valid: int = 2000
    test: int = 4000
    device: str = field(default="cpu", repr=False)


@dataclass(frozen=True)
class Fitted:
    """What a kernel reached.

    Arguments:
        loss: on the test samples, at the ridge chosen on validation. best: at the ridge that is best on the test samples themselves.
            ridge, best_ridge: these two. train: on the training samples, at `ridge`. floor: (1 - 3/pi) sum a^2 of the target.
    """

    task: Regression
    loss: float
    best: float
    ridge: float
    best_ridge: float
    train: float
    floor: float


def regress(task: Regression) -> dict[str, Any]:
    """Fit a kernel over all ridges; losses at the one chosen on validation and at the one best on the test samples."""
    exact = task.samples <= _EXACT
    dtype = torch.float64 if exact else torch.float32
    device = "cpu" if task.device.startswith("mps") else task.device  # which has no float64
    target = task.problem.target().to(dtype, device)
    inputs = [
        task.problem.samples(part, n).to(device, dtype) for part, n in (("train", task.samples), ("valid", task.valid), ("test", task.test))
    ]
    train, valid, test = ((x, target(x)) for x in inputs)
    draws = derive(task.problem.seed, "beyond_ntk", "kernel", ids=[0], device=device)
    path = ridge_path(parse(task.kernel, Kernel), train, valid, test, draws=draws, ridges=RIDGES if exact else RIDGES[::2])
    at, best = path.chosen, path.best
    return {
        "loss": path.test[at], "best": path.test[best], "ridge": path.ridges[at], "best_ridge": path.ridges[best],
        "train": path.train[at], "floor": target.floor,
    }  # fmt: skip


def fit(lab: Any, tasks: Sequence[Regression]) -> list[Fitted]:
    """Fit kernels, each kept by the lab."""
    placed = [replace(task, device=str(lab.device)) for task in tasks]
    return [Fitted(task, **result) for task, result in zip(tasks, lab.map(regress, placed, key=_key), strict=True)]


def reaching(history: History, floors: float) -> np.ndarray:
    """(members,) the step at which the loss first falls to this many floors, between marks by the logarithms of both; NaN where it
    does not.
    """
    found = np.full(history.floors.shape[1], np.nan)
    for member, losses in enumerate(history.floors.T):
        below = np.flatnonzero(losses <= floors)
        if len(below) and (at := int(below[0])):
            (a, b), (x, y) = np.log(np.maximum(history.step[at - 1 : at + 1], 0.5)), np.log(losses[at - 1 : at + 1])
            found[member] = math.exp(a + (b - a) * (x - math.log(floors)) / (x - y))
    return found


def _key(item: Leg | Regression) -> str:
    return f"{VERSION} {item!r}"
