"""Adversarial training: the network learns from the worst points an attack finds near the samples, not from the samples."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from brinell.core.dataset import Dataset
from brinell.core.goal import Maximise
from brinell.core.hardening import Hardening
from brinell.core.network import Network
from brinell.core.perturbation import Attack, points
from brinell.harden.fit import Fit
from brinell.harden.loop import Step
from brinell.perturb.pgd import PGD


class Adversarial(Hardening, name="adversarial"):
    """Trains on attacked samples: the standard way to a network that withstands attacks within a ball.

        minimise  mean CE(f(z), y),   z = attack(x, y), made anew in every step against the weights of that moment

    The default attack is that of the reference: 7 steps of 2/255 in the Linf ball of 8/255 from a random start, after the largest
    cross-entropy (an attack whose goal is `misclassify` leaves a sample as soon as it is wrong, which gives weaker inputs). The fast
    variant of Wong et al. takes one step from a random start, at a third of the cost or less:
    `adversarial(attack=fgsm(random_start=True, rate=1.25))`. It can collapse: robustness against the one step stays high while that
    against many steps falls to zero ("catastrophic overfitting"), so judge it with `pgd`.

    Arguments:
        attack: makes the inputs of every step; the network answers in evaluation mode meanwhile. With `fit(holdout=...)` the
            held-out samples are attacked too, so that the most robust epoch is chosen.
        fit: the training.

    References: Madry et al. (2018), "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR, arXiv 1706.06083,
        equation 2.1; Wong, Rice & Kolter (2020), "Fast is better than free", ICLR, arXiv 2001.03994, algorithm 3. Departure: batch
        normalisation uses its running statistics while the inputs are made.

    Raises: as `fit`.

    Example:
        >>> import brinell as br
        >>> data = br.load_dataset("digits(side=8)", limit=100)
        >>> net = br.load_network("mlp(widths=(16,))", shape=data.shape, classes=10)
        >>> how = br.parse("adversarial(attack=fgsm(random_start=True, rate=1.25, threat=ball(eps=0.1)), fit=fit(epochs=1))")
        >>> how(net, data, seed=0).notes[-1][:24]
        'trained by adversarial(a'
    """

    telling = ("attack", "fit")
    attack: Attack = Field(default_factory=lambda: PGD(steps=7, step_size=2 / 255, goal=Maximise(quantity="cross_entropy")))
    fit: Fit = Fit()

    def __call__(self, net: Network | nn.Module, data: Dataset, *, seed: int, **options: Any) -> Network:
        return self.fit(net, data, seed=seed, title=self.spec(), inputs=self.attack, **options)


class Trades(Hardening, name="trades"):
    """Trains for right answers on the samples and for equal answers near them, with a weight between the two.

        minimise  mean  CE(f(x), y) + beta KL( p(x) || p(z) ),   p = softmax f,   z = attack(x, y) climbs the same divergence

    Larger beta buys robustness with clean accuracy. The default attack is that of the reference: 10 steps of 2/255 in the Linf ball of
    8/255; its start is uniform in the ball here, where the reference adds Gaussian noise of standard deviation 0.001.

    Arguments:
        beta: the weight; 6 is the reference's for CIFAR-10. attack: makes z. fit: the training.

    References: Zhang et al. (2019), "Theoretically Principled Trade-off between Robustness and Accuracy", ICML, arXiv 1901.08573,
        equation 5 and algorithm 1.

    Raises: as `fit`.

    Example:
        >>> import brinell as br
        >>> br.parse("trades(beta=1, fit=fit(epochs=5))").beta
        1.0
    """

    telling = ("attack", "beta", "fit")
    beta: float = Field(default=6.0, ge=0, allow_inf_nan=False)
    attack: Attack = Field(default_factory=lambda: PGD(steps=10, step_size=2 / 255, goal=Maximise(quantity="kl")))
    fit: Fit = Fit()

    def __call__(self, net: Network | nn.Module, data: Dataset, *, seed: int, **options: Any) -> Network:
        def divergence(step: Step) -> Tensor:
            z = points(self.attack(step.net, step.x.detach(), step.y, draws=step.draws))
            p, q = F.log_softmax(step.logits, 1), F.log_softmax(step.net(z).float(), 1)
            return self.beta * F.kl_div(q, p, reduction="batchmean", log_target=True)

        return self.fit(net, data, seed=seed, title=self.spec(), regularizer=divergence, layers=None, **options)
