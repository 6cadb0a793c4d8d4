"""Duplicates: the same input more than once among the samples, and with which labels."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from brinell.core.confidence import proportion
from brinell.core.draws import Draws, derive
from brinell.core.measurement import Reading
from brinell.core.probe import Probe, View
from brinell.core.tally import Max, Rows, Tallies, Tally

_CHUNK = 1 << 22  # words multiplied at once


def digests(x: Tensor) -> Tensor:
    """(n, 2) int64: two 64-bit digests of each sample's numbers; equal samples have equal ones, others differ but for a chance of 2^-64.

        h_j = sum_i w_i k_ij   mod 2^64,   w the 32-bit words of the sample, k fixed random words (multilinear hashing)

    -0 counts as 0.

    Example:
        >>> seen = digests(torch.tensor([[0.5, 0.0], [0.0, 0.5], [0.5, -0.0]]))
        >>> bool((seen[0] == seen[2]).all()), bool((seen[0] == seen[1]).any())
        (True, False)
    """
    flat = x.detach().flatten(1)
    flat = ((flat if flat.dtype == torch.float64 else flat.float()) + 0.0).contiguous()
    words = flat.view(torch.int32)
    keys = derive(0, "duplicates", ids=[0, 1], device=x.device).words(words.shape[1])
    rows = words.split(max(1, _CHUNK // max(words.shape[1], 1)))
    return torch.cat([torch.stack([(part.long() * key).sum(1) for key in keys], 1) for part in rows])


class Duplicates(Probe, name="duplicates"):
    """Counts samples that are there more than once: does an interval that takes samples as independent say too much?

    Readings of the clean cell, over all samples, compared number by number (`digests`):

    - `duplicate_share`: share whose input equals that of another sample with a smaller id. Such a row adds no evidence;
    - `conflict_share`: share whose input equals that of a sample with another label. No network can be right on both.

    Intervals are Clopper-Pearson's. Whether samples were seen in training cannot be told from the samples measured.

    Arguments:
        confidence: of the intervals.

    References: Barz & Denzler (2020), "Do We Train on Test Data? Purging CIFAR of Near-Duplicates", J. Imaging 6(6), arXiv 1902.00423
        (near-duplicates in test sets; only exact ones are counted here); Carter & Wegman (1979), "Universal classes of hash functions",
        J. Comput. Syst. Sci. 18(2) (the digests).

    Example:
        >>> import brinell as br
        >>> x, y = torch.rand(4, 8)[[0, 1, 0, 2]], torch.tensor([0, 1, 1, 0])
        >>> net = br.load_network("mlp(widths=(8,))", shape=(8,), classes=2)
        >>> table = br.Lab().measure(net, (x, y), probes=["duplicates"])
        >>> table.value("duplicate_share"), table.value("conflict_share")
        (0.25, 0.5)
    """

    confidence: float = Field(default=0.95, gt=0, lt=1)

    def observe(self, view: View, *, draws: Draws) -> Tally:
        if view.z is not view.x:
            return Tallies({"place": Max.of(perturbed=torch.tensor(1))})
        seen = Rows.of(id=view.ids, label=view.y, digest=digests(view.x))
        return Tallies({"place": Max.of(perturbed=torch.tensor(0)), "seen": seen})

    def read(self, tally: Tally) -> list[Reading]:
        if not tally.parts or int(tally.parts["place"]["perturbed"]):
            return []
        rows = Rows(tally.parts["seen"].values).sorted().values
        _, which = torch.unique(rows["digest"], dim=0, return_inverse=True)
        later, mixed = repeated(which.numpy(), rows["label"].numpy())
        return [self._share("duplicate_share", later), self._share("conflict_share", mixed)]

    def _share(self, name: str, flags: np.ndarray) -> Reading:
        low, high = proportion(flags, self.confidence)
        return Reading(name, float(flags.mean()), low=low, high=high, confidence=self.confidence, n=len(flags))


def repeated(which: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) bool each: is there an earlier sample of the same input, and is there any with another label?

    Arguments:
        which: (n,) a number per input, equal where inputs are. label: (n,).

    Example:
        >>> repeated(np.array([3, 5, 3]), np.array([0, 1, 1]))
        (array([False, False,  True]), array([ True, False,  True]))
    """
    _, first = np.unique(which, return_index=True)
    later = np.ones(len(which), dtype=bool)
    later[first] = False
    pairs = np.unique(np.stack((which, label), 1), axis=0)
    inputs, labels = np.unique(pairs[:, 0], return_counts=True)
    return later, np.isin(which, inputs[labels > 1])
