"""Accuracy: overall, of every class and group, and of the worst of them."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import torch
from pydantic import Field

from brinell.core.confidence import bonferroni, proportion
from brinell.core.draws import Draws
from brinell.core.measurement import Reading
from brinell.core.network import answered
from brinell.core.probe import Probe, View
from brinell.core.tally import Max, Rows, Tallies, Tally, encode


class Accuracy(Probe, name="accuracy"):
    """The share of samples whose largest logit is at their label: how often is the network right, and where is it right least?

    accuracy = (1/n) sum_i 1[argmax_k f_k(z_i) = y_i], in [0, 1]; equal logits go to the first class. Readings:

    - `accuracy`: all samples; its array (axis `sample`, in the order of ids) is 1 where the sample is right, else 0;
    - `class_accuracy`, layer `class NAME`: the samples of one class (`NAME #k` where names repeat);
    - `group_accuracy`, layer `group VALUE`: the samples of one value of the data's column `group`, where it has one;
    - `worst_class_accuracy`, `worst_group_accuracy`: the smallest of these, with the layer that has it (the first of equals).

    Values are exact for the samples measured; intervals are for the population they were drawn from: Clopper-Pearson, or a
    bootstrap of whole clusters where the data has a column `cluster` (`core.confidence.proportion`). The intervals of all
    classes hold at once with `confidence` (Bonferroni), and so do those of all groups, because the worst of many is picked
    after looking; that of the worst runs from the smallest lower end to the smallest upper end.

    A class without samples is UNDEFINED; so is every share that contains a sample with NaN or +inf among its logits, or only -inf.

    Example:
        >>> Accuracy(confidence=0.99).spec()
        'accuracy(confidence=0.99)'
    """

    confidence: float = Field(default=0.95, gt=0, lt=1)

    def observe(self, view: View, *, draws: Draws) -> Tally:
        columns = {"id": view.ids, "y": view.y, "correct": view.logits.argmax(1) == view.y, "answered": answered(view.logits)}
        names = view.classes or tuple(str(k) for k in range(view.logits.shape[1]))
        parts: dict[str, Tally] = {"classes": Max({"json": torch.tensor(list(json.dumps(names).encode()), dtype=torch.uint8)})}
        for column in ("group", "cluster"):
            if column in view.columns:
                columns[column], table = encode(view.columns[column])
                if column == "group":
                    parts[column] = table
        return Tallies({"rows": Rows.of(columns), **parts})

    def read(self, tally: Tally) -> list[Reading]:
        rows = {name: value.numpy() for name, value in Rows(tally.parts.get("rows", Rows()).values).sorted().values.items()}
        if not len(rows.get("id", ())):
            return [Reading.undefined("accuracy", "there is no sample to measure")]
        everything = np.ones(len(rows["id"]), dtype=bool)
        readings = [_share("accuracy", "", rows, everything, self.confidence, self.confidence)]
        names = json.loads(bytes(tally.parts["classes"]["json"].tolist()))
        times = Counter(names)
        labels = [name if times[name] == 1 else f"{name} #{k}" for k, name in enumerate(names)]
        readings += self._family("class", rows, {label: rows["y"] == k for k, label in enumerate(labels)})
        if "group" in rows:
            table = tally.parts["group"].values
            readings += self._family("group", rows, {text: rows["group"] == int(table[text]) for text in sorted(table)})
        return readings

    def _family(self, kind: str, rows: dict[str, np.ndarray], cells: dict[str, np.ndarray]) -> list[Reading]:
        """The readings of all cells, whose intervals hold at once, and of the worst cell."""
        level = bonferroni(self.confidence, sum(bool(mask.any()) for mask in cells.values()))
        shares = [_share(f"{kind}_accuracy", f"{kind} {label}", rows, mask, level, self.confidence) for label, mask in cells.items()]
        name = f"worst_{kind}_accuracy"
        unanswered = [share for share in shares if share.n and share.value is None]
        if unanswered:
            return [*shares, Reading.undefined(name, f"{unanswered[0].layer}: {unanswered[0].reason}", n=len(rows["id"]))]
        found = [(share.value, share.low, share.high) for share in shares if share.value is not None]
        value, low, high = (min(ends) for ends in zip(*found, strict=True))
        worst = next(share for share in shares if share.value == value)
        return [*shares, Reading(name, value, worst.layer, low=low, high=high, confidence=self.confidence, n=worst.n)]


def _share(name: str, layer: str, rows: dict[str, np.ndarray], mask: np.ndarray, level: float, confidence: float) -> Reading:
    n = int(mask.sum())
    if n == 0:
        return Reading.undefined(name, f"there is no sample of {layer}", layer=layer)
    mute = mask & ~rows["answered"]
    if mute.any():
        reason = f"{mute.sum()} of {n} samples have NaN or +inf among their logits, or only -inf (first id {rows['id'][mute][0]})"
        return Reading.undefined(name, reason, layer=layer, n=n)
    flags = rows["correct"][mask]
    low, high = proportion(flags, level, rows["cluster"][mask] if "cluster" in rows else None)
    array, axis = (None, "") if layer else (flags.astype(np.uint8), "sample")
    return Reading(name, float(flags.mean()), layer, low=low, high=high, confidence=confidence, n=n, array=array, axis=axis)
