"""Divergence between the clean and the perturbed output: how far does a perturbation push the predicted distribution?"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field
from torch import Tensor

from brinell.core.confidence import mean_interval, quantile_interval
from brinell.core.draws import Draws
from brinell.core.errors import UndefinedReading
from brinell.core.goal import divergence
from brinell.core.measurement import Reading
from brinell.core.probe import Needs, View
from brinell.core.tally import Rows, Tallies, Tally, encode
from brinell.probe.logit_scale import NORMALISED, RAW, Normalised, unscaled

QUANTITIES = ("kl", "reverse_kl", "js")


def divergences(clean: Tensor, logits: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
    """KL(P|Q), KL(Q|P) and Jensen-Shannon's divergence of P = softmax(clean / scale) and Q = softmax(logits / scale), in nats.

    Arguments:
        clean, logits: (n, K). scale: of the logits.

    Returns:
        (n,) float64 under `kl`, `reverse_kl`, `js`; at least 0, js at most log 2. NaN where logits are NaN or infinite.

    Example:
        >>> import torch
        >>> found = divergences(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        >>> {name: round(float(value), 4) for name, value in found.items()}
        {'kl': 0.1201, 'reverse_kl': 0.1109, 'js': 0.0285}
    """
    p, q = clean.double() / scale, logits.double() / scale
    return {kind: divergence(kind, p, q).clamp(min=0) for kind in QUANTITIES}


class Divergence(Normalised, name="divergence"):
    """How far a perturbation moves the predicted distribution: KL in both directions and Jensen-Shannon, clean against perturbed.

        kl = sum_k P_k (log P_k - log Q_k),   reverse_kl = sum_k Q_k (log Q_k - log P_k),   js = (kl(P|M) + kl(Q|M)) / 2,  M = (P + Q) / 2

    with P the softmax of the logits at the clean sample and Q at the perturbed one, in nats. It asks no label, so it can be read
    under any perturbation. The worst case within a ball is what `pgd(goal=maximise(kl), ...)` looks for; what is read under it is
    a LOWER bound of the worst case, and exact for the points that were found. `psi` searches with restarts, and bounds it from above.

    Readings `kl`, `reverse_kl`, `js`, of layer `raw` and `normalised` (see `Normalised`): the mean, with Student's interval or, where the
    data has a column `cluster`, that of a cluster bootstrap; array: of every sample, in the order of ids. `kl_median` and so on: the
    median, with an interval of order statistics that treats samples as independent.

    UNDEFINED where a sample's logits are NaN or infinite, clean or perturbed.

    Arguments:
        scale: of the logits, for the normalised readings; None for the one a lab fits. confidence: of the intervals.

    References: Kullback & Leibler (1951), "On Information and Sufficiency", Ann. Math. Stat. 22:79; Lin (1991), "Divergence Measures
        Based on the Shannon Entropy", IEEE Trans. Inf. Theory 37:145 (Jensen-Shannon); Yu et al. (2019), "Interpreting and
        Evaluating Neural Network Robustness", IJCAI, arXiv 1905.04270 (KL as a measure of robustness).

    Example:
        >>> import brinell as br
        >>> data = br.load_dataset("digits(side=8)", limit=60)
        >>> net = br.load_network("mlp(widths=(32,))", shape=data.shape, classes=10)
        >>> worst = "pgd(goal=maximise(kl), threat=ball(eps=0.1))"
        >>> table = br.Lab().measure(net, data, [worst], ["divergence"])
        >>> table.value("kl", layer="raw"), table.value("kl", layer="raw", perturbation=worst) > 0
        (0.0, True)
    """

    confidence: float = Field(default=0.95, gt=0, lt=1)

    @property
    def needs(self) -> Needs:
        return Needs(clean=True)

    def observe(self, view: View, *, draws: Draws) -> Tally:
        clean = view.logits if view.clean is None else view.clean.logits
        columns = {"id": view.ids}
        for layer, scale in self.scales.items():
            columns |= {f"{kind} {layer}": value for kind, value in divergences(clean, view.logits, scale).items()}
        if "cluster" in view.columns:
            columns["cluster"] = encode(view.columns["cluster"])[0]
        return Tallies({"rows": Rows.of(columns), "scale": self.noted()})

    def read(self, tally: Tally) -> list[Reading]:
        if "rows" not in tally:
            return [Reading.undefined(kind, "there is no sample to measure", layer=RAW) for kind in QUANTITIES]
        rows = {name: value.numpy() for name, value in Rows(tally.parts["rows"].values).sorted().values.items()}
        n, readings = len(rows["id"]), list[Reading]()
        for kind in QUANTITIES:
            for layer in (RAW, NORMALISED):
                values = rows.get(f"{kind} {layer}")
                if values is None:
                    readings += [unscaled(name, tally.parts["scale"], n) for name in (kind, f"{kind}_median")]
                else:
                    readings += self._both(kind, layer, values, rows)
        return readings

    def _both(self, kind: str, layer: str, values: np.ndarray, rows: dict[str, np.ndarray]) -> list[Reading]:
        n, wrong = len(values), ~np.isfinite(values)
        if wrong.any():
            why = f"{wrong.sum()} of {n} samples have NaN or inf among their logits (first id {rows['id'][wrong][0]})"
            return [Reading.undefined(name, why, layer=layer, n=n) for name in (kind, f"{kind}_median")]
        mean = float(values.mean())
        ends: dict[str, Any] = {}
        try:
            low, high = mean_interval(values, self.confidence, rows.get("cluster"), within=(0.0, np.inf))
            ends |= {"low": low, "high": high, "confidence": self.confidence}
        except UndefinedReading:  # a single sample or cluster shows nothing of how they vary
            pass
        middle, low, high = quantile_interval(values, 0.5, self.confidence)
        return [
            Reading(kind, mean, layer, n=n, array=values, axis="sample", **ends),
            Reading(f"{kind}_median", middle, layer, low=low, high=high if np.isfinite(high) else None, confidence=self.confidence, n=n),
        ]
