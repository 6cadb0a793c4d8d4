"""Trials: an attack is let loose on a share of the samples, to see whether it works at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from brinell.core.confidence import proportion
from brinell.core.draws import Draws
from brinell.core.goal import Misclassify
from brinell.core.measurement import Reading
from brinell.core.perturbation import Attack
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Max, Rows, Tallies, Tally
from brinell.core.threat import Ball


class Trial(Probe):
    """A probe of the clean cell that tries an attack on a share of the samples, chosen by the hash of their ids.

    A subclass says what is `tried` on these samples, and what is `judged` of all of them; it names its readings in `judges`.

    Arguments:
        attack: what is tested; its threat is a ball with an end, its goal misclassify. share: of the samples. confidence: of the
            intervals, which are Clopper-Pearson's.

    Raises:
        SpecError: the attack's threat is no ball with an end, or it has another goal.
    """

    judges: ClassVar[tuple[str, ...]] = ()
    telling = ("attack",)
    attack: Attack
    share: float = Field(default=0.1, gt=0, le=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> Any:
        ball = self.attack.threat
        if not isinstance(ball, Ball) or not 0 < ball.eps < math.inf or not isinstance(self.attack.goal.aim, Misclassify):
            raise ValueError(f"attack={self.attack.spec()} must look for a wrong answer in a ball with 0 < eps < inf")
        return self

    @property
    def ball(self) -> Ball:
        return self.attack.threat  # pyright: ignore[reportReturnType] - checked above

    @property
    def needs(self) -> Needs:
        return Needs(net=True)

    def tried(self, net: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, draws: Draws) -> dict[str, Tensor]:
        """Columns (m,) of bool, one entry per sample."""
        raise TypeError(f"{type(self).__name__} does not say what it tries")

    def judged(self, rows: dict[str, np.ndarray]) -> list[Reading]:
        """The readings, from the columns of all samples."""
        raise TypeError(f"{type(self).__name__} does not say how it judges")

    def observe(self, view: View, *, draws: Draws) -> Tally:
        if view.z is not view.x or view.net is None:
            return Tallies({"place": Max.of(perturbed=torch.tensor(1))})
        parts: dict[str, Tally] = {"place": Max.of(perturbed=torch.tensor(0))}
        chosen = draws.fork().uniform(1, dtype=torch.float64).squeeze(1) < self.share
        if bool(chosen.any()):
            columns = self.tried(view.net, view.x[chosen], view.y[chosen], draws[chosen])
            parts["tried"] = Rows.of(id=view.ids[chosen.to(view.ids.device)], **columns)
        return Tallies(parts)

    def read(self, tally: Tally) -> list[Reading]:
        if not tally.parts or int(tally.parts["place"]["perturbed"]):
            return []
        if "tried" not in tally.parts:
            why = f"no sample fell into the share of {self.share:g}; raise it, or take more samples"
            return [Reading.undefined(name, why, layer=self.attack.spec()) for name in self.judges]
        columns = Rows(tally.parts["tried"].values).sorted().values
        return self.judged({name: column.numpy().astype(bool) for name, column in columns.items() if name != "id"})

    def share_of(self, name: str, flags: np.ndarray) -> Reading:
        """The reading of a share of samples."""
        low, high = proportion(flags, self.confidence)
        return Reading(name, float(np.mean(flags)), self.attack.spec(), low=low, high=high, confidence=self.confidence, n=len(flags))
