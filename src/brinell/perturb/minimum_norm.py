"""What attacks that search for the nearest point of another class share: the record of the nearest found, and how it ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from brinell.core import norms
from brinell.core.draws import Draws
from brinell.core.goal import Goal, Misclassify, Nearest, Target, margin
from brinell.core.perturbation import DONE, GAVE_UP, Attack, Attempt
from brinell.core.threat import Ball

_ROUNDING = 2e-6  # a lead below this share of the largest logit may be gone in another batch


class MinimumNorm(Attack):
    """Searches for the nearest point z that reaches the goal: how far is it to another answer?

        minimise |z - x|_norm  such that z reaches the goal and lies in the domain

    The distance found is an UPPER bound of the true one. With goal `nearest(...)`, the default, the search goes on while its budget
    lasts; with `misclassify` or `target` a sample leaves at its first point inside the threat, as in other attacks. The nearest point
    found is drawn in towards the sample along the line between them, with `bisections` more forward passes. A sample without a
    point inside the threat gives up and stays where it is; one that reaches the goal already has distance 0.

    A point counts only if its lead exceeds 2e-6 of the largest logit, so that it still does in a batch of another size.
    """

    unbounded = True
    telling = ("threat",)
    threat: Ball = Ball(norm=2, eps=math.inf)
    goal: Goal = Field(default_factory=Nearest)
    bisections: int = Field(default=10, ge=0, le=60)

    @model_validator(mode="after")
    def _has_its_norm(self) -> MinimumNorm:
        if self.threat.norm not in self.has_norms:
            raise ValueError(f"{self.name} has the norms {', '.join(f'{norm:g}' for norm in self.has_norms)}, not {self.threat.norm:g}")
        if not isinstance(self.goal.aim, Misclassify | Target):
            raise ValueError(f"goal={self.goal.spec()} has no end; {self.name} takes misclassify, target and nearest of them")
        return self

    @property
    def cost(self) -> tuple[int, int]:
        forwards, backwards = self.budget
        return forwards + self.bisections + 1, backwards

    @property
    def budget(self) -> tuple[int, int]:
        """(forwards, backwards) that the search costs per sample at most."""
        raise TypeError(f"{type(self).__name__} does not say what it costs")

    def search(self, hunt: Hunt) -> None:
        """Look for near points and `offer` them."""
        raise TypeError(f"{type(self).__name__} does not say how it searches")

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Attempt:
        with torch.no_grad():
            clean = net(x)
        hunt = Hunt(net, x, y, clean, self.goal, self.threat, draws)
        there = self.goal.reached(clean, y, clean)
        hunt.distance[there] = 0.0
        if not bool(there.all()):
            self.search(hunt)
            hunt.draw_in(self.bisections)
        given_up = ~(hunt.distance.isfinite() & self.threat.contains(x, hunt.z))
        z = torch.where(given_up.reshape(-1, *(1,) * (x.ndim - 1)), x, hunt.z)
        return Attempt(z, torch.where(given_up, GAVE_UP, DONE), f"{self.name} found no point in {self.threat.spec()}")


@dataclass
class Hunt:
    """A search and the nearest points it has found.

    Arguments:
        net, x, y, goal, threat, draws: as the attack got them. clean: (n, K) logits at x.
        z: (n, *d) nearest points found, x where there is none. distance: (n,) float64 to them, inf where there is none.
    """

    net: Callable[[Tensor], Tensor]
    x: Tensor
    y: Tensor
    clean: Tensor
    goal: Goal
    threat: Ball
    draws: Draws
    z: Tensor = field(init=False)
    distance: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.z = self.x.clone()
        self.distance = torch.full((len(self.x),), torch.inf, dtype=torch.float64, device=self.x.device)

    def open(self, rows: Tensor | None = None) -> Tensor:
        """The rows (of these) that are worth a further pass, as indices."""
        if rows is None:
            rows = torch.arange(len(self.x), device=self.x.device)
        end = 0.0 if isinstance(self.goal, Nearest) else self.threat.eps
        found = self.distance[rows]
        return rows[~(found.isfinite() & (found <= end))]

    def lead(self, logits: Tensor, rows: Tensor) -> Tensor:
        """(m,) float64: by how much the goal is reached, less what rounding may cost; above 0 where it surely is."""
        aim, logits = self.goal.aim, logits.double()
        lead = -margin(logits, aim.targets(self.y[rows], self.clean[rows])) if isinstance(aim, Target) else margin(logits, self.y[rows])
        size = torch.where(logits.isfinite(), logits.abs(), 0.0).amax(1)
        return torch.where(logits.isnan().any(1), -torch.inf, lead - _ROUNDING * size)

    def offer(self, rows: Tensor, z: Tensor, logits: Tensor) -> Tensor:
        """Keep those of the points z (m, *d) that reach the goal nearer than any before; (m,) bool: which reach it."""
        arrived = self.lead(logits, rows) > 0
        near = self.threat.distance(self.x[rows], z)
        better = arrived & (near < self.distance[rows])
        self.z[rows[better]], self.distance[rows[better]] = z[better], near[better]
        return arrived

    def check(self, rows: Tensor, z: Tensor) -> Tensor:
        """`offer` with a forward pass of its own."""
        with torch.no_grad():
            return self.offer(rows, z, self.net(z))

    def draw_in(self, steps: int) -> None:
        """Come nearer along the line to each sample: the lead is interpolated and the bracket halved in turn."""
        rows = self.open(torch.nonzero(self.distance.isfinite()).squeeze(1))
        if not len(rows) or not steps:
            return
        x, end = self.x[rows], self.z[rows]
        low, high = torch.zeros_like(self.distance[rows]), torch.ones_like(self.distance[rows])
        below = self.lead(self.clean[rows], rows)
        with torch.no_grad():
            above = self.lead(self.net(end), rows)
        for step in range(steps):
            share = (below / (below - above)).clamp(0.02, 0.98) if step % 2 == 0 else torch.full_like(low, 0.5)
            usable = above.isfinite() & below.isfinite() & (above > 0)
            share = torch.where(usable, (share + (1e-3 if step % 2 == 0 else 0.0)).clamp(max=0.99), 0.5)
            at = low + share * (high - low)
            z = torch.lerp(x, end, at.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1)))
            with torch.no_grad():
                logits = self.net(z)
            lead = self.lead(logits, rows)
            arrived = self.offer(rows, z, logits)
            high, above = torch.where(arrived, at, high), torch.where(arrived, lead, above)
            low, below = torch.where(arrived, low, at), torch.where(arrived, below, lead)


def nearest_plane(hunt: Hunt, rows: Tensor, z: Tensor, rivals: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The linearised decision boundary nearest to each point, among those with the rival classes.

    A boundary with class k is the plane <g, v> = gap of steps v from z, where g and -gap are gradient and value of the lead of k
    over the label; its distance is |gap| / |g|_dual. For goal `target` there is one: the lead of the target over all others.

    Arguments:
        rows: (m,) positions of the points z (m, *d). rivals: (m, J) classes to be weighed; None for goal target.

    Returns: g (m, *d), gap (m,), logits (m, K). Where no gradient is there, g is 0.
    """
    norm, y = hunt.threat.norm, hunt.y[rows]
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        logits = hunt.net(z)
        if rivals is None:
            leads = [hunt.goal.loss(logits, y, hunt.clean[rows], "margin")]
        else:
            own = logits.gather(1, y[:, None]).squeeze(1)
            leads = [logits.gather(1, rival[:, None]).squeeze(1) - own for rival in rivals.T]
        best, gap, reach = torch.zeros_like(z), torch.zeros(len(z), dtype=torch.float64, device=z.device), None
        for number, lead in enumerate(leads):
            g = None
            if lead.requires_grad:
                (g,) = torch.autograd.grad(lead.sum(), z, retain_graph=number + 1 < len(leads), allow_unused=True)
            g = torch.zeros_like(z) if g is None else torch.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0)
            steep = norms.length(g, norms.dual(norm)).double()
            value = torch.nan_to_num(lead.detach().double())
            far = torch.where(steep > 0, value.abs() / steep.clamp(min=1e-300), torch.inf)
            nearer = torch.ones_like(far).bool() if reach is None else far < reach
            reach = far if reach is None else torch.where(nearer, far, reach)
            best = torch.where(nearer.reshape(-1, *(1,) * (z.ndim - 1)), g, best)
            gap = torch.where(nearer, -value, gap)
    return best.detach(), gap, logits.detach()


def rivals_of(hunt: Hunt, count: int | None = None) -> Tensor | None:
    """(n, J) the wrong classes from the most to the least likely at x, at most `count` of them; None for goal target."""
    if isinstance(hunt.goal.aim, Target):
        return None
    order = hunt.clean.scatter(1, hunt.y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
    return order[:, : hunt.clean.shape[1] - 1][:, :count]
