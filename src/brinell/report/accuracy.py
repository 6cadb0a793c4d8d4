"""Sections on accuracy: at a glance, against eps, by class and group."""

from __future__ import annotations

import math

import numpy as np

from brinell.report.answer import Answer
from brinell.report.content import Content, ball_of
from brinell.report.figure import CHANCE, curves, dots
from brinell.report.grade import NORMS, Grade, Kind
from brinell.report.section import Entry, Grid, Key, Panel, Section, networks_as_keys, tidy

FEW_CLASSES, MOST_STEPS = 12, 400


def glance(content: Content) -> Section | None:
    """Clean accuracy and the lowest one under each kind of perturbation, all networks on one scale."""
    asked: list[tuple[str, Kind, str]] = [("clean", "clean", ""), ("corruptions, lowest", "corruption", "severity")]
    for norm in content.norms():
        asked.append((f"{norm} chance, lowest", "control", norm))
        asked.append((f"{norm} attacks, lowest", "attack", norm))
    asked.append(("others, lowest", "other", ""))
    lines: dict[str, list[tuple[str, Answer] | None]] = {}
    for title, kind, scale in asked:
        found = [content.hardest(net, kind, scale=scale) for net in content.networks]
        if any(found):
            lines[title] = [
                (item.title, content.accuracy(net, item.spec)) if item else None for net, item in zip(content.networks, found, strict=True)
            ]
    if not lines:
        return None
    series = [(at, net, [line[at] for line in lines.values()]) for at, net in enumerate(content.networks)]
    rows = [
        ((title, net, point[0]), point[1])
        for title, line in lines.items()
        for net, point in zip(content.networks, line, strict=True)
        if point
    ]
    alternative = "; ".join(f"{title}, {net}: {answer}" for (title, net, _), answer in rows)
    lead = (
        "The accuracy that is left where each kind of perturbation hits hardest, with its interval; chance is noise as large as an attack."
    )
    panel = Panel("", dots(list(lines), series, "accuracy"), f"Accuracy with intervals. {alternative}.")
    grid = tidy("The lowest accuracies", ("kind", "network", "perturbation"), rows)
    return Section("glance", "At a glance", (lead,), networks_as_keys(content), [panel], [grid])


def attacks(content: Content) -> list[Section]:
    """For each norm the accuracy against eps, under attacks and under chance, with the bounds of R(T)."""
    balls = {known.threat: ball for net in content.networks for known in content.bounds(net) if (ball := ball_of(known.threat))}
    asked = {*content.norms(), *(item.scale for item in content.of_kind("nearest")), *(scale for scale, *_ in balls.values())}
    return [_against_eps(content, norm, balls) for norm in NORMS.values() if norm in asked]


def _against_eps(content: Content, norm: str, balls: dict[str, tuple[str, float, str]]) -> Section:
    tried = sorted(content.of_kind("attack", "control", scale=norm), key=lambda item: item.size)
    families = list(dict.fromkeys((item.kind, item.family) for item in content.of_kind("attack", scale=norm)))
    controls = list(dict.fromkeys((item.kind, item.family) for item in content.of_kind("control", scale=norm)))
    numbered = [*enumerate(families), *((CHANCE, control) for control in controls)]
    nearest = list(enumerate(content.of_kind("nearest", scale=norm), len(families)))
    panels, rows, barred = [], [], False
    ticks = {
        0.0: "0",
        **{item.size: item.shown for item in tried},
        **{size: shown for scale, size, shown in balls.values() if scale == norm},
    }
    for net in content.networks:
        origin = (0.0, "eps 0 (clean)", content.clean(net))
        series, bars = [], []
        for which, (kind, family) in numbered:
            points = [
                (item.size, f"eps {item.shown}", content.accuracy(net, item.spec))
                for item in tried
                if (item.kind, item.family) == (kind, family)
            ]
            series.append((which, family, [origin, *points]))
            rows += [((net, family, kind, size), answer) for size, _, answer in points]
        for known in content.bounds(net):
            scale, size, shown = balls.get(known.threat, ("", 0.0, ""))
            if scale == norm and (known.lower, known.upper) != (None, None):
                bars.append((size, f"eps {shown}: {known}", known.lower or None, known.upper))
        barred = barred or bool(bars)
        hardest = content.hardest(net, "attack", scale=norm)
        said = f"lowest under {hardest.title}: {content.accuracy(net, hardest.spec)}" if hardest else "no attack has an answer"
        alternative = f"Accuracy of {net} against the radius eps in {norm}, from {content.clean(net)} at 0; {said}."
        steps = [(which, item.family, standing(content, net, item)) for which, item in nearest]
        for _, name, points in steps:
            rows += [((net, name, "nearest", size), Answer(share)) for size, share in points]
        panels.append(Panel(net, curves(series, bars, list(ticks.items()), f"eps ({norm})", steps), alternative))
    keys = tuple(Key(which, f"{family} (chance)" if which == CHANCE else family) for which, (_, family) in numbered)
    keys += tuple(Key(which, f"{item.family} (nearest)") for which, item in nearest)
    lead = (
        "Accuracy against the radius of the ball, with intervals. An attack bounds R(T) from above; chance (dotted, grey) does not search.",
        *(
            ["A short black line is a bound of R(T): none of the points that were measured, and no certificate, leaves more room."]
            if barred
            else []
        ),
    )
    grid = tidy(f"Accuracy against eps in {norm}", ("network", "family", "kind", "eps"), rows)
    return Section(f"attacks-{norm}", f"Attacks in {norm}", lead, keys, panels, [grid])


def standing(content: Content, net: str, item: Grade) -> list[tuple[float, float]]:
    """What a nearest attack says of every eps: (eps, the share of samples that are right and were not reached within eps), as steps."""
    found = content.samples(net, item.spec)
    norm = next((p for p, name in NORMS.items() if name == item.scale), math.inf)
    clean, moved = content.samples(net, content.clean_spec).get("correct"), found.get(f"l{norm:g}")
    if clean is None or moved is None or "correct" not in found or len(clean) != len(moved) or not len(moved):
        return []
    right = np.asarray(clean, dtype=bool)
    reached = np.sort(np.asarray(moved, dtype=np.float64)[right & ~np.asarray(found["correct"], dtype=bool)])
    left = (right.sum() - np.arange(len(reached) + 1)) / len(right)
    points = list(zip([0.0, *reached.tolist()], left.tolist(), strict=True))
    return points[:: max(1, -(-len(points) // MOST_STEPS))]


def classes(content: Content) -> Section | None:
    """Accuracy of every class, clean and where it is hardest, and the worst class of each network."""
    return _by_part(content, "class", "Classes", "classes")


def groups(content: Content) -> Section | None:
    """The same for the values of the data's column `group`."""
    return _by_part(content, "group", "Groups", "groups")


def _by_part(content: Content, part: str, title: str, anchor: str) -> Section | None:
    prefix = f"{part} "
    named = {row["layer"]: None for row in content.table.rows if row["name"] == f"{part}_accuracy" and row.get("layer")}
    if not named:
        return None
    grids, rows = [], []
    for net in content.networks:
        stances = content.stances(net)
        header = (part, *(f"{name}: {item.spec}" if name != "clean" else "clean" for name, item in stances.items()))
        lines: list[tuple[Entry, ...]] = []
        for layer in named:
            answers = [content.answer(f"{part}_accuracy", net, item.spec, layer) for item in stances.values()]
            lines.append((layer.removeprefix(prefix), *answers))
            rows += [((net, layer.removeprefix(prefix), item.spec), a) for item, a in zip(stances.values(), answers, strict=True)]
        order = sorted(range(len(lines)), key=lambda at: _clean_value(lines[at]))
        worst = {
            row["layer"].removeprefix(prefix) for row in content.cell(net, content.clean_spec) if row["name"] == f"worst_{part}_accuracy"
        }
        few = f"the {FEW_CLASSES} {anchor} with the lowest clean accuracy, of {len(named)}"
        if len(lines) > FEW_CLASSES:
            lines = [lines[at] for at in order[:FEW_CLASSES]]
        caption = f"{net}: {few if len(named) > FEW_CLASSES else f'all {anchor}'}"
        marked = frozenset(at for at, line in enumerate(lines) if line[0] in worst)
        grids.append(Grid(caption, header, lines, marked=marked, shares=True))
    lead = (
        f"Accuracy by {part}: clean, under the hardest corruption and under the hardest attack. ▾ marks the worst {part} on clean samples.",
        f"The intervals of all {anchor} hold at once, so they are wider than that of a {part} looked at alone.",
    )
    return Section(anchor, title, lead, (), [], [*grids, tidy(f"Accuracy by {part}", ("network", part, "perturbation"), rows)])


def _clean_value(line: tuple[Entry, ...]) -> float:
    first = line[1] if len(line) > 1 else None
    return first.value if isinstance(first, Answer) and first.value is not None else 2.0
