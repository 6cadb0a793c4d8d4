"""Projected gradient descent (ascent on the loss): many small steps, each projected back into the ball."""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.ascent import Climb, Front, ascend, drafted
from brinell.core.draws import Draws
from brinell.core.goal import Loss
from brinell.core.norms import length, scaled, sparse_step
from brinell.core.perturbation import Attack
from brinell.core.threat import Ball


class PGD(Attack, name="pgd"):
    """Steps of constant length along the steepest direction, projected into the ball, from a random start.

        z_0 = uniform in T(x), or x without random_start
        z_{k+1} = project(z_k + a steepest(g_k));   a = step_size, or rate eps / steps
        g_k = momentum g_{k-1} + grad loss(z_k) / |grad loss(z_k)|_1                              (momentum 0: the gradient alone)

    A sample leaves as soon as it reaches the goal; `restarts` are tried on the samples that have not. The point returned is the one
    that reached the goal, else the one with the largest loss of all starts. In the L1 norm a step of length a is spread evenly over
    the c = (1 - 2 k / steps) sparsity D entries where it gains most, at least one (so a single one from half time on); what the
    walls of the domain do not let an entry take goes to the next best (`norms.sparse_step`).

    Three in four steps are drafted in bfloat16 where that gains on the network (`core.precision`); `exact` switches it off.

    References: Madry et al. (2018), "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR, arXiv 1706.06083
        (Linf; rate 2.5 follows its code); Tramer & Boneh (2019), arXiv 1904.13000 (sparse L1 steps); Croce & Hein (2021), "Mind
        the box", arXiv 2103.01208 (why L1 steps must know the walls); Dong et al. (2018), "Boosting Adversarial Attacks with
        Momentum", CVPR, arXiv 1710.06081, equation 6. Departures: samples
        leave at their first success; the gradient is scaled per sample before it passes the network (`core.ascent`).

    Raises:
        SpecError: a random start is switched off for a goal whose gradient vanishes at the clean input (`maximise(kl)`).

    Example:
        >>> import brinell as br
        >>> net, x, y = (lambda x: x * torch.tensor([2.0, 1.0])), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        >>> z = br.parse("pgd(steps=10, threat=ball(eps=0.25))")(net, x, y, draws=br.derive(0, ids=[0]))
        >>> int(net(z).argmax())
        1
    """

    telling = ("steps", "threat")
    threat: Ball = Ball()
    steps: int = Field(default=40, ge=1)
    rate: float = Field(default=2.5, gt=0, allow_inf_nan=False)
    step_size: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    restarts: int = Field(default=1, ge=1)
    random_start: bool = True
    loss: Loss = "cross_entropy"
    momentum: float = Field(default=0.0, ge=0, lt=10)
    exact: bool = False
    sparsity: float = Field(default=0.05, gt=0, le=1)

    @property
    def cost(self) -> tuple[int, int]:
        return self.restarts * (self.steps + 1), self.restarts * self.steps

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        with torch.no_grad():
            clean = net(x)
        draft = drafted(net, x, self.steps, self.exact)
        best = self._climb(net, x, y, clean, draws.at(0), draft)
        for restart in range(1, self.restarts):
            left = ~best.reached
            if not bool(left.any()):
                break
            best.improve(left, self._climb(net, x[left], y[left], clean[left], draws[left].at(restart), draft))
        return best.z

    def _climb(self, net: Any, x: Tensor, y: Tensor, clean: Tensor, draws: Draws, draft: int) -> Climb:
        size = self.step_size if self.step_size is not None else self.rate * self.threat.eps / self.steps
        entries = math.prod(x.shape[1:])

        def start(front: Front) -> Tensor:
            if self.momentum:
                front.carry["velocity"] = torch.zeros_like(front.x)
            return self.threat.sample(front.x, front.draws) if self.random_start else front.x.clone()

        def step(front: Front, gradient: Tensor) -> Tensor:
            if self.momentum:
                unit = scaled(gradient, 1 / length(gradient, 1).clamp(min=torch.finfo(gradient.dtype).tiny))
                gradient = front.carry["velocity"] = self.momentum * front.carry["velocity"] + unit
            if self.threat.norm != 1:
                return self.threat.project(front.x, front.z + size * self.threat.steepest(gradient, front.z))
            early = 1 - 2 * int(front.step[0]) / self.steps
            count = max(1, math.ceil(early * self.sparsity * entries - 1e-9))
            taken = sparse_step(gradient, front.z, size, count, self.threat.low, self.threat.high)
            return self.threat.project(front.x, front.z + taken)

        def done(front: Front) -> Tensor:
            return front.step >= self.steps

        return ascend(net, x, y, clean, self.goal, start=start, step=step, done=done, draws=draws, kind=self.loss, draft=draft)
