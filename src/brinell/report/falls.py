"""Which samples fall to what: the answers of all perturbations joined by sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brinell.report.answer import Answer, listed, percent
from brinell.report.content import Content
from brinell.report.figure import matrix, stairs
from brinell.report.grade import Grade, Kind
from brinell.report.section import Entry, Grid, Panel, Section, networks_as_keys, read, tidy

WEAKEST, MANY_SAMPLES, MANY_FAMILIES = 8, 500, 26

JOINED: tuple[Kind, ...] = ("corruption", "attack", "control", "other")
"""What a sample can fall to; single frequencies are many and alike, and nearest attacks reach everybody."""


@dataclass(frozen=True, eq=False)
class Falls:
    """The samples of one network under every perturbation but clean; a sample *falls* where it was right on clean and is wrong.

    Arguments:
        ids, labels: (n,) in the order of ids. right: (n,) bool on clean samples. items: the c perturbations that have samples.
        fell: (c, n) bool. said: (c, n) predicted class, -1 for none.
    """

    ids: np.ndarray
    labels: np.ndarray
    right: np.ndarray
    items: tuple[Grade, ...]
    fell: np.ndarray
    said: np.ndarray

    def count(self, *kinds: Kind) -> np.ndarray:
        """(n,) to how many perturbations (of some kinds) each sample falls."""
        rows = [at for at, item in enumerate(self.items) if not kinds or item.kind in kinds]
        return self.fell[rows].sum(0)

    def first(self, kind: Kind, scale: str) -> list[Grade | None]:
        """For each sample the smallest size on a scale that it falls to (of equal sizes the first of the plan)."""
        rows = sorted((item.size, at) for at, item in enumerate(self.items) if item.kind == kind and item.scale == scale)
        place = np.full(len(self.ids), -1)
        for _, at in reversed(rows):
            place[self.fell[at]] = at
        return [None if at < 0 else self.items[at] for at in place.tolist()]


def falls(content: Content, net: str) -> Falls | None:
    """The joined samples of a network; None where its clean cell kept none. Cells with other samples are left out."""
    clean = content.outcomes(net, content.clean_spec)
    if not len(clean.get("id", ())):
        return None
    right = np.asarray(clean["correct"], dtype=bool)
    items, fell, said = [], [], []
    for item in content.grades:
        found = content.outcomes(net, item.spec) if item.kind in JOINED else {}
        if len(found.get("id", ())) == len(right) and np.array_equal(found["id"], clean["id"]):
            items.append(item)
            fell.append(right & ~np.asarray(found["correct"], dtype=bool))
            said.append(np.asarray(found["prediction"]))
    shape = (len(items), len(right))
    return Falls(
        np.asarray(clean["id"]), np.asarray(clean["label"]), right, tuple(items),
        np.reshape(np.array(fell, dtype=bool), shape), np.reshape(np.array(said, dtype=np.int64), shape),
    )  # fmt: skip


def scales(content: Content) -> list[tuple[Kind, str, str]]:
    """The scales on which a sample can fall first: kind, scale and title."""
    graded: list[tuple[Kind, str, str]] = [("corruption", "severity", "first corruption (severity)")]
    attacked: list[tuple[Kind, str, str]] = [
        ("attack", norm, f"first {norm} attack (eps)") for norm in content.norms() if content.of_kind("attack", scale=norm)
    ]
    return (graded if content.of_kind("corruption") else []) + attacked


def class_name(content: Content, which: int) -> str:
    names = content.data.get("classes") or ()
    return str(names[which]) if 0 <= which < len(names) else "no answer" if which < 0 else str(which)


def who_falls(content: Content) -> Section | None:
    """How many perturbations a sample falls to, which perturbations fell the same samples, and the weakest samples."""
    found = {net: joined for net in content.networks if (joined := falls(content, net)) is not None and joined.items}
    if not found:
        return None
    lead = ["A sample falls where the network is right about it clean and wrong about it perturbed."]
    lead += [f"{net if len(found) > 1 else 'In all'}: {_in_words(joined)}" for net, joined in found.items()]
    series = [(content.networks.index(net), net, _at_least(joined)) for net, joined in found.items()]
    said = "; ".join(f"{net}: half of the samples fall to at least {percent(_median(joined))}" for net, joined in found.items())
    alternative = f"Share of samples against perturbations. {said}."
    panels = [Panel("To how many perturbations do samples fall?", stairs(series), alternative, wide=True)]
    rows: list[tuple[tuple[Entry, ...], Answer]] = []
    for net, joined in found.items():
        figure = _together(joined)
        if figure:
            names, shares = figure
            alternative = (
                f"Heat map of {net}: of the samples that fall to one of {len(names)} perturbations, the share that falls to another."
            )
            title = "Who falls to the row, falls to the column" + (f": {net}" if len(found) > 1 else "")
            panels.append(Panel(title, matrix(names, shares), alternative, wide=True))
            rows += [((net, a, b), Answer(shares[i][j])) for i, a in enumerate(names) for j, b in enumerate(names) if i != j]
    header, lines = _by_sample(content, found)
    shown = [line for net in found for line in [line for line in lines if line[0] == net][:WEAKEST]]
    grids = [read(content, f"The samples that fall to most{', by network' if len(found) > 1 else ''}", header, shown)]
    more = f", the first {MANY_SAMPLES} of {len(lines)}" if len(lines) > MANY_SAMPLES else ""
    grids.append(Grid(f"Every sample, weakest first{more}", header, lines[:MANY_SAMPLES], tidy=True))
    if rows:
        grids.append(tidy("Falls to both", ("network", "falls to", "and falls to"), rows))
    return Section("falls", "Who falls to what", tuple(lead), networks_as_keys(content), panels, grids)


def _in_words(joined: Falls) -> str:
    corrupted, attacked = joined.count("corruption") > 0, joined.count("attack") > 0
    other = (joined.count() > 0) & ~corrupted & ~attacked
    counts = {
        "stand everything": joined.right & ~(corrupted | attacked | other),
        "fall to corruptions only": corrupted & ~attacked,
        "fall to attacks only": attacked & ~corrupted,
        "fall to corruptions and to attacks": corrupted & attacked,
        "fall to noise and others only": other,
    }
    parts = [f"{mask.sum()} {said}" for said, mask in counts.items() if mask.any()]
    return f"of {joined.right.sum()} samples that are right when clean, {listed(parts)}."


def _at_least(joined: Falls) -> list[tuple[float, float]]:
    """Points (share of the perturbations, share of the samples right when clean that fall to at least so many of them)."""
    counts, most = joined.count()[joined.right], len(joined.items)
    total = max(len(counts), 1)
    return [(k / most, float((counts >= k).sum()) / total) for k in range(1, most + 1)]


def _median(joined: Falls) -> float:
    counts = joined.count()[joined.right]
    return float(np.median(counts)) / len(joined.items) if len(counts) else 0.0


def _together(joined: Falls) -> tuple[list[str], list[list[float]]] | None:
    """Names of the strongest of each family, and of the samples that fall to one the share that falls to another."""
    strongest: dict[tuple[str, str, str], int] = {}
    for at, item in enumerate(joined.items):
        key = (item.kind, item.family, item.scale)
        if item.kind in ("corruption", "attack") and (key not in strongest or item.size > joined.items[strongest[key]].size):
            strongest[key] = at
    rows = [at for at in strongest.values() if joined.fell[at].any()]
    rows = sorted(sorted(rows, key=lambda at: -joined.fell[at].sum())[:MANY_FAMILIES])
    if len(rows) < 2:
        return None
    hits = joined.fell[rows].astype(np.float64)
    shares = (hits @ hits.T) / hits.sum(1, keepdims=True)
    return [joined.items[at].brief if joined.items[at].scale == "severity" else joined.items[at].title for at in rows], shares.tolist()


def _by_sample(content: Content, found: dict[str, Falls]) -> tuple[tuple[str, ...], list[tuple[Entry, ...]]]:
    """One row per network and sample, those that fall to most first."""
    asked = scales(content)
    header = ("network", "sample", "label", "clean answer", "falls to", "of", *(title for *_, title in asked))
    lines: list[tuple[Entry, ...]] = []
    for net, joined in found.items():
        counts, clean = joined.count(), content.samples(net, content.clean_spec)["prediction"]
        firsts = [joined.first(kind, scale) for kind, scale, _ in asked]
        for at in np.lexsort((joined.ids, -counts, ~joined.right)):
            names = (class_name(content, int(joined.labels[at])), class_name(content, int(clean[at])))
            lines.append((net, str(joined.ids[at]), *names, int(counts[at]), len(joined.items), *(_title(first[at]) for first in firsts)))
    return header, lines


def _title(first: Grade | None) -> str:
    return f"{first.family} ({first.shown})" if first else "none"
