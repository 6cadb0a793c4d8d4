"""Input-gradient regularisation: training that keeps the loss flat around the samples."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from brinell.core import norms
from brinell.core.dataset import Dataset
from brinell.core.draws import Draws
from brinell.core.hardening import Hardening
from brinell.core.network import Network
from brinell.harden.fit import Fit
from brinell.harden.loop import Step


class GradientPenalty(Hardening, name="gradient_penalty"):
    """Trains with the squared length of the loss's gradient in the input as a second term: robustness without any attack.

        minimise   CE + strength * mean over samples of | grad_x CE(f(x), y) |_norm^2

    with the gradient of each sample's own cross-entropy at what the network is given (after augmentation). A step differentiates twice,
    at about twice the price of a plain one. To first order, within a budget eps in L_p the loss rises by eps |grad|_q with 1/p + 1/q = 1:
    norm 2 is for L2 budgets, 1 for Linf, inf for L1.

    Arguments:
        strength: weight of the term; 0 is plain training. norm: 2 (the reference's), 1 or inf. fit: the training.

    References: Drucker & LeCun (1992), "Improving generalization performance using double backpropagation", IEEE Transactions on Neural
        Networks 3(6). Ross & Doshi-Velez (2018), "Improving the Adversarial Robustness and Interpretability of Deep Neural Networks
        by Regularizing their Input Gradients", AAAI, arXiv 1711.09404. Finlay & Oberman (2019), "Scaleable input gradient
        regularization for adversarial robustness", arXiv 1905.11468 (dual norms; it takes finite differences, here the
        gradient is exact).

    Raises: as `fit`.

    Example:
        >>> import brinell as br
        >>> br.parse("gradient_penalty(strength=0.5, norm=1, fit=fit(epochs=5))").strength
        0.5
    """

    telling = ("fit", "strength")
    strength: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    norm: float = 2.0
    fit: Fit = Fit()

    @model_validator(mode="after")
    def _check(self) -> GradientPenalty:
        if self.norm not in (1, 2, math.inf):
            raise ValueError(f"norm={self.norm:g} is not one of 1, 2, inf")
        return self

    def __call__(self, net: Network | nn.Module, data: Dataset, *, seed: int, **options: Any) -> Network:
        def watched(net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
            return x.detach().clone().requires_grad_()

        def penalty(step: Step) -> Tensor:
            loss = F.cross_entropy(step.logits.float(), step.y, reduction="sum")
            (g,) = torch.autograd.grad(loss, step.x, create_graph=True)
            size = (
                g.square().flatten(1).sum(1) if self.norm == 2 else norms.length(g, self.norm).square()
            )  # the root has no derivative at 0
            return self.strength * size.mean()

        extra: dict[str, Any] = {"inputs": watched, "regularizer": penalty, "layers": None} if self.strength else {}
        return self.fit(net, data, seed=seed, title=self.spec(), **extra, **options)
