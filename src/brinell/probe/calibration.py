"""Calibration: does the network know how often it is right?"""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from brinell.core.confidence import bootstrap_totals, mean_interval
from brinell.core.draws import Draws, derive
from brinell.core.errors import UndefinedReading
from brinell.core.measurement import Bound, Reading
from brinell.core.probe import Probe, View
from brinell.core.tally import Rows, Tally, encode

_RESAMPLES = 4000
_RANGES = {"brier": (0.0, 2.0), "nll": (0.0, math.inf), "overconfidence": (-1.0, 1.0)}


def scores(logits: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Per-sample proper scores and confidence of a classifier; all float64, from a softmax in float64.

    With p = softmax(logits): confidence = max_k p_k; brier = sum_k (p_k - 1[k = y])^2, the multi-class sum, in [0, 2] (for two
    classes twice the one-probability form); nll = -log p_y in nats, by log-softmax and so finite however large the logits.

    Arguments:
        logits: (n, K). y: (n,) labels.

    Returns:
        (n,) tensors `confidence`, `correct`, `brier`, `nll`; NaN where the logits hold NaN or +inf.

    References: Brier (1950), "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78:1.

    Example:
        >>> {name: round(float(value), 4) for name, value in scores(torch.zeros(1, 4), torch.tensor([0])).items()}
        {'confidence': 0.25, 'correct': 1.0, 'brier': 0.75, 'nll': 1.3863}
    """
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    truth = torch.nn.functional.one_hot(y, logits.shape[1])
    return {
        "confidence": p.amax(1),
        "correct": (logits.argmax(1) == y).double(),
        "brier": (p - truth).square().sum(1),
        "nll": -log_p.gather(1, y[:, None]).squeeze(1),
    }


def equal_mass_bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    """The bin 0, 1, ... of each sample: about n / bins samples each, in the order of confidence, equal confidences together.

    A boundary that would split a run of equal confidences moves to the end of the run, so bins are fewer where values repeat,
    and at most n.

    Example:
        >>> equal_mass_bins(np.array([0.9, 0.5, 0.6, 0.9]), 2)
        array([1, 0, 0, 1])
        >>> equal_mass_bins(np.array([0.5, 0.5, 0.5, 0.9]), 2)
        array([0, 0, 0, 1])
    """
    ordered = np.sort(confidence)
    cuts = np.arange(1, bins) * len(ordered) // bins
    lasts = np.unique(ordered[cuts[cuts > 0] - 1])  # the largest confidence of each bin but the last
    which = np.searchsorted(lasts, confidence, side="left")
    return np.unique(which, return_inverse=True)[1]


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> tuple[float, np.ndarray]:
    """The expected calibration error over equal-mass bins, and the reliability curve behind it.

    ECE = sum_b (n_b / n) |acc_b - conf_b|, in [0, 1], with acc_b the accuracy and conf_b the mean confidence of bin b.

    Arguments:
        confidence, correct: (n,) of n >= 1 samples; bins as in `equal_mass_bins`.

    Returns:
        The ECE, and (b, 3) rows (mean confidence, accuracy, share of samples).

    Example:
        >>> calibration_error(np.array([0.8, 0.8, 0.6, 0.6]), np.array([1, 1, 1, 0]), bins=2)[0].__round__(12)
        0.15
    """
    which = equal_mass_bins(confidence, bins)
    sizes = np.bincount(which)
    curve = np.stack((np.bincount(which, confidence) / sizes, np.bincount(which, correct) / sizes, sizes / len(which)), 1)
    return float(np.abs(curve[:, 1] - curve[:, 0]) @ curve[:, 2]), curve


class Calibration(Probe, name="calibration"):
    """Expected calibration error, Brier score and log-loss: are the network's confidences the frequencies with which it is right?

    Readings, each with an interval at level `confidence`:

    - `ece`: `calibration_error` over at most `bins` equal-mass bins; its array (axis `bin`) is the reliability curve, rows of
      (mean confidence, accuracy, share of samples);
    - `overconfidence`: mean confidence minus accuracy, in [-1, 1]; positive for a network that promises too much;
    - `brier`: mean of sum_k (p_k - 1[k = y])^2, in [0, 2];
    - `nll`: mean of -log p_y, in nats; UNDEFINED where a true class has probability exactly 0 (a logit of -inf).

    The ECE of n samples over-states that of the population: of a perfectly calibrated network with accuracy a it is about
    sqrt(2 B a (1 - a) / (pi n)) for B bins, 0.03 at n = 1000, a = 0.9, B = 15. So it is an ESTIMATE, and its interval is
    ece -+ q, cut to [0, 1], with q the quantile at `confidence` of the sum over the (fixed) bins of |change of the bin's gap|: by
    the triangle inequality the two ECEs differ by no more, so it is wide rather than short. The changes are independent normals
    with the variances of the bins. The other readings are exact for the samples measured, with Student's t intervals. Where the
    data has a column `cluster`, whole clusters are resampled instead. Fewer than 2 samples (clusters) leave no interval.

    All are UNDEFINED where a sample has NaN or +inf among its logits.

    References: Guo, Pleiss, Sun & Weinberger (2017), "On Calibration of Modern Neural Networks", arXiv 1706.04599, eq. 3 (ECE,
        there with bins of equal width); Nixon et al. (2019), "Measuring Calibration in Deep Learning", arXiv 1904.01685 (bins of
        equal mass); Brier (1950), Monthly Weather Review 78:1.

    Example:
        >>> Calibration(bins=10).spec()
        'calibration(bins=10)'
    """

    bins: int = Field(default=15, ge=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)

    def observe(self, view: View, *, draws: Draws) -> Tally:
        columns = {"id": view.ids, **scores(view.logits, view.y)}
        if "cluster" in view.columns:
            columns["cluster"] = encode(view.columns["cluster"])[0]
        return Rows.of(columns)

    def read(self, tally: Tally) -> list[Reading]:
        rows = {name: value.numpy() for name, value in Rows(tally.values).sorted().values.items()}
        names = ("ece", *_RANGES)
        if not len(rows.get("id", ())):
            return [Reading.undefined(name, "there is no sample to measure") for name in names]
        n = len(rows["id"])
        mute = np.isnan(rows["confidence"])
        if mute.any():
            reason = f"{mute.sum()} of {n} samples have NaN or +inf among their logits (first id {rows['id'][mute][0]})"
            return [Reading.undefined(name, reason, n=n) for name in names]
        rows["overconfidence"] = rows["confidence"] - rows["correct"]
        return [self._error(rows), *(self._mean(name, rows[name], rows) for name in _RANGES)]

    def _error(self, rows: dict[str, np.ndarray]) -> Reading:
        value, curve = calibration_error(rows["confidence"], rows["correct"], self.bins)
        which = equal_mass_bins(rows["confidence"], self.bins)
        try:
            reach = _deviation(rows["overconfidence"], which, rows.get("cluster"), self.confidence)
        except UndefinedReading:
            return Reading("ece", value, bound=Bound.ESTIMATE, n=len(which), array=curve, axis="bin")
        low, high = max(0.0, value - reach), min(1.0, value + reach)
        return Reading(
            "ece", value, bound=Bound.ESTIMATE, low=low, high=high, confidence=self.confidence, n=len(which), array=curve, axis="bin"
        )  # fmt: skip

    def _mean(self, name: str, values: np.ndarray, rows: dict[str, np.ndarray]) -> Reading:
        wrong = ~np.isfinite(values)
        if wrong.any():
            reason = f"{wrong.sum()} of {len(values)} samples give their true class probability 0 (first id {rows['id'][wrong][0]})"
            return Reading.undefined(name, reason, n=len(values))
        mean = float(values.mean())
        try:
            low, high = mean_interval(values, self.confidence, rows.get("cluster"), within=_RANGES[name])
        except UndefinedReading:  # a single sample or cluster: there is a value, but nothing shows how it varies
            return Reading(name, mean, n=len(values))
        return Reading(name, mean, low=low, high=high, confidence=self.confidence, n=len(values))


def _deviation(gaps: np.ndarray, which: np.ndarray, clusters: np.ndarray | None, confidence: float) -> float:
    """The quantile of sum_b |T*_b - T_b|, T_b = (1/n) sum of the gaps in bin b, over new samples from the same population."""
    n, bins = len(gaps), int(which.max()) + 1
    if clusters is None:
        if n < 2:
            raise UndefinedReading(f"the calibration error of {n} sample has no interval")
        spread = np.sqrt(np.bincount(which, gaps**2)) / n
        normal = derive(0, "calibration.ece", ids=range(_RESAMPLES)).normal(bins, dtype=torch.float64).numpy()
        return float(np.quantile(np.abs(normal) @ spread, confidence))
    units = np.unique(clusters, return_inverse=True)[1]
    sizes = np.bincount(units)
    sums = np.bincount(units * bins + which, gaps, minlength=len(sizes) * bins).reshape(len(sizes), bins)
    resampled = bootstrap_totals(np.concatenate((sums, sizes[:, None]), 1), resamples=_RESAMPLES)
    change = resampled[:, :-1] / resampled[:, -1:] - sums.sum(0) / n
    return float(np.quantile(np.abs(change).sum(1), confidence))
