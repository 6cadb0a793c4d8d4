"""Ascent: the drive of every iterative attack that climbs a gradient.

An attack says three things: where a sample starts, how it steps, and when its budget is used up. The drive does the rest. One
forward pass gives both the test "has it arrived?" and the graph of the next gradient. A sample that has reached its goal leaves;
the others are packed together, so that no pass is spent on samples that are already decided. The best point seen is returned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.goal import Goal, Loss
from brinell.core.samples import Logits, PerSample, X, Y


def goal_gradient(
    net: Callable[[Tensor], Tensor], z: X, y: Y, clean: Logits, goal: Goal, kind: Loss = "cross_entropy"
) -> tuple[X, PerSample, Logits]:
    """Direction of steepest growth of the goal's loss in the input, the losses, and the logits, by one pass each way.

    The loss is differentiated at the logits in float64 and each sample's derivative is scaled to a largest entry of 1 before it
    travels back through the network. A positive factor per sample changes no step direction; without it saturated logits give wrong
    and then zero gradients (in float32 the label's own entry is 0 beyond a gap of 17, all entries beyond about 104). Where even
    float64 gives zero, beyond about 745, the margin's derivative is used.

    Arguments:
        z: (n, *d) points. y: (n,) labels. clean: (n, K) logits at the clean inputs.

    Returns:
        g: (n, *d), 0 where it was not finite or where no gradient reaches the input. losses: (n,) float64. logits: (n, K).

    Example:
        >>> from brinell.core.goal import Misclassify
        >>> x, y = torch.tensor([[0.2, 0.9]]), torch.tensor([0])
        >>> goal_gradient(lambda x: x * torch.tensor([2.0, 1.0]), x, y, x, Misclassify(), "margin")[0]
        tensor([[-2.,  1.]])
    """
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        logits = net(z)
        leaf = logits.detach().double().requires_grad_()
        losses = goal.loss(leaf, y, clean.double(), kind)
        (u,) = torch.autograd.grad(losses.sum(), leaf)
        flat = u.abs().amax(1) == 0
        if bool(flat.any()) and kind == "cross_entropy":
            (steady,) = torch.autograd.grad(goal.loss(leaf, y, clean.double(), "margin").sum(), leaf)
            u = torch.where(flat[:, None], steady, u)
        if goal.relative:  # at the largest logit 1 - 1 has lost the digits that all other entries still have
            top = leaf.detach().argmax(1, keepdim=True)
            others = u.scatter(1, top, 0.0)
            u = others.scatter(1, top, -others.sum(1, keepdim=True))
        size = u.abs().amax(1, keepdim=True)
        u = torch.where(size > 0, u / size.clamp(min=1e-300), 0.0)
        if not logits.requires_grad:
            return torch.zeros_like(z), losses.detach(), logits
        (g,) = torch.autograd.grad(logits, z, u.to(logits.dtype), allow_unused=True)
    g = torch.zeros_like(z) if g is None else torch.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0)
    return g, losses.detach(), logits.detach()


@dataclass
class Front:
    """The live samples of an ascent; all fields have one row per live sample.

    Arguments:
        rows: positions in the batch. x, y, clean: clean inputs, labels, clean logits. z: current points. step: steps taken.
        draws: the samples' own randomness. carry: whatever the attack keeps per sample (a momentum, a step size).
    """

    rows: Tensor
    x: Tensor
    y: Tensor
    clean: Tensor
    z: Tensor
    step: Tensor
    draws: Draws
    carry: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, live: Tensor) -> Front:
        """The samples under a (m,) bool mask, packed together."""
        carry = {name: value[live] for name, value in self.carry.items()}
        rows, x, y, clean, z, step = (value[live] for value in (self.rows, self.x, self.y, self.clean, self.z, self.step))
        return Front(rows, x, y, clean, z, step, self.draws[live], carry)


@dataclass
class Climb:
    """Where an ascent ended, per sample.

    Arguments:
        z: (n, *d) the point that reached the goal, else the one with the largest loss. loss: (n,) float64 there.
        reached: (n,) bool. steps: (n,) steps taken.
    """

    z: Tensor
    loss: Tensor
    reached: Tensor
    steps: Tensor


def ascend(
    net: Callable[[Tensor], Tensor],
    x: X,
    y: Y,
    clean: Logits,
    goal: Goal,
    *,
    start: Callable[[Front], Tensor],
    step: Callable[[Front, Tensor], Tensor],
    done: Callable[[Front], Tensor],
    draws: Draws,
    kind: Loss = "cross_entropy",
) -> Climb:
    """Drive the samples up the goal's loss until each has reached the goal or is done.

    Arguments:
        x, y, clean: (n, *d) inputs, (n,) labels, (n, K) clean logits. Samples whose clean logits reach the goal stay at x.
        start(front): the first points. step(front, gradient): the next points. done(front): (m,) bool, budget used up; asked
            after every step with `front.step` counting it, so a sample takes at least one step.
        kind: the surrogate loss.

    Cost: per live sample and step one forward and one backward pass, and one forward pass at the end for those that never
    arrived.
    """
    n = len(x)
    result = Climb(x.clone(), torch.full((n,), -torch.inf, dtype=torch.float64, device=x.device),
                   goal.reached(clean, y, clean), torch.zeros(n, dtype=torch.int64, device=x.device))  # fmt: skip
    live = ~result.reached
    rows = torch.arange(n, device=x.device)
    front = Front(rows, x, y, clean, x, torch.zeros_like(rows), draws).keep(live)
    if len(front):
        front.z = start(front)
    while len(front):
        over = done(front) if bool((front.step > 0).any()) else torch.zeros_like(front.rows, dtype=torch.bool)
        if bool(over.all()):
            with torch.no_grad():
                logits = net(front.z)
            gradient = front.z  # not used: every sample leaves below
            losses = goal.loss(logits.double(), front.y, front.clean.double(), kind)
        else:
            gradient, losses, logits = goal_gradient(net, front.z, front.y, front.clean, goal, kind)
        arrived = goal.reached(logits, front.y, front.clean)
        losses = torch.nan_to_num(losses, nan=-torch.inf)
        better = arrived | (losses > result.loss[front.rows])
        where = front.rows[better]
        result.z[where], result.loss[where] = front.z[better], losses[better]
        result.reached[front.rows[arrived]] = True
        result.steps[front.rows] = front.step
        stay = ~(arrived | over)
        if not bool(stay.all()):
            front, gradient = front.keep(stay), gradient[stay]
        if len(front):
            front.z = step(front, gradient)
            front.step = front.step + 1
    return result
