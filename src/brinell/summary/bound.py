"""Bounds of R(T), the share of samples that are classified correctly everywhere in a threat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from pydantic import Field

from brinell.core.confidence import clopper_pearson
from brinell.core.lab import Table
from brinell.core.measurement import Bound, Finding, Reading, Verdict
from brinell.core.probe import SAFE, Certifier
from brinell.core.summary import Summary
from brinell.core.threat import Ball
from brinell.summary.points import Cell, Room, balls, cells, certifiers, covers

Proofs = list[tuple[Certifier, Ball, np.ndarray]]


class RobustAccuracy(Summary, name="bound"):
    """Bounds of robust accuracy, of every network in every ball that the plan names: between which shares does R(T) lie?

        R(T) = (1/n) sum_i min over z in T(x_i) of 1[argmax f(z) = y_i],      lower <= R(T) <= upper

    - upper: the mean of min over all measured points of sample i inside T(x_i), whatever made them: the clean sample, attacks on
      T or on any other threat, noise, corruptions. Distances are those the lab measured; rounding is forgiven as
      `Ball.contains` does. A ball that does not contain the data's domain only takes points of perturbations whose own
      threat lies in it. A sample whose logits hold NaN or inf at such a point counts as not correct.
    - lower: the share that a certifier of the plan calls safe on a ball that contains T (in the same or another norm, see
      `points.covers`). Without one it is 0, which needs no proof, and the reading's reason says so.

    Readings are called `robust_accuracy`, have the ball's text as their layer and bound LOWER or UPPER; the array of both (axis
    `sample`, in the order of ids) is 1 where the sample counts. Each bound is exact for the samples measured; its interval, Clopper-
    Pearson's, is for the share of that bound in the population. It treats samples as independent: clusters are not known here.

    A sample that is certified on a ball and wrong at a measured point of it is the finding `contradiction` (FAIL): the certifier
    or the measurement is wrong, and neither bound can be trusted. One per certifier and perturbation; PASS where there is none.
    Certifiers' own counterexamples move no bound: no point of theirs has been measured.

    Arguments:
        confidence: of the interval of each bound.

    References: the minimum per sample over attacks, instead of a mean of accuracies, is what Carlini et al. (2019), "On Evaluating
        Adversarial Robustness", arXiv 1902.06705, asks for; taking every point of the run into it is ours.

    Example:
        >>> import brinell as br
        >>> data, pgd = br.load_dataset("digits(side=8)", limit=60), "pgd(steps=5, threat=ball(eps=0.1))"
        >>> net = br.load_network("mlp(widths=(32,))", shape=data.shape, classes=10)
        >>> table = br.Lab().measure(net, data, [pgd], summaries=["bound"])
        >>> [(row["layer"], row["bound"]) for row in table.select(name="robust_accuracy")]
        [('ball(eps=0.1, norm=inf)', 'lower'), ('ball(eps=0.1, norm=inf)', 'upper')]
    """

    confidence: float = Field(default=0.95, gt=0, lt=1)

    def __call__(self, table: Table) -> list[tuple[str, Reading] | Finding]:
        room, asked = Room(table), balls([*table.perturbations(), *certifiers(table)])
        found: list[tuple[str, Reading] | Finding] = []
        for net in table.networks:
            measured = cells(table, net)
            proofs = [(proof, proof.threat, said == SAFE) for proof, said in table.certificates(net) if isinstance(proof.threat, Ball)]
            for ball in asked:
                found += [(net, self._lower(table, ball, proofs, room)), (net, self._upper(ball, measured, room))]
            found += _contradictions(net, measured, proofs, room)
        return found

    def _lower(self, table: Table, ball: Ball, proofs: Proofs, room: Room) -> Reading:
        n = int(table.plan["data"]["n"])
        safe = [certified for _, outer, certified in proofs if covers(outer, ball, room.entries)]
        if not safe:
            reason = "no certificate covers this threat: 0 is the trivial bound"
            return Reading("robust_accuracy", 0.0, ball.spec(), bound=Bound.LOWER, n=n, reason=reason)
        proved = np.logical_or.reduce(safe)
        return self._share(proved, ball, Bound.LOWER, "" if proved.any() else "vacuous: no certificate proves any sample safe")

    def _upper(self, ball: Ball, measured: list[Cell], room: Room) -> Reading:
        survived = room.survived(measured, ball)
        if survived is None:
            return replace(
                Reading.undefined("robust_accuracy", "no measured point lies in this threat", layer=ball.spec()), bound=Bound.UPPER
            )
        mute = np.logical_or.reduce([~cell.samples["finite"] & room.inside(cell, ball) for cell in measured])
        reason = f"{mute.sum()} samples have NaN or inf among their logits and count as not correct" if mute.any() else ""
        return self._share(survived, ball, Bound.UPPER, reason)

    def _share(self, flags: np.ndarray, ball: Ball, bound: Bound, reason: str = "") -> Reading:
        low, high = clopper_pearson(int(flags.sum()), len(flags), self.confidence)
        return Reading(
            "robust_accuracy", float(flags.mean()), ball.spec(), bound=bound, low=low, high=high, confidence=self.confidence,
            n=len(flags), array=flags.astype(np.uint8), axis="sample", reason=reason,
        )  # fmt: skip


def _contradictions(net: str, measured: list[Cell], proofs: Proofs, room: Room) -> Iterator[Finding]:
    for proof, ball, certified in proofs:
        sound = True
        for cell in measured:
            broken = certified & ~cell.correct & room.inside(cell, ball)
            if broken.any():
                sound = False
                row = int(np.flatnonzero(broken)[0])
                yield Finding(
                    "contradiction", Verdict.FAIL, net=net, perturbation=cell.spec, value=float(broken.sum()), threshold=0.0,
                    message=f"{proof.spec()} calls sample {cell.samples['id'][row]} safe in {ball.spec()}, but {cell.spec} has a point "
                    f"there (at distance {cell.samples[f'l{ball.norm:g}'][row]:.4g}) that is wrong; {broken.sum()} such samples. "
                    "The certifier is unsound, or it looked at another network or data: trust neither bound until one is corrected",
                )  # fmt: skip
        if sound:
            said = f"None of the {certified.sum()} samples that {proof.spec()} calls safe is broken by any measured point in {ball.spec()}"
            yield Finding("contradiction", Verdict.PASS, said, value=0.0, threshold=0.0, net=net)
