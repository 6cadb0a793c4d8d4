"""The numbers that are read off surfaces: what is lost, how far the boundary is, how far the margin bends."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from brinell.core.measurement import Bound, Reading
from brinell.core.tally import Tally
from brinell.core.threat import Ball
from brinell.probe.surface_boundary import contour, first_below
from brinell.probe.surface_grid import HEIGHTS

HALVES = ("+first", "-first", "+second", "-second")
NUMBERS = ("surface", "surface_lost", "surface_distance", "surface_lowest", "surface_boundary", "surface_bend", "surface_error")
"""What is said to be UNDEFINED where there is no surface."""


def readings(tally: Tally, ball: Ball) -> list[Reading]:
    """The readings of a tally of `surface`, one row of every array per image, in the order of ids."""
    if "id" not in tally or not len(tally["id"]):
        return [Reading.undefined(name, "none of the images to be shown is among the samples") for name in NUMBERS]
    order = torch.argsort(tally["id"])
    seen = {name: value[order] for name, value in tally.values.items() if not name.startswith("#")}
    n = len(order)
    broken = int((~seen["heights"].flatten(1).isfinite().all(1)).sum())
    if broken:
        return [Reading.undefined(name, f"logits are NaN or infinite on {broken} of {n} planes", n=n) for name in NUMBERS]
    walled = math.isfinite(ball.low) or math.isfinite(ball.high)
    return [*_surfaces(seen, n, walled), *_boundary(seen, n), *_bends(seen, n), *_kept(seen, n)]


def _surfaces(seen: dict[str, Tensor], n: int, walled: bool) -> list[Reading]:
    found = []
    for place, name in enumerate((*HEIGHTS, "domain") if walled else HEIGHTS):
        values = seen["heights"][:, place]
        bound = Bound.EXACT if bool(seen["known"].all()) else Bound.ESTIMATE
        found.append(_images("surface", values.double().mean((1, 2)), n, name, array=values, bound=bound))
    for place, name in enumerate(HEIGHTS):
        error = seen["error"][:, place]
        found.append(_reading("surface_error", float(error.max()), n, error, name, bound=Bound.ESTIMATE))
    return found


def _boundary(seen: dict[str, Tensor], n: int) -> list[Reading]:
    heights, places = seen["heights"][:, 0].double(), seen["axis"][0]
    found = [
        _images("surface_lost", (heights < 0).double().mean((1, 2)), n),
        _images("surface_lowest", heights.flatten(1).amin(1), n),
    ]
    centre = int(places.abs().argmin())
    lines = {"first": heights[:, centre], "second": heights[:, :, centre]}
    for half in HALVES:
        line, length = lines[half[1:]], seen["lengths"][:, int(half[1:] == "second")]
        forward, ahead = (
            (line[:, centre:], places[centre:]) if half[0] == "+" else (line[:, : centre + 1].flip(1), -places[: centre + 1].flip(0))
        )
        far = first_below(forward, ahead - ahead[0]) * length
        middle = float(far.nan_to_num(nan=math.inf).quantile(0.5))
        if math.isfinite(middle):
            found.append(_reading("surface_distance", middle, n, far, half))
        else:
            lost = int(far.isnan().sum())
            found.append(
                Reading.undefined("surface_distance", f"the plane ends before the boundary for {lost} of {n} images", layer=half, n=n)
            )
    x = places.numpy()
    parts = [contour(values.numpy(), x, x) for values in heights]
    lengths = [float(np.hypot(part[:, 2] - part[:, 0], part[:, 3] - part[:, 1]).sum()) for part in parts]
    segments = np.concatenate([np.insert(part, 0, at, axis=1) for at, part in enumerate(parts)])
    return [*found, Reading("surface_boundary", float(np.mean(lengths)), n=n, array=segments, axis="segment")]


def _bends(seen: dict[str, Tensor], n: int) -> list[Reading]:
    bend, rise = seen["bend"], seen["rise"]
    relative = torch.where(rise > 0, bend / rise.clamp(min=1e-300), 0.0)
    bound = Bound.EXACT if bool(seen["known"].all()) else Bound.LOWER
    return [_images("surface_bend", bend, n, bound=bound), _images("surface_bend_relative", relative, n, bound=bound)]


def _kept(seen: dict[str, Tensor], n: int) -> list[Reading]:
    """What a reader of the surfaces needs besides them, and what they cost."""
    flat = seen["classes"].flatten(1).sort(1).values
    predicted = 1 + (flat[:, 1:] != flat[:, :-1]).sum(1).double()
    counted = {"surface_image": "image", "surface_directions": "directions", "surface_ids": "id", "surface_labels": "label"}
    return [
        _images("surface_passes", seen["passes"].double(), n),
        _images("surface_points", seen["known"].flatten(1).double().mean(1), n, array=seen["known"]),
        _images("surface_classes", predicted, n, array=seen["classes"]),
        *(_reading(name, float(n), n, seen[key]) for name, key in counted.items()),
        _reading("surface_axis", float(seen["axis"][0].max()), n, seen["axis"][0], over="point"),
        _images("surface_length", seen["lengths"].mean(1), n, array=seen["lengths"]),
        _reading("surface_stand_ins", float(seen["stand_ins"].sum()), n, seen["stand_ins"]),
    ]


def _images(name: str, values: Tensor, n: int, layer: str = "", *, array: Tensor | None = None, bound: Bound = Bound.EXACT) -> Reading:
    """The mean over images, with the values of each, or another array, behind it."""
    return _reading(name, float(values.mean()), n, values if array is None else array, layer, bound=bound)


def _reading(
    name: str, value: float, n: int, array: Tensor, layer: str = "", *, over: str = "image", bound: Bound = Bound.EXACT
) -> Reading:  # fmt: skip
    return Reading(name, value, layer, bound=bound, n=n, array=np.array(array.numpy(), order="C"), axis=over)
