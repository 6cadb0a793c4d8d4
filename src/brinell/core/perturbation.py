"""Perturbations: ways to pick a point around each sample. A corruption ignores the network, an attack looks at it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from brinell.core.component import Component
from brinell.core.draws import Draws
from brinell.core.errors import DataError
from brinell.core.goal import Goal, Misclassify, Nearest
from brinell.core.network import frozen
from brinell.core.threat import Ball, Threat

DONE, GAVE_UP = 0, 1
"""Per-sample status of an attempt: a point was proposed; no point could be proposed (the clean input stands in for it)."""


@dataclass
class Attempt:
    """What a perturbation proposes. The lab checks every point again before it counts.

    Arguments:
        z: (n, *d) the points. status: (n,) DONE or GAVE_UP, None for all done. note: why some gave up.
    """

    z: Tensor
    status: Tensor | None = None
    note: str = ""


class Perturbation(Component):
    """Picks one point z of the threat for each sample x; asked as `perturbation(net, x, y, draws=draws)`.

    A subclass writes `__call__(self, net, x, y, *, draws)` and returns z or an `Attempt`. Around every such method the base
    class keeps four promises, so that no item has to: inputs are checked; the caller's draws do not move on (the same draws
    give the same result); x is not touched and the result shares no memory with it; an attack runs on the network in
    evaluation mode without parameter gradients, which is undone afterwards.

    Raises:
        DataError: x is not a floating-point batch, or y and draws have another number of rows.
    """

    unbounded: ClassVar[bool] = False
    """Does it find the nearest point itself? Only then may it be asked for goal `nearest` and in a ball with eps = inf."""
    threat: Threat | None = None

    @model_validator(mode="after")
    def _has_an_end(self) -> Perturbation:
        if not self.unbounded and isinstance(self.threat, Ball) and math.isinf(self.threat.eps):
            raise ValueError(f"threat={self.threat.spec()} has no end: give a finite eps, or use a minimum-norm attack such as fmn")
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__call__" in cls.__dict__:
            cls.__call__ = _kept(cls.__dict__["__call__"])

    @property
    def threats(self) -> tuple[Threat, ...]:
        """The threats that its points say something of: its own, where it has one."""
        return () if self.threat is None else (self.threat,)

    @property
    def cost(self) -> tuple[int, int]:
        """(forwards, backwards) that one sample costs at most; what a plan expects."""
        return 0, 0

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor | Attempt:
        raise TypeError(f"{type(self).__name__} does not say how it perturbs")


class Corruption(Perturbation):
    """A perturbation by nature or chance: it never looks at the network."""


class Attack(Perturbation):
    """A perturbation that looks at the network to reach a goal."""

    has_norms: ClassVar[tuple[float, ...]] = (1, 2, math.inf)
    """The norms of balls it can search, where its threat is a ball."""
    goal: Goal = Field(default_factory=Misclassify)

    @model_validator(mode="after")
    def _has_a_budget(self) -> Attack:
        if self.goal.flat and getattr(self, "random_start", True) is False:
            raise ValueError(f"goal={self.goal.spec()} needs random_start=True: a divergence has gradient zero at the clean input")
        if not self.unbounded and isinstance(self.goal, Nearest):
            raise ValueError(f"goal={self.goal.spec()} is for minimum-norm attacks such as fmn; here use goal={self.goal.aim.spec()}")
        return self

    def within(self, threat: Threat) -> Self:
        """The same attack in another threat."""
        return self.replace(threat=threat)


class Around(Attack):
    """An attack that runs another one on another view of the network. Threat and goal are those of the inner attack."""

    unbounded = True
    derived = ("goal", "threat")
    attack: Attack

    @model_validator(mode="after")
    def _takes_over(self) -> Around:
        given = sorted({"goal", "threat"} & self.model_fields_set)
        if given:
            raise ValueError(f"give {' and '.join(given)} to the inner attack: {self.name}(attack={self.attack.name}({given[0]}=...))")
        vars(self).update(threat=self.attack.threat, goal=self.attack.goal)
        return self

    def within(self, threat: Threat) -> Self:
        return self.replace(attack=self.attack.within(threat))


Call = Callable[..., "Tensor | Attempt"]


def _kept(call: Call) -> Call:
    @functools.wraps(call)
    def kept(self: Perturbation, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor | Attempt:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2:
            what = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise DataError(f"{self.name} needs floating-point inputs of shape (n, *d); got {what}")
        if not isinstance(y, Tensor) or y.shape != (len(x),) or y.is_floating_point() or len(draws) != len(x):
            shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise DataError(f"{self.name}: {len(x)} inputs need as many integer labels and rows of draws; got {shape} and {len(draws)}")
        if len(x) == 0:
            return x.clone()
        draws = draws.fork().to(x.device)
        if torch.is_inference_mode_enabled() or x.is_inference():  # there are no gradients, nor counts of what was written
            with torch.inference_mode(False):
                return kept(self, net, x.clone(), y.clone(), draws=draws)
        version = x._version
        if isinstance(self, Attack):
            with frozen(net):
                made = call(self, net, x.detach(), y.clone(), draws=draws)  # the tensor itself: its logits are known
        else:
            with torch.no_grad():
                made = call(self, net, x.clone(), y.clone(), draws=draws)  # numpy writes in place without moving x._version
        if x._version != version:
            raise DataError(f"{self.name} changed its input in place; work on a copy (x.clone()), since others read the same tensor")
        z, status = points(made), made.status if isinstance(made, Attempt) else None
        if not isinstance(z, Tensor):
            raise DataError(f"{self.name} returned {type(z).__name__}; expected a tensor of points, or an Attempt that holds one")
        if status is not None and status.shape != y.shape:
            raise DataError(f"{self.name} returned a status of shape {tuple(status.shape)} for {len(x)} samples")
        z = z.detach().to(x.dtype)
        if z.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
            z = z.clone()
        return Attempt(z, made.status, made.note) if isinstance(made, Attempt) else z

    return kept


def points(made: Tensor | Attempt) -> Tensor:
    """The points of what a perturbation returned."""
    return made.z if isinstance(made, Attempt) else made
