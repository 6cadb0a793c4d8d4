"""Sections on calibration, and on what summaries read off several cells."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from brinell.report.answer import Answer, listed
from brinell.report.content import Content
from brinell.report.figure import reliability
from brinell.report.section import Entry, Grid, Key, Panel, Section, read, tidy

STANCES = ("clean", "corrupted", "attacked")
FEW = 16
CALIBRATION = ("ece", "overconfidence", "brier", "nll")


def stance_keys(content: Content) -> tuple[Key, ...]:
    """The legend of the three views; where there is one network, with what corrupts and attacks it."""
    found = {name: item.spec for net in content.networks for name, item in content.stances(net).items()}
    alone = len(content.networks) == 1
    said = {name: f"{name}: {spec}" if alone and name != "clean" else name for name, spec in found.items()}
    return tuple(Key(STANCES.index(name), text) for name, text in said.items())


def calibration(content: Content) -> Section | None:
    """Calibration numbers, and the reliability curve where its bins are at hand."""
    if not any(row["name"] in CALIBRATION for row in content.table.rows):
        return None
    lines, rows, panels = [], [], []
    for net in content.networks:
        stances = content.stances(net)
        for name, item in stances.items():
            answers = [content.answer(quantity, net, item.spec) for quantity in CALIBRATION]
            lines.append((net, name, item.spec, *answers))
            rows += [((net, quantity, item.spec), answer) for quantity, answer in zip(CALIBRATION, answers, strict=True)]
        found = [(STANCES.index(name), name, _curve(content, net, item.spec)) for name, item in stances.items()]
        series = [(which, name, curve) for which, name, curve in found if curve]
        if series:
            said = f"expected calibration error {content.answer('ece', net, content.clean_spec).brief} on clean samples"
            panels.append(Panel(net, reliability(series), f"Reliability curve of {net}, {said}: accuracy against confidence in bins."))
    lead = (
        f"Is the network right as often as it says?{' Below the diagonal it promises too much.' if panels else ''}",
        "ece: expected calibration error, 0 is best. overconfidence: mean confidence minus accuracy. "
        "brier (0 to 2) and nll (nats): lower is better.",
    )
    table = read(content, "Calibration", ("network", "view", "perturbation", *CALIBRATION), lines)
    grids = [table, tidy("Calibration numbers", ("network", "quantity", "perturbation"), rows)]
    return Section("calibration", "Calibration", lead, stance_keys(content) if panels else (), panels, grids)


def _curve(content: Content, net: str, spec: str) -> list[tuple[float, float, float]]:
    """Mean confidence, accuracy and share of each bin; empty where the bins are not at hand."""
    row: dict[str, Any] | None = next((row for row in content.cell(net, spec) if row["name"] == "ece"), None)
    array = content.table.array(row) if row is not None and row.get("value") is not None else None
    if array is None or array.ndim != 2 or array.shape[1] != 3:
        return []
    return [(float(a), float(b), float(c)) for a, b, c in np.asarray(array) if math.isfinite(a + b + c)]


def summaries(content: Content) -> Section | None:
    """Readings of summaries, networks side by side: bounds of R(T), mean corruption errors and the like."""
    found = [(net, row) for net in content.networks for row in content.cell(net, "")]
    if not found:
        return None
    places: dict[tuple[str, str, str], dict[str, Answer]] = {}
    for net, row in found:
        places.setdefault((row["name"], row.get("layer") or "", str(row.get("bound") or "")), {})[net] = Answer.of(row)
    counts = Counter(name for name, *_ in places)
    missing = Answer(None, status="missing", reason="this network has no such reading")
    lines: list[tuple[Entry, ...]] = [
        (*place, *(answers.get(net, missing) for net in content.networks)) for place, answers in places.items() if counts[place[0]] <= FEW
    ]
    lead = ["Numbers read off several cells at once."]
    many = [name for name, count in counts.items() if count > FEW]
    if many:
        lead.append(f"In the table behind only: {listed(many)}.")
    grids = [Grid("Summaries", ("name", "about", "bound", *content.networks), lines)] if lines else []
    rows = [((net, row["name"], row.get("layer"), str(row.get("bound") or "")), Answer.of(row)) for net, row in found]
    grids.append(tidy("All summaries", ("network", "name", "about", "bound"), rows))
    return Section("summaries", "Summaries", tuple(lead), (), [], grids)
