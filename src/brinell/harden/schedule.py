"""Learning-rate schedules: the rate of every step as a closed form, so that any step can be asked for by itself."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "step", "constant", "onecycle"]

RISE, LIFT, SINK = 0.3, 25.0, 1e4
"""One cycle: the rising share of the steps where no warm-up is given; the peak over the first rate; the first over the last."""


def learning_rate(
    schedule: Schedule, step: int, steps: int, peak: float, *, warmup: int = 0, milestones: tuple[int, ...] = (), gamma: float = 0.1
) -> float:
    """The learning rate of step s = 0, ..., S - 1, for a peak rate r and w steps of warm-up.

        warm-up    r (s + 1) / w                                     s < w, before cosine, step and constant
        cosine     r (1 + cos(pi (s - w) / (S - w))) / 2
        step       r gamma^(number of milestones <= s)
        constant   r
        onecycle   from r / 25 up to r at step p - 1, then down to r / 250,000 at step S - 1, both along half a cosine;
                   p = w, or 0.3 S where w = 0

    Arguments:
        warmup: w < S. milestones: steps at which the rate is multiplied by gamma.

    References: Loshchilov & Hutter (2017), "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR,
        https://arxiv.org/abs/1608.03983, equation 5 (cosine, without restarts). Goyal et al. (2017), "Accurate, Large Minibatch
        SGD", https://arxiv.org/abs/1706.02677, section 2.2 (warm-up). He et al. (2016), "Deep Residual Learning for Image
        Recognition", CVPR, https://arxiv.org/abs/1512.03385, section 4.2 (step). Smith & Topin (2018), "Super-Convergence",
        https://arxiv.org/abs/1708.07120 (onecycle); its shape here is that of `torch.optim.lr_scheduler.OneCycleLR`, and the
        momentum stays constant.

    Example:
        >>> [learning_rate("cosine", s, 5, 1.0, warmup=1) for s in (0, 1, 3)]
        [1.0, 1.0, 0.5...]
        >>> [round(learning_rate("step", s, 90, 0.1, milestones=(30, 60)), 6) for s in (0, 30, 89)]
        [0.1, 0.01, 0.001]
    """
    if schedule == "onecycle":
        top = (warmup or RISE * steps) - 1
        low, last = peak / LIFT, peak / LIFT / SINK
        if step <= top:
            return _half_cosine(low, peak, step / top if top > 0 else 1.0)
        return _half_cosine(peak, last, (step - top) / (steps - 1 - top) if steps - 1 > top else 1.0)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "cosine":
        return _half_cosine(peak, 0.0, (step - warmup) / (steps - warmup))
    if schedule == "step":
        return peak * gamma ** sum(step >= milestone for milestone in milestones)
    return peak


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
