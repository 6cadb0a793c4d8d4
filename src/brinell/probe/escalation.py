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
from brinell.core.network import module_of
from brinell.core.perturbation import Attack, points
from brinell.core.threat import Ball
from brinell.probe.trial import Trial, survives_noise

Net = Callable[[Tensor], Tensor]

BUDGETS = ("steps", "queries", "passes", "restarts")
"""Fields of attacks that say how long they search; the first one that an attack has is doubled."""


class Escalation(Trial, name="escalation", version=2):
    """An attack against itself with more means, on a share of the samples: had it converged, and does it work at all?

    Readings of the clean cell, over a share of the samples chosen by the hash of their ids:

    - `attacked_accuracy`: share that is right at the attack's points, for comparison;
    - `silent_share`: share that is right at the attack's points, though the attack itself has asked the network about a point of the ball
      that is wrong: it does not return the best it has seen. 0 for an attack that does;
    - `longer_gain`: share that it breaks with twice its steps (or queries, passes, restarts), but not without; 0 for an attack that has
      converged. UNDEFINED for an attack without such a field;
    - `noise_gain`: share that is wrong at one of `noise` random points of the ball, but right at the attack's: chance should find nothing
      that a search does not;
    - `unbounded_accuracy`: share that is right still when the ball holds the whole domain. 0 for an attack that works, as it may
      turn every sample into any other then.

    Arguments:
        noise: points tried (`trial.random_points`; `noise_search` tries thousands). attack, share, confidence: see `Trial`.

    Raises:
        SpecError: the attack's threat is no ball with an end, or it has another goal.

    References: Carlini et al. (2019), "On Evaluating Adversarial Robustness", arXiv 1902.06705 (unbounded
        attacks must reach 100 %; more iterations must not change the result; noise must not beat gradients); Pintor et al. (2022),
        "Indicators of Attack Failure", arXiv 2106.09947 (silent success). The share is ours.

    Example:
        >>> import brinell as br
        >>> br.parse("escalation(attack=pgd, share=0.5)").spec()
        'escalation(attack=pgd(steps=40, threat=ball(eps=8/255, norm=inf)), share=0.5)'
    """

    judges: ClassVar[tuple[str, ...]] = ("attacked_accuracy", "silent_share", "longer_gain", "noise_gain", "unbounded_accuracy")
    noise: int = Field(default=100, ge=1)

    @property
    def cost(self) -> tuple[int, int]:
        forwards, backwards = self.attack.cost
        return math.ceil(self.share * (4 * (forwards + 1) + 1 + self.noise)), math.ceil(self.share * 4 * backwards)

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
        columns, watched = {}, Watched(net, x, y, self.ball)
        for name, attack in attacks.items():
            if attack is not None:
                z = points(attack(watched if name == "plain" else net, x, y, draws=draws.at("attack")))
                with torch.no_grad():
                    columns[name] = net(z).argmax(1) == y
        columns["silent"] = columns["plain"] & watched.wrong()
        return {**columns, "noise": survives_noise(net, x, y, self.ball, self.noise, draws.at("noise"))}

    def judged(self, rows: dict[str, np.ndarray]) -> list[Reading]:
        plain, broken = rows["plain"], {"longer_gain": "longer", "noise_gain": "noise"}
        flags = {"attacked_accuracy": plain, "silent_share": rows["silent"], "unbounded_accuracy": rows["endless"]}
        flags |= {name: plain & ~rows[column] for name, column in broken.items() if column in rows}
        why = f"{self.attack.name} has none of the fields {', '.join(BUDGETS)}"
        return [
            self.share_of(name, flags[name]) if name in flags else Reading.undefined(name, why, layer=self.attack.spec())
            for name in self.judges
        ]


class Watched:
    """A network that keeps, for each sample, a wrong point of its ball that it was asked about.

    A point belongs to the sample nearest to it, in L2.
    """

    def __init__(self, net: Net, x: Tensor, y: Tensor, ball: Ball) -> None:
        self.net, self.module, self.x, self.y, self.ball = net, module_of(net), x, y, ball
        self.kept, self.seen = x.clone(), torch.zeros_like(y, dtype=torch.bool)

    def __call__(self, z: Tensor) -> Tensor:
        logits = self.net(z)
        with torch.no_grad():
            points = z.detach()
            near = torch.cdist(points.flatten(1).to(self.x.dtype), self.x.flatten(1)).argmin(1)
            wrong = (logits.argmax(1) != self.y[near]) & self.ball.contains(self.x[near], points)
            self.kept[near[wrong]] = points[wrong].to(self.x.dtype)
            self.seen[near[wrong]] = True
        return logits

    def wrong(self) -> Tensor:
        """(n,) bool: was there such a point, and is it wrong when asked about again, in full precision and among other samples?"""
        with torch.no_grad():
            return self.seen & (self.net(self.kept).argmax(1) != self.y)
