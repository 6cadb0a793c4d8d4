"""Pictures: the worst cells, and a gallery of the same samples under every perturbation."""

from __future__ import annotations

from typing import Any

from brinell.report.album import Album
from brinell.report.answer import percent
from brinell.report.content import Content
from brinell.report.falls import class_name, falls, scales
from brinell.report.grade import Grade, Kind
from brinell.report.section import Picture, Section, Strip

EACH, ACROSS = 4, 4
"""Worst cells of each kind, and pictures of each."""


def worst_cells(content: Content, album: Album) -> Section | None:
    """The cells with the least accuracy, one of each family, with pictures and what the network says of them."""
    strips = []
    for net in content.networks if album else ():
        found: dict[tuple[str, str, str], tuple[float, Grade]] = {}
        for item in content.of_kind("corruption", "attack", "other"):
            value = content.accuracy(net, item.spec).value
            key = (item.kind, item.family, item.scale)
            if value is not None and album.strip(net, item) is not None and value < found.get(key, (2.0, item))[0]:
                found[key] = (value, item)
        worst = [item for _, item in sorted(found.values(), key=lambda entry: entry[0])]
        for kinds in (("corruption", "other"), ("attack",)):
            chosen = [item for item in worst if item.kind in kinds][: max(2, EACH // len(content.networks))]
            strips += [_strip(content, album, net, item) for item in chosen]
    if not strips:
        return None
    lead = (
        "The perturbations that leave the least accuracy, the worst of each kind, and what the network answers. The pictures are the "
        "same few samples throughout, chosen by their number alone, not by the outcome.",
    )
    return Section("worst", "Worst cells", lead, strips=strips)


def _strip(content: Content, album: Album, net: str, item: Grade) -> Strip:
    place, outcomes = album.strip(net, item), album.outcomes(net, item)
    pictures = []
    for at, name in enumerate(album.ids[:ACROSS]):
        label, said = outcomes[at] if outcomes else (-1, -1)
        words = f"{class_name(content, label)} seen as {class_name(content, said)}" if outcomes else "answer not kept"
        pictures.append(Picture(place or 0, at, words, None if outcomes is None else label == said, f"sample {name}: {words}"))
    title = item.title if len(content.networks) == 1 else f"{net}: {item.title}"
    return Strip(title, content.accuracy(net, item.spec), tuple(pictures))


def gallery(content: Content, album: Album) -> Section | None:
    """The same samples clean and under any perturbation, with their difference and the answers; sorted by who falls first."""
    if not album and len(content.data.get("shape") or ()) == 3:
        return Section("gallery", "Gallery", ("This run kept no pictures: the probe `examples` keeps some, in every cell.",))
    if not album:
        return None
    n = content.data.get("n")
    lead = (
        f"{len(album.ids)} samples{f' of {n}' if n else ''}, chosen by their number alone: as they are, perturbed, and the difference "
        "(grey: unchanged; contrast raised so that the largest change is full black or white). A click on a cell of the heat map of "
        "corruptions shows it here.",
    )
    return Section("gallery", "Gallery", lead, gallery=gallery_data(content, album))


def gallery_data(content: Content, album: Album) -> dict[str, Any]:
    """What page.js needs to draw worst cells and gallery."""
    items = [item for item in content.grades if any(album.strip(net, item) is not None for net in content.networks)]
    names: dict[int, int] = {}

    def outcomes(net: str, item: Grade) -> list[int] | None:
        found = album.outcomes(net, item)
        return [names.setdefault(said, len(names)) for _, said in found] if found else None

    said = [[outcomes(net, item) for item in items] for net in content.networks]
    known = next((found for net in content.networks for item in items if (found := album.outcomes(net, item))), None)
    labels = [names.setdefault(label, len(names)) for label, _ in known] if known else []
    hardest = [content.hardest(net, "attack", "corruption", "other") or content.grades[0] for net in content.networks]
    return {
        "tile": album.tile, "ids": [str(name) for name in album.ids], "labels": labels, "said": said,
        "classes": [class_name(content, which) for which in names],
        "networks": content.networks,
        "cells": [{"title": item.title, "kind": _KINDS[item.kind]} for item in items],
        "strips": [[album.strip(net, item) for item in items] for net in content.networks],
        "shares": [[_share(content, net, item) for item in items] for net in content.networks],
        "clean": next((at for at, item in enumerate(items) if item.kind == "clean"), None),
        "start": [items.index(item) if item in items else 0 for item in hardest],
        "orders": [{"title": "Falls to most", "values": [_counts(content, album, net) for net in content.networks]}]
        + [
            {"title": f"F{title[1:].partition(' (')[0]}", "values": [_firsts(content, album, net, kind, scale) for net in content.networks]}
            for kind, scale, title in scales(content)
        ],
    }  # fmt: skip


_KINDS: dict[Kind, str] = {
    "clean": "Clean",
    "corruption": "Corruptions",
    "attack": "Attacks",
    "control": "Chance",
    "nearest": "Nearest attacks",
    "other": "Others",
}


def _share(content: Content, net: str, item: Grade) -> str:
    answer = content.accuracy(net, item.spec)
    return percent(answer.value) if answer.value is not None else answer.status


def _counts(content: Content, album: Album, net: str) -> list[tuple[float, str]] | None:
    """For each example a number to sort by (small first) and what it means."""
    joined = falls(content, net)
    if joined is None:
        return None
    place, counts = {int(name): at for at, name in enumerate(joined.ids)}, joined.count()
    found: list[tuple[float, str]] = []
    for name in album.ids:
        at = place[name]
        right = bool(joined.right[at])
        words = f"falls to {counts[at]} of {len(joined.items)}" if right else "wrong when clean"
        found.append((-float(counts[at]) if right else -1e9, words))
    return found


def _firsts(content: Content, album: Album, net: str, kind: Any, scale: str) -> list[tuple[float, str]] | None:
    joined = falls(content, net)
    if joined is None:
        return None
    place, firsts = {int(name): at for at, name in enumerate(joined.ids)}, joined.first(kind, scale)
    found: list[tuple[float, str]] = []
    for name in album.ids:
        first = firsts[place[name]]
        if not joined.right[place[name]]:
            found.append((-1e9, ""))
        else:
            found.append((first.size, f"first {first.title}") if first else (1e9, ""))
    return found
