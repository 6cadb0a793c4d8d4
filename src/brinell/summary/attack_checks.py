"""Findings on attacks: from their cells, and from the probes that try them out, `escalation` and `binarisation`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from brinell.core.lab import Table
from brinell.core.measurement import Finding, Status, Verdict
from brinell.core.network import NetReference
from brinell.core.perturbation import DONE, Around
from brinell.core.threat import Ball
from brinell.summary.points import Cell, Room

FAIL, FLAG, PASS = Verdict.FAIL, Verdict.FLAG, Verdict.PASS


def attack_findings(table: Table, net: str, *, gain: float, binarisation: float, rounding: float) -> Iterator[Finding]:
    """What attacks note of their own work, and what `escalation`, `noise_search`, `binarisation` and `eight_bit` say of each.

    Arguments:
        gain: share of samples that twice the budget, or noise, may add. binarisation: share of the planted examples that must be found.
        rounding: share of wrong points that may be lost in 8 bits.
    """
    for row in table.select(net=net, name="proposed"):
        said = row["reason"] if row["value"] == 1 else f"Points for {row['value']:.1%} of {row['n']} samples. {row['reason']}"
        yield Finding("attack_note", FLAG, said, value=row["value"], net=net, perturbation=row["perturbation"])
    for row in table.select(net=net, name="eight_bit_lost", status=str(Status.OK)):
        yield _lost(net, row, rounding)
    rows = {(row["name"], row["layer"]): row for row in table.select(net=net, perturbation="clean")}
    for (name, attack), row in rows.items():
        if name == "longer_gain" and row["status"] == Status.OK:
            yield _longer(net, attack, row, gain)
        elif name == "noise_gain" and row["status"] == Status.OK:
            yield _noise(net, attack, row, gain)
        elif name == "silent_share" and row["status"] == Status.OK:
            yield _silent(net, attack, row)
        elif name == "chance_alone":
            yield _searched(net, attack, row)
        elif name == "unbounded_accuracy":
            yield _unbounded(net, attack, row)
        elif name == "binarisation_success":
            yield _planted(net, attack, row, rows["binarisation_random", attack], binarisation)


def _longer(net: str, attack: str, row: dict[str, Any], gain: float) -> Finding:
    said = f"With twice its budget the attack breaks {row['value']:.1%} more of {row['n']} samples"
    if row["value"] <= gain:
        return Finding("longer", PASS, said, value=row["value"], threshold=gain, net=net, perturbation=attack)
    said += ". It had not converged: go on doubling until nothing is gained"
    return Finding("longer", FLAG, said, value=row["value"], threshold=gain, net=net, perturbation=attack)


def _noise(net: str, attack: str, row: dict[str, Any], gain: float) -> Finding:
    said = f"Random points of the ball break {row['value']:.1%} of {row['n']} samples that the attack does not"
    if row["value"] <= gain:
        return Finding("noise_control", PASS, said, value=row["value"], threshold=gain, net=net, perturbation=attack)
    said += ". The search fails there: more steps, restarts, another loss or an attack without gradients"
    return Finding("noise_control", FLAG, said, value=row["value"], threshold=gain, net=net, perturbation=attack)


def _silent(net: str, attack: str, row: dict[str, Any]) -> Finding:
    name, said = "silent_success", f"Of {row['n']} samples the attack has seen {row['value']:.1%} go wrong and returned them right"
    if not row["value"]:
        return Finding(name, PASS, said, value=0.0, threshold=0.0, net=net, perturbation=attack)
    said += ": it must return the best point it has seen, not the last one; or the network is random (eot)"
    return Finding(name, FLAG, said, value=row["value"], threshold=0.0, net=net, perturbation=attack)


def _searched(net: str, attack: str, row: dict[str, Any]) -> Finding:
    name = "noise_search"
    if row["status"] != Status.OK:
        return Finding(name, FLAG, f"Not checked: {row['reason']}", threshold=0.0, net=net, perturbation=attack)
    said = f"Thousands of random points break {row['value']:.1%} of {row['n']} samples that the attack does not"
    if not row["value"]:
        return Finding(name, PASS, said, value=0.0, threshold=0.0, net=net, perturbation=attack)
    said += ". A search that chance outdoes fails there: more steps, restarts, another loss or an attack without gradients"
    return Finding(name, FLAG, said, value=row["value"], threshold=0.0, net=net, perturbation=attack)


def _lost(net: str, row: dict[str, Any], rounding: float) -> Finding:
    name, spec = "eight_bit", row["perturbation"]
    said = f"{row['value']:.1%} of {row['n']} wrong points have no wrong neighbour among 8-bit images in the same ball"
    if row["value"] <= rounding:
        return Finding(name, PASS, said, value=row["value"], threshold=rounding, net=net, perturbation=spec)
    said += ": so much of the attack's success is lost where images are stored in 8 bits"
    return Finding(name, FLAG, said, value=row["value"], threshold=rounding, net=net, perturbation=spec)


def _unbounded(net: str, attack: str, row: dict[str, Any]) -> Finding:
    if row["status"] != Status.OK:
        return Finding("unbounded", FLAG, f"Not checked: {row['reason']}", threshold=0.0, net=net, perturbation=attack)
    said = f"{row['value']:.1%} of {row['n']} samples are right still when the attack may change them at will"
    if not row["value"]:
        return Finding("unbounded", PASS, said, value=0.0, threshold=0.0, net=net, perturbation=attack)
    said += ": it does not work on this network. Look at its gradients, give it more steps, or use one without gradients"
    return Finding("unbounded", FAIL, said, value=row["value"], threshold=0.0, net=net, perturbation=attack)


def _planted(net: str, attack: str, row: dict[str, Any], chance: dict[str, Any], threshold: float) -> Finding:
    name = "binarisation"
    if row["status"] != Status.OK:
        return Finding(name, FLAG, f"Not checked: {row['reason']}", threshold=threshold, net=net, perturbation=attack)
    found, lucky = row["value"], chance["value"]
    said = f"The attack finds {found:.1%} of the adversarial examples planted around {row['n']} samples, chance {lucky:.1%}"
    if found >= threshold and lucky < found:
        return Finding(name, PASS, said, value=found, threshold=threshold, net=net, perturbation=attack)
    if found >= threshold:
        said += ": chance does as well, so this shows nothing. Take more inner points, or a larger eps"
        return Finding(name, FLAG, said, value=found, threshold=threshold, net=net, perturbation=attack)
    said += ". An attack that misses what is there by construction says nothing about the network: mend it (loss, steps, backward_as, eot)"
    verdict = FAIL if found < threshold - 0.05 or found <= lucky else FLAG
    return Finding(name, verdict, said, value=found, threshold=threshold, net=net, perturbation=attack)


def budget_families(measured: list[Cell]) -> Iterator[tuple[str, list[tuple[float, Cell]]]]:
    """Attacks that differ in nothing but one budget: its field, and the cells by growing budget."""
    found: dict[tuple[str, ...], dict[float, Cell]] = {}
    for cell in measured:
        item = cell.perturbation
        for field in ("steps", "queries", "passes", "restarts"):
            if cell.attacks and field in type(item).model_fields:
                others = [f"{name}={getattr(item, name)}" for name in sorted(type(item).model_fields) if name != field]
                found.setdefault((field, item.name, *others), {})[float(getattr(item, field))] = cell
    for (field, *_), family in found.items():
        if len(family) > 1:
            yield field, sorted(family.items(), key=lambda entry: entry[0])


def silent_successes(net: str, measured: list[Cell]) -> Iterator[Finding]:
    """Do the points that minimum-norm attacks report as wrong stay wrong?"""
    for cell in measured:
        status = cell.samples.get("status")
        if not cell.attacks or not cell.perturbation.unbounded or status is None or isinstance(cell.perturbation, Around):
            continue
        silent = float(((status == DONE) & cell.correct).mean())
        said = f"{silent:.1%} of the points that {cell.spec} reports as wrong are right when asked again"
        if silent:
            said += ": the network is random, or answers depend on the batch"
        yield Finding("silent_success", FLAG if silent else PASS, said, value=silent, threshold=0.0, net=net, perturbation=cell.spec)


def scale_findings(net: str, measured: list[Cell], room: Room) -> Iterator[Finding]:
    """Are eps and the data in the same units?"""
    clean = next((cell.correct for cell in measured if cell.perturbation.name == "clean"), None)
    mine = [cell for cell in measured if cell.attacks and isinstance(cell.perturbation.threat, Ball)]
    balls = [cell.perturbation.threat for cell in mine if isinstance(cell.perturbation.threat, Ball)]
    eps = max(
        (ball.eps for ball in balls if ball.norm == math.inf and math.isfinite(ball.eps) and not room.holds_domain(ball)), default=0.0
    )
    width = room.high - room.low
    if not eps or clean is None or not clean.any() or not math.isfinite(width):
        return
    if eps >= width / 2:
        said = f"eps={eps:g} is half the domain [{room.low:g}, {room.high:g}] or more: every sample may become the same grey"
        yield Finding("budget_scale", FLAG, f"{said}. For images in [0, 1] write 8/255, not 8", value=eps, threshold=width / 2, net=net)
        return
    near = np.logical_or.reduce([~cell.correct & (cell.samples["linf"] <= eps / 255) for cell in mine])
    share = float(near[clean].mean())
    said = f"{share:.1%} of the samples right at first are wrong within {eps / 255:.3g}, 1/255 of the largest eps"
    if share > 0.5:
        said += ": either the network has no robustness at all, or data and eps are in other units"
    yield Finding("budget_scale", FLAG if share > 0.5 else PASS, said, value=share, threshold=0.5, net=net)


def bound_findings(net: str, measured: list[Cell], room: Room) -> Iterator[Finding]:
    """Do the saved distances obey the balls that their perturbations claim?"""
    worst, beyond, total, where = 0.0, 0, 0, ""
    for cell in measured:
        ball = cell.perturbation.threat
        if not isinstance(ball, Ball) or not math.isfinite(ball.eps):
            continue
        far = cell.samples[f"l{ball.norm:g}"]
        broken = int((~(far <= ball.eps + ball.slack(torch.empty(0, *room.shape)))).sum())
        total, beyond = total + len(far), beyond + broken
        if not where or broken or (not beyond and float(far.max()) > worst * ball.eps):
            worst, where = (float(far.max()) / ball.eps if ball.eps else 0.0), cell.spec
    if not where:
        return
    said = f"{beyond} of {total} saved points lie outside the ball they claim; the farthest is at {worst:.6g} eps ({where})"
    verdict = FAIL if beyond else PASS
    if beyond:
        said += ": what is measured there belongs to no claim. Measure these cells again"
    yield Finding("bounds_obeyed", verdict, said, value=float(beyond), threshold=0.0, net=net)


def transfer_findings(table: Table, net: str, measured: list[Cell], room: Room, *, failing: float) -> Iterator[Finding]:
    """Do points that break their own source break this network, or does anything else in their ball?

    Arguments:
        failing: share of the samples broken on the source that nothing measured breaks here.
    """
    for cell in measured:
        source, ball = getattr(cell.perturbation, "source", None), cell.perturbation.threat
        if not cell.attacks or not isinstance(source, NetReference) or source.label == net or not isinstance(ball, Ball):
            continue
        there, clean = table.samples(source.label, cell.perturbation), table.samples(source.label, "clean")
        kept = room.survived(measured, ball)
        if not there or not clean or kept is None:
            continue
        broken = there["id"][~there["correct"] & np.isin(there["id"], clean["id"][clean["correct"]])]
        at_first = next((found.correct for found in measured if found.perturbation.name == "clean"), kept)
        tried = np.isin(cell.samples["id"], broken) & at_first  # either network may have lost samples that the other has answered
        if not tried.any():
            continue
        share = float(kept[tried].mean())
        said = f"Of {tried.sum()} samples broken on the source {source.label}, {share:.1%} stay right here at all points in {ball.spec()}"
        if share > failing:
            said += ": more robust, or only harder to read? Attack this network itself, by its gradients and without, and run binarisation"
        yield Finding("transfer_failure", FLAG if share > failing else PASS, said, value=share, threshold=failing, net=net,
                      perturbation=cell.spec)  # fmt: skip


def leak_findings(net: str, measured: list[Cell], *, alone: float) -> Iterator[Finding]:
    """Is the network better under an attack of one gradient step, which is told the label, than without it?

    References: Kurakin, Goodfellow & Bengio (2017), "Adversarial Machine Learning at Scale", ICLR, arXiv 1611.01236, section 4.3.
    """
    clean = next((cell.correct for cell in measured if cell.perturbation.name == "clean"), None)
    for cell in measured:
        if clean is None or not cell.attacks or cell.perturbation.cost[1] != 1:
            continue
        gained = float(cell.correct.mean() - clean.mean())
        said = f"Accuracy {cell.correct.mean():.3f} under {cell.spec}, {clean.mean():.3f} without it"
        if gained > alone:
            said += ": the step tells the network the label, which it seems to have learned to read. Judge by iterative attacks alone"
        verdict = FLAG if gained > alone else PASS
        yield Finding("label_leakage", verdict, said, value=gained, threshold=alone, net=net, perturbation=cell.spec)
