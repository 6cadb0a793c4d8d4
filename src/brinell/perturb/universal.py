"""Universal perturbations: one change that fools a network on most samples at once."""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from brinell.core import norms
from brinell.core.ascent import goal_gradient
from brinell.core.component import State
from brinell.core.draws import Draws
from brinell.core.errors import DataError
from brinell.core.goal import Target
from brinell.core.network import frozen, module_of
from brinell.core.perturbation import Attack
from brinell.core.threat import Ball

_BATCH = 128
_CLASSES = 10


class Universal(Attack, name="universal"):
    """One change, the same for all samples, that fools the network on most of them: does it have a common weakness?

        d <- project(d + a steepest(sum over i in a batch, not yet fooled, of grad margin(x_i + d)));    z_i = project(x_i + d)

    The start is 0 or the best of ten steps of full length, each towards one class, the most likely wrong ones. d is fitted once, before
    the first sample, on `samples` samples of the data that is measured (no split is held out: this asks whether such a change exists,
    and accuracy under it is an upper bound of robust accuracy like any other). The d that fools most of them at the end of an epoch
    is kept; a = rate * eps / epochs.

    Arguments:
        samples: at most, chosen by the hash of their ids. epochs: passes over them. rate: see above.

    Raises:
        DataError: it is asked for points before a lab has prepared it.

    References: Moosavi-Dezfooli, Fawzi, Fawzi & Frossard (2017), "Universal Adversarial Perturbations", CVPR, arXiv 1610.08401; fitted by
        batches as in Shafahi, Najibi, Xu, Dickerson, Davis & Goldstein (2020), "Universal Adversarial Training", AAAI, arXiv 1811.11304,
        algorithm 2, with the margin of samples that are not fooled yet in place of their clipped cross-entropy.

    Example:
        >>> import brinell as br
        >>> data = br.load_dataset("digits(side=8)", limit=60)
        >>> net = br.load_network("mlp(widths=(32,))", shape=data.shape, classes=10)
        >>> attack = br.parse("universal(epochs=3, threat=ball(eps=0.2))")
        >>> attack = attack.prepared(attack.prepare(net, data, draws=br.derive(0, ids=data.ids)))
        >>> z = attack(net, data.x(), data.labels(), draws=br.derive(0, ids=data.ids))
        >>> bool(attack.threat.contains(data.x(), z).all())
        True
    """

    telling = ("threat",)
    threat: Ball = Ball()
    samples: int = Field(default=1000, ge=1)
    epochs: int = Field(default=10, ge=1)
    rate: float = Field(default=2.5, gt=0, allow_inf_nan=False)

    @property
    def cost(self) -> tuple[int, int]:
        return self.epochs * 2 + _CLASSES + 2, self.epochs

    def prepare(self, net: Any, data: Any, *, draws: Draws) -> State:
        """Fit d on (some of) the data."""
        chosen = draws.words(1).squeeze(1).argsort(stable=True)[: self.samples].sort().values.cpu().numpy()
        module = module_of(net)
        weights = next(iter(module.parameters()), None) if module is not None else None
        device = torch.device("cpu") if weights is None else weights.device
        x, y = data.x(chosen).to(device), data.labels(chosen).to(device)
        with frozen(net):
            return {"delta": self._fit(net, x, y)}

    def _fit(self, net: Any, x: Tensor, y: Tensor) -> Tensor:
        size, ball = self.rate * self.threat.eps / self.epochs, self.threat
        with torch.no_grad():
            clean = torch.cat([net(part) for part in x.split(_BATCH)])
        starts = [torch.zeros_like(x[:1]), *self._towards_classes(net, x, y, clean)]
        counts = [self._fooled(net, x, y, clean, start) for start in starts]
        most = max(counts)
        delta = best = starts[counts.index(most)]
        for _ in range(self.epochs):
            for part, label, known in zip(x.split(_BATCH), y.split(_BATCH), clean.split(_BATCH), strict=True):
                g, _, logits = goal_gradient(net, ball.project(part, part + delta), label, known, self.goal, "margin")
                open_ = ~self.goal.reached(logits, label, known)
                pull = norms.scaled(g, open_.to(g.dtype)).sum(0, keepdim=True)
                delta = norms.project(delta + self._step(pull, size), ball.eps, ball.norm)
            fooled = self._fooled(net, x, y, clean, delta)
            if fooled >= most:
                best, most = delta, fooled
        return best

    def _fooled(self, net: Any, x: Tensor, y: Tensor, clean: Tensor, delta: Tensor) -> int:
        """How many samples reach the goal when all are moved by delta."""
        count = 0
        for part, label, known in zip(x.split(_BATCH), y.split(_BATCH), clean.split(_BATCH), strict=True):
            with torch.no_grad():
                count += int(self.goal.reached(net(self.threat.project(part, part + delta)), label, known).sum())
        return count

    def _step(self, g: Tensor, size: float) -> Tensor:
        """The step of a length that gains most along g; in L1 no entry gets more than a quarter of the domain's width at once."""
        ball, width = self.threat, self.threat.high - self.threat.low
        if ball.norm != 1 or not math.isfinite(width) or size == 0:
            return size * norms.steepest(g, ball.norm)
        return norms.sparse_step(g, torch.zeros_like(g), size, min(math.ceil(4 * size / width), g[0].numel()), -width, width)

    def _towards_classes(self, net: Any, x: Tensor, y: Tensor, clean: Tensor) -> list[Tensor]:
        """Steps of length eps along the mean gradient of one class's lead over all others, on one batch; (1, *d) each."""
        likely = clean.scatter(1, y[:, None], -torch.inf).softmax(1).mean(0).argsort(descending=True, stable=True)[:_CLASSES]
        part, label, known = x[:_BATCH], y[:_BATCH], clean[:_BATCH]
        found = []
        for k in likely.tolist():
            g, _, _ = goal_gradient(net, part, label, known, Target(label=k), "margin")
            found.append(self._step(g.sum(0, keepdim=True), self.threat.eps))
        return found

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Tensor:
        if self.state is None:
            raise DataError(
                f"{self.spec()} has not been fitted: let a lab run it, or use attack.prepared(attack.prepare(net, data, draws=...))"
            )
        return self.threat.project(x, x + self.state["delta"].to(x))
