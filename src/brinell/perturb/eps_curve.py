"""Robust accuracy at several budgets by one run: each sample is tried at the smallest budget that may still break it."""

from __future__ import annotations

import math
from typing import Any, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.perturbation import Around, Attack, points
from brinell.core.threat import Ball, Threat
from brinell.perturb.pgd import PGD


class EpsCurve(Around, name="eps_curve"):
    """Another attack in balls of one norm and several sizes, from the largest down: at which of them does the sample still yield?

        r_1 > r_2 > ... > r_m;     at r_1 every sample is tried, at r_{k+1} those alone that yielded at r_k

    A wrong point that lies in smaller balls too counts there at once, and costs nothing. In each of the others the point found last is
    first moved into the ball, which is one pass, and only then the attack is run. The point returned is the nearest wrong one, so that its
    distance says at which budgets the sample is broken: `bound` gives R(T) for all of them, `flipping_distance` the curve. Where no
    point is wrong, it is the attack's own at r_1.

    What withstands a ball withstands all balls inside it, so a sample that is not broken at r_k is not tried further. An attack may miss at
    r_k what it would find at r_{k+1}; each number then is an upper bound of the robust accuracy as always, only less tight, and the
    check `monotone`, which compares runs that know nothing of each other, has nothing to compare here.

    Cost: against separate runs, a sample that withstands costs one whole budget instead of m.

    Arguments:
        attack: what is run; its ball is the largest. eps: the smaller ones.

    Raises:
        SpecError: the attack's threat is no ball with an end; an eps is not positive, or not smaller than the attack's own.

    References: that success must grow with the budget: Carlini et al. (2019), "On Evaluating Adversarial Robustness", arXiv 1902.06705.
        Using it to save passes is ours.

    Example:
        >>> import brinell as br
        >>> net, x, y = (lambda x: x * torch.tensor([2.0, 1.0])), torch.tensor([[0.5, 0.5], [0.5, 0.9]]), torch.tensor([0, 0])
        >>> curve = br.parse("eps_curve(attack=pgd(threat=ball(eps=0.3)), eps=(0.1, 0.2))")
        >>> z = curve(net, x, y, draws=br.derive(0, ids=[0, 1]))
        >>> [f"{d:.1f}" for d in curve.threat.distance(x, z).tolist()]
        ['0.2', '0.1']
    """

    telling = ("eps",)
    attack: Attack = Field(default_factory=PGD)
    eps: tuple[float, ...] = Field(default=(2 / 255, 4 / 255), min_length=1)

    @model_validator(mode="after")
    def _check(self) -> EpsCurve:
        ball = self.attack.threat
        if not isinstance(ball, Ball) or not math.isfinite(ball.eps):
            raise ValueError(f"attack={self.attack.spec()} must search a ball with an end")
        if not all(0 < eps < ball.eps for eps in self.eps) or len(set(self.eps)) < len(self.eps):
            raise ValueError(f"eps={self.eps} must be different numbers between 0 and {ball.eps:g}, the attack's own")
        return self

    def within(self, threat: Threat) -> Self:
        """The same attack in another ball; the smaller balls shrink or grow with it."""
        own = cast(Ball, self.attack.threat).eps
        grown = threat.eps / own if isinstance(threat, Ball) else 1.0
        return self.replace(attack=self.attack.within(threat), eps=tuple(eps * grown for eps in self.eps))

    @property
    def threats(self) -> tuple[Ball, ...]:
        """The balls, the largest first."""
        ball = cast(Ball, self.attack.threat)
        return (ball, *(ball.replace(eps=eps) for eps in sorted(self.eps, reverse=True)))

    @property
    def cost(self) -> tuple[int, int]:
        forwards, backwards = self.attack.cost
        balls = len(self.eps) + 1
        return 1 + balls * (forwards + 2), balls * backwards

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        with torch.no_grad():
            clean = net(x)
        goal, out = self.goal.aim, x.clone()

        def missed(rows: Tensor, z: Tensor, ball: Threat) -> Tensor:
            """Keep the points that reach the goal in the ball; whose do not?"""
            if not len(rows):
                return rows
            with torch.no_grad():
                hit = goal.reached(net(z), y[rows], clean[rows]) & ball.contains(x[rows], z)
            out[rows[hit]] = z[hit]
            return rows[~hit]

        left = (~goal.reached(clean, y, clean)).nonzero().squeeze(1)  # yielded in all balls so far
        for number, ball in enumerate(self.threats):
            rows = left
            if number:
                rows = rows[~ball.contains(x[rows], out[rows])]
                rows = missed(rows, ball.project(x[rows], out[rows]), ball)
            z = points(self.attack.within(ball)(net, x[rows], y[rows], draws=draws[rows].at(number)))
            if not number:
                out[rows] = z
            left = left[~torch.isin(left, missed(rows, z, ball))]
        return out
