"""Escalation: does an attack break more with twice its budget, and everything where the ball has no end?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from brinell.core import norms
from brinell.core.draws import Draws
from brinell.core.measurement import Reading
from brinell.core.perturbation import Attack, points
from brinell.probe.trial import Trial

Net = Callable[[Tensor], Tensor]

BUDGETS = ("steps", "queries", "restarts")
"""Fields of attacks that say how long they search; the first one that an attack has is doubled."""


class Escalation(Trial, name="escalation"):
    """An attack against itself with more means, on a share of the samples: had it converged, and does it work at all?

    Readings of the clean cell, over a share of the samples chosen by the hash of their ids:

    - `attacked_accuracy`: share that is right at the attack's points, for comparison;
    - `longer_gain`: share that it breaks with twice its steps (or queries, or restarts), but not without; 0 for an attack that has
      converged. UNDEFINED for an attack without such a field;
    - `noise_gain`: share that is wrong at one of `noise` random points of the ball, but right at the attack's: chance should find nothing
      that a search does not;
    - `unbounded_accuracy`: share that is right still when the ball holds the whole domain. 0 for an attack that works, as it may
      turn every sample into any other then.

    Arguments:
        noise: points tried, every second one in a corner of the ball (random signs in Linf). attack, share, confidence: see `Trial`.

    Raises:
        SpecError: the attack's threat is no ball with an end, or it has another goal.

    References: Carlini et al. (2019), "On Evaluating Adversarial Robustness", arXiv 1902.06705 (unbounded
        attacks must reach 100 %; more iterations must not change the result; noise must not beat gradients). The share is ours.

    Example:
        >>> import brinell as br
        >>> br.parse("escalation(attack=pgd, share=0.5)").spec()
        'escalation(attack=pgd(steps=40, threat=ball(eps=8/255, norm=inf)), share=0.5)'
    """

    judges: ClassVar[tuple[str, ...]] = ("attacked_accuracy", "longer_gain", "noise_gain", "unbounded_accuracy")
    noise: int = Field(default=100, ge=1)

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
        ball = self.ball
        width = ball.high - ball.low
        far = (
            float(norms.length(torch.full((1, entries), width, dtype=torch.float64), ball.norm))
            if math.isfinite(width)
            else 1000 * ball.eps
        )
        return self.attack.within(ball.replace(eps=max(far, ball.eps)))

    def tried(self, net: Net, x: Tensor, y: Tensor, draws: Draws) -> dict[str, Tensor]:
        attacks = {"plain": self.attack, "longer": self.longer(), "endless": self.endless(math.prod(x.shape[1:]))}
        columns = {}
        for name, attack in attacks.items():
            if attack is not None:
                z = points(attack(net, x, y, draws=draws.at("attack")))
                with torch.no_grad():
                    columns[name] = net(z).argmax(1) == y
        return {**columns, "noise": self._survives_noise(net, x, y, draws.at("noise"))}

    def _survives_noise(self, net: Net, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
        """(m,) bool: right at all random points; a sample that is wrong once is not tried again."""
        right, rows = torch.ones_like(y, dtype=torch.bool), torch.arange(len(x), device=x.device)
        for number in range(self.noise):
            if not len(rows):
                break
            own, ball = draws[rows].at(number), self.ball
            corner = ball.eps * norms.steepest(own.normal(*x.shape[1:], dtype=x.dtype), ball.norm)
            z = ball.project(x[rows], x[rows] + corner) if number % 2 else ball.sample(x[rows], own)
            with torch.no_grad():
                right[rows] = net(z).argmax(1) == y[rows]
            rows = rows[right[rows]]
        return right

    def judged(self, rows: dict[str, np.ndarray]) -> list[Reading]:
        plain, broken = rows["plain"], {"longer_gain": "longer", "noise_gain": "noise"}
        flags = {"attacked_accuracy": plain, "unbounded_accuracy": rows["endless"]}
        flags |= {name: plain & ~rows[column] for name, column in broken.items() if column in rows}
        why = f"{self.attack.name} has none of the fields {', '.join(BUDGETS)}"
        return [
            self.share_of(name, flags[name]) if name in flags else Reading.undefined(name, why, layer=self.attack.spec())
            for name in self.judges
        ]
