"""Ascent: the drive of every iterative attack that climbs a gradient.

An attack says three things: where a sample starts, how it steps, and when its budget is used up. The drive does the rest. One
forward pass gives both the test "has it arrived?" and the graph of the next gradient. A sample that has reached its goal leaves;
the others are packed together, so that no pass is spent on samples that are already decided. The best point seen is returned.

The first steps may be drafted in bfloat16 (`core.precision`): an arrival there counts once a float32 pass confirms it, and the
last steps are float32, so that no number depends on what bfloat16 rounds away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.goal import Goal, Loss
from brinell.core.precision import drafting, drafts
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
        draws: the samples' own randomness. loss: (m,) float64 at z, NaN before the first pass. carry: whatever the attack keeps
            per sample (a momentum, a step size).
    """

    rows: Tensor
    x: Tensor
    y: Tensor
    clean: Tensor
    z: Tensor
    step: Tensor
    draws: Draws
    loss: Tensor
    carry: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, live: Tensor) -> Front:
        """The samples under a (m,) bool mask, packed together."""
        carry = {name: value[live] for name, value in self.carry.items()}
        rows, x, y, clean, z, step = (value[live] for value in (self.rows, self.x, self.y, self.clean, self.z, self.step))
        return Front(rows, x, y, clean, z, step, self.draws[live], self.loss[live], carry)


TOGETHER = 2**16
"""Numbers in the inputs of one pass, 21 of CIFAR's images: smaller batches cost more per sample, larger ones not less (on a processor)."""


def shared(x: Tensor) -> int:
    """How many runs of these samples are worth a common pass."""
    return max(1, TOGETHER // max(x.numel(), 1))


@dataclass
class Climb:
    """Where an ascent ended, per sample.

    Arguments:
        z: (n, *d) the point that reached the goal, else the one with the largest loss. loss: (n,) float64 there.
        reached: (n,) bool. steps: (n,) steps taken. forwards, backwards: (n,) passes through the network, clean logits not counted.
    """

    z: Tensor
    loss: Tensor
    reached: Tensor
    steps: Tensor
    forwards: Tensor
    backwards: Tensor

    def improve(self, rows: Tensor, other: Climb) -> None:
        """Take over another climb of the samples under a (n,) bool mask: its passes, and its points where they are better."""
        self.spend(other, rows)
        better = ~self.reached[rows] & (other.reached | (other.loss > self.loss[rows]))
        where = rows.nonzero().squeeze(1)[better]
        self.z[where], self.loss[where], self.reached[where] = other.z[better], other.loss[better], other.reached[better]

    def spend(self, other: Climb, rows: Tensor | slice = slice(None)) -> None:
        """Add the steps and passes of another climb."""
        self.steps[rows] += other.steps
        self.forwards[rows] += other.forwards
        self.backwards[rows] += other.backwards

    def split(self, n: int) -> list[Climb]:
        """The climbs of which this one is made, n samples each."""
        fields = (self.z, self.loss, self.reached, self.steps, self.forwards, self.backwards)
        return [Climb(*parts) for parts in zip(*(field.split(n) for field in fields), strict=True)]


def drafted(net: Callable[[Tensor], Tensor], x: Tensor, steps: int, exact: bool) -> int:
    """How many of `steps` are drafted in bfloat16: three in four where that gains (`precision.drafts`), none if `exact`."""
    return 0 if exact or steps < 4 or not drafts(net, x) else steps * 3 // 4


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
    draft: int = 0,
    leave: bool = True,
    runs: int = 1,
) -> Climb:
    """Drive the samples up the goal's loss until each has reached the goal or is done.

    Arguments:
        x, y, clean: (n, *d) inputs, (n,) labels, (n, K) clean logits. Samples whose clean logits reach the goal stay at x.
        start(front): the first points. step(front, gradient): the next points; `front.loss` holds the losses at `front.z`.
            done(front): (m,) bool, budget used up; asked after every step with `front.step` counting it, so a sample takes at
            least one step.
        kind: the surrogate loss. draft: the points of steps 0..draft-1 are looked at in bfloat16; the best loss and point are then
            those of float32 alone. leave: False goes on with samples that have reached the goal, and returns the largest loss.

        runs: the rows are so many runs of the same samples, one after the other; a sample's later runs end where an earlier one has
            arrived, so that it is found what they would find in turn.

    Cost: per live sample and step one forward and one backward pass, and one forward pass at the end for those that never
    arrived; with `draft` one more forward pass wherever bfloat16 sees an arrival. `Climb` counts them.
    """
    count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    loss = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
    result = Climb(x.clone(), loss, goal.reached(clean, y, clean), count, count.clone(), count.clone())
    rows = torch.arange(len(x), device=x.device)
    front = Front(rows, x, y, clean, x, torch.zeros_like(rows), draws, torch.full_like(loss, torch.nan)).keep(~result.reached)
    if len(front):
        front.z = start(front)
    while len(front):
        taken = int(front.step[0])
        low, over = taken < draft, done(front) if taken else torch.zeros_like(front.rows, dtype=torch.bool)
        result.forwards[front.rows] += 1
        if bool(over.all()):
            with torch.no_grad():
                logits = net(front.z)
            gradient = front.z  # not used: every sample leaves below
            losses = goal.loss(logits.double(), front.y, front.clean.double(), kind)
        else:
            result.backwards[front.rows] += 1
            with drafting(front.z, low):
                gradient, losses, logits = goal_gradient(net, front.z, front.y, front.clean, goal, kind)
        arrived = goal.reached(logits, front.y, front.clean)
        if low:
            arrived = _confirmed(net, front, goal, arrived, result)
        if taken == draft > 0:
            result.loss[front.rows] = -torch.inf  # what bfloat16 made of the losses does not compare with float32
        front.loss = torch.nan_to_num(losses, nan=-torch.inf)
        better = (arrived & leave) | (front.loss > result.loss[front.rows])
        where = front.rows[better]
        result.z[where], result.loss[where] = front.z[better], front.loss[better]
        result.reached[front.rows] = arrived if leave else result.reached[front.rows] | arrived
        result.steps[front.rows] = front.step
        stay = ~((arrived & leave) | over)
        if runs > 1 and leave:
            stay &= result.reached.unflatten(0, (runs, -1)).cumsum(0).flatten()[front.rows] == 0
        if not bool(stay.all()):
            front, gradient = front.keep(stay), gradient[stay]
        if len(front):
            front.z = step(front, gradient)
            front.step = front.step + 1
    return result


def _confirmed(net: Callable[[Tensor], Tensor], front: Front, goal: Goal, seen: Tensor, result: Climb) -> Tensor:
    """Which of the arrivals that bfloat16 has seen float32 sees too."""
    if not bool(seen.any()):
        return seen
    result.forwards[front.rows[seen]] += 1
    with torch.no_grad():
        logits = net(front.z[seen])
    return seen.masked_scatter(seen, goal.reached(logits, front.y[seen], front.clean[seen]))
