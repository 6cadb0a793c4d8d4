"""The binarisation test: does an attack find an adversarial example that is there by construction?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from brinell.core import norms
from brinell.core.draws import Draws
from brinell.core.measurement import Reading
from brinell.core.network import module_of
from brinell.core.perturbation import points
from brinell.core.threat import Ball
from brinell.probe.trial import Trial

Net = Callable[[Tensor], Tensor]

_RIDGES = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8)  # of the summed squares of the features; the first one is the plainest function


class Binarisation(Trial, name="binarisation"):
    """Gives each sample a two-class readout that a known point of its ball fools: is the attack able to find such points at all?

    Around a sample x, `inner` points uniform in the ball of radius 0.95 eps and one point b on the boundary of the ball are passed
    through the network. On their features a linear readout s is fitted that is negative on x and all inner points and positive on b, by
    the strongest ridge regression that separates them, its threshold halfway between the largest of the former and the latter. Then b is
    an adversarial example of the classifier (-s, s) by construction, and an attack that fails to find one there would fail to find
    those of the network itself.

    Features are the input of the network's last linear layer, or its logits where there is none. Readings of the clean cell, over a
    share of the samples chosen by the hash of their ids:

    - `binarisation_valid`: share of the samples whose points such a readout separates; the two below are over these alone;
    - `binarisation_success`: share in which the attack finds class 2; near 1 for an attack that works;
    - `binarisation_random`: share in which one of `inner` further random points of the ball does; near 0 for a test that means something.

    UNDEFINED where no sample is valid.

    Arguments:
        inner: points. attack, share, confidence: see `Trial`.

    Raises:
        SpecError: the attack's threat is no ball with an end, or it has another goal.

    References: Zimmermann, Brendel, Tramer & Carlini (2022), "Increasing Confidence in Adversarial Robustness Evaluations", NeurIPS,
        arXiv 2206.13991. Ours: the numbers of points and the factor 0.95, a ridge regression in place of a trained readout, and the
        threshold halfway.

    Example:
        >>> import brinell as br
        >>> br.parse("binarisation(attack=pgd, share=0.5)").spec()
        'binarisation(attack=pgd(steps=40, threat=ball(eps=8/255, norm=inf)), share=0.5)'
    """

    judges: ClassVar[tuple[str, ...]] = ("binarisation_valid", "binarisation_success", "binarisation_random")
    inner: int = Field(default=100, ge=2)

    @property
    def cost(self) -> tuple[int, int]:
        forwards, backwards = self.attack.cost
        return math.ceil(self.share * (2 * self.inner + 2 + forwards)), math.ceil(self.share * backwards)

    def tried(self, net: Net, x: Tensor, y: Tensor, draws: Draws) -> dict[str, Tensor]:
        ball, features = self.ball, Features(net)
        inside = self._points(x, ball.replace(eps=0.95 * ball.eps), draws.at("inner"))
        edge = boundary_point(x, ball, draws.at("boundary"))
        seen = features.each(torch.cat((x[:, None], inside, edge[:, None]), 1))  # (m, inner + 2, F)
        weight, bias, valid = separating(seen[:, :-1], seen[:, -1])
        binary = Readout(features, x, weight, bias)
        labels = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        z = points(self.attack(binary, x, labels, draws=draws.at("attack")))
        with torch.no_grad():
            found = (binary(z).argmax(1) == 1) & ball.contains(x, z)
        further = features.each(self._points(x, ball, draws.at("random")))
        by_chance = ((further * weight[:, None]).sum(2) + bias[:, None] > 0).any(1)
        return {"valid": valid, "success": found & valid, "random": by_chance & valid}

    def _points(self, x: Tensor, ball: Ball, draws: Draws) -> Tensor:
        return torch.stack([ball.sample(x, draws.at(number)) for number in range(self.inner)], 1)

    def judged(self, rows: dict[str, np.ndarray]) -> list[Reading]:
        valid, why = rows["valid"], "no readout separates the points of any sample: raise eps, or take fewer inner points"
        shares = [self.share_of(self.judges[0], valid)]
        for name, column in zip(self.judges[1:], ("success", "random"), strict=True):
            undefined = Reading.undefined(name, why, layer=self.attack.spec(), n=len(valid))
            shares.append(self.share_of(name, rows[column][valid]) if valid.any() else undefined)
        return shares


class Features:
    """What a network hands to its last linear layer, (n, F); its logits where it has none."""

    def __init__(self, net: Net) -> None:
        self.net, self.module = net, module_of(net)
        found = [part for part in self.module.modules() if isinstance(part, nn.Linear)] if self.module is not None else []
        self.last = found[-1] if found else None

    def __call__(self, z: Tensor) -> Tensor:
        if self.last is None:
            return self.net(z)
        seen: list[Tensor] = []
        hook = self.last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits = self.net(z)
        finally:
            hook.remove()
        return seen[-1] if seen and seen[-1].ndim == 2 and len(seen[-1]) == len(z) else logits

    def each(self, z: Tensor) -> Tensor:
        """(m, k, F) float64 of points (m, k, *d), one k at a time."""
        with torch.no_grad():
            return torch.stack([self(part) for part in z.unbind(1)], 1).double()


class Readout:
    """The two-class classifier (-s, s), s = weight_i . features + bias_i with i the sample x_i nearest to each point."""

    def __init__(self, features: Features, x: Tensor, weight: Tensor, bias: Tensor) -> None:
        self.features, self.module = features, features.module
        self.x, self.weight, self.bias = x.flatten(1), weight, bias

    def __call__(self, z: Tensor) -> Tensor:
        with torch.no_grad():  # attacks drop samples as they go; a point never comes nearer to another sample than to its own
            rows = torch.cdist(z.flatten(1), self.x).argmin(1)
        score = (self.features(z).double() * self.weight[rows]).sum(1) + self.bias[rows]
        return torch.stack((-score, score), 1).to(z.dtype)


def boundary_point(x: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """One point at the edge of the ball, in the domain: random signs (Linf), a random direction (L2), one entry (L1)."""
    v = norms.steepest(draws.normal(*x.shape[1:], dtype=x.dtype), ball.norm)
    return ball.project(x, x + ball.eps * v)


def separating(inner: Tensor, edge: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A linear function per sample that tells its edge point from its inner points, if there is one.

    Arguments:
        inner: (m, k, F). edge: (m, F).

    Returns: weight (m, F), bias (m,), valid (m,) bool: the function is negative on all inner points and positive on the edge.

    Example:
        >>> weight, bias, valid = separating(torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]).double(), torch.tensor([[0.0, 2.0]]).double())
        >>> bool(valid), bool((torch.tensor([0.0, 2.0]).double() * weight[0]).sum() + bias[0] > 0)
        (True, True)
    """
    middle = inner.mean(1, keepdim=True)
    a = torch.cat((inner, edge[:, None]), 1) - middle
    target = torch.full(a.shape[:2], -1.0, dtype=a.dtype, device=a.device)
    target[:, -1] = a.shape[1] - 1
    gram = a @ a.transpose(1, 2)
    unit = gram.diagonal(dim1=1, dim2=2).sum(1).clamp(min=1e-300)[:, None, None] * torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    weight, bias = torch.zeros_like(edge), torch.full((len(edge),), -1.0, dtype=a.dtype, device=a.device)
    valid = torch.zeros(len(edge), dtype=torch.bool, device=a.device)
    for ridge in _RIDGES:
        w = (torch.linalg.solve(gram + ridge * unit, target)[:, None] @ a).squeeze(1)
        most, there = (inner * w[:, None]).sum(2).amax(1), (edge * w).sum(1)
        size = (there - most) / 2
        new = ~valid & (size > 1e-9 * w.norm(dim=1) * a.abs().amax((1, 2)))
        scale = torch.where(new, size, 1.0)  # the edge scores +1, the largest inner point -1
        weight = torch.where(new[:, None], w / scale[:, None], weight)
        bias = torch.where(new, -(there + most) / 2 / scale, bias)
        valid = valid | new
    return weight, bias, valid
