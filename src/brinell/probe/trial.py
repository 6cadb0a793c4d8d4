"""Trials: an attack is let loose on a share of the samples, to see whether it works at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from brinell.core import norms
from brinell.core.ascent import TOGETHER
from brinell.core.confidence import proportion
from brinell.core.draws import Draws
from brinell.core.goal import Misclassify
from brinell.core.measurement import Reading
from brinell.core.perturbation import Attack
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Max, Rows, Tallies, Tally
from brinell.core.threat import Ball

_SPAN = 1 << 32  # words of a stream between two points


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


def random_points(x: Tensor, ball: Ball, numbers: Tensor, draws: Draws) -> Tensor:
    """Random points of the ball around each sample, (m n, *d) for (m,) numbers: uniform for even numbers, corners for odd ones.

    Corners are random signs in Linf, random directions of full length in L2, single entries in L1, moved into the domain. A point
    depends on its sample's draws and on its number alone.
    """
    n, each = len(x), numbers.to(x.device).repeat_interleave(len(x))
    rows = torch.arange(n, device=x.device).repeat(len(numbers))
    own = Draws(draws.k1[rows], draws.k2[rows], draws.counter[rows] + each * _SPAN)
    z = torch.empty_like(x[rows])
    for odd in (False, True):
        chosen = ((each % 2 == 1) == odd).nonzero().squeeze(1)
        if len(chosen):
            near, stream = x[rows[chosen]], own[chosen]
            if odd:
                corner = norms.steepest(stream.normal(*x.shape[1:], dtype=x.dtype), ball.norm)
                z[chosen] = ball.project(near, near + ball.eps * corner)
            else:
                z[chosen] = ball.sample(near, stream)
    return z


def survives_noise(net: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, ball: Ball, tries: int, draws: Draws) -> Tensor:
    """(n,) bool: is the answer right at all of so many random points of the ball? A sample that is wrong once is asked no more."""
    right, rows = torch.ones_like(y, dtype=torch.bool), torch.arange(len(x), device=x.device)
    together, done = max(1, TOGETHER // max(x[:1].numel(), 1)), 0  # points that share a pass
    while done < tries and len(rows):
        count = min(max(1, together // len(rows)), max(done, 16), tries - done)  # few at first: most that fall fall soon
        z = random_points(x[rows], ball, torch.arange(done, done + count), draws[rows])
        with torch.no_grad():
            kept = (net(z).argmax(1) == y[rows].repeat(count)).reshape(count, -1).all(0)
        right[rows] = kept
        rows, done = rows[kept], done + count
    return right
