"""The worst of several attacks, sample by sample: each is tried on those samples only that the ones before it have not broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.goal import Goal
from brinell.core.perturbation import Attack, points
from brinell.core.threat import Threat
from brinell.perturb.apgd import APGD
from brinell.perturb.pgd import PGD

_EQUAL = 1e-4  # margins that are nearer are one: rounding must not choose between the points


class WorstOf(Attack, name="worst_of"):
    """Several attacks, the next one on the survivors of those before it: is there any of them that breaks the sample?

    The point returned reaches the goal if any attack's does, judged by a forward pass of its own; else it is the one with the
    largest margin. All attacks must share one threat and one goal, which are those of the whole.

    Raises:
        SpecError: there is no attack, or their threats or goals differ.

    Example:
        >>> import brinell as br
        >>> attack = br.parse("worst_of(attacks=(fgsm(threat=ball(eps=0.1)), pgd(threat=ball(eps=0.1))))")
        >>> attack.threat.spec()
        'ball(eps=0.1, norm=inf)'
    """

    derived = ("goal", "threat")
    attacks: tuple[Attack, ...] = Field(default_factory=lambda: (PGD(steps=20, loss="margin"), APGD(loss="dlr")), min_length=1)

    @model_validator(mode="after")
    def _takes_over(self) -> WorstOf:
        given = sorted({"goal", "threat"} & self.model_fields_set)
        if given:
            raise ValueError(f"give {' and '.join(given)} to the attacks, not to {self.name}")
        for fact in ("threat", "goal"):
            found = [attack.goal.aim if fact == "goal" else attack.threat for attack in self.attacks]
            texts = sorted({"None" if part is None else part.spec() for part in found})
            if len(texts) > 1:
                raise ValueError(f"the attacks must share one {fact}; they have {' and '.join(texts)}")
        vars(self).update(threat=self.attacks[0].threat, goal=self.attacks[0].goal.aim)
        return self

    def within(self, threat: Threat) -> WorstOf:
        return self.replace(attacks=tuple(attack.within(threat) for attack in self.attacks))

    @property
    def cost(self) -> tuple[int, int]:
        forwards, backwards = zip(*(attack.cost for attack in self.attacks), strict=True)
        return sum(forwards) + 2 * len(forwards), sum(backwards)  # each looks at the clean input, and is checked

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        return worst(net, x, y, self.goal, self.threat, self.attacks, draws=draws).z


@dataclass
class Survey:
    """What came of trying attacks in turn.

    Arguments:
        z: (n, *d) points. reached: (n,) bool. by: (n,) the number of the attack that broke the sample, -1 for none or the clean input.
        tried: how many attacks were started.
    """

    z: Tensor
    reached: Tensor
    by: Tensor
    tried: int


def worst(
    net: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, goal: Goal, threat: Threat | None, attacks: Iterable[Attack], *, draws: Draws
) -> Survey:
    """Try attacks in turn, each on the samples that none before it has broken.

    Every point is judged by a forward pass in the network's own precision; one outside the threat does not count. Each attack has
    draws of its own, by its place in the sequence.
    """
    with torch.no_grad():
        clean = net(x)
    found = Survey(x.clone(), goal.reached(clean, y, clean), torch.full_like(y, -1), 0)
    best = goal.loss(clean.double(), y, clean.double(), "margin")
    for number, attack in enumerate(attacks):
        left = (~found.reached).nonzero().squeeze(1)
        if not len(left):
            break
        found.tried += 1
        z = points(attack(net, x[left], y[left], draws=draws[left].at(number)))
        with torch.no_grad():
            logits = net(z)
        inside = torch.ones_like(left, dtype=torch.bool) if threat is None else threat.contains(x[left], z)
        arrived = inside & goal.reached(logits, y[left], clean[left])
        loss = torch.nan_to_num(goal.loss(logits.double(), y[left], clean[left].double(), "margin"), nan=-torch.inf)
        better = arrived | (inside & (loss > best[left] + _EQUAL * (1 + best[left].abs())))
        where = left[better]
        found.z[where], best[where] = z[better], loss[better]
        found.reached[left], found.by[left] = arrived, torch.where(arrived, number, -1)
    return found
