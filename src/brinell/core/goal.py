"""Goals: what a perturbation that looks at the network tries to achieve, as a loss to climb and a test of success."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from brinell.core.component import Component
from brinell.core.errors import UndefinedReading
from brinell.core.samples import Logits, Mask, PerSample, Y

Loss = Literal["cross_entropy", "margin", "dlr"]
"""The surrogates a goal on the predicted class can be climbed with."""

DLR_CLASSES = 4
"""The fewest classes for which the difference of logits ratio is used; below it the margin stands in for it."""


def margin(logits: Logits, y: Y) -> PerSample:
    """max of the other logits minus the logit of y, (n,): negative while y is predicted, 0 on the decision boundary.

    Example:
        >>> margin(torch.tensor([[2.0, 5.0, 1.0]]), torch.tensor([0]))
        tensor([3.])
    """
    own = logits.gather(1, y[:, None]).squeeze(1)
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return others - own


def dlr(logits: Logits, y: Y, target: Y | None = None) -> PerSample:
    """Difference of logits ratio, (n,): the margin over the spread of the leading logits, the same for every scale of the logits.

        DLR(z, y)    = -(z_y - max_{k != y} z_k) / (z_(1) - z_(3))                  >= -1, and > 0 where y is not predicted
        DLR(z, y, t) = -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)                 with a target class t

    with z_(1) >= z_(2) >= ... the sorted logits. Below `DLR_CLASSES` classes there is no fourth logit, and with two not even a
    third: the numerator alone, the margin, is returned.

    References: Croce & Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML, arXiv 2003.01690, equations 6 and 7.

    Example:
        >>> dlr(torch.tensor([[4.0, 3.0, 2.0, 0.0]]), torch.tensor([0]))
        tensor([-0.5000])
        >>> dlr(torch.tensor([[4.0, 3.0, 2.0, 0.0]]), torch.tensor([0]), torch.tensor([3]))
        tensor([-1.3333])
    """
    gap = margin(logits, y) if target is None else (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)
    if logits.shape[1] < DLR_CLASSES:
        return gap
    top = logits.topk(4, 1).values
    spread = top[:, 0] - (top[:, 2] if target is None else (top[:, 2] + top[:, 3]) / 2)
    return gap / (spread + 1e-12)


def divergence(kind: str, clean: Logits, logits: Logits) -> PerSample:
    """Divergence (n,), in nats, of the clean softmax P from the perturbed one Q: kl = KL(P|Q), reverse_kl = KL(Q|P), js.

    Computed from log-softmax throughout; js (Jensen-Shannon) is at most log 2.
    """
    p, q = F.log_softmax(clean, 1), F.log_softmax(logits, 1)
    if kind == "kl":
        return (p.exp() * (p - q)).sum(1)
    if kind == "reverse_kl":
        return (q.exp() * (q - p)).sum(1)
    middle = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0, dtype=p.dtype))
    return 0.5 * (p.exp() * (p - middle)).sum(1) + 0.5 * (q.exp() * (q - middle)).sum(1)


class Goal(Component):
    """What an attack is after. `loss` is what it climbs, `reached` is whether it has arrived; both per sample.

    `relative` says that the loss stays the same when one number is added to all logits, so that its derivatives sum to 0.
    """

    relative: ClassVar[bool] = False

    @property
    def flat(self) -> bool:
        """Does its gradient vanish at the clean input, so that a search has to start somewhere else?"""
        return False

    @property
    def aim(self) -> Goal:
        """What is to be reached, whichever way it is asked for."""
        return self

    def loss(self, logits: Logits, y: Y, clean: Logits, kind: Loss = "cross_entropy") -> PerSample:
        """(n,) numbers to maximise. logits: (n, K) at the perturbed inputs; clean: (n, K) at the clean ones; y: (n,) labels."""
        raise TypeError(f"{type(self).__name__} has no loss")

    def reached(self, logits: Logits, y: Y, clean: Logits) -> Mask:
        """(n,) bool; False everywhere for goals without an end, such as `maximise`."""
        raise TypeError(f"{type(self).__name__} has no end")


class Misclassify(Goal, name="misclassify"):
    """Any class but the label: reached when the label is not the predicted class.

    `toward=k` aims the loss at one class, the k-th most likely wrong one at the clean input (1 is the runner-up); any other wrong
    class is taken too. 0 aims at none in particular.

    Raises:
        UndefinedReading: the network has no k-th wrong class.
    """

    relative = True
    toward: int = Field(default=0, ge=0)

    def loss(self, logits: Logits, y: Y, clean: Logits, kind: Loss = "cross_entropy") -> PerSample:
        if self.toward:
            return _aimed(kind, logits, y, self._aim(y, clean))
        if kind == "cross_entropy":
            return F.cross_entropy(logits, y, reduction="none")
        return margin(logits, y) if kind == "margin" else dlr(logits, y)

    def reached(self, logits: Logits, y: Y, clean: Logits) -> Mask:
        return logits.argmax(1) != y

    def _aim(self, y: Y, clean: Logits) -> Y:
        wrong = clean.shape[1] - 1
        if self.toward > wrong:
            raise UndefinedReading(f"{self.spec()}: the network has {wrong + 1} classes, so {wrong} wrong ones; choose toward <= {wrong}")
        return clean.scatter(1, y[:, None], -torch.inf).topk(self.toward, 1).indices[:, -1]


def _aimed(kind: Loss, logits: Logits, y: Y, target: Y) -> PerSample:
    """The loss of a target class: minus its cross-entropy, its lead over the label, or the targeted DLR."""
    if kind == "cross_entropy":
        return -F.cross_entropy(logits, target, reduction="none")
    if kind == "margin":
        return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)
    return dlr(logits, y, target)


class Target(Goal, name="target"):
    """One given class: reached when it is the predicted one.

    `label` is a class index, or a rule read off the clean prediction: `runner_up` (the most likely wrong class) or
    `least_likely`. Samples whose own label is the target count as reached without any change.

    Raises:
        UndefinedReading: the network has no class of that index.
    """

    relative = True
    label: Literal["runner_up", "least_likely"] | int = "runner_up"
    positional = ("label",)

    def targets(self, y: Y, clean: Logits) -> Y:
        """(n,) class indices to be reached."""
        if isinstance(self.label, int):
            if not 0 <= self.label < clean.shape[1]:
                raise UndefinedReading(f"{self.spec()}: the network has classes 0..{clean.shape[1] - 1}; choose one of them")
            return torch.full_like(y, self.label)
        others = clean.scatter(1, y[:, None], -torch.inf if self.label == "runner_up" else torch.inf)
        return others.argmax(1) if self.label == "runner_up" else others.argmin(1)

    def loss(self, logits: Logits, y: Y, clean: Logits, kind: Loss = "cross_entropy") -> PerSample:
        target = self.targets(y, clean)
        return -margin(logits, target) if kind == "margin" else _aimed(kind, logits, y, target)

    def reached(self, logits: Logits, y: Y, clean: Logits) -> Mask:
        return logits.argmax(1) == self.targets(y, clean)


class Nearest(Goal, name="nearest"):
    """Another goal, reached as close to the sample as possible: what minimum-norm attacks search for.

    Loss and end are those of `goal`; an attack that has reached it goes on to come nearer while its budget lasts.
    """

    relative = True
    goal: Misclassify | Target = Field(default_factory=Misclassify)
    positional = ("goal",)

    @property
    def aim(self) -> Goal:
        return self.goal

    def loss(self, logits: Logits, y: Y, clean: Logits, kind: Loss = "cross_entropy") -> PerSample:
        return self.goal.loss(logits, y, clean, kind)

    def reached(self, logits: Logits, y: Y, clean: Logits) -> Mask:
        return self.goal.reached(logits, y, clean)


class Maximise(Goal, name="maximise"):
    """As large a value as possible of a quantity of the output; there is no end, the best point found is returned.

    Quantities: `kl`, `reverse_kl`, `js` (divergence from the clean output), `cross_entropy`, `margin`. All are taken of the logits
    divided by `scale`: the softmax of a network with large logits is saturated, and with a scale of their size it is not.
    """

    relative = True
    quantity: Literal["kl", "reverse_kl", "js", "cross_entropy", "margin"] = "kl"
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    positional = ("quantity",)

    @property
    def flat(self) -> bool:
        return self.quantity in ("kl", "reverse_kl", "js")  # the clean output is at distance 0 from itself, the least there is

    def loss(self, logits: Logits, y: Y, clean: Logits, kind: Loss = "cross_entropy") -> PerSample:
        logits, clean = logits / self.scale, clean / self.scale
        if self.quantity == "margin":
            return margin(logits, y)
        if self.quantity == "cross_entropy":
            return F.cross_entropy(logits, y, reduction="none")
        return divergence(self.quantity, clean, logits)

    def reached(self, logits: Logits, y: Y, clean: Logits) -> Mask:
        return torch.zeros(len(y), dtype=torch.bool, device=y.device)
