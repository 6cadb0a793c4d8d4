"""The fast gradient (sign) method: one step along the steepest direction, as far as the budget allows."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.ascent import goal_gradient
from brinell.core.draws import Draws
from brinell.core.goal import Loss
from brinell.core.perturbation import Attack
from brinell.core.threat import Ball


class FGSM(Attack, name="fgsm"):
    """One step of length eps in the direction that the gradient says gains most, then back into the ball and the domain.

        z = project(x + eps u),  u = steepest(grad_x loss)          (Linf: sign; L2: normalised; L1: the largest entry)

    With `random_start` the step begins at a point x' uniform in the ball, and `rate` is its length over eps:
    z = project(x' + rate eps u), u at x'; rate 1.25 is that of fast adversarial training.

    All samples are moved, those already misclassified too, as in the original method. On a linear network with two classes it
    is the exact worst case, for every norm, as long as the domain's walls are not met. A goal whose gradient vanishes at x, such as
    `maximise(kl)`, is refused without a random start.

    References: Goodfellow, Shlens & Szegedy (2015), "Explaining and Harnessing Adversarial Examples", ICLR, arXiv 1412.6572,
        section 4; Wong, Rice & Kolter (2020), "Fast is better than free", ICLR, arXiv 2001.03994, algorithm 3 (random start, rate
        1.25). Departures: any of the three norms; the loss may be the margin.

    Example:
        >>> import brinell as br
        >>> net, x, y = (lambda x: x * torch.tensor([2.0, 1.0])), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
        >>> br.parse("fgsm(threat=ball(eps=0.25))")(net, x, y, draws=br.derive(0, ids=[0]))
        tensor([[0.2500, 0.7500]])
    """

    telling = ("threat",)
    threat: Ball = Ball()
    loss: Loss = "cross_entropy"
    random_start: bool = False
    rate: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @property
    def cost(self) -> tuple[int, int]:
        return 1, 1

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        with torch.no_grad():
            clean = net(x)
        start = self.threat.sample(x, draws) if self.random_start else x
        gradient, _, _ = goal_gradient(net, start, y, clean, self.goal, self.loss)
        return self.threat.project(x, start + self.rate * self.threat.eps * self.threat.steepest(gradient, start))
