"""Certified training: the network learns from interval bounds of its own margins, so that they prove something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from brinell.certify.elementary import with_gradient
from brinell.certify.interval import interval_margins
from brinell.core.dataset import Dataset
from brinell.core.hardening import Hardening
from brinell.core.network import Network
from brinell.core.threat import Ball
from brinell.harden.fit import Fit
from brinell.harden.loop import Step


class IBPTraining(Hardening, name="ibp_training"):
    """Trains against the worst logits that interval bounds allow in a ball, which grows during training.

        minimise   k CE(f(x), y) + (1 - k) log( 1 + sum over j != y of exp(-m_j) ),     m_j <= z_y - z_j on the ball of radius e

    The second term is the cross-entropy of logits that no point of the ball can be worse than. In the first `warmup` epochs e = 0
    and k = 1; over the next `ramp` epochs e grows in equal steps to `factor` times the threat's radius, and k falls to `kappa`; then
    both stay. The certifier `ibp` sees what was trained for, and `crown` at least as much.

    Batch normalisation has the statistics of the batch in the bounds too, with their gradient (see `batch_statistics`): with fixed ones
    the bounds would be lowered by weights that the normalisation undoes in the next step. Networks whose layers have no bounds are
    refused.

    Arguments:
        threat: the ball to be certified in. warmup, ramp: epochs. kappa: k in the end; 0.5 is the reference's. factor: of the final
            radius; a little more than 1 helps on unseen samples. fit: the training; adamw with lr near 0.001 and clip=10 does well. A
            ramp too short for a deep network ends in one that gives all samples the same answer.

    Raises: as `fit`; SpecError: the schedule is longer than the training. Unsupported: the network has no bounds.

    References: Gowal et al. (2018), "On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust Models",
        arXiv 1810.12715, equation 11 and section 4 (schedules of eps and kappa, which run by steps there, and by epochs here).

    Example:
        >>> import brinell as br
        >>> data = br.load_dataset("digits(side=8)", limit=60)
        >>> net = br.load_network("mlp(widths=(16,))", shape=data.shape, classes=10)
        >>> how = br.parse("ibp_training(warmup=0, ramp=1, threat=ball(eps=0.02), fit=fit(epochs=2, optimizer=adamw, lr=0.01))")
        >>> how(net, data, seed=0).notes[-1][:23]
        'trained by ibp_training'
    """

    telling = ("fit", "threat")
    threat: Ball = Ball()
    warmup: int = Field(default=1, ge=0)
    ramp: int = Field(default=10, ge=0)
    kappa: float = Field(default=0.5, ge=0, le=1)
    factor: float = Field(default=1.0, ge=1, allow_inf_nan=False)
    fit: Fit = Fit(epochs=30, optimizer="adamw", lr=1e-3, clip=10.0, weight_decay=0.0)

    @model_validator(mode="after")
    def _check(self) -> IBPTraining:
        if self.warmup + self.ramp >= self.fit.epochs:
            raise ValueError(
                f"warmup={self.warmup} and ramp={self.ramp} leave no epoch of {self.fit.epochs} at the full radius; train for longer"
            )
        return self

    def share(self, epoch: int) -> float:
        """How far the schedule has come in an epoch, counted from 0: 0 in the warm-up, 1 after the ramp."""
        if epoch < self.warmup:
            return 0.0
        return min((epoch - self.warmup + 1) / self.ramp, 1.0) if self.ramp else 1.0

    def __call__(self, net: Network | nn.Module, data: Dataset, *, seed: int, **options: Any) -> Network:
        def bounds(step: Step) -> Tensor:
            share = self.share(step.epoch)
            if not share or self.kappa == 1:
                return step.logits.new_zeros(())
            weight = (1 - self.kappa) * share
            ball = self.threat.replace(eps=self.threat.eps * self.factor * share)
            x = step.x.detach().clamp(ball.low, ball.high)
            with torch.autocast(step.x.device.type, enabled=False), batch_statistics(step.net.module, x):
                margins = interval_margins(step.net, x, step.y, ball)
            worst = F.softplus(torch.logsumexp(-margins, 1)).mean()
            return weight * (worst - F.cross_entropy(step.logits, step.y, label_smoothing=self.fit.label_smoothing))

        return self.fit(net, data, seed=seed, title=self.spec(), regularizer=bounds, layers=None, **options)


@contextmanager
def batch_statistics(module: nn.Module, x: Tensor) -> Iterator[None]:
    """While inside, every batch normalisation holds the mean and variance of its inputs on the batch `x`, with their gradient, where
    it has running ones otherwise. They are those of a plain pass without dropout; nothing that is saved changes."""
    normed = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]
    if not normed:
        yield
        return
    kept = {part: (part.running_mean, part.running_var) for part in normed}
    training = [part for part in module.modules() if part.training]
    found: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def measure(part: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        values = arguments[0].transpose(0, 1).flatten(1)
        found[part] = values.mean(1), values.var(1, correction=0)

    handles = [part.register_forward_pre_hook(measure) for part in normed]
    try:
        module.eval()
        for part in normed:
            part.running_mean = part.running_var = None  # then it normalises by the batch, and counts nothing
        module(x)
        for handle in handles:
            handle.remove()
        for part, statistics in found.items():
            part.running_mean, part.running_var = (with_gradient(value) for value in statistics)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for part, (mean, variance) in kept.items():
            part.running_mean, part.running_var = mean, variance
        for part in training:
            part.training = True
