"""The fast adaptive boundary attack: walks along the linearised decision boundary towards the sample."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from brinell.core import norms
from brinell.core.ascent import drafted, shared
from brinell.core.goal import Nearest
from brinell.core.precision import drafting
from brinell.perturb.minimum_norm import Hunt, MinimumNorm, nearest_plane, rivals_of

_RADIUS = {1: 5.0, 2: 1.0, math.inf: 0.3}  # of random starts before any point is found: the authors' code


class FAB(MinimumNorm, name="fab", version=3):
    """The point of the linearised decision boundary nearest to the sample, again and again: how far is it to another answer?

        z <- clamp((1 - a) (z + eta d_z) + a (x + eta d_x)),    a = min(|d_z| / (|d_z| + |d_x|), alpha)
        z <- x + beta (z - x)     where z reaches the goal (z is kept if it is nearer than any before)

    d_z and d_x are the shortest steps, inside the domain, from z and from the sample x onto the plane that linearises at z the
    boundary with the nearest class (`Ball.across`). Norms 1, 2, inf. The first run starts at x, the others of `restarts` at
    random points within half the distance found before and within the whole of it in turn; where none is found yet, within a radius that
    doubles.

    A step costs two forward passes, since most points reach the goal and the next gradient is then taken at another one, beta of the
    way. Where few samples are left, runs towards several classes share their passes, with the result of one run after the other. With
    a goal other than `nearest`, three in four steps are drafted in bfloat16 where that gains; only points inside the threat are then
    looked at again, in float32.

    Arguments:
        targets: 0 weighs all classes at every step (a backward pass each); otherwise runs are made towards one class at a time,
            for each of so many wrong classes, the most likely first (FAB-T: one backward pass per step).
        exact: no bfloat16. alpha, eta, beta: bias towards the sample, extrapolation, retreat after success. goal, threat, bisections: see
            `MinimumNorm`.

    References: Croce & Hein (2020), "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack", ICML,
        arXiv 1907.02044, algorithm 1 and its defaults (alpha 0.1, eta 1.05, beta 0.9, 100 steps); the targeted version is that of
        Croce & Hein (2020), arXiv 2003.01690. Departures: any goal with an end; the closing line search is `MinimumNorm`'s.

    Example:
        >>> import brinell as br
        >>> net, x, y = (lambda x: x * torch.tensor([2.0, 1.0])), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        >>> br.parse("fab(steps=5, threat=ball(norm=2, eps=inf))")(net, x, y, draws=br.derive(0, ids=[0])).z
        tensor([[0.3000, 0.6000]])
    """

    telling = ("steps", "threat")
    steps: int = Field(default=100, ge=1)
    restarts: int = Field(default=1, ge=1)
    targets: int = Field(default=0, ge=0)
    alpha: float = Field(default=0.1, ge=0, le=1)
    eta: float = Field(default=1.05, ge=1, le=2)
    beta: float = Field(default=0.9, gt=0, lt=1)
    exact: bool = False

    @property
    def budget(self) -> tuple[int, int]:
        runs = self.restarts * max(self.targets, 1) * self.steps
        return 2 * runs, runs * (1 if self.targets else 9)  # nine rivals in a problem of ten classes

    def search(self, hunt: Hunt) -> None:
        rivals = rivals_of(hunt, self.targets or None)
        aims: list[Tensor | None] = [rivals] if rivals is None or not self.targets else list(rivals.split(1, dim=1))
        for restart in range(self.restarts):
            found, number = hunt.distance.clone(), 0
            while number < len(aims):
                rows = hunt.open()
                if not len(rows):
                    return
                some = shared(hunt.x[rows]) if number else 1  # what falls falls mostly to the likeliest
                z = [self._start(hunt, rows, found[rows], restart, at) for at in range(number, min(number + some, len(aims)))]
                self._run(hunt, rows, torch.cat(z), aims[number : number + some])
                number += some

    def _run(self, hunt: Hunt, rows: Tensor, z: Tensor, aims: list[Tensor | None]) -> None:
        """Runs towards several classes side by side, the points z ordered by class; they find what they would find in turn."""
        who = rows.repeat(len(aims))
        team = Hunt(hunt.net, hunt.x[who], hunt.y[who], hunt.clean[who], hunt.goal, hunt.threat, hunt.draws[who])
        rivals = None if aims[0] is None else torch.cat([aim[rows] for aim in aims if aim is not None])
        live = torch.arange(len(who), device=who.device)
        draft = drafted(hunt.net, hunt.x, self.steps, self.exact or isinstance(hunt.goal, Nearest))
        for number in range(self.steps):
            over = torch.ones_like(who).index_fill(0, team.open(), 0).unflatten(0, (len(aims), -1))
            stay = over.cumsum(0).flatten()[live] == 0  # in turn, none would begin after a success
            if not bool(stay.all()):
                z, live = z[stay], live[stay]
            if not len(live):
                break
            z = self._step(team, live, z, None if rivals is None else rivals[live], number < draft)
        for best, distance in zip(team.z.split(len(rows)), team.distance.split(len(rows)), strict=True):
            better = torch.isin(rows, hunt.open(rows)) & (distance < hunt.distance[rows])
            hunt.z[rows[better]], hunt.distance[rows[better]] = best[better], distance[better]

    def _start(self, hunt: Hunt, rows: Tensor, found: Tensor, restart: int, number: int) -> Tensor:
        x, ball = hunt.x[rows], self.threat
        if restart == 0:
            return x.clone()
        v = norms.uniform_in_ball(x.shape, ball.norm, hunt.draws[rows].at(restart, number), x.dtype)
        radius = torch.where(found.isfinite(), found * (0.5 if restart % 2 else 1.0), _RADIUS[ball.norm] * 2.0 ** (restart - 2))
        radius = radius.clamp(max=ball.eps)
        return (x + norms.scaled(v, radius.to(x.dtype))).clamp(ball.low, ball.high)

    def _step(self, hunt: Hunt, rows: Tensor, z: Tensor, rivals: Tensor | None, low: bool) -> Tensor:
        x, ball = hunt.x[rows], self.threat
        with drafting(z, low):
            g, gap, logits = nearest_plane(hunt, rows, z, rivals)
        self._offer(hunt, rows, z, logits, low)
        from_z = ball.across(z, g, gap)
        from_x = ball.across(x, g, gap + (g.double() * (z - x).double()).flatten(1).sum(1))
        near, far = (norms.length(v.double(), ball.norm) for v in (from_z, from_x))
        share = torch.where(near + far > 0, near / (near + far).clamp(min=1e-300), 0.0).clamp(max=self.alpha).to(z.dtype)
        z = norms.scaled(z + self.eta * from_z, 1 - share) + norms.scaled(x + self.eta * from_x, share)
        z = z.clamp(ball.low, ball.high)
        with torch.no_grad(), drafting(z, low):
            logits = hunt.net(z)
        back = torch.where(self._offer(hunt, rows, z, logits, low), self.beta, 1.0).to(z.dtype)
        return x + norms.scaled(z - x, back)

    def _offer(self, hunt: Hunt, rows: Tensor, z: Tensor, logits: Tensor, low: bool) -> Tensor:
        """(m,) bool: which points reach the goal; in a draft those that would count are looked at in float32 before they do."""
        if not low:
            return hunt.offer(rows, z, logits)
        arrived = hunt.lead(logits, rows) > 0
        counts = arrived & self.threat.contains(hunt.x[rows], z)
        if bool(counts.any()):
            hunt.check(rows[counts], z[counts])
        return arrived
