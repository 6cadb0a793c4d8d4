"""The album: the example inputs that a run kept (probe `examples`), as strips of pictures that a page can carry."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np

from brinell.report.content import Content
from brinell.report.grade import Grade

ROOM, WANTED, LONGEST = 4_500_000, 4, (64, 48, 32)
"""Bytes of pixels that a page carries, how many examples it should show, and the longest side of a picture: the first that allows it."""


class Album:
    """One strip of pictures for each network and perturbation that kept examples; equal strips are stored once.

    Arguments:
        strips: PNG files, base64. ids: which samples they show, in their order. tile: width and height of one picture.
    """

    def __init__(self, content: Content) -> None:
        self.content = content
        self.strips: list[str] = []
        self.ids: list[int] = []
        self.tile = (0, 0)
        self._place: dict[tuple[str, str], int] = {}
        self._longest = LONGEST[0]
        shown = [item for item in content.grades if item.kind != "frequency"]
        kept = {(net, item.spec): item for net in content.networks for item in shown if self._ids(net, item.spec) is not None}
        if not kept:
            return
        known = [set(found.tolist()) for net, spec in kept if (found := self._ids(net, spec)) is not None]
        shared = sorted(set.intersection(*known))
        if not shared:
            return
        fitting = self._fitting(list(kept), shared[:WANTED])
        if fitting is None:
            return
        first, size = fitting
        self.ids = shared[: max(1, ROOM // size)]
        self.tile = (first.shape[2], first.shape[1])
        seen: dict[bytes, int] = {}
        for net, spec in kept:
            pictures = self._pictures(net, spec, self.ids)
            if pictures is None or pictures.shape[1:3] != first.shape[1:3]:
                continue
            strip = np.concatenate(list(pictures), axis=1)
            if strip.tobytes() not in seen:
                seen[strip.tobytes()] = len(self.strips)
                self.strips.append(_png(strip))
            self._place[net, spec] = seen[strip.tobytes()]

    def __bool__(self) -> bool:
        return bool(self.strips)

    def strip(self, net: str, item: Grade) -> int | None:
        """The number of the strip of a cell, None where it kept no examples."""
        return self._place.get((net, item.spec))

    def outcomes(self, net: str, item: Grade) -> list[tuple[int, int]] | None:
        """Label and prediction of each example in a cell, None where its samples are not at hand."""
        found = self.content.outcomes(net, item.spec)
        if not len(found.get("id", ())):
            return None
        place = {int(name): at for at, name in enumerate(found["id"])}
        if not all(name in place for name in self.ids):
            return None
        rows = [place[name] for name in self.ids]
        return [(int(found["label"][row]), int(found["prediction"][row])) for row in rows]

    def _fitting(self, places: list[tuple[str, str]], ids: list[int]) -> tuple[np.ndarray, int] | None:
        """Some pictures and the bytes that one example takes in all strips, at the first size that leaves room for enough of them."""
        found = None
        for longest in LONGEST:
            self._longest = longest
            few = [pictures for place in places if (pictures := self._pictures(*place, ids)) is not None]
            if not few:
                return None
            size = max(1, sum(map(len, {pictures.tobytes() for pictures in few})) // len(few[0]))
            found = few[0], size
            if size * WANTED <= ROOM:
                break
        return found

    def _ids(self, net: str, spec: str) -> np.ndarray | None:
        return self.content.array(self.content.row("example_ids", net, spec))

    def _pictures(self, net: str, spec: str, ids: list[int]) -> np.ndarray | None:
        """(m, h, w) or (m, h, w, 3) grey levels of some examples; None where they are no images."""
        values, names = self.content.array(self.content.row("examples", net, spec)), self._ids(net, spec)
        if values is None or names is None or values.ndim != 4 or len(values) != len(names):
            return None
        place = {int(name): at for at, name in enumerate(names)}
        return grey_levels(values[[place[name] for name in ids]], domain_of(self.content.data), self._longest)


def grey_levels(values: np.ndarray, domain: tuple[float, float], longest: int) -> np.ndarray:
    """(m, c, h, w) numbers of a domain as 8-bit pictures: (m, h, w, 3) of the first three channels, (m, h, w) of the mean of fewer.

    Pictures with a longer side than `longest` are averaged over squares.

    Example:
        >>> grey_levels(np.array([[[[0.0, 0.5, 1.0]]]]), (0.0, 1.0), 64).tolist()
        [[[0, 128, 255]]]
    """
    low, high = domain
    x = (values.astype(np.float32) - low) / ((high - low) or 1.0)
    square = math.ceil(max(x.shape[2:]) / longest)
    if square > 1:
        height, width = (side // square * square for side in x.shape[2:])
        x = x[:, :, :height, :width].reshape(*x.shape[:2], height // square, square, width // square, square).mean((3, 5))
    x = np.moveaxis(x[:, :3], 1, 3) if x.shape[1] >= 3 else x.mean(1)
    return np.nan_to_num(np.floor(x * 255 + 0.5), nan=0.0).clip(0, 255).astype(np.uint8)


def domain_of(data: dict[str, Any]) -> tuple[float, float]:
    """The data's domain; (0, 1) where it is not known or has no end."""
    try:
        low, high = (float(end) for end in data.get("domain") or ())
    except (TypeError, ValueError):
        return 0.0, 1.0
    return (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else (0.0, 1.0)


def _png(picture: np.ndarray) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
