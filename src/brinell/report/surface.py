"""Surfaces over planes, for the page: 3-D view and map of every network on one colour scale, and the image at any point."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np

from brinell.core.component import parse
from brinell.core.errors import SpecError
from brinell.core.probe import Probe
from brinell.report.album import domain_of, grey_levels
from brinell.report.answer import Answer
from brinell.report.content import Content
from brinell.report.falls import class_name
from brinell.report.section import Section, tidy
from brinell.report.surface_picture import SCALES, limits, still

KINDS = ("surface", "parameter_surface")
HEIGHTS = {
    "margin": "margin S (0: decision boundary)", "cross_entropy": "cross-entropy (nats)", "dlr": "DLR (0: decision boundary)",
    "kl": "KL from the clean answer (nats)", "error": "share of wrong answers",
}  # fmt: skip
NUMBERS = ("surface_lost", "surface_distance", "surface_lowest", "surface_bend", "surface_bend_relative", "surface_error", "surface_passes")
SHOWN, FINEST = 4, 81
"""Images that a page shows of each plane, and points along a side that it carries at most."""


@dataclass(frozen=True)
class Land:
    """One network over one plane.

    Arguments:
        heights: (m, g, g) by name. lines: (k, 4) segments of S = 0 for each image. images: (m, *d) and directions: (m, 2, *d), or None.
        classes: (m, g, g) predicted, or None. labels: (m,), or None.
    """

    net: str
    heights: dict[str, np.ndarray]
    lines: list[np.ndarray]
    images: np.ndarray | None = None
    directions: np.ndarray | None = None
    classes: np.ndarray | None = None
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class View:
    """A plane with the networks over it. items: what is looked at, an image or all samples. places: (g,) coordinates along both axes."""

    title: str
    axes: tuple[str, str]
    items: list[str]
    places: np.ndarray
    lands: list[Land]


def surfaces(content: Content) -> Section | None:
    """The section on surfaces: None where no probe `surface` or `parameter_surface` was read on the clean samples."""
    views = [view for text in _probes(content) if (view := _view(content, text)) is not None]
    if not views:
        return None
    lead = (
        "The landscape around a few images, chosen by their number alone. The red line is S = 0, where the answer changes; the cross is "
        "the image itself, the ring the chosen point. All networks share one scale of colours and heights, which ends where 99 % of them "
        "lie. The cost of drawing is kept low by interpolating away from the boundary; `surface_error` says how far that may err.",
        "Choose a point on a map, by a click or with the arrow keys, and the image there is composed below it. Drag a surface to turn it.",
    )
    rows = [
        ((row["net"], _title(row["probe"])[0], row["name"], row.get("layer") or ""), Answer.of(row))
        for text in _probes(content)
        for net in content.networks
        for row in content.cell(net, content.clean_spec)
        if row["probe"] == text and row["name"] in (*NUMBERS, "parameter_surface_rise")
    ]
    grid = tidy("What is read off the surfaces", ("network", "plane", "quantity", "of"), rows)
    pictures = [still(view.title, view.items, view.places, view.axes, [(land.net, land.heights, land.lines) for land in view.lands])
                for view in views]  # fmt: skip
    data = {"scales": SCALES, "names": HEIGHTS, "planes": [_packed(view, content) for view in views]}
    return Section("surfaces", "Surfaces", lead, grids=[grid], surfaces=data, stills=pictures)


def _probes(content: Content) -> list[str]:
    """The probes with a surface to show, in the order of the plan."""
    rows = (row for net in content.networks for row in content.cell(net, content.clean_spec))
    return list(dict.fromkeys(row["probe"] for row in rows if row["name"] in KINDS and row.get("value") is not None))


def _title(spec: str) -> tuple[str, tuple[str, str]]:
    """What a plane is called, and its two axes."""
    try:
        probe = parse(spec, Probe)
    except SpecError:
        return spec, ("first direction", "second direction")
    if probe.name == "parameter_surface":
        how = "filter by filter" if getattr(probe, "normalise", "") == "filter" else "not normalised"
        return f"random directions of the weights, {how}", ("first direction", "second direction")
    kind, ball, attack = (getattr(probe, field, None) for field in ("plane", "ball", "attack"))
    norm = "L2" if getattr(ball, "norm", 0) == 2 else "Linf"
    title, axes = {
        "gradient": ("gradient × random", ("gradient", "random")), "random": ("random × random", ("random", "random")),
        "attacks": (f"two directions of {getattr(attack, 'name', 'attacks')}", ("first attack", "second attack")),
        "images": ("through three images", ("to the second image", "to the third image")),
    }.get(str(kind), (spec, ("first", "second")))  # fmt: skip
    if getattr(probe, "source", None) is not None:
        title += f" of {probe.source.label}"  # pyright: ignore[reportAttributeAccessIssue] - a field of `surface`
    unit = "" if kind == "images" else f", {norm}"
    more = " (clipped to the domain)" if getattr(probe, "clip", False) else ""
    return f"{title}{unit}{more}", (f"{axes[0]}{unit}", f"{axes[1]}{unit}")


def _view(content: Content, spec: str) -> View | None:
    lands, items, places = [], [], None
    for net in content.networks:
        found = {
            (row["name"], row.get("layer") or ""): row for row in content.cell(net, content.clean_spec) if row["probe"] == spec
        }  # fmt: skip
        kept = {key: array for key, row in found.items() if (array := content.array(row)) is not None}
        if ("parameter_surface", "cross_entropy") in kept:
            heights = {name: kept["parameter_surface", name][None] for name in ("cross_entropy", "error")}
            n = found["parameter_surface", "cross_entropy"].get("n") or 0
            items, places = [f"mean of {n} samples"], kept["parameter_surface_axis", ""]
            lands.append(Land(net, heights, [np.empty((0, 4))]))
        elif ("surface", "margin") in kept:
            land = _land(net, kept)
            items, places = _items(content, kept), kept["surface_axis", ""]
            lands.append(land)
    if places is None:
        return None
    title, axes = _title(spec)
    every = -(-(len(places) - 1) // (FINEST - 1)) if len(places) > FINEST else 1
    return View(title, axes, items[:SHOWN], places[::every], [_thinned(land, every) for land in lands])


def _items(content: Content, kept: dict[tuple[str, str], np.ndarray]) -> list[str]:
    ids, labels = kept["surface_ids", ""].tolist(), kept["surface_labels", ""].tolist()
    return [f"sample {name}: {class_name(content, label)}" for name, label in zip(ids, labels, strict=True)]


def _land(net: str, kept: dict[tuple[str, str], np.ndarray]) -> Land:
    segments = kept["surface_boundary", ""]
    m = len(kept["surface", "margin"])
    pictured = kept["surface_image", ""].ndim == 4
    return Land(
        net, {name: kept["surface", name] for name in ("margin", "cross_entropy", "dlr", "kl")},
        [segments[segments[:, 0] == at, 1:] for at in range(m)],
        kept["surface_image", ""] if pictured else None, kept["surface_directions", ""] if pictured else None,
        kept["surface_classes", ""], kept["surface_labels", ""],
    )  # fmt: skip


def _thinned(land: Land, every: int) -> Land:
    """The first images, on a grid that a page can carry."""

    def cut(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[:SHOWN]

    heights = {name: values[:SHOWN, ::every, ::every] for name, values in land.heights.items()}
    classes = None if land.classes is None else land.classes[:SHOWN, ::every, ::every]
    return Land(land.net, heights, land.lines[:SHOWN], cut(land.images), cut(land.directions), classes, cut(land.labels))


def _packed(view: View, content: Content) -> dict[str, Any]:
    """What surface.js draws from; arrays as base64, little-endian."""
    names = list(view.lands[0].heights)
    return {
        "title": view.title, "axes": view.axes, "items": view.items, "points": len(view.places),
        "low": float(view.places[0]), "high": float(view.places[-1]), "heights": names,
        "limits": {name: limits(name, [land.heights[name] for land in view.lands]) for name in names},
        "lands": [_packed_land(land, content) for land in view.lands],
    }  # fmt: skip


def _packed_land(land: Land, content: Content) -> dict[str, Any]:
    packed: dict[str, Any] = {"net": land.net, "heights": {}, "lines": [_base64(line.astype("<f4")) for line in land.lines]}
    for name, values in land.heights.items():
        packed["heights"][name] = [_levels(value) for value in values]
    if land.classes is not None and land.labels is not None:
        packed["classes"] = [_base64(value.astype("<u2")) for value in land.classes]
        known = {int(k) for k in np.unique(land.classes)} | {int(k) for k in land.labels}
        packed["said"] = {str(k): class_name(content, k) for k in sorted(known)}
        packed["labels"] = [int(k) for k in land.labels]
    if land.images is not None and land.directions is not None:
        low, high = domain_of(content.data)
        pictures = grey_levels(land.images, (low, high), max(land.images.shape[2:]))
        packed["size"] = [pictures.shape[2], pictures.shape[1], 1 if pictures.ndim == 3 else 3]
        packed["images"] = [_base64(picture) for picture in pictures]
        packed["directions"] = [[_steps(step / ((high - low) or 1.0)) for step in pair] for pair in land.directions]
    return packed


def _levels(values: np.ndarray) -> list[Any]:
    """[lowest, highest, values as 16-bit steps between them]."""
    low, high = float(values.min()), float(values.max())
    steps = np.rint((values.astype(np.float64) - low) / ((high - low) or 1.0) * 65535)
    return [low, high, _base64(steps.astype("<u2"))]


def _steps(direction: np.ndarray) -> list[Any]:
    """[largest change in grey levels, changes as 8-bit steps of 1/127 of it], in the channels and order of pictures."""
    x = direction.astype(np.float32)
    x = np.moveaxis(x[:3], 0, 2) if len(x) >= 3 else x.mean(0)
    most = float(np.abs(x).max()) or 1.0
    return [255 * most, _base64(np.rint(x / most * 127).astype(np.int8))]


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
