"""Auto-PGD: projected gradient ascent with momentum whose step size halves when progress stalls, so that none has to be chosen."""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.ascent import Climb, Front, ascend, drafted, shared
from brinell.core.draws import Draws
from brinell.core.goal import Loss, Misclassify
from brinell.core.norms import length, project, scaled
from brinell.core.perturbation import Attack
from brinell.core.threat import Ball

WIDER = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
"""The L1 schedule: (factor on eps, share of the steps), each ball starting where the wider one before it ended."""


class APGD(Attack, name="apgd"):
    """Gradient ascent that adapts its own step size per sample: how strong is an attack that nobody has tuned?

        u_{k+1} = project(z_k + a_k steepest(grad loss(z_k)))
        z_{k+1} = project(z_k + m (u_{k+1} - z_k) + (1 - m) (z_k - z_{k-1})),      m = 0.75 (1 in the first step), a_0 = 2 eps

    At the checkpoints w_j (after 22 %, 41 %, 57 %, ... of the steps) a sample's a_k is halved, and it returns to its best point, if
    the loss rose in at most `rho` of the steps since the last one, or if neither a_k nor the best loss has changed since then.

    L1 has its own rule: a step of length a spreads over the d entries of the largest gradient, at first a fifth of all, then as
    many as 2/3 of those in which the best point differs from x; every 4 % of the steps, a returns to a_0 = eps and the sample to
    its best point where that number fell by 5 %, else a is divided by 1.5, down to eps / 10. The run begins in the balls of
    3 eps and 2 eps (30 % of the steps each) and each ball starts where the one before it ended; in these nothing counts as found.

    A sample leaves at its first success; `restarts` are tried on those that have not. With `targets=t` the loss is aimed in turn at
    the t most likely wrong classes, or all there are, and any wrong class counts (goals other than misclassify ignore it).
    Below four classes the loss `dlr` is the margin. Where few samples are left, runs share their passes, with the result of one run
    after the other: a sample's later runs end where an earlier one succeeds. Three in four steps are drafted in bfloat16 where that
    gains; `exact` forbids it.

    References: Croce & Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML, arXiv 2003.01690, algorithm 1 and section 4; Croce & Hein (2021), "Mind the box: l1-APGD for sparse
        adversarial attacks on image classifiers", ICML, arXiv 2103.01208, algorithm 1. Departures: samples leave inside a run; the
        projection onto ball and box is the exact one; steps in L2 leave entries out that are at the wall; where bfloat16 ends, each
        sample returns to its best point.

    Example:
        >>> import brinell as br
        >>> net, x, y = (lambda x: x * torch.tensor([2.0, 1.0])), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        >>> z = br.parse("apgd(steps=20, threat=ball(eps=0.25))")(net, x, y, draws=br.derive(0, ids=[0]))
        >>> int(net(z).argmax())
        1
    """

    telling = ("loss", "steps", "threat")
    threat: Ball = Ball()
    steps: int = Field(default=100, ge=1)
    restarts: int = Field(default=1, ge=1)
    loss: Loss = "cross_entropy"
    targets: int = Field(default=0, ge=0)
    rho: float = Field(default=0.75, gt=0, le=1)
    exact: bool = False

    @property
    def cost(self) -> tuple[int, int]:
        runs = self.restarts * max(self.targets, 1) if isinstance(self.goal, Misclassify) else self.restarts
        steps, looks = (sum(steps for _, steps in self._stages()), len(WIDER)) if self.threat.norm == 1 else (self.steps, 1)
        return runs * (steps + looks), runs * steps

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        with torch.no_grad():
            clean = net(x)
        return self.climb(net, x, y, clean, draws=draws).z

    def climb(self, net: Any, x: Tensor, y: Tensor, clean: Tensor, *, draws: Draws) -> Climb:
        """All runs and what they cost; the clean logits are given."""
        aims = range(min(self.targets, clean.shape[1] - 1)) if self.targets and isinstance(self.goal, Misclassify) else range(1)
        runs = [(aim, restart) for aim in aims for restart in range(self.restarts)]
        best, done = self._together(net, x, y, clean, draws, runs[:1])[0], 1  # what falls falls mostly to the first
        while done < len(runs):
            left = ~best.reached
            if not bool(left.any()):
                break
            some = runs[done : done + shared(x[left])]
            for climb in self._together(net, x[left], y[left], clean[left], draws[left], some):
                best.improve(left, climb)
            done += len(some)
        return best

    def _together(self, net: Any, x: Tensor, y: Tensor, clean: Tensor, draws: Draws, runs: list[tuple[int, int]]) -> list[Climb]:
        """A climb per run, (number of the class aimed at, restart), side by side."""
        goal, streams, count = self.goal, [draws.at(*run) for run in runs], len(runs)
        if self.targets and isinstance(goal, Misclassify):
            goal, leading = Misclassify(toward=1), clean.nan_to_num().scatter(1, y[:, None], torch.inf)
            order = leading.argsort(dim=1, descending=True, stable=True)
            clean = torch.cat([clean.scatter(1, order[:, 1 : 1 + aim], -torch.inf) for aim, _ in runs])  # the aim is the likeliest left
        else:
            clean = clean.repeat(count, 1)
        wide, y, draws = x.repeat(count, *(1,) * (x.ndim - 1)), y.repeat(count), draws[torch.arange(len(x), device=x.device).repeat(count)]

        def climbed(rule: _Rule, leave: bool = True) -> Climb:
            return ascend(net, wide, y, clean, goal, start=rule.start, step=rule.step, done=rule.done, draws=draws, kind=self.loss,
                          draft=rule.draft, leave=leave, runs=count)  # fmt: skip

        if self.threat.norm != 1:
            first = torch.cat([self.threat.sample(x, stream) for stream in streams])
            return climbed(_Halving(self.threat, self.steps, drafted(net, x, self.steps, self.exact), first, self.rho)).split(len(x))
        far = torch.cat([stream.normal(*x.shape[1:], dtype=x.dtype) for stream in streams])
        z, stages = wide + project(far, WIDER[0][0] * self.threat.eps, 1), []
        for factor, steps in self._stages():
            ball = self.threat.replace(eps=factor * self.threat.eps)
            stages.append(climbed(_Sparse(ball, steps, drafted(net, x, steps, self.exact), ball.project(wide, z)), leave=factor == 1))
            z = stages[-1].z
        for stage in stages[:-1]:
            stages[-1].spend(stage)
        return stages[-1].split(len(x))

    def _stages(self) -> list[tuple[float, int]]:
        wide = [(factor, math.ceil(share * self.steps)) for factor, share in WIDER[:-1]]
        return [*wide, (1.0, max(1, self.steps - sum(steps for _, steps in wide)))]


class _Rule:
    """What both step rules keep of a sample: its step size, the point before, and the best point with its gradient and loss."""

    def __init__(self, ball: Ball, steps: int, draft: int, first: Tensor) -> None:
        self.ball, self.steps, self.draft, self.first = ball, steps, draft, first

    def start(self, front: Front) -> Tensor:
        z = self.first[front.rows]
        front.carry = {"old": z, "best": z, "slope": torch.zeros_like(z), "top": torch.full_like(front.loss, -torch.inf)}
        return z

    def done(self, front: Front) -> Tensor:
        return front.step >= self.steps

    def note(self, front: Front, gradient: Tensor) -> None:
        """Take over the present point where it is the best so far."""
        kept, better = front.carry, front.loss > front.carry["top"]
        kept["best"], kept["slope"] = _where(better, front.z, kept["best"]), _where(better, gradient, kept["slope"])
        kept["top"] = torch.where(better, front.loss, kept["top"])

    def back(self, front: Front, gradient: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
        """The points and gradients to go on from: the best ones for `some`, and for all where the drafting ends."""
        if self.draft and int(front.step[0]) == self.draft - 1:
            some = torch.ones_like(some)
            front.carry["top"] = torch.full_like(front.loss, -torch.inf)  # the best point is looked at anew, in float32
        return _where(some, front.carry["best"], front.z), _where(some, front.carry["slope"], gradient)

    def step(self, front: Front, gradient: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not say how it steps")


class _Halving(_Rule):
    """Linf and L2."""

    def __init__(self, ball: Ball, steps: int, draft: int, first: Tensor, rho: float) -> None:
        super().__init__(ball, steps, draft, first)
        self.rho, self.windows = rho, checkpoints(steps)

    def start(self, front: Front) -> Tensor:
        z, count = super().start(front), torch.zeros_like(front.loss)
        front.carry |= {
            "size": torch.full_like(count, 2 * self.ball.eps),
            "rises": count,
            "before": count,
            "then": count,
            "halved": count == 0,
        }
        return z

    def step(self, front: Front, gradient: Tensor) -> Tensor:
        at, kept = int(front.step[0]), front.carry
        self.note(front, gradient)
        if at == 0:
            kept["then"] = front.loss
        kept["rises"] = kept["rises"] + ((front.loss > kept["before"]) & (at > 0))
        kept["before"] = front.loss
        stalled = torch.zeros_like(kept["halved"])
        if at in self.windows:
            stalled = (kept["rises"] <= self.rho * self.windows[at]) | (~kept["halved"] & (kept["then"] >= kept["top"]))
            kept["size"] = torch.where(stalled, kept["size"] / 2, kept["size"])
            kept |= {"halved": stalled, "then": kept["top"], "rises": torch.zeros_like(kept["rises"])}
        z, gradient = self.back(front, gradient, stalled)
        kept["old"], moved = z, z - kept["old"]
        u = self.ball.project(front.x, z + scaled(self.ball.steepest(gradient, z), kept["size"].to(z.dtype)))
        return u if at == 0 else self.ball.project(front.x, z + 0.75 * (u - z) + 0.25 * moved)


def checkpoints(steps: int) -> dict[int, int]:
    """The steps after which progress is judged, each with the length of the period it ends: 22 % of the steps, each period 3 %
    shorter than the one before it, none below 6 %; whole steps, at least one.

    Example:
        >>> checkpoints(100)
        {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    """
    period, least, less = (max(int(share * steps + 1e-9), 1) for share in (0.22, 0.06, 0.03))
    found, at = {}, period
    while at <= steps:
        found[at] = period
        period = max(period - less, least)
        at += period
    return found


class _Sparse(_Rule):
    """L1."""

    def start(self, front: Front) -> Tensor:
        z = super().start(front)
        count = length(z - front.x, 0).double()
        front.carry |= {"size": torch.full_like(front.loss, self.ball.eps), "count": count, "share": count / 1.5}
        return z

    def step(self, front: Front, gradient: Tensor) -> Tensor:
        at, kept, eps = int(front.step[0]), front.carry, self.ball.eps
        self.note(front, gradient)
        fewer = torch.zeros_like(kept["top"], dtype=torch.bool)
        if at and at % max(1, int(0.04 * self.steps + 1e-9)) == 0:
            count = length(kept["best"] - front.x, 0).double()
            fewer = count < 0.95 * kept["count"]
            kept["size"] = torch.where(fewer, eps, (kept["size"] / 1.5).clamp(min=eps / 10))
            kept |= {"count": count, "share": count / 1.5}
        z, gradient = self.back(front, gradient, fewer)
        slope = gradient.flatten(1)
        order = slope.abs().sort(1).values
        entry = (slope.shape[1] - kept["share"]).ceil().clamp(0, slope.shape[1] - 1).long()
        signs = slope.sign() * (slope.abs() >= order.gather(1, entry[:, None]))
        step = signs * (kept["size"].to(z.dtype) / signs.abs().sum(1).clamp(min=1))[:, None]
        return self.ball.project(front.x, z + step.reshape(z.shape))


def _where(some: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(some.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
