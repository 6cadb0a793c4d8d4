"""Goals: what a perturbation that looks at the network tries to achieve, as a loss to climb and a test of success."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch.nn import functional as F

from brinell.core.component import Component
from brinell.core.errors import UndefinedReading
from brinell.core.samples import Logits, Mask, PerSample, Y

Loss = Literal["cross_entropy", "margin"]
"""The surrogates a goal on the predicted class can be climbed with."""


def margin(logits: Logits, y: Y) -> PerSample:
    """max of the other logits minus the logit of y, (n,): negative while y is predicted, 0 on the decision boundary.

    Example:
        >>> margin(torch.tensor([[2.0, 5.0, 1.0]]), torch.tensor([0]))
        tensor([3.])
    """
    own = logits.gather(1, y[:, None]).squeeze(1)
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return others - own


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

    def loss(self, logits: Logits, y: Y, clean: Logits, kind: Loss = "cross_entropy") -> PerSample:
        """(n,) numbers to maximise. logits: (n, K) at the perturbed inputs; clean: (n, K) at the clean ones; y: (n,) labels."""
        raise TypeError(f"{type(self).__name__} has no loss")

    def reached(self, logits: Logits, y: Y, clean: Logits) -> Mask:
        """(n,) bool; False everywhere for goals without an end, such as `maximise`."""
        raise TypeError(f"{type(self).__name__} has no end")


class Misclassify(Goal, name="misclassify"):
    """Any class but the label: reached when the label is not the predicted class."""

    relative = True

    def loss(self, logits: Logits, y: Y, clean: Logits, kind: Loss = "cross_entropy") -> PerSample:
        return margin(logits, y) if kind == "margin" else F.cross_entropy(logits, y, reduction="none")

    def reached(self, logits: Logits, y: Y, clean: Logits) -> Mask:
        return logits.argmax(1) != y


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
        return -margin(logits, target) if kind == "margin" else -F.cross_entropy(logits, target, reduction="none")

    def reached(self, logits: Logits, y: Y, clean: Logits) -> Mask:
        return logits.argmax(1) == self.targets(y, clean)


class Maximise(Goal, name="maximise"):
    """As large a value as possible of a quantity of the output; there is no end, the best point found is returned.

    Quantities: `kl`, `reverse_kl`, `js` (divergence from the clean output), `cross_entropy`, `margin`.
    """

    relative = True
    quantity: Literal["kl", "reverse_kl", "js", "cross_entropy", "margin"] = "kl"
    positional = ("quantity",)

    def loss(self, logits: Logits, y: Y, clean: Logits, kind: Loss = "cross_entropy") -> PerSample:
        if self.quantity == "margin":
            return margin(logits, y)
        if self.quantity == "cross_entropy":
            return F.cross_entropy(logits, y, reduction="none")
        return divergence(self.quantity, clean, logits)

    def reached(self, logits: Logits, y: Y, clean: Logits) -> Mask:
        return torch.zeros(len(y), dtype=torch.bool, device=y.device)
