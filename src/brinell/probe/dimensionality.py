"""Dimensionality: in how many directions do a layer's activations vary, and how many does a perturbation add?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field, model_validator
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.errors import UndefinedReading
from brinell.core.measurement import Bound, Reading
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Sample, Tallies, Tally
from brinell.probe.intrinsic import nearest_distances, nearest_neighbour_dimension_of, two_nn_of
from brinell.probe.layers import units_of, widths_of
from brinell.probe.moments import BlockMoments, covariance_of
from brinell.probe.sketch import sketched, unfolded_ratio
from brinell.probe.spectrum import components, effective_rank, participation_ratio_of, spectrum_of

SUFFIX = {"perturbed": "", "clean": "_clean", "change": "_change"}
SHARES = (0.90, 0.95, 0.99)
LINEAR: dict[str, Callable[[Tensor], float]] = {
    **{f"components_{share:.0%}".rstrip("%"): lambda values, share=share: float(components(values, share)) for share in SHARES},
    "participation_ratio": participation_ratio_of,
    "effective_rank": effective_rank,
}
NEIGHBOURS = 20
NONLINEAR: dict[str, Callable[[Tensor], float]] = {"two_nn": two_nn_of, "nearest_neighbour_dimension": nearest_neighbour_dimension_of}


class Dimensionality(Probe, name="dimensionality", version=3):
    """The number of dimensions of every layer's activations A(z), and of what the perturbation changed, A(z) - A(x).

    From the eigenvalues lambda of the covariance of a layer's (n, u) activations: `components_90`, `components_95`, `components_99`
    (the least number of principal components with that share of the variance), `participation_ratio` (sum lambda)^2 / sum lambda^2,
    and `effective_rank` exp(entropy of lambda / sum lambda). From the distances between up to `sample` samples (those with the
    smallest hash of their id): `two_nn` and `nearest_neighbour_dimension`, which see curved sheets as what they are. Every name has
    four forms, with its layer:

    - NAME: of the perturbed activations (under `clean`, of the clean ones); `components_90` carries the eigenvalues as array;
    - NAME_clean: of the clean ones of the same samples; NAME_increase: NAME - NAME_clean;
    - NAME_change: of the change A(z) - A(x); 0 where nothing changed.

    The last three are read where the perturbation moved a sample; where nothing varies every number is 0. Linear readings are exact for the
    samples measured; the non-linear ones are estimates. They depend on n, and on how large a perturbation is: compare attack and
    corruption at equal mean L2 norm, and with random noise of that norm (`l2_noise`).

    With `flat=k` the linear readings are of whole maps, d = u * h * w entries, instead of means over positions: entries are multiplied
    by random signs and folded into k sums (entry i into sum i mod k), whose covariance S stands for theirs, Sigma. Sum and squares of
    every entry's variance are known exactly, and the squares of S off the diagonal have, over the signs, the mean of those of Sigma
    between entries of different sums, so

        participation_ratio = tr(Sigma)^2 / ( sum_i Sigma_ii^2 + k/(k-1) (tr(Sigma) / tr(S))^2 sum_{a != b} S_ab^2 )

    where k/(k-1) stands for the pairs that share a sum, and the ratio of the traces takes most of the error away where few directions
    hold the variance. Component counts and effective rank are read off the spectrum of S, of rank
    `sketch_rank` <= k, and lean low where they come near it. `sketch_error` is half the relative difference between the participation
    ratios of the even and the odd sums. Where d <= k nothing is folded, and all is exact.

    Arguments:
        layers: names or patterns; () for every ReLU output. flat: size of the sketch, 0 for means over positions.
        sample: samples kept for the non-linear readings, 0 for none of them (in memory: sample * u numbers per layer and cloud).

    References: Leavitt & Morcos (2020), "Linking average- and worst-case perturbation robustness via class selectivity and
        dimensionality", arXiv 2010.07693 (its share of variance was not found; 0.90, 0.95 and 0.99 are given); see `probe.spectrum`
        for each measure and `probe.sketch` for the sketch.

    Example:
        >>> Dimensionality(layers=("layer1.*",), sample=0).spec()
        "dimensionality(layers=('layer1.*',), sample=0)"
    """

    layers: tuple[str, ...] = ()
    flat: int = Field(default=0, ge=0)
    sample: int = Field(default=2000, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Dimensionality:
        if 0 < self.flat < 8:
            raise ValueError(
                f"flat={self.flat} sums tell nothing of a spectrum; give at least 8 (256 is usual), or 0 for means over positions"
            )
        return self

    @property
    def needs(self) -> Needs:
        return Needs(layers=self.layers, pooled=not self.flat, clean=True)

    def observe(self, view: View, *, draws: Draws) -> Tally:
        now = {name: _points(value) for name, value in view.activations.items()}
        clouds = {"still": now}
        if view.clean is not None and view.z is not view.x:
            clean = {name: _points(view.clean.activations[name]) for name in now}
            clouds = {"perturbed": now, "clean": clean, "change": {name: now[name] - clean[name] for name in now}}
        if not now:
            return Tallies()
        kept: dict[str, Tally] = {"layers": widths_of(now)}
        kept["moments"] = Tallies({cloud: self._moments(found) for cloud, found in clouds.items()})
        if self.sample and not self.flat:
            rows = {cloud: torch.cat(tuple(found.values()), 1) for cloud, found in clouds.items()}
            kept["sample"] = Tallies({cloud: Sample.pick(self.sample, view.ids, {"points": wide}) for cloud, wide in rows.items()})
        return Tallies(kept)

    def _moments(self, points: dict[str, Tensor]) -> Tallies:
        """Of every layer: exact where the points are narrow, all side by side, and sketched where they are wide."""
        wide = [name for name, found in points.items() if 0 < self.flat < found.shape[1]]
        narrow = [found for name, found in points.items() if name not in wide]
        kept: dict[str, Tally] = {}
        if narrow:
            kept["exact"] = BlockMoments.about(torch.cat(narrow, 1), [found.shape[1] for found in narrow])
        for name in wide:
            sums, entries = sketched(points[name], self.flat, name)
            kept[name] = Tallies({"points": sums, "entries": entries})
        return Tallies(kept)

    def read(self, tally: Tally) -> list[Reading]:
        if "layers" not in tally:
            return [Reading.undefined("components_90", "no layer was recorded: the network has no ReLU, or there is no sample")]
        units = units_of(tally.parts["layers"])
        clouds = {cloud: _by_layer(list(units), found) for cloud, found in _whole(tally.parts["moments"].parts).items()}
        samples = _whole(tally.parts.get("sample", Tallies()).parts)
        readings: list[Reading] = []
        for name, columns in units.items():
            points = {cloud: sample["points"][:, columns] for cloud, sample in samples.items()}
            readings += self._layer(name, {cloud: found[name] for cloud, found in clouds.items()}, points)
        return readings

    def _layer(self, layer: str, clouds: dict[str, Tally], samples: dict[str, Tensor]) -> list[Reading]:
        readings: list[Reading] = []
        for cloud, tally in clouds.items():
            readings += self._read_cloud(layer, SUFFIX[cloud], tally, samples.get(cloud))
        by_name = {reading.name: reading for reading in readings}
        for name in (*LINEAR, *NONLINEAR):
            if name in by_name and f"{name}_clean" in by_name:
                readings.append(_difference(f"{name}_increase", by_name[name], by_name[f"{name}_clean"]))
        return readings

    def _read_cloud(self, layer: str, suffix: str, cloud: Tally, sample: Tensor | None) -> list[Reading]:
        moments = cloud.parts["points"]
        if not bool(torch.isfinite(moments["scatter"]).all()):
            reason, n = "activations hold NaN or inf", int(moments["count"])
            return [Reading.undefined(f"{name}{suffix}", reason, layer=layer, n=n) for name in LINEAR]
        readings = self._linear(layer, suffix, cloud)
        return readings if sample is None else [*readings, *_nonlinear(layer, suffix, sample)]

    def _linear(self, layer: str, suffix: str, cloud: Tally) -> list[Reading]:
        moments = cloud.parts["points"]
        n, covariance = int(moments["count"]), covariance_of(moments)
        values = spectrum_of(covariance)
        numbers = {name: measure(values) for name, measure in LINEAR.items()}
        bound, readings = Bound.EXACT, []
        if "entries" in cloud.parts:
            bound = Bound.ESTIMATE
            numbers["participation_ratio"], error = unfolded_ratio(covariance, covariance_of(cloud.parts["entries"]))
            rank = float((values > 1e-9 * values.max()).sum()) if float(values.max()) > 0 else 0.0
            readings = [
                Reading(f"sketch_{what}{suffix}", number, layer, bound=bound, n=n) for what, number in (("rank", rank), ("error", error))
            ]
        for place, (name, number) in enumerate(numbers.items()):
            array, axis = (values.numpy(), "component") if not place else (None, "")
            readings.append(Reading(f"{name}{suffix}", number, layer, bound=bound, n=n, array=array, axis=axis))
        return readings


def _points(activation: Tensor) -> Tensor:
    """(n, d): a map by positions and then channels, as it lies in memory where channels come last."""
    return (activation.movedim(1, -1) if activation.ndim > 3 else activation).flatten(1)


def _by_layer(layers: list[str], cloud: Tally) -> dict[str, Tally]:
    """The moments of each layer of a cloud as `points`, and where they were sketched those of its `entries`."""
    exact = cloud.parts.get("exact")
    narrow = iter(exact.split() if isinstance(exact, BlockMoments) else ())
    return {name: cloud.parts[name] if name in cloud.parts else Tallies({"points": next(narrow)}) for name in layers}


def _whole(parts: dict[str, Tally]) -> dict[str, Tally]:
    """The clouds of all samples; shards in which nothing was moved have left one, which stands for both sides of no change."""
    if "still" not in parts:
        return parts
    still = parts["still"]
    if "perturbed" not in parts:
        return {"perturbed": still}
    return {name: parts[name] + (_unmoved(still) if name == "change" else still) for name in SUFFIX}


def _unmoved(still: Tally) -> Tally:
    """The change of samples that were not moved: as many points, all 0."""
    if isinstance(still, Tallies):
        return Tallies({name: _unmoved(part) for name, part in still.parts.items()})
    kept = {"count", "widths", "id", "#", "#k"}
    return type(still)({name: value if name in kept else torch.zeros_like(value) for name, value in still.values.items()})


def _difference(name: str, perturbed: Reading, clean: Reading) -> Reading:
    if perturbed.value is None or clean.value is None:
        lost = perturbed if perturbed.value is None else clean
        return Reading.undefined(name, f"{lost.name}: {lost.reason}", layer=lost.layer, n=lost.n)
    return Reading(name, perturbed.value - clean.value, perturbed.layer, bound=perturbed.bound, n=perturbed.n)


def _nonlinear(layer: str, suffix: str, points: Tensor) -> list[Reading]:
    """What is read off the distances between the points of a sample; they are taken once for all."""
    if suffix == "_change" and not bool(points.any()):
        return [Reading(f"{name}{suffix}", 0.0, layer, bound=Bound.ESTIMATE, n=len(points)) for name in NONLINEAR]
    distances, readings = nearest_distances(points, NEIGHBOURS), []
    for name, measure in NONLINEAR.items():
        try:
            readings.append(Reading(f"{name}{suffix}", measure(distances), layer, bound=Bound.ESTIMATE, n=len(points)))
        except UndefinedReading as error:
            readings.append(Reading.undefined(f"{name}{suffix}", str(error), layer=layer, n=len(points)))
    return readings
