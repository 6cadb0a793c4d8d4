"""Sections on where the numbers come from: cells without an answer, what they cost, and what is needed to repeat them."""

from __future__ import annotations

from typing import Any

from brinell.report.content import Content
from brinell.report.section import Grid, Section, read

DEAREST, MANY = 10, 200


def gaps(content: Content) -> Section | None:
    """Planned cells without an accuracy, and readings that are undefined or failed, with the reason."""
    lines = [(net, item.spec, "accuracy", "", answer.status, answer.reason) for net, item, answer in content.gaps()]
    silent = {line[:2] for line in lines}
    lines += [
        (row["net"], row.get("perturbation"), row["name"], row.get("layer"), str(row["status"]), row.get("reason"))
        for row in content.table.rows
        if row.get("status", "ok") != "ok" and row.get("probe") and (row["net"], row.get("perturbation")) not in silent
    ]
    if not lines:
        return None
    lead = "What has no answer, and why. Missing cells were planned but are not in this table: the run is unfinished, or was cut."
    header = ("network", "perturbation", "reading", "about", "status", "reason")
    caption = f"Without an answer{f', the first {MANY} of {len(lines)}' if len(lines) > MANY else ''}"
    return Section("gaps", "Without an answer", (lead,), (), [], [Grid(caption, header, lines[:MANY])])


def cost(content: Content) -> Section | None:
    """What each cell cost: forward and backward passes of one sample, and seconds."""
    lines = []
    for net in content.networks:
        for item in content.grades:
            rows = content.cell(net, item.spec)
            if any(row.get("seconds") is not None for row in rows):
                lines.append((net, item.spec, *(max((row.get(column) or 0 for row in rows), default=0) for column in _COST)))
    if not lines:
        return None
    lines.sort(key=lambda line: -line[-1])
    totals: list[tuple[Any, ...]] = []
    for net in content.networks:
        own = [line for line in lines if line[0] == net]
        totals.append((net, f"all {len(own)} cells", *(sum(line[at] for line in own) for at in (2, 3, 4))))
    header = ("network", "perturbation", *_COST)
    grids = [read(content, f"Totals, and the {min(DEAREST, len(lines))} dearest cells", header, [*totals, *lines[:DEAREST]])]
    grids.append(Grid("Cost of every cell", header, lines, tidy=True))
    return Section("cost", "Cost", ("Passes of one sample through the network, and seconds on the machine named below.",), (), [], grids)


_COST = ("forwards", "backwards", "seconds")


def provenance(content: Content) -> Section:
    """What is needed to repeat the run."""
    plan, data, rows = content.plan, content.data, content.table.rows
    nets = [
        (
            net, about.get("recipe"), about.get("parameters"), about.get("digest"),
            {"True": "training", "False": "evaluation"}.get(str(about.get("training")), ""), "; ".join(about.get("notes") or ()),
        )
        for net in content.networks
        for about in [content.about(net)]
    ]  # fmt: skip
    low_high = data.get("domain") or ()
    facts = [
        ("data", data.get("spec")), ("data digest", data.get("digest")), ("samples", data.get("n")),
        ("shape", " × ".join(str(side) for side in data.get("shape") or ())),
        ("classes", ", ".join(str(name) for name in data.get("classes") or ())),
        ("domain", ", ".join(str(end) for end in low_high)), ("note on the data", data.get("note")),
        ("suite", plan.get("suite")), ("seed", plan.get("seed")), *(plan.get("environment") or {}).items(),
    ]  # fmt: skip
    full: dict[str, Any] = {row["perturbation"]: row.get("perturbation_full") for row in rows if row.get("perturbation")}
    full |= {row["probe"]: row.get("probe_full") for row in rows if row.get("probe")} | (plan.get("full") or {})
    named = [
        ("perturbation", [item.spec for item in content.grades]),
        ("probe", plan.get("probes", ())),
        ("summary", plan.get("summaries", ())),
    ]
    versions = plan.get("versions") or {}
    specs = [(kind, text, full.get(text), versions.get(text)) for kind, texts in named for text in texts]
    return Section(
        "provenance", "Provenance", ("What is needed to repeat these numbers.",), (), [],
        [
            Grid("Networks", ("network", "recipe", "parameters", "digest", "found in mode", "notes"), nets),
            Grid("Run", ("what", "value"), [(name, str(value)) for name, value in facts if value not in (None, "")]),
            Grid("Specs in full", ("kind", "spec", "with all fields", "version"), specs, tidy=True),
        ],
    )  # fmt: skip
