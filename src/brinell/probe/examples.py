"""Examples: a few of the inputs that a network saw, kept to be looked at."""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.measurement import Reading
from brinell.core.probe import Probe, View
from brinell.core.tally import Sample, Tally


class Examples(Probe, name="examples"):
    """Keeps the inputs of a few samples as the network saw them: what does a perturbation look like, and to whom is it fatal?

    The samples are the k whose ids have the smallest hashes: chosen by nothing that was measured, and the same for every network
    and perturbation, so that cells can be laid side by side. Readings, all without interval:

    - `examples`: how many are kept; array (m, *shape), float16, axis `example`: the inputs z in the order of ids;
    - `example_ids`: the same number; array (m,), int64: their ids.

    Images whose longer side exceeds `side` pixels are averaged over squares of ceil(longer side / side) pixels; rows and columns
    that fill no square are left out. Half precision is exact to 2^-12 between 0.5 and 1. UNDEFINED where there is no sample.

    Arguments:
        k: samples to keep. side: longest side of an image that is kept as it is.

    Example:
        >>> import brinell as br
        >>> data = br.load_dataset("digits(side=8)", limit=60)
        >>> net = br.load_network("mlp(widths=(32,))", shape=data.shape, classes=10)
        >>> table = br.Lab().measure(net, data, probes=["examples(k=4)"])
        >>> table.array(table.row("examples")).shape
        (4, 1, 8, 8)
    """

    k: int = Field(default=24, ge=1, le=1024)
    side: int = Field(default=96, ge=8)

    def observe(self, view: View, *, draws: Draws) -> Tally:
        return Sample.pick(self.k, view.ids, {"z": thumbnails(view.z, self.side).half()})

    def read(self, tally: Tally) -> list[Reading]:
        if "id" not in tally or not len(tally["id"]):
            return [Reading.undefined("examples", "there is no sample to keep")]
        ids, order = torch.sort(tally["id"])
        kept = {"examples": tally["z"][order].numpy(), "example_ids": ids.numpy()}
        return [
            Reading(name, float(len(ids)), n=len(ids), array=np.ascontiguousarray(array), axis="example") for name, array in kept.items()
        ]


def thumbnails(x: Tensor, side: int) -> Tensor:
    """Images averaged over squares until no side is longer than `side`; anything else, and small images, as they are.

    Example:
        >>> thumbnails(torch.arange(4.0).reshape(1, 1, 2, 2), 1)
        tensor([[[[1.5000]]]])
    """
    if x.ndim != 4 or max(x.shape[2:]) <= side:
        return x
    square = min(math.ceil(max(x.shape[2:]) / side), *x.shape[2:])
    return torch.nn.functional.avg_pool2d(x, square)
