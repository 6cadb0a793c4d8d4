"""Checks of the evaluation itself: would these numbers be believed by somebody who did not make them?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import Field

from brinell.core.confidence import clopper_pearson
from brinell.core.lab import Table
from brinell.core.measurement import Finding, Reading, Status, Verdict
from brinell.core.perturbation import Corruption, Perturbation
from brinell.core.summary import Summary
from brinell.core.threat import Ball
from brinell.summary.attack_checks import (
    attack_findings,
    bound_findings,
    budget_families,
    leak_findings,
    scale_findings,
    silent_successes,
    transfer_findings,
)
from brinell.summary.data_checks import data_findings
from brinell.summary.points import Cell, Room, balls, cells

FAIL, FLAG, PASS = Verdict.FAIL, Verdict.FLAG, Verdict.PASS

PROBED = (
    "probabilities", "normalisation", "random_forward", "dynamic", "batch_dependence", "gradient_mode", "instability", "no_gradient",
    "zero_gradients",
)  # fmt: skip
"""The checks that need the probe `diagnostics`."""
LOSSES = ("cross_entropy", "margin", "dlr")
"""The losses whose plain gradients `diagnostics` looks at."""


class Checks(Summary, name="checks", version=4):
    """The pitfalls of robustness evaluation, each as a finding with its number: can these numbers be trusted?

    FAIL: numbers of this network or cell are wrong or missing. FLAG: they need a second look. PASS is reported too.

    - `failed_cells`: every cell without points (FAIL, with its reason); a probe that failed somewhere is a FLAG;
    - `lost_samples`: samples that could not be read, or that the network fails on (FLAG; only where there are some);
    - `domain`: inputs outside the data's domain are refused when they are read, so this passes, and states the domain;
    - `train_mode`: the network came in training mode; it is measured in evaluation mode all the same (FLAG);
    - `nonfinite_output`: share of samples with NaN or inf among their logits in some cell (FAIL);
    - `chance`: the interval of clean accuracy reaches down to the share of the commonest label (FLAG);
    - `sample_size`: width of the interval of clean accuracy (FLAG above `width`);
    - `bounds_obeyed`: saved points whose distance, computed again from the point by the lab, is beyond eps by more than rounding (FAIL);
    - `noise_control`: share of samples that some noise or corruption inside a threat breaks and no attack on that threat does;
      FAIL where, over all samples, chance breaks more than the attacks;
    - `one_step`: the same for attacks of one gradient step against iterative ones on the same threat;
    - `label_leakage`: accuracy under an attack of one gradient step, less that on clean samples (FLAG above `alone`);
    - `black_box`: the same for attacks without gradients against those with them;
    - `monotone`: share of samples that an attack breaks at one eps and not at the next larger one; FAIL where accuracy rises
      (for a single gradient step, which may well overshoot, FLAG);
    - `longer`: share of samples that an attack breaks with more steps, queries or restarts and not with fewer, between the two
      largest budgets of the plan: had it converged (FLAG)?
    - `unbounded`: share of samples right under an attack whose ball holds the whole domain, or has no end
      (FAIL; up to 0.05 FLAG);
    - `silent_success`: share of samples for which a minimum-norm attack reports a point that is right after all (FLAG);
    - `transfer_failure`: of the samples that transferred points break on their source, the share that nothing measured in their ball
      breaks here (FLAG above `transfer`);
    - `budget_scale`: the largest Linf ball reaches half the domain's width, where every sample may become the same grey, or more than
      half of the samples right at first are wrong at a point within 1/255 of it: are eps and data in the same units (FLAG)?

    and from the probe `diagnostics` (where it was not run or failed, one FLAG called `diagnostics` says so instead):

    - `probabilities`, `normalisation`, `random_forward`, `batch_dependence` (FLAG), `no_gradient` (FAIL);
    - `gradient_mode`: logits differ between passes that record gradients, that do not, and in inference mode (FAIL); `dynamic`: a
      forward pass takes gradients or changes parameters or buffers (FLAG); `instability`: the margin jumps under tiny noise (FLAG);
    - `zero_gradients`: share of samples whose plain input gradient is exactly 0, or not finite, of that loss (cross-entropy, margin, DLR)
      where it is largest (FLAG; FAIL where the cross-entropy has no other);

    and from other probes:

    - of `duplicates`: `duplicates`, share of samples that are there more than once (FLAG above `duplicates`), and `conflicting_labels`,
      those of them with several labels (FLAG);
    - of `eight_bit`: `eight_bit`, share of wrong points that no 8-bit image of the ball repeats (FLAG above `rounding`);
    - of `escalation`, for the attack it was run with: `unbounded`, `longer`, `noise_control` as above (the last two FLAG above `gain`), and
      `silent_success`, share of samples of which the attack has seen a wrong point and returned a right one (FLAG);
    - of `noise_search`: `noise_search`, share of samples that one of 10,000 random points breaks and the attack does not (FLAG);
    - of `binarisation`: `binarisation`, share of adversarial examples, there by construction, that the attack finds (FLAG below the
      threshold, FAIL 0.05 below it, or where no more are found than by chance); FLAG where no sample could be tried.

    A number exactly at its threshold passes. Attacks whose goal is not `misclassify` are left out of the comparisons.

    Arguments:
        probability_share: of rows that look like probabilities. repeat_distance, batch_distance: `logit_distance` between
            repetitions, and between batchings (which differ by rounding). zero_gradient_share: of samples.
        instability: of the margin. gain: share that a longer attack may add in `escalation`. binarisation: share found.
        normalisation_gain: of accuracy; also asked: the gain's interval lies above 0. alone: share of samples that the weaker
            of two attacks may break alone. confidence: of the interval of clean accuracy. width: of this interval. duplicates, rounding,
            transfer: shares.

    References: Carlini et al. (2019), "On Evaluating Adversarial Robustness", arXiv 1902.06705 (noise, iterative against
        single-step, gradient-free against gradient-based, success that grows with the budget; per sample); Croce & Hein (2020),
        arXiv 2003.01690, and its code (probabilities, random outputs above 1e-4, zero gradients, a black-box attack that gains
        0.2 points); Pintor et al. (2022), "Indicators of Attack Failure", arXiv 2106.09947 (gradients that are not there). The other
        thresholds are ours.

    Example:
        >>> import brinell as br
        >>> data = br.load_dataset("digits(side=8)", limit=60)
        >>> net = br.load_network("mlp(widths=(32,))", shape=data.shape, classes=10)
        >>> table = br.Lab().measure(net, data, probes=["accuracy", "diagnostics"], summaries=["checks"])
        >>> [(finding.name, str(finding.verdict)) for finding in table.findings if finding.verdict != "pass"]
        [('chance', 'flag')]
    """

    probability_share: float = Field(default=0.5, ge=0, le=1)
    repeat_distance: float = Field(default=1e-4, ge=0)
    batch_distance: float = Field(default=1e-3, ge=0)
    zero_gradient_share: float = Field(default=0.05, ge=0, le=1)
    normalisation_gain: float = Field(default=0.1, ge=0, le=1)
    alone: float = Field(default=0.002, ge=0, le=1)
    instability: float = Field(default=0.25, ge=0, le=1)
    gain: float = Field(default=0.02, ge=0, le=1)
    binarisation: float = Field(default=0.95, ge=0, le=1)
    width: float = Field(default=0.2, ge=0, le=1)
    duplicates: float = Field(default=0.01, ge=0, le=1)
    rounding: float = Field(default=0.05, ge=0, le=1)
    transfer: float = Field(default=0.5, ge=0, le=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)

    def __call__(self, table: Table) -> list[tuple[str, Reading] | Finding]:
        room = Room(table)
        said = f"All inputs lie in the domain [{room.low:g}, {room.high:g}]: others are refused when they are read"
        found: list[tuple[str, Reading] | Finding] = [Finding("domain", PASS, said)]
        for net in table.networks:
            measured = cells(table, net)
            found += _failures(table, net)
            found += [_mode(table, net), *_outputs(net, measured), *self._chance(table, net, measured), *self._probed(table, net)]
            found += data_findings(table, net, measured, width=self.width, duplicates=self.duplicates, confidence=self.confidence)
            found += bound_findings(net, measured, room)
            for ball in balls(table.perturbations()):
                found += self._compared(net, ball, measured, room)
            found += self._monotone(net, measured)
            found += self._longer(net, measured)
            found += self._unbounded(net, measured, room)
            found += silent_successes(net, measured)
            found += scale_findings(net, measured, room)
            found += leak_findings(net, measured, alone=self.alone)
            found += transfer_findings(table, net, measured, room, failing=self.transfer)
            found += attack_findings(table, net, gain=self.gain, binarisation=self.binarisation, rounding=self.rounding)
        return found

    def _chance(self, table: Table, net: str, measured: list[Cell]) -> Iterator[Finding]:
        clean = next((cell for cell in measured if cell.perturbation.name == "clean"), None)
        if clean is None:
            return
        _, counts = np.unique(clean.samples["label"], return_counts=True)
        n, common = len(clean.correct), counts.max() / counts.sum()
        low, _ = clopper_pearson(int(clean.correct.sum()), n, self.confidence)
        accuracy, notes = float(clean.correct.mean()), "; ".join(table.plan["networks"][net].get("notes", ()))
        if low > common:
            said = f"Clean accuracy {accuracy:.3f} on {n} samples is above the {common:.3f} of the commonest label"
            yield Finding("chance", PASS, said, value=accuracy, threshold=common, net=net)
            return
        said = (
            f"Clean accuracy {accuracy:.3f} on {n} samples cannot be told from always giving the commonest label ({common:.3f}). "
            f"{f'Of this network is noted: {notes}. ' if notes else ''}Load trained weights, check the order of the labels, or take "
            "more samples; robustness of a network that knows nothing means nothing"
        )
        yield Finding("chance", FLAG, said, value=accuracy, threshold=common, net=net)

    def _probed(self, table: Table, net: str) -> Iterator[Finding]:
        rows = {(row["name"], row["layer"]): row for row in table.select(net=net, perturbation="clean")}
        if ("repeat_difference", "") not in rows:
            failed = rows.get(("diagnostics", ""))
            why = f"the probe diagnostics failed ({failed['reason']})" if failed else "add the probe diagnostics"
            yield Finding("diagnostics", FLAG, f"Not checked: {', '.join(PROBED)}; {why}", net=net)
            return

        yield _judged(
            net, "probabilities", rows["probability_share", ""], self.probability_share, "The outputs are no probabilities",
            "The outputs lie in [0, 1] and sum to 1: a softmax was applied, which flattens gradients. Return the logits before it",
        )  # fmt: skip
        yield self._normalisation(net, next(row for (name, _), row in rows.items() if name == "normalisation_gain"))
        chosen = rows["repeat_difference", ""]
        if chosen["value"] is None:  # few samples, of which none was chosen for passes of its own
            yield Finding("diagnostics", FLAG, f"Not checked: {', '.join(PROBED[2:])}; {chosen['reason']}", net=net)
            return
        shaky = _judged(
            net, "random_forward", rows["repeat_difference", ""], self.repeat_distance, "A repeated forward pass gives the same logits",
            f"A repeated forward pass gives other logits and changes {_share(rows['repeat_changes', ''])} of the predictions: the "
            "network is random, or keeps state. Every number here is of one draw: fix the randomness, or attack the mean over draws (eot)",
        )  # fmt: skip
        yield shaky
        yield self._dynamic(net, rows)
        if shaky.verdict is PASS:  # repetitions of a random network differ in any batching
            yield _judged(
                net, "batch_dependence", rows["batch_difference", ""], self.batch_distance, "Logits do not depend on the batch",
                f"Logits depend on what else is in the batch, and {_share(rows['batch_changes', ''])} of the predictions with them: a "
                "sample has no answer of its own. Look for batch statistics in evaluation mode",
            )  # fmt: skip
            yield _judged(
                net, "gradient_mode", rows["mode_difference", ""], self.repeat_distance, "Recording gradients changes no logits",
                f"Logits, and {_share(rows['mode_changes', ''])} of the predictions, differ between passes that record gradients, that "
                "do not, and in inference mode: attacks see another network than users. Remove what asks for the mode", FAIL,
            )  # fmt: skip
            yield _judged(
                net, "instability", rows["instability", ""], self.instability, "The margin changes little in a small box around samples",
                "The margin jumps within a box of side 8/255 around samples: gradients there say little about where the loss grows. Add "
                "attacks without gradients, or backward_as for the step that does it",
            )  # fmt: skip
        cut = _judged(
            net, "no_gradient", rows["no_gradient", ""], 0.0, "A gradient reaches the input",
            "No gradient reaches the input, so attacks that follow it find nothing: remove detach or no_grad, replace the step by a "
            "differentiable one (backward_as), or attack without gradients", FAIL,
        )  # fmt: skip
        yield cut
        if cut.verdict is PASS:
            yield self._zero(net, rows)

    def _dynamic(self, net: str, rows: dict[tuple[str, str], dict[str, Any]]) -> Finding:
        calls, changes = rows["gradient_calls", ""], rows["state_changes", ""]
        what = [said for row, said in ((calls, "takes gradients"), (changes, "writes to its parameters or buffers")) if row["value"]]
        row = max((calls, changes), key=lambda row: row["value"] or 0.0)
        bad = f"A forward pass {' and '.join(what)}: the network adapts while it answers, and static attacks may miss how"
        return _judged(net, "dynamic", row, 0.0, "Forward passes take no gradients and change nothing", bad)

    def _normalisation(self, net: str, row: dict[str, Any]) -> Finding:
        name, gain = "normalisation", row["value"]
        if gain is None:
            return Finding(name, FLAG, f"Not checked: {row['reason']}", threshold=self.normalisation_gain, net=net)
        if gain <= self.normalisation_gain or row["low"] <= 0:
            said = "Accuracy is not better on inputs in other units"
            return Finding(name, PASS, said, value=gain, threshold=self.normalisation_gain, net=net)
        said = (
            f"Accuracy is {gain:.3f} higher on inputs in other units ({row['layer']}; {row['n']} samples): the network seems to expect "
            f"them. Put its normalisation inside it: normalized(..., mean=..., std=...)"
        )
        return Finding(name, FLAG, said, value=gain, threshold=self.normalisation_gain, net=net)

    def _zero(self, net: str, rows: dict[tuple[str, str], dict[str, Any]]) -> Finding:
        idle, broken = ({loss: float(rows[f"{name}_gradient_share", loss]["value"]) for loss in LOSSES} for name in ("zero", "nonfinite"))
        worst = max(*idle.values(), *broken.values())
        said = "Plain input gradients are exactly 0, or not finite: " + "; ".join(
            f"{loss.replace('_', '-')} {idle[loss]:.1%}, {broken[loss]:.1%} of the samples" for loss in LOSSES
        )
        if worst <= self.zero_gradient_share:
            return Finding("zero_gradients", PASS, said, value=worst, threshold=self.zero_gradient_share, net=net)
        if max(broken.values()) > self.zero_gradient_share:
            said += ". No attack can follow a gradient that is NaN or inf: look for a root or a logarithm at 0 inside the network"
        elif idle["margin"] < idle["cross_entropy"]:
            said += ". Logits are saturated: attack with loss=margin, or with attacks that rescale the logits, as those of this lab do"
        else:
            said += ". The margin's gradient vanishes as well, so the network hides it: add an attack without gradients"
        verdict = FAIL if max(idle["cross_entropy"], broken["cross_entropy"]) == 1 else FLAG
        return Finding("zero_gradients", verdict, said, value=worst, threshold=self.zero_gradient_share, net=net)

    def _compared(self, net: str, ball: Ball, measured: list[Cell], room: Room) -> Iterator[Finding]:
        """What a weaker perturbation breaks in a threat must be broken by a stronger one too, sample by sample."""
        clean = [cell for cell in measured if cell.perturbation.name == "clean"]
        corrupted = [cell for cell in measured if isinstance(cell.perturbation, Corruption) and cell.perturbation.name != "clean"]
        noise = [cell for cell in corrupted if room.inside(cell, ball).any()]
        mine = [cell for cell in measured if cell.attacks and cell.perturbation.threat == ball]
        one_step = [cell for cell in mine if cell.perturbation.cost[1] == 1]
        iterative = [cell for cell in mine if cell.perturbation.cost[1] > 1]
        blind = [cell for cell in mine if cell.perturbation.cost[1] == 0]  # transferred points cost no pass at all
        for name, weaker, stronger, what in (
            ("noise_control", noise, mine, "chance"),
            ("one_step", one_step, iterative, "a single gradient step"),
            ("black_box", blind, [*one_step, *iterative], "an attack without gradients of the network"),
        ):
            by_weaker, by_stronger = room.survived([*clean, *weaker], ball), room.survived([*clean, *stronger], ball)
            if not weaker or not stronger or by_weaker is None or by_stronger is None:
                continue
            names = ", ".join(cell.spec for cell in stronger)
            alone, left = float((by_stronger & ~by_weaker).mean()), (by_weaker.mean(), by_stronger.mean())
            said = f"In {ball.spec()}, {what} breaks {alone:.1%} of the samples that {names} does not"
            verdict = PASS if alone <= self.alone else FLAG
            if verdict is FLAG and left[0] < left[1]:
                verdict, said = FAIL, f"{said}, and leaves less accuracy ({left[0]:.3f} against {left[1]:.3f})"
            if verdict is not PASS:
                said += ". The stronger search fails there: more steps, restarts, another loss or an attack without gradients"
            yield Finding(name, verdict, said, value=alone, threshold=self.alone, net=net, perturbation=names)

    def _monotone(self, net: str, measured: list[Cell]) -> Iterator[Finding]:
        """What an attack breaks in a small ball it must break in a larger one."""
        for attack, family in _families(measured):
            alone, at, risen = -1.0, "", ""
            for (small, low), (large, high) in pairwise(family):
                share = float((high & ~low).mean())
                if share > alone:
                    alone, at = share, f"eps {small:g} and not at {large:g}"
                if high.mean() > low.mean():
                    risen = f"; accuracy rises from {low.mean():.3f} at {small:g} to {high.mean():.3f} at {large:g}"
            said, verdict = f"{alone:.1%} of the samples are broken at {at}", PASS if alone <= self.alone else FLAG
            if verdict is FLAG:
                verdict = FAIL if risen and attack.cost[1] != 1 else FLAG
                said += f"{risen}. A larger ball contains the smaller: give the attack more steps or restarts there"
            yield Finding("monotone", verdict, said, value=alone, threshold=self.alone, net=net, perturbation=attack.spec())

    def _longer(self, net: str, measured: list[Cell]) -> Iterator[Finding]:
        """What an attack breaks with its largest budget it should break with the one before."""
        for field, family in budget_families(measured):
            (few, short), (many, long) = family[-2:]
            gained = float((short.correct & ~long.correct).mean())
            said = f"{gained:.1%} of the samples are broken with {field}={many:g} and not with {few:g}"
            verdict = PASS if gained <= self.alone else FLAG
            if verdict is FLAG:
                said += ". The attack had not converged: go on doubling until nothing is gained"
            yield Finding("longer", verdict, said, value=gained, threshold=self.alone, net=net, perturbation=long.spec)

    def _unbounded(self, net: str, measured: list[Cell], room: Room) -> Iterator[Finding]:
        """An attack without bounds must break everything."""
        for cell in measured:
            ball = cell.perturbation.threat
            if not cell.attacks or not isinstance(ball, Ball) or not (math.isinf(ball.eps) or room.holds_domain(ball)):
                continue
            left = float(cell.correct.mean())
            said = f"{left:.1%} of the samples are right still under an attack that may change them at will"
            verdict = PASS if left <= self.alone else FLAG if left <= 0.05 else FAIL
            if verdict is not PASS:
                said += ": it does not work on this network. Look at its gradients, give it more steps, or use one without gradients"
            yield Finding("unbounded", verdict, said, value=left, threshold=self.alone, net=net, perturbation=cell.spec)


def _judged(net: str, name: str, row: dict[str, Any], threshold: float, good: str, bad: str, verdict: Verdict = FLAG) -> Finding:
    """A reading held against its threshold."""
    if row["status"] != Status.OK:
        return Finding(name, FLAG, f"Not checked: {row['reason']}", threshold=threshold, net=net)
    fine = row["value"] <= threshold
    return Finding(name, PASS if fine else verdict, good if fine else bad, value=row["value"], threshold=threshold, net=net)


def _failures(table: Table, net: str) -> Iterator[Finding]:
    rows = table.select(net=net, status=str(Status.FAILED))
    cells_lost = [row for row in rows if not row["probe"]]
    for row in cells_lost:
        yield Finding("failed_cells", FAIL, f"No points: {row['reason']}", net=net, perturbation=row["perturbation"])
    if not cells_lost:
        yield Finding("failed_cells", PASS, "No cell failed", value=0.0, threshold=0.0, net=net)
    for probe in dict.fromkeys(row["probe"] for row in rows if row["probe"]):
        lost = [row for row in rows if row["probe"] == probe]
        said = f"{probe} failed in {len(lost)} cells, first in {lost[0]['perturbation']}: {lost[0]['reason']}"
        yield Finding("failed_probes", FLAG, said, value=float(len(lost)), threshold=0.0, net=net, perturbation=lost[0]["perturbation"])

    missing = table.select(net=net, probe="", name="lost")
    if missing:
        worst = max(missing, key=lambda row: row["value"])
        said = f"{int(worst['value'])} of {worst['n']} samples could not be measured and count nowhere: {worst['reason']}"
        yield Finding("lost_samples", FLAG, said, value=worst["value"], threshold=0.0, net=net, perturbation=worst["perturbation"])


def _mode(table: Table, net: str) -> Finding:
    if table.plan["networks"][net].get("training"):
        said = "The network was passed in training mode; it was measured in evaluation mode. Call net.eval() to say that this is meant"
        return Finding("train_mode", FLAG, said, value=1.0, threshold=0.0, net=net)
    return Finding("train_mode", PASS, "The network was passed in evaluation mode", value=0.0, threshold=0.0, net=net)


def _outputs(net: str, measured: list[Cell]) -> Iterator[Finding]:
    if not measured:
        return
    mute = [~cell.samples["finite"] for cell in measured]
    share = float(np.logical_or.reduce(mute).mean())
    if not share:
        yield Finding("nonfinite_output", PASS, "All logits are finite", value=0.0, threshold=0.0, net=net)
        return
    where = next(place for place, flags in enumerate(mute) if flags.any())
    first, spec = measured[where].samples["id"][mute[where]][0], measured[where].spec
    said = f"{share:.1%} of the samples have NaN or inf among their logits, sample {first} under {spec} for one: repair the network"
    yield Finding("nonfinite_output", FAIL, said, value=share, threshold=0.0, net=net, perturbation=spec)


def _families(measured: list[Cell]) -> Iterator[tuple[Perturbation, list[tuple[float, np.ndarray]]]]:
    """Attacks that differ in nothing but their ball's eps: the one on the largest ball; each eps, and which samples survive there."""
    clean = np.logical_and.reduce([cell.correct for cell in measured if cell.perturbation.name == "clean"])
    found: dict[tuple[str, ...], dict[float, Cell]] = {}
    for cell in measured:
        item, ball = cell.perturbation, cell.perturbation.threat
        if cell.attacks and isinstance(ball, Ball):
            others = [f"{field}={getattr(item, field)}" for field in sorted(type(item).model_fields) if field != "threat"]
            found.setdefault((item.name, f"{ball.norm} {ball.low} {ball.high}", *others), {})[ball.eps] = cell
    for family in found.values():
        if len(family) > 1:
            yield family[max(family)].perturbation, [(eps, family[eps].correct & clean) for eps in sorted(family)]


def _share(row: dict[str, Any]) -> str:
    return f"{row['value']:.1%}"
