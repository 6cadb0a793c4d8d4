"""Sections on graded corruptions: accuracy by corruption and severity, and severity curves by family."""

from __future__ import annotations

import numpy as np

from brinell.core.confidence import mean_interval
from brinell.report.answer import Answer, listed
from brinell.report.content import YIELD, Content
from brinell.report.figure import heat_map, ladder
from brinell.report.grade import Grade
from brinell.report.section import Entry, Key, Panel, Section, tidy

GROUPS = ("noise", "blur", "weather", "digital")
Place = dict[tuple[str, float], Grade]


def corruptions(content: Content) -> Section | None:
    """A heat map of accuracy by corruption and severity for each network."""
    graded = content.of_kind("corruption")
    if not graded:
        return None
    families, sizes, place = _arranged(graded)
    columns = ["clean", *(shown for _, shown in sizes)]
    panels, rows = [], []
    for net in content.networks:
        cells, fronts = [], []
        for family in families:
            steps = [place.get((family, size)) for size, _ in sizes]
            answers = [_planned(content, net, item) for item in steps]
            cells.append([content.clean(net), *answers])
            fronts.append(next((at for at, answer in enumerate(answers, 1) if content.yielded(net, answer)), None))
            rows += [((net, item.family, item.group, item.shown), content.accuracy(net, item.spec)) for item in steps if item]
        hardest = content.hardest(net, "corruption")
        said = f"lowest for {hardest.title}: {content.accuracy(net, hardest.spec)}" if hardest else "no cell has an answer"
        alternative = f"Heat map of the accuracy of {net} under {len(families)} corruptions at severity {listed(columns[1:])}; {said}."
        groups = [next(item.group for item in graded if item.family == family) for family in families]
        titles = [["clean", *(item.title if (item := place.get((family, size))) else "" for size, _ in sizes)] for family in families]
        figure = heat_map(families, columns, cells, fronts, groups, titles, content.networks.index(net))
        panels.append(Panel(net if len(content.networks) > 1 else "", figure, alternative))
    lead = (
        "Accuracy by corruption and severity; the darker, the less is left, on the same scale for all networks.",
        f"A red bar stands where a network yields: where the upper end of its simultaneous interval first lies below {YIELD:g} of its "
        "clean accuracy.",
    )
    grid = tidy("Accuracy under corruptions", ("network", "corruption", "family", "severity"), rows)
    return Section("corruptions", "Corruptions", lead, (), panels, [grid])


def severity(content: Content) -> Section | None:
    """Accuracy against severity, one panel for each family: every corruption of a single network, the means of several."""
    graded = content.of_kind("corruption")
    families, sizes, place = _arranged(graded)
    if len(sizes) < 2 or not any(content.accuracy(net, item.spec).ok for net in content.networks for item in graded):
        return None
    groups = _groups(graded)
    several = len(content.networks) > 1
    columns = ["clean", *(shown for _, shown in sizes)]
    panels: list[Panel] = []
    rows: list[tuple[tuple[Entry, ...], Answer]] = []
    for group in groups:
        mine = [family for family in families if any(item.group == group and item.family == family for item in graded)]
        series: list[tuple[int, str, list[Answer]]] = []
        if several:
            for at, net in enumerate(content.networks):
                answers = [_mean(content, net, [place.get((family, size)) for family in mine]) for size, _ in sizes]
                series.append((at, net, [content.clean(net), *answers]))
        else:
            net = next(iter(content.networks), "")
            series = [
                (at, family, [content.clean(net), *(_planned(content, net, place.get((family, size))) for size, _ in sizes)])
                for at, family in enumerate(mine)
            ]
        rows += [
            ((name, group or "other", size), answer) for _, name, answers in series for size, answer in zip(columns, answers, strict=True)
        ]
        ends = "; ".join(f"{name}: {answers[-1]}" for _, name, answers in series)
        alternative = f"Accuracy against severity under {group or 'other'} corruptions. At the greatest severity, {ends}."
        keys = tuple(Key(at, name) for at, name, _ in series)
        panels.append(Panel((group or "other").capitalize(), ladder(columns, series, several or len(series) < 3), alternative, keys))
    what = "the mean over the corruptions of each family, with its interval (Student's t over samples)" if several else "every corruption"
    lead = (f"Accuracy against severity, family by family: {what}.",)
    grid = tidy("Accuracy against severity", ("network" if several else "corruption", "family", "severity"), rows)
    return Section("severity", "Severity", lead, (), panels, [grid])


def _groups(graded: list[Grade]) -> list[str]:
    """The families that occur: the published ones in their order, then others."""
    found = dict.fromkeys(item.group for item in graded)
    return [*(group for group in GROUPS if group in found), *(group for group in found if group not in GROUPS)]


def _arranged(graded: list[Grade]) -> tuple[list[str], list[tuple[float, str]], Place]:
    """Corruptions family by family in the plan's order, severities in theirs, and what stands where."""
    groups = _groups(graded)
    families = dict.fromkeys(item.family for item in sorted(graded, key=lambda item: groups.index(item.group)))
    sizes = sorted({item.size: item.shown for item in graded}.items())
    return list(families), sizes, {(item.family, item.size): item for item in graded}


def _planned(content: Content, net: str, item: Grade | None) -> Answer:
    return content.accuracy(net, item.spec) if item else Answer(None, status="–", reason="not part of the plan")


def _mean(content: Content, net: str, items: list[Grade | None]) -> Answer:
    """The mean accuracy over some cells, with an interval where their samples are at hand."""
    answers = [_planned(content, net, item) for item in items]
    lost = next((answer for answer in answers if not answer.ok), None)
    if lost is not None:
        return lost
    value = float(np.mean([answer.value or 0.0 for answer in answers]))
    flags = [content.samples(net, item.spec).get("correct", np.zeros(0)) for item in items if item]
    n, confidence = answers[0].n, answers[0].confidence
    if not confidence or len({len(flag) for flag in flags}) != 1 or len(flags[0]) < 2:
        return Answer(value, n=n)
    low, high = mean_interval(np.mean(flags, axis=0), confidence, within=(0.0, 1.0))
    return Answer(value, low, high, confidence, n)
