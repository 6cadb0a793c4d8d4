"""Sections on accuracy: at a glance, under graded corruptions, against eps, by class."""

from __future__ import annotations

from brinell.report.content import YIELD, Answer, Content, ball_of, listed
from brinell.report.figure import CHANCE, curves, dots, heat_map
from brinell.report.grade import NORMS, Grade, Kind
from brinell.report.section import Entry, Grid, Key, Panel, Section, networks_as_keys, tidy

FEW_CLASSES = 12


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


def corruptions(content: Content) -> Section | None:
    """A heat map of accuracy by corruption and severity for each network."""
    graded = content.of_kind("corruption")
    if not graded:
        return None
    families = list(dict.fromkeys(item.family for item in graded))
    sizes = sorted({item.size: item.shown for item in graded}.items())
    place = {(item.family, item.size): item for item in graded}
    columns = ["clean", *(shown for _, shown in sizes)]
    panels, rows = [], []
    for net in content.networks:
        cells, fronts = [], []
        for family in families:
            ladder = [place.get((family, size)) for size, _ in sizes]
            answers = [_planned(content, net, item) for item in ladder]
            cells.append([content.clean(net), *answers])
            fronts.append(next((at for at, answer in enumerate(answers, 1) if content.yielded(net, answer)), None))
            rows += [((net, item.family, item.shown), content.accuracy(net, item.spec)) for item in ladder if item]
        hardest = content.hardest(net, "corruption")
        said = f"lowest for {hardest.title}: {content.accuracy(net, hardest.spec)}" if hardest else "no cell has an answer"
        alternative = f"Heat map of the accuracy of {net} under {len(families)} corruptions at severity {listed(columns[1:])}; {said}."
        panels.append(Panel(net, heat_map(families, columns, cells, fronts), alternative))
    lead = (
        "Accuracy by corruption and severity; the darker, the less is left, on the same scale for all networks.",
        f"A red bar stands where a network yields: where the upper end of its interval first lies below {YIELD:g} of its clean accuracy.",
    )
    return Section(
        "corruptions", "Corruptions", lead, (), panels, [tidy("Accuracy under corruptions", ("network", "corruption", "severity"), rows)]
    )


def _planned(content: Content, net: str, item: Grade | None) -> Answer:
    return content.accuracy(net, item.spec) if item else Answer(None, status="–", reason="not part of the plan")


def attacks(content: Content) -> list[Section]:
    """For each norm the accuracy against eps, under attacks and under chance, with the bounds of R(T)."""
    balls = {known.threat: ball for net in content.networks for known in content.bounds(net) if (ball := ball_of(known.threat))}
    asked = {*content.norms(), *(scale for scale, *_ in balls.values())}
    return [_against_eps(content, norm, balls) for norm in NORMS.values() if norm in asked]


def _against_eps(content: Content, norm: str, balls: dict[str, tuple[str, float, str]]) -> Section:
    tried = sorted(content.of_kind("attack", "control", scale=norm), key=lambda item: item.size)
    families = list(dict.fromkeys((item.kind, item.family) for item in content.of_kind("attack", scale=norm)))
    controls = list(dict.fromkeys((item.kind, item.family) for item in content.of_kind("control", scale=norm)))
    numbered = [*enumerate(families), *((CHANCE, control) for control in controls)]
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
                bars.append((size, f"eps {shown}: {known}", known.lower or 0.0, 1.0 if known.upper is None else known.upper))
        barred = barred or bool(bars)
        hardest = content.hardest(net, "attack", scale=norm)
        said = f"lowest under {hardest.title}: {content.accuracy(net, hardest.spec)}" if hardest else "no attack has an answer"
        alternative = f"Accuracy of {net} against the radius eps in {norm}, from {content.clean(net)} at 0; {said}."
        panels.append(Panel(net, curves(series, bars, list(ticks.items()), f"eps ({norm})"), alternative))
    keys = tuple(Key(which, f"{family} (chance)" if which == CHANCE else family) for which, (_, family) in numbered)
    lead = (
        "Accuracy against the radius of the ball, with intervals. An attack bounds R(T) from above; chance (dotted, grey) does not search.",
        *(
            ["A broad grey bar spans what is still possible for R(T): from its lower bound (0 without one) to its upper one."]
            if barred
            else []
        ),
    )
    grid = tidy(f"Accuracy against eps in {norm}", ("network", "family", "kind", "eps"), rows)
    return Section(f"attacks-{norm}", f"Attacks in {norm}", lead, keys, panels, [grid])


def classes(content: Content) -> Section | None:
    """Accuracy of every class, clean and where it is hardest, and the worst class of each network."""
    named = {row["layer"]: None for row in content.table.rows if row["name"] == "class_accuracy" and row.get("layer")}
    if not named:
        return None
    grids, rows = [], []
    for net in content.networks:
        stances = content.stances(net)
        header = ("class", *(f"{name}: {item.spec}" if name != "clean" else "clean" for name, item in stances.items()))
        lines: list[tuple[Entry, ...]] = []
        for layer in named:
            answers = [content.answer("class_accuracy", net, item.spec, layer) for item in stances.values()]
            lines.append((layer.removeprefix("class "), *answers))
            rows += [((net, layer.removeprefix("class "), item.spec), a) for item, a in zip(stances.values(), answers, strict=True)]
        order = sorted(range(len(lines)), key=lambda at: _clean_value(lines[at]))
        worst = {
            row["layer"].removeprefix("class ") for row in content.cell(net, content.clean_spec) if row["name"] == "worst_class_accuracy"
        }
        if len(lines) > FEW_CLASSES:
            lines = [lines[at] for at in order[:FEW_CLASSES]]
        caption = f"{net}: " + (
            f"the {FEW_CLASSES} classes with the lowest clean accuracy, of {len(named)}" if len(named) > FEW_CLASSES else "all classes"
        )
        marked = frozenset(at for at, line in enumerate(lines) if line[0] in worst)
        grids.append(Grid(caption, header, lines, marked=marked, shares=True))
    lead = (
        "Accuracy by class: clean, under the hardest corruption and under the hardest attack. ▾ marks the worst class on clean samples.",
        "The intervals of all classes hold at once, so they are wider than that of a class looked at alone.",
    )
    return Section("classes", "Classes", lead, (), [], [*grids, tidy("Accuracy by class", ("network", "class", "perturbation"), rows)])


def _clean_value(line: tuple[Entry, ...]) -> float:
    first = line[1] if len(line) > 1 else None
    return first.value if isinstance(first, Answer) and first.value is not None else 2.0
