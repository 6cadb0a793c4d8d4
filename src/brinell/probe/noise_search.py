"""Noise search: thousands of random points per sample, where an attack has given up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.measurement import Reading
from brinell.core.perturbation import points
from brinell.probe.trial import Trial, survives_noise

Net = Callable[[Tensor], Tensor]


class NoiseSearch(Trial, name="noise_search"):
    """Tries random points of the ball, thousands for each sample that an attack leaves right: does chance find what a search does not?

    Readings of the clean cell, over a share of the samples chosen by the hash of their ids:

    - `survived_attack`: share that is right at the attack's points;
    - `chance_alone`: share that is, and is wrong at one of `tries` random points of the ball. 0 for an attack that works.

    Points are those of `trial.random_points`: uniform in the ball, every second one in a corner of it. Samples that the attack breaks, or
    that are wrong anyway, get none; a sample that is found wrong gets no more.

    Arguments:
        tries: points per sample. attack, share, confidence: see `Trial`.

    Raises:
        SpecError: the attack's threat is no ball with an end, or it has another goal.

    References: Carlini et al. (2019), "On Evaluating Adversarial Robustness", arXiv 1902.06705 (random noise, at least 10^4 tries, as a
        check of gradient-based attacks). The share and the mixture of points are ours.

    Example:
        >>> import brinell as br
        >>> br.parse("noise_search(attack=pgd, share=0.5)").spec()
        'noise_search(attack=pgd(steps=40, threat=ball(eps=8/255, norm=inf)), share=0.5)'
    """

    judges: ClassVar[tuple[str, ...]] = ("survived_attack", "chance_alone")
    share: float = Field(default=0.01, gt=0, le=1)
    tries: int = Field(default=10_000, ge=1)

    @property
    def cost(self) -> tuple[int, int]:
        forwards, backwards = self.attack.cost
        return math.ceil(self.share * (forwards + 1 + self.tries)), math.ceil(self.share * backwards)

    def tried(self, net: Net, x: Tensor, y: Tensor, draws: Draws) -> dict[str, Tensor]:
        z = points(self.attack(net, x, y, draws=draws.at("attack")))
        with torch.no_grad():
            survived = net(z).argmax(1) == y
        alone, left = torch.zeros_like(survived), survived.nonzero().squeeze(1)
        alone[left] = ~survives_noise(net, x[left], y[left], self.ball, self.tries, draws[left].at("noise"))
        return {"survived": survived, "alone": alone}

    def judged(self, rows: dict[str, np.ndarray]) -> list[Reading]:
        return [self.share_of(name, rows[column]) for name, column in zip(self.judges, ("survived", "alone"), strict=True)]
