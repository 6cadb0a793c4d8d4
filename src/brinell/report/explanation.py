"""Sections that explain: class selectivity along the layers, calibration, and what summaries read off several cells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from brinell.report.content import Answer, Content, listed
from brinell.report.figure import profile, reliability
from brinell.report.section import Grid, Key, Panel, Section, tidy

STANCES = ("clean", "corrupted", "attacked")
CALIBRATION = ("ece", "overconfidence", "brier", "nll")


def stance_keys(content: Content) -> tuple[Key, ...]:
    """The legend of the three views; where there is one network, with what corrupts and attacks it."""
    found = {name: item.spec for net in content.networks for name, item in content.stances(net).items()}
    alone = len(content.networks) == 1
    said = {name: f"{name}: {spec}" if alone and name != "clean" else name for name, spec in found.items()}
    return tuple(Key(STANCES.index(name), text) for name, text in said.items())


def selectivity(content: Content) -> Section | None:
    """The class selectivity of each layer, clean, corrupted and attacked."""
    if not any(row["name"] == "selectivity" for row in content.table.rows):
        return None
    panels, rows, profiles = [], [], {}
    for net in content.networks:
        stances = content.stances(net)
        layers = [row["layer"] for item in stances.values() for row in content.cell(net, item.spec) if row["name"] == "selectivity"]
        layers = [layer for layer in dict.fromkeys(layers) if layer]
        profiles[net] = (layers, [
            (STANCES.index(name), f"{name} ({item.spec})", [content.answer("selectivity", net, item.spec, layer) for layer in layers])
            for name, item in stances.items()
        ])  # fmt: skip
        rows += [
            ((net, layer or "(network mean)", item.spec), content.answer("selectivity", net, item.spec, layer))
            for item in stances.values()
            for layer in [*layers, ""]
        ]
    top = max((answer.value or 0 for _, series in profiles.values() for *_, answers in series for answer in answers), default=0) or 1.0
    for net, (layers, series) in profiles.items():
        means = listed(f"{name} {content.answer('selectivity', net, item.spec).brief}" for name, item in content.stances(net).items())
        if layers:
            alternative = f"Class selectivity of {net} along {len(layers)} layers; network means: {means}."
            panels.append(Panel(f"{net} (mean: {means})", profile(layers, series, "selectivity", top), alternative))
    lead = (
        "Mean class selectivity index of each layer's units, in the order of the forward pass: 0, all classes alike; 1, one class only.",
        "Corrupted and attacked are the corruption and the attack that leave the least accuracy.",
    )
    grid = tidy("Class selectivity by layer", ("network", "layer", "perturbation"), rows)
    return Section("selectivity", "Selectivity", lead, stance_keys(content), panels, [grid])


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
    table = Grid("Calibration", ("network", "view", "perturbation", *CALIBRATION), lines)
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
    """Readings of summaries: bounds of R(T), mean corruption errors and the like."""
    found = [(net, row) for net in content.networks for row in content.cell(net, "")]
    if not found:
        return None
    lines = [(net, row["name"], row.get("layer"), str(row.get("bound") or ""), Answer.of(row)) for net, row in found]
    header = ("network", "name", "about", "bound")
    grids = [Grid("Summaries", (*header, "value"), lines), tidy("Summaries", header, [(line[:4], line[4]) for line in lines])]
    return Section("summaries", "Summaries", ("Numbers read off several cells at once.",), (), [], grids)
