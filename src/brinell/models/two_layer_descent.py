"""Truncated gradient descent of two-layer learners, on the population, on fixed samples, or on a fresh batch at each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.errors import DataError
from brinell.models.two_layer import Activation
from brinell.models.two_layer_loss import population_gradient, sample_gradient
from brinell.models.two_layer_target import Target

Gradient = Callable[[Tensor], Tensor]
"""Weights (..., m, d) to their mean-field gradient m dL/dw."""


@dataclass(frozen=True)
class Stage:
    """Some steps of descent at one rate and one cap.

    Arguments:
        steps: how many. rate: eta_mf = eta / m, on the mean-field gradient m dL/dw, so that it does not depend on the width.
        cap: 1/lambda: a neuron moves only while ||w_i||^2 <= cap; infinite for no truncation.

    Raises:
        DataError: steps < 0, or a rate or cap that is not positive.
    """

    steps: int
    rate: float
    cap: float = math.inf

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 < self.rate < math.inf or not self.cap > 0:
            raise DataError(f"{self}: a stage has steps >= 0, a finite rate > 0 and a cap > 0")


def stages(d: int, steps: int, rate: float) -> tuple[Stage, Stage]:
    """The two stages of the paper's algorithm: cap 4d for the first d^2 / (rate log d) steps, then cap 100d.

    References: Li, Ma & Zhang (2020), "Learning over-parametrized two-layer ReLU neural networks beyond NTK", COLT,
        https://arxiv.org/abs/2007.04596, algorithm 1.

    Departures: the paper gives 1/lambda_0, 1/lambda_1 and the lengths up to unstated constants; 4, 100 and 1 are ours. Caps of this
        size are rarely reached.

    Example:
        >>> [(stage.steps, stage.cap) for stage in stages(20, 3000, 0.5)]
        [(267, 80), (2733, 2000)]
    """
    first = min(steps, round(d * d / (rate * math.log(max(d, 2)))))
    return Stage(first, rate, 4 * d), Stage(steps - first, rate, 100 * d)


def truncated_step(w: Tensor, gradient: Tensor, rate: float, cap: float = math.inf) -> Tensor:
    """w_i - rate * gradient_i for neurons with ||w_i||^2 <= cap; the others come back bit by bit as they were.

    Example:
        >>> truncated_step(torch.tensor([[1.0], [3.0]]), torch.ones(2, 1), 0.5, cap=4.0).tolist()
        [[0.5], [3.0]]
    """
    moved = w - rate * gradient
    return moved if math.isinf(cap) else torch.where(w.square().sum(-1, keepdim=True) <= cap, moved, w)


def descend(w: Tensor, gradient: Gradient, plan: Sequence[Stage], *, done: int = 0) -> Iterator[tuple[int, Tensor]]:
    """Walk through the stages of a plan: yields (step, w) after every step, and first the start itself.

    Arguments:
        w: (..., m, d). gradient: one of `on_population`, `on_samples`, `on_fresh_samples`. done: steps of the plan that w has behind it,
            so that an interrupted descent goes on.

    Example:
        >>> from brinell.models.two_layer_target import uniform_target
        >>> steps = descend(torch.eye(2), on_population(uniform_target(2)), [Stage(3, 0.1)])
        >>> [step for step, _ in steps]
        [0, 1, 2, 3]
    """
    yield done, w
    end = 0
    for stage in plan:
        start, end = end, end + stage.steps
        for step in range(max(start, done), end):
            w = truncated_step(w, gradient(w), stage.rate, stage.cap)
            yield step + 1, w


def on_population(target: Target, activation: Activation = "relu") -> Gradient:
    """The gradient of the population loss, in closed form. A target in another precision than the weights is converted at every step."""
    return lambda w: population_gradient(w, target, activation)


def on_samples(x: Tensor, y: Tensor, activation: Activation = "relu") -> Gradient:
    """The gradient of the loss on the same samples at every step: full batch."""
    return lambda w: sample_gradient(w, x, y, activation)


def on_fresh_samples(target: Target, batch: int, *, draws: Draws, activation: Activation = "relu") -> Gradient:
    """The gradient on `batch` new samples at every step, other ones for each member of the ensemble.

    Arguments:
        target: on the device of `draws`. draws: one row per member; a copy of it moves on with every step.

    Raises:
        DataError: a batch below 1.
    """
    if batch < 1:
        raise DataError(f"a batch of {batch} samples has no gradient; give at least 1")
    stream = draws.fork()

    def gradient(w: Tensor) -> Tensor:
        x = stream.normal(batch, w.shape[-1], dtype=w.dtype).reshape(*w.shape[:-2], batch, w.shape[-1])
        return sample_gradient(w, x, target(x), activation)

    return gradient
