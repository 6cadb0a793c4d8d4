"""Psi: one number for how far any perturbation within a ball can push the predicted distribution, without asking for a label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from brinell.core.confidence import mean_interval, quantile_interval
from brinell.core.draws import Draws, derive
from brinell.core.errors import BrinellError, UndefinedReading
from brinell.core.measurement import Bound, Reading
from brinell.core.network import frozen
from brinell.core.probe import Certifier, Needs, View
from brinell.core.tally import Max, Rows, Tallies, Tally
from brinell.core.threat import Ball
from brinell.probe.logit_scale import NORMALISED, RAW, Normalised, unscaled
from brinell.probe.worst_divergence import Peaks, Search, most, sweep

LEAST = 1e-12
"""A largest divergence below this is no measurement: psi is then capped at 1 / LEAST."""
TRIM = 0.1
"""The share of samples that the trimmed mean leaves out at either end."""
ALIKE = 0.01
"""Two restarts that differ by less than this share of the larger one have found the same."""
_NAMES = ("psi", "psi_inverse_mean", "psi_mean", "psi_trimmed_mean", "psi_capped", "psi_single", "worst_divergence")


def psi_of(worst: np.ndarray) -> np.ndarray:
    """1 / D of each sample, at most 1 / LEAST.

    Example:
        >>> psi_of(np.array([0.5, 0.0])).tolist()
        [2.0, 1000000000000.0]
    """
    return 1 / np.maximum(worst, LEAST)


def divergence_bound(clean: Tensor, differences: Tensor) -> Tensor:
    """An upper bound of KL(P | Q) wherever the differences of logits stay below given numbers.

        KL(P | Q) = sum_i P_i log sum_j exp(Z_j - Z_i) - H(P) <= sum_i P_i log sum_j exp U_ij - H(P)

    with Z the logits behind Q and H(P) the entropy of P. First order in the size of the differences, where KL is second order: loose for
    small ones.

    Arguments:
        clean: (n, K) logits behind P. differences: (n, K, K), U_ij >= Z_j - Z_i and U_ii = 0.

    Returns:
        (n,) float64, inf where a bound is.

    References: ours; from Jensen's inequality nothing is used, only that log-sum-exp grows with each entry.

    Example:
        >>> z = torch.tensor([[0.0, 1.0]])
        >>> bool(divergence_bound(z, z[:, None, :] - z[:, :, None]).abs() < 1e-12)
        True
    """
    log_p = clean.double().log_softmax(1)
    p = log_p.exp()
    return (p * (differences.double().logsumexp(2) + log_p)).sum(1)


class Psi(Normalised, name="psi"):
    """Intrinsic robustness: one over the largest divergence between clean and perturbed output that a search finds in a ball.

        psi(x) = 1 / max over z in the ball of D(x, z),    D = KL(softmax f(x) | softmax f(z)) or another of `divergence`

    High is robust. Ascent finds a LOWER bound of the largest divergence, so every psi here is an UPPER bound of the true one: optimistic.
    With `bound` a certifier gives the other side. It asks no label: a network that always gives the same answer has infinite psi, so
    its accuracy stands beside it (`psi_accuracy`), and networks of different accuracy should not be ranked by it (summary
    `agreement`). The search is that of `probe.worst_divergence.Search`; a start at x itself, where D has gradient zero, is not possible.

    Readings of the clean cell alone, of layer `raw` and `normalised` (the logits divided by their scale, see `Normalised`; the same for
    a network with c times the logits, where raw psi moves in either direction):

    - `psi`: the median, with an interval of order statistics; array: of each sample, in the order of ids;
    - `psi_inverse_mean`: 1 / mean of the largest divergences, which no single sample dominates;
    - `psi_mean`, `psi_trimmed_mean`: the mean of psi, and that without a tenth of the samples at either end. A few inputs with tiny
      divergences rule the mean and may invert the order of networks; if the two differ much, believe neither;
    - `psi_capped`: how many samples have a largest divergence below 1e-12 and psi 1e12 in the array; means leave them out, the median
      is UNDEFINED where they are half;
    - `psi_single`: share of samples at which only one restart comes within 1 % of the best: for these more may be found;
    - `worst_divergence`, LOWER: the mean of what was found; array: of each sample;
    - `psi_curve`, layer e.g. `raw eps=0.05`: the median at each radius of `curve`, from one warm-started sweep; array of each sample;
    - `divergence_bound`, UPPER (mean), and `psi_certified`, LOWER (median), where `bound` is given and the quantity is kl.

    And without layer: `psi_accuracy`; `psi_scale`, the scale of the logits; `psi_flat`, the share of steps that had no gradient.

    Arguments:
        threat: the ball, of norm 2 or inf. quantity: D. steps, restarts, rate: of the ascent, whose steps are rate eps / steps long.
        curve: further radii, in the ball's norm. bound: a certifier with bounds of linear functions of the logits (`ibp`, `crown`), asked
            about the ball of `threat`. scale: of the logits, for the normalised readings; None for the one a lab fits.
        seed: of the starts, which depend on it and on the id of a sample alone: so more restarts, a curve or a bound add to what was found
            without them, and the seed of the run is not used. confidence: of the intervals.

    Raises:
        SpecError: a field is out of range, or a bound is asked for another quantity than kl.

    References: Yu, Qin, Liu, Zhao, Wang & Chen (2019), "Interpreting and Evaluating Neural Network Robustness", IJCAI, arXiv
        1905.04270. Departures: optimiser, steps and restarts were not found in what was read of it and are ours; so are the median as the
        headline, the normalised logits, the search at two scales, and the certified side.

    Example:
        >>> import brinell as br
        >>> data = br.load_dataset("digits(side=8)", limit=60)
        >>> net = br.load_network("mlp(widths=(32,))", shape=data.shape, classes=10)
        >>> table = br.Lab().measure(net, data, probes=["psi(steps=10, restarts=2, threat=ball(eps=0.1))"])
        >>> row = table.row("psi", layer="normalised")
        >>> row["bound"], row["low"] <= row["value"] <= row["high"]
        ('upper', True)
    """

    telling = ("threat",)
    trial: ClassVar[dict[str, Any]] = {"steps": 20, "restarts": 2}
    threat: Ball = Ball(eps=0.1)
    quantity: Literal["kl", "reverse_kl", "js"] = "kl"
    steps: int = Field(default=50, ge=1)
    restarts: int = Field(default=5, ge=1)
    rate: float = Field(default=2.5, gt=0, allow_inf_nan=False)
    curve: tuple[float, ...] = ()
    bound: Certifier | None = None
    seed: int = 0
    confidence: float = Field(default=0.95, gt=0, lt=1)

    @field_validator("curve")
    @classmethod
    def _radii(cls, curve: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < radius < np.inf for radius in curve):
            raise ValueError("radii are positive and finite")
        return tuple(sorted(set(curve)))

    @field_validator("threat")
    @classmethod
    def _searched(cls, threat: Ball) -> Ball:
        if not threat.eps < np.inf:
            raise ValueError(f"{threat.spec()} has no end; give a finite eps")
        if threat.norm == 1:
            raise ValueError("balls of norm 1 are searched by pgd(goal=maximise(kl), threat=ball(norm=1, ...)), under the probe divergence")
        return threat

    @field_validator("bound")
    @classmethod
    def _of_kl(cls, bound: Certifier | None, info: Any) -> Certifier | None:
        if bound is not None and info.data.get("quantity") != "kl":
            raise ValueError("the certified bound is one of kl; leave out bound, or ask for quantity=kl")
        return bound

    @property
    def needs(self) -> Needs:
        return Needs(net=True)

    @property
    def cost(self) -> tuple[int, int]:
        climbs = 2 * self.restarts + 2 * (len(self.curve) + bool(self.curve))
        return climbs * (self.steps + 1), climbs * self.steps

    def observe(self, view: View, *, draws: Draws) -> Tally:
        if view.z is not view.x or view.net is None:
            return Tallies({"place": Max.of(perturbed=torch.tensor(1))})
        x, clean, net = view.x, view.logits.detach(), view.net
        draws = derive(self.seed, "psi", ids=view.ids, device=x.device)
        search = Search(self.quantity, self.steps, self.rate, self.scales, places=bool(self.curve))
        columns: dict[str, Tensor] = {"id": view.ids, "correct": clean.argmax(1) == view.y, "fine": clean.isfinite().all(1)}
        with frozen(net):
            climbs = list(search.climbs(net, x, clean, self.threat, search.starts(x, self.threat, draws, self.restarts)))
            top = most(peaks for peaks, _ in climbs)
            for layer, peak in top.items():
                every = torch.stack([peaks[layer].value for peaks, _ in climbs])
                columns |= {f"worst {layer}": peak.value, f"single {layer}": (every >= (1 - ALIKE) * peak.value).sum(0) == 1}
            columns["flat"] = torch.stack([flat for _, flat in climbs]).sum(0)
            columns |= self._curve(search, net, x, clean, top, draws)
            parts = {"place": Max.of(perturbed=torch.tensor(0)), "scale": self.noted()}
            if self.bound is not None:
                try:
                    columns |= self._bounds(self.bound, net, x, clean)
                except BrinellError as error:  # the certifier has no bounds for this network or input, and says why
                    columns |= {f"bound {layer}": torch.full((len(x),), torch.inf, dtype=torch.float64) for layer in self.scales}
                    parts["reason"] = Max({str(error): torch.tensor(1)})
        return Tallies({**parts, "rows": Rows.of(columns)})

    def _curve(self, search: Search, net: Any, x: Tensor, clean: Tensor, top: Peaks, draws: Draws) -> dict[str, Tensor]:
        if not self.curve:
            return {}
        eps = self.threat.eps
        radii = sorted({*self.curve, *((eps,) if eps else ())})
        found = sweep(search, net, x, clean, self.threat, radii, {eps: top}, draws)
        return {f"curve {layer} {radius!r}": peak.value for radius, peaks in found.items() for layer, peak in peaks.items()}

    def _bounds(self, bound: Certifier, net: Any, x: Tensor, clean: Tensor) -> dict[str, Tensor]:
        """Certified upper bounds of the largest KL, by layer."""
        k = clean.shape[1]
        eye = torch.eye(k, dtype=clean.dtype, device=clean.device)
        rows = (eye[None, :] - eye[:, None]).flatten(0, 1)  # row i k + j: Z_j - Z_i
        upper = bound.bounds(net, x, self.threat, rows)[1].double().unflatten(1, (k, k))
        upper.diagonal(dim1=1, dim2=2).zero_()
        return {f"bound {layer}": divergence_bound(clean.double() / scale, upper / scale) for layer, scale in self.scales.items()}

    def read(self, tally: Tally) -> list[Reading]:
        if "place" in tally and int(tally.parts["place"]["perturbed"]):
            return []
        if "rows" not in tally:
            return [Reading.undefined("psi", "there is no sample to measure", layer=RAW)]
        rows = {name: value.numpy() for name, value in Rows(tally.parts["rows"].values).sorted().values.items()}
        n, mute = len(rows["id"]), ~rows["fine"]
        if mute.any():
            why = f"{mute.sum()} of {n} samples have NaN or inf among their logits (first id {rows['id'][mute][0]})"
            return [Reading.undefined(name, why, layer=layer, n=n) for layer in (RAW, NORMALISED) for name in _NAMES]
        readings: list[Reading] = []
        for layer in (RAW, NORMALISED):
            if f"worst {layer}" not in rows:
                readings += [unscaled(name, tally.parts["scale"], n) for name in _NAMES]
                continue
            readings += aggregates(rows[f"worst {layer}"], layer, self.confidence)
            readings.append(Reading("psi_single", float(rows[f"single {layer}"].mean()), layer, n=n))
            readings += self._more(layer, rows, tally)
        climbs = self.restarts * (2 if f"worst {NORMALISED}" in rows else 1)
        readings.append(Reading("psi_accuracy", float(rows["correct"].mean()), n=n))
        readings.append(Reading("psi_flat", float(rows["flat"].mean()) / (climbs * self.steps), n=n))
        if f"worst {NORMALISED}" in rows:
            readings.append(Reading("psi_scale", float(tally.parts["scale"]["scale"]), n=n))
        return readings

    def _more(self, layer: str, rows: Mapping[str, np.ndarray], tally: Tally) -> Iterator[Reading]:
        """The curve and the certified side of one layer."""
        n = len(rows["id"])
        for name, worst in rows.items():
            if name.startswith(f"curve {layer} "):
                radius = float(name.rpartition(" ")[2])
                yield _median("psi_curve", worst, f"{layer} eps={radius:.6g}", self.confidence)
        if self.bound is None:
            return
        upper = rows[f"bound {layer}"]
        if np.isinf(upper).all():
            why = "; ".join(sorted(tally.parts["reason"].values)) if "reason" in tally else "the certifier proves nothing finite"
            yield from (Reading.undefined(name, why, layer=layer, n=n) for name in ("divergence_bound", "psi_certified"))
            return
        if np.isfinite(upper).all():
            yield Reading("divergence_bound", float(upper.mean()), layer, Bound.UPPER, n=n, array=upper, axis="sample")
        else:
            yield Reading.undefined("divergence_bound", "nothing finite is proved for some samples", layer=layer, n=n)
        floor = 1 / np.maximum(upper, LEAST)
        yield Reading(
            "psi_certified", quantile_interval(floor, 0.5, self.confidence)[0], layer, Bound.LOWER, n=n, array=floor, axis="sample"
        )


def aggregates(worst: np.ndarray, layer: str, confidence: float = 0.95) -> list[Reading]:
    """Psi of a network in four ways, the count of what is capped, and the divergences themselves. worst: (n,) largest found."""
    n, capped = len(worst), worst < LEAST
    psi = np.sort(psi_of(worst[~capped]))
    count = f"{capped.sum()} capped samples are left out" if capped.any() else ""
    mean = float(worst.mean())
    readings = [_median("psi", worst, layer, confidence)]
    if mean < LEAST:
        readings.append(Reading.undefined("psi_inverse_mean", "no perturbation was found to change the output", layer=layer, n=n))
    else:
        readings.append(Reading("psi_inverse_mean", 1 / mean, layer, Bound.UPPER, n=n, **_inverse_ends(worst, confidence)))
    cut = int(TRIM * len(psi))
    for name, part in (("psi_mean", psi), ("psi_trimmed_mean", psi[cut : len(psi) - cut])):
        if len(part):
            readings.append(Reading(name, float(part.mean()), layer, Bound.UPPER, n=len(part), reason=count))
        else:
            readings.append(Reading.undefined(name, "every sample is capped", layer=layer, n=n))
    readings.append(Reading("psi_capped", float(capped.sum()), layer, Bound.UPPER, n=n))
    return [*readings, Reading("worst_divergence", mean, layer, Bound.LOWER, n=n, array=worst, axis="sample")]


def _median(name: str, worst: np.ndarray, layer: str, confidence: float) -> Reading:
    """The median of psi, with its interval and the psi of each sample."""
    psi, n = psi_of(worst), len(worst)
    value, low, high = quantile_interval(psi, 0.5, confidence)
    if value > 0.999 / LEAST:
        return Reading.undefined(
            name, f"{(worst < LEAST).sum()} of {n} samples are capped: no perturbation was found to change the output", layer=layer, n=n
        )
    return Reading(
        name, value, layer, Bound.UPPER, low, high if high < 0.999 / LEAST else None, confidence, n, psi, "sample",
        reason=f"{capped} samples are capped" if (capped := int((worst < LEAST).sum())) else "",
    )  # fmt: skip


def _inverse_ends(worst: np.ndarray, confidence: float) -> dict[str, Any]:
    try:
        low, high = mean_interval(worst, confidence, within=(0.0, np.inf))
    except UndefinedReading:  # a single sample shows nothing of how they vary
        return {}
    return {"low": 1 / high, "confidence": confidence, **({"high": 1 / low} if low > 0 else {})}
