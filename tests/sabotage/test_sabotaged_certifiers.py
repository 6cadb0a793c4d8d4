"""Certifiers that promise too much: a point of any kind that is wrong inside the certified ball gives them away."""

import numpy as np
import pytest
import torch

from brinell.core.measurement import Bound, Reading, Verdict
from brinell.core.probe import SAFE, UNKNOWN, Certifier
from brinell.core.tally import Rows
from brinell.core.threat import Ball


class AllSafe(Certifier, name="sabotage_all_safe"):
    """Calls every sample safe, or those whose id is a multiple of `every`."""

    threat: Ball = Ball(eps=0.2)
    every: int = 1

    def observe(self, view, *, draws):
        return Rows.of(id=view.ids, verdict=torch.where(view.ids % self.every == 0, SAFE, UNKNOWN))

    def read(self, tally):
        verdicts = Rows(tally.values).sorted()["verdict"].numpy()
        return [Reading("certified", float(np.mean(verdicts == SAFE)), bound=Bound.LOWER, n=len(verdicts), array=verdicts, axis="sample")]


@pytest.mark.parametrize(
    "perturbation", ["fgsm(threat=ball(eps=0.2))", "pgd(steps=5, threat=ball(norm=2, eps=0.2))", "contrast(severity=1)"]
)
def test_a_lying_certifier_is_contradicted(perturbation, healthy, audit, finding):
    found = finding(audit(healthy, [perturbation], probes=[AllSafe()]), "contradiction")
    assert found.verdict is Verdict.FAIL and found.value > 0 and found.net == "net"
    assert "sabotage_all_safe" in found.message and found.perturbation in found.message


def test_the_sample_that_is_named_is_certified_and_broken(healthy, audit):
    attack = "fgsm(threat=ball(eps=0.2))"
    table = audit(healthy, [attack], probes=[AllSafe(every=3)])
    (found,) = [item for item in table.findings if item.name == "contradiction" and item.perturbation.startswith("fgsm")]
    samples = table.samples("net", attack)
    broken = samples["id"][~samples["correct"] & (samples["id"] % 3 == 0)]
    assert found.value == len(broken) > 0
    assert f"sample {broken[0]} " in found.message


def test_bounds_that_cross_are_shown_as_they_are(healthy, audit):
    table = audit(healthy, ["fgsm(threat=ball(eps=0.2))"], probes=[AllSafe()])
    lower, upper = (table.row("robust_accuracy", perturbation="", layer=Ball(eps=0.2).spec(), bound=bound) for bound in ("lower", "upper"))
    assert lower["value"] == 1.0 > upper["value"]


def test_points_outside_the_certified_ball_prove_nothing(healthy, audit, finding):
    clean = audit(healthy)
    right = clean.samples("net", "clean")["correct"].all()
    found = finding(audit(healthy, ["fgsm(threat=ball(eps=0.2))"], probes=[AllSafe(threat=Ball(eps=0.01))]), "contradiction")
    assert not right and found.perturbation == "clean"  # only the samples that are wrong without any perturbation
