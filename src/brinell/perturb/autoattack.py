"""AutoAttack: the published sequence of attacks that robust accuracies are compared by."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.goal import DLR_CLASSES, Misclassify, Target
from brinell.core.perturbation import Attack, Attempt
from brinell.core.threat import Ball
from brinell.perturb.apgd import APGD
from brinell.perturb.ensemble import worst
from brinell.perturb.eot import EOT
from brinell.perturb.fab import FAB
from brinell.perturb.square import Square


class AutoAttack(Attack, name="autoattack", version=2):
    """The published sequence of four attacks, each on the survivors of those before it: the yardstick of robust accuracy.

        standard    apgd, cross-entropy | apgd, DLR towards each of 9 classes | fab towards each of 9 classes | square, 5,000 queries
        rand        apgd, cross-entropy | apgd, DLR;  both on the mean of 20 passes per step (`eot`), for random networks

    APGD and FAB take 100 steps a run. In L1 the first APGD has 5 restarts and the second aims at 5 classes. Networks with less than
    ten classes are attacked towards all wrong ones. Below four classes DLR is undefined; the margin stands in for it, which
    the attempt's note says.

    Arguments:
        steps, queries: of the published budget (100, 5,000). exact: no bfloat16.

    References: Croce & Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML, arXiv 2003.01690, section 6; Croce & Hein (2021), arXiv 2103.01208, section 5 (L1); versions and budgets
        follow the authors' code. Departures: those of `apgd`, `fab` and `square`.

    Example:
        >>> AutoAttack(threat=Ball(eps=0.1)).spec()
        'autoattack(threat=ball(eps=0.1, norm=inf), version=standard)'
    """

    telling = ("threat", "version")
    trial: ClassVar[dict[str, Any]] = {"steps": 25, "queries": 25}
    threat: Ball = Ball()
    version: Literal["standard", "rand"] = "standard"
    steps: int = Field(default=100, ge=1)
    queries: int = Field(default=5000, ge=1)
    exact: bool = False

    @model_validator(mode="after")
    def _has_an_aim(self) -> AutoAttack:
        if self.version == "standard" and not isinstance(self.goal, Misclassify | Target):
            raise ValueError(f"goal={self.goal.spec()} has no end; {self.name} takes misclassify and target")
        return self

    def sequence(self) -> tuple[Attack, ...]:
        """The attacks of this version, in order."""
        l1 = self.threat.norm == 1
        if self.version == "rand":
            return tuple(EOT(attack=self._apgd(loss=loss), samples=20) for loss in ("cross_entropy", "dlr"))
        return (
            self._apgd(loss="cross_entropy", restarts=5 if l1 else 1),
            self._apgd(loss="dlr", targets=5 if l1 else 9),
            FAB(threat=self.threat, goal=self.goal, steps=self.steps, targets=9, bisections=0, exact=self.exact),
            Square(threat=self.threat, goal=self.goal, queries=self.queries, rescale=False, ahead=True, exact=self.exact),
        )

    def _apgd(self, **fields: Any) -> APGD:
        return APGD(threat=self.threat, goal=self.goal, steps=self.steps, exact=self.exact, **fields)

    @property
    def cost(self) -> tuple[int, int]:
        forwards, backwards = zip(*(attack.cost for attack in self.sequence()), strict=True)
        return sum(forwards) + 2 * len(forwards), sum(backwards)  # each looks at the clean input, and is checked

    def __call__(self, net: Any, x: Tensor, y: Tensor, *, draws: Draws) -> Attempt:
        found = worst(net, x, y, self.goal, self.threat, self.sequence(), draws=draws)
        return Attempt(found.z, note=without_dlr(net(x[:1]).shape[1]))


def without_dlr(classes: int) -> str:
    """What a note says where the DLR loss was asked for and could not be used."""
    return (
        "" if classes >= DLR_CLASSES else f"the DLR loss needs {DLR_CLASSES} classes, the network has {classes}: the margin stood in for it"
    )
