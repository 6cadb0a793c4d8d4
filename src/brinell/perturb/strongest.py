"""Our default: cheap attacks on all samples, dear ones on the few that survive, within a budget of passes per sample."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.ascent import goal_gradient
from brinell.core.draws import Draws
from brinell.core.errors import BrinellError
from brinell.core.goal import Misclassify
from brinell.core.perturbation import Attack, Attempt
from brinell.core.probe import Certifier
from brinell.core.threat import Ball
from brinell.perturb.apgd import APGD
from brinell.perturb.autoattack import without_dlr
from brinell.perturb.ensemble import worst
from brinell.perturb.pgd import PGD
from brinell.perturb.square import Square

_LEAST_QUERIES = 50  # a square attack shorter than this is not worth its start


class Strongest(Attack, name="strongest"):
    """Attacks in the order of what they break per pass, until the sample yields or its budget is spent: our default for a verdict.

        1  pgd, margin, 10 steps                       4  square, 300 queries
        2  apgd, cross-entropy, 50 steps               5  apgd, DLR towards each of 9 classes, 100 steps each
        3  apgd, margin towards 3 classes, 50 each     6  square, as many queries as the budget leaves, 5,000 at most

    Each is tried on the survivors of those before it. A sample at which the margin has no gradient at all gets the square attack
    alone, with its whole budget, 5,000 queries at most. One pass is one sample through the network once, forwards or backwards; all
    count, the checks of what was found too. An attack that does not fit into what is left of the budget is not begun; where
    samples survive and 1 to 5 were not all tried, the attempt's note says so: the answer is then partial, an upper bound of the
    robust accuracy as always, only less tight.

    Arguments:
        passes: per sample. 2,600 are enough for 1 to 5 at ten classes, about a quarter of AutoAttack's.
        exact: no bfloat16; where it is used, the checks of what it has found come on top of the budget.
        bound: a certifier that is asked first, `ibp` say: a sample at which it proves the margin positive all over the ball is closed,
            and costs no pass of an attack (the certifier's own work, that of some passes, is not counted). None asks nobody, so that
            attacks and certificates stay independent witnesses.

    References: the parts are those of `pgd`, `apgd` and `square`; their order and budgets are ours.

    Example:
        >>> Strongest(passes=500).plan(classes=10)[-1].spec()
        'square(queries=62, threat=ball(eps=8/255, norm=inf))'
    """

    telling = ("threat",)
    trial: ClassVar[dict[str, Any]] = {"passes": 240}
    threat: Ball = Ball()
    passes: int = Field(default=3000, ge=1)
    exact: bool = False
    bound: Certifier | None = None

    def plan(self, classes: int) -> tuple[Attack, ...]:
        """The attacks that fit into the budget, for a network with so many classes."""
        left, chosen = self.passes - 4, []  # the clean logits, twice, and the gradient there
        for attack in self._escalation(classes):
            cost = sum(attack.cost) + 2  # its own look at the clean input, and the check
            if cost > left:
                break
            chosen.append(attack)
            left -= cost
        queries = min(left - 3, 5000)
        return (*chosen, self._part(Square, queries=queries, exact=self.exact)) if queries >= _LEAST_QUERIES else tuple(chosen)

    def _escalation(self, classes: int) -> tuple[Attack, ...]:
        wrong = classes - 1
        return (
            self._part(PGD, steps=10, loss="margin", exact=self.exact),
            self._part(APGD, steps=50, loss="cross_entropy", exact=self.exact),
            self._part(APGD, steps=50, loss="margin", targets=min(3, wrong), exact=self.exact),
            self._part(Square, queries=300, exact=self.exact),
            self._part(APGD, steps=100, loss="dlr", targets=min(9, wrong), exact=self.exact),
        )

    def _part(self, kind: type[Attack], **fields: Any) -> Attack:
        return kind(threat=self.threat, goal=self.goal, **fields)

    @property
    def cost(self) -> tuple[int, int]:
        forwards, backwards = 3, 1
        for attack in self.plan(classes=10):
            forwards, backwards = forwards + attack.cost[0] + 2, backwards + attack.cost[1]
        return forwards, backwards

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Attempt:
        with torch.no_grad():
            clean = net(x)
        gradient, _, _ = goal_gradient(net, x, y, clean, self.goal, "margin")
        blind = gradient.flatten(1).abs().amax(1) == 0
        open_, said = self._open(net, x, y, clean)
        classes, out, notes = clean.shape[1], x.clone(), [without_dlr(clean.shape[1]), said]
        blind_plan = (self._part(Square, queries=min(max(self.passes - 7, 1), 5000), exact=self.exact),)
        for rows, attacks in ((~blind & open_, self.plan(classes)), (blind & open_, blind_plan)):
            if not bool(rows.any()):
                continue
            found = worst(net, x[rows], y[rows], self.goal, self.threat, attacks, draws=draws[rows])
            out[rows], survivors = found.z, int((~found.reached).sum())
            untried = [attack.spec() for attack in self._escalation(classes) if attack not in attacks]
            if survivors and untried and attacks is not blind_plan:
                notes.append(
                    f"partial: {survivors} of {len(x)} samples survived all that {self.passes} passes allow; "
                    f"not tried: {', '.join(untried)}"
                )
        if bool(blind.any()):
            notes.append(f"no gradient at {int(blind.sum())} of {len(x)} samples: they met the square attack alone")
        return Attempt(out, note="; ".join(note for note in notes if note))

    def _open(self, net: Any, x: Tensor, y: Tensor, clean: Tensor) -> tuple[Tensor, str]:
        """(n,) the samples that an attack may break, as far as the certifier knows, and what it said."""
        everyone = torch.ones_like(y, dtype=torch.bool)
        if self.bound is None or not isinstance(self.goal.aim, Misclassify):
            return everyone, ""
        one_hot = torch.eye(clean.shape[1], dtype=x.dtype, device=x.device)
        margins = one_hot[y][:, None] - one_hot  # (n, K, K): the logit of the label minus each logit
        try:
            low, _ = self.bound.bounds(net, x, self.threat.replace(eps=self.threat.eps + self.threat.slack(x)), margins)
        except BrinellError as error:
            return everyone, f"{self.bound.spec()} closed no sample: {error}"
        closed = (low > 0).scatter(1, y[:, None], True).all(1)
        return ~closed, f"{self.bound.spec()} closed {int(closed.sum())} of {len(x)} samples"
