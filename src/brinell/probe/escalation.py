"""Escalation: does an attack break more with twice its budget, and everything where the ball has no end?"""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from brinell.core import norms
from brinell.core.confidence import proportion
from brinell.core.draws import Draws
from brinell.core.goal import Misclassify
from brinell.core.measurement import Reading
from brinell.core.perturbation import Attack, points
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Max, Rows, Tallies, Tally
from brinell.core.threat import Ball

BUDGETS = ("steps", "queries", "restarts")
"""Fields of attacks that say how long they search; the first one that an attack has is doubled."""


class Escalation(Probe, name="escalation"):
    """An attack against itself with more means, on a share of the samples: had it converged, and does it work at all?

    Readings of the clean cell, over a share of the samples chosen by the hash of their ids:

    - `attacked_accuracy`: share that is right at the attack's points, for comparison;
    - `longer_gain`: share that it breaks with twice its steps (or queries, or restarts), but not without; 0 for an attack that has
      converged. UNDEFINED for an attack without such a field;
    - `noise_gain`: share that is wrong at one of `noise` random points of the ball, but right at the attack's: chance should find nothing
      that a search does not;
    - `unbounded_accuracy`: share that is right still when the ball holds the whole domain. 0 for an attack that works, as it may
      turn every sample into any other then.

    Intervals are Clopper-Pearson's.

    Arguments:
        attack: its threat is a ball with an end, its goal misclassify. share: of the samples. noise: points tried, every second one in a
            corner of the ball (random signs in Linf). confidence: of the intervals.

    Raises:
        SpecError: the attack's threat is no ball with an end, or it has another goal.

    References: Carlini et al. (2019), "On Evaluating Adversarial Robustness", arXiv 1902.06705 (unbounded
        attacks must reach 100 %; more iterations must not change the result; noise must not beat gradients). The share is ours.

    Example:
        >>> import brinell as br
        >>> br.parse("escalation(attack=pgd, share=0.5)").spec()
        'escalation(attack=pgd(steps=40, threat=ball(eps=8/255, norm=inf)), share=0.5)'
    """

    telling = ("attack",)
    attack: Attack
    share: float = Field(default=0.1, gt=0, le=1)
    noise: int = Field(default=100, ge=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)

    @model_validator(mode="after")
    def _check(self) -> Escalation:
        ball = self.attack.threat
        if not isinstance(ball, Ball) or not 0 < ball.eps < math.inf or not isinstance(self.attack.goal.aim, Misclassify):
            raise ValueError(f"attack={self.attack.spec()} must look for a wrong answer in a ball with 0 < eps < inf")
        return self

    @property
    def _ball(self) -> Ball:
        return self.attack.threat  # pyright: ignore[reportReturnType] - checked above

    @property
    def needs(self) -> Needs:
        return Needs(net=True)

    @property
    def cost(self) -> tuple[int, int]:
        forwards, backwards = self.attack.cost
        return math.ceil(self.share * (4 * (forwards + 1) + self.noise)), math.ceil(self.share * 4 * backwards)

    def longer(self) -> Attack | None:
        """The attack with twice its budget; None where it has none."""
        field = next((name for name in BUDGETS if name in type(self.attack).model_fields), None)
        return None if field is None else self.attack.replace(**{field: 2 * getattr(self.attack, field)})

    def endless(self, entries: int) -> Attack:
        """The attack in a ball that holds the whole domain; a thousand times the eps where the domain has no end."""
        ball = self._ball
        width = ball.high - ball.low
        far = (
            float(norms.length(torch.full((1, entries), width, dtype=torch.float64), ball.norm))
            if math.isfinite(width)
            else 1000 * ball.eps
        )
        return self.attack.within(ball.replace(eps=max(far, ball.eps)))

    def observe(self, view: View, *, draws: Draws) -> Tally:
        if view.z is not view.x or view.net is None:
            return Tallies({"place": Max.of(perturbed=torch.tensor(1))})
        parts: dict[str, Tally] = {"place": Max.of(perturbed=torch.tensor(0))}
        chosen = draws.fork().uniform(1, dtype=torch.float64).squeeze(1) < self.share
        if bool(chosen.any()):
            columns = self._try(view, chosen, draws[chosen])
            parts["tried"] = Rows.of(id=view.ids[chosen.to(view.ids.device)], **columns)
        return Tallies(parts)

    def _try(self, view: View, chosen: Tensor, draws: Draws) -> dict[str, Tensor]:
        x, y = view.x[chosen], view.y[chosen]
        tried = {"plain": self.attack, "longer": self.longer(), "endless": self.endless(math.prod(x.shape[1:]))}
        columns = {}
        for name, attack in tried.items():
            if attack is None or view.net is None:
                continue
            z = points(attack(view.net, x, y, draws=draws.at("attack")))
            with torch.no_grad():
                columns[name] = view.net(z).argmax(1) == y
        return {**columns, "noise": self._survives_noise(view, x, y, draws.at("noise"))}

    def _survives_noise(self, view: View, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        """(m,) bool: right at all random points; a sample that is wrong once is not tried again."""
        right, rows = torch.ones_like(y, dtype=torch.bool), torch.arange(len(x), device=x.device)
        for number in range(self.noise):
            if view.net is None or not len(rows):
                break
            own = draws[rows].at(number)
            corner = self._ball.eps * norms.steepest(own.normal(*x.shape[1:], dtype=x.dtype), self._ball.norm)
            z = self._ball.project(x[rows], x[rows] + corner) if number % 2 else self._ball.sample(x[rows], own)
            with torch.no_grad():
                right[rows] = view.net(z).argmax(1) == y[rows]
            rows = rows[right[rows]]
        return right

    def read(self, tally: Tally) -> list[Reading]:
        if not tally.parts or int(tally.parts["place"]["perturbed"]):
            return []
        layer = self.attack.spec()
        if "tried" not in tally.parts:
            why = f"no sample fell into the share of {self.share:g}; raise it, or take more samples"
            return [
                Reading.undefined(name, why, layer=layer)
                for name in ("attacked_accuracy", "longer_gain", "noise_gain", "unbounded_accuracy")
            ]
        rows = {
            name: value.numpy().astype(bool) for name, value in Rows(tally.parts["tried"].values).sorted().values.items() if name != "id"
        }
        plain = rows["plain"]
        if "longer" in rows:
            gain = self._share("longer_gain", plain & ~rows["longer"], layer)
        else:
            gain = Reading.undefined("longer_gain", f"{self.attack.name} has none of the fields {', '.join(BUDGETS)}", layer=layer)
        by_noise = self._share("noise_gain", plain & ~rows["noise"], layer)
        return [self._share("attacked_accuracy", plain, layer), gain, by_noise, self._share("unbounded_accuracy", rows["endless"], layer)]

    def _share(self, name: str, flags: np.ndarray, layer: str) -> Reading:
        low, high = proportion(flags, self.confidence)
        return Reading(name, float(np.mean(flags)), layer, low=low, high=high, confidence=self.confidence, n=len(flags))
