"""Findings on attacks: from their cells, and from the probes that try them out, `escalation` and `binarisation`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from brinell.core.lab import Table
from brinell.core.measurement import Finding, Status, Verdict
from brinell.core.perturbation import DONE, Around
from brinell.core.threat import Ball
from brinell.summary.points import Cell, Room

FAIL, FLAG, PASS = Verdict.FAIL, Verdict.FLAG, Verdict.PASS


def attack_findings(table: Table, net: str, *, gain: float, binarisation: float) -> Iterator[Finding]:
    """What attacks note of their own work, and what `escalation` and `binarisation` say of each they were run with.

    Arguments:
        gain: share of samples that twice the budget, or noise, may add. binarisation: share of the planted examples that must be found.
    """
    for row in table.select(net=net, name="proposed"):
        said = row["reason"] if row["value"] == 1 else f"Points for {row['value']:.1%} of {row['n']} samples. {row['reason']}"
        yield Finding("attack_note", FLAG, said, value=row["value"], net=net, perturbation=row["perturbation"])
    rows = {(row["name"], row["layer"]): row for row in table.select(net=net, perturbation="clean")}
    for (name, attack), row in rows.items():
        if name == "longer_gain" and row["status"] == Status.OK:
            yield _longer(net, attack, row, gain)
        elif name == "noise_gain" and row["status"] == Status.OK:
            yield _noise(net, attack, row, gain)
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
        for field in ("steps", "queries", "restarts"):
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
