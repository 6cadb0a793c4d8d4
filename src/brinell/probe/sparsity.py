"""Sparsity: do few units answer, or many, and does a unit answer to few samples, or to many?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.errors import UndefinedReading
from brinell.core.measurement import Reading
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Sum, Tallies, Tally
from brinell.probe.layers import units_of, widths_of
from brinell.probe.selectivity import negatives

_PER_LAYER = ("zeros", "lifetime_sparsity", "population_sparsity", "lifetime_hoyer", "population_hoyer")
_OF_LAYERS = ("n", "live", "population", "population_hoyer")


def treves_rolls(responses: Tensor, axis: int = 0) -> Tensor:
    """The sparseness of Treves and Rolls along one axis, turned so that 1 is sparse and 0 is dense.

        S = (1 - a) / (1 - 1/m),   a = (mean r)^2 / mean(r^2),   over the m entries of the axis

    In [0, 1]: 0 where all entries are equal, 1 where one alone is not zero. Multiplying r by a number changes nothing. Along samples
    (axis 0) it is lifetime sparsity of each unit, along units (axis 1) population sparsity for each sample.

    Arguments:
        responses: (n, u) non-negative.

    Returns:
        float64, one value for every line along the axis; NaN where all its entries are 0, for which it is not defined.

    Raises:
        UndefinedReading: a response is negative, NaN or infinite, or there are fewer than 2 entries.

    References: Treves & Rolls (1991), "What determines the capacity of autoassociative memories in the brain?", Network 2;
        Vinje & Gallant (2000), "Sparse coding and decorrelation in primary visual cortex during natural vision", Science 287
        (the normalised form).

    Example:
        >>> treves_rolls(torch.tensor([[1.0, 0.0], [1.0, 3.0], [1.0, 0.0]]))
        tensor([0., 1.], dtype=torch.float64)
    """
    r = _checked(responses, axis)
    return _treves_rolls(r.sum(axis), r.square().sum(axis), r.shape[axis])


def hoyer(responses: Tensor, axis: int = 0) -> Tensor:
    """Hoyer's sparseness along one axis: how far the L1 norm lies below sqrt(m) times the L2 norm.

        H = (sqrt(m) - |r|_1 / |r|_2) / (sqrt(m) - 1)     over the m entries of the axis

    In [0, 1]: 0 where all entries are equal, 1 where one alone is not zero; NaN where all are 0.

    Arguments and errors: as `treves_rolls`.

    References: Hoyer (2004), "Non-negative matrix factorization with sparseness constraints", JMLR 5, section 3.1.

    Example:
        >>> hoyer(torch.tensor([[3.0, 0.0], [4.0, 2.0]])).tolist()                # (sqrt 2 - 7/5) / (sqrt 2 - 1), and 1
        [0.0343..., 1.0]
    """
    r = _checked(responses, axis)
    return _hoyer(r.sum(axis), r.square().sum(axis), r.shape[axis])


def _treves_rolls(total: Tensor, squares: Tensor, m: int | Tensor) -> Tensor:
    return (1 - total.square() / (m * squares)) / (1 - 1 / m)


def _hoyer(total: Tensor, squares: Tensor, m: int | Tensor) -> Tensor:
    return (m**0.5 - total / squares.sqrt()) / (m**0.5 - 1)


def _checked(responses: Tensor, axis: int) -> Tensor:
    if not bool(torch.isfinite(responses).all()):
        raise UndefinedReading("the sparsity of responses that hold NaN or inf does not exist")
    if bool((responses < 0).any()):
        raise UndefinedReading("sparsity is defined for non-negative responses; apply ReLU first, or record a layer after its ReLU")
    if responses.shape[axis] < 2:
        raise UndefinedReading(f"sparsity compares entries, but there are {responses.shape[axis]} along axis {axis}; give at least 2")
    return responses.double()


class Sparsity(Probe, name="sparsity", version=2):
    """How sparse each layer's responses are, over samples and over units: the plain sparsity beside the semantic one (selectivity).

    A unit can be silent most of the time without standing for a class, and can prefer a class without ever being silent. Readings
    of every layer, from responses r (n, u):

    - `zeros`: share of responses that are 0; array: of each unit;
    - `lifetime_sparsity`, `lifetime_hoyer`: over the samples, mean over live units (those that ever respond); array: each unit, NaN
      for dead ones;
    - `population_sparsity`, `population_hoyer`: over the units, mean over the samples to which any unit responds;

    and each of them for the network (no layer): the mean over layers; array: the layers, in the order of the forward pass. The
    formulas are in `treves_rolls` and `hoyer`. Values lie in [0, 1] and are exact for the samples measured; lifetime sparsity has a
    slight downward trend in n, so compare at equal n.

    A layer with negative, NaN or infinite responses, fewer than 2 samples or units, or without any response, is UNDEFINED.

    Arguments:
        layers: names or patterns; () for every ReLU output. pooled: responses are means over positions; otherwise every position of a
            map counts as a unit of its own.

    References: Treves & Rolls (1991), Vinje & Gallant (2000), Hoyer (2004): see `treves_rolls` and `hoyer`.

    Example:
        >>> Sparsity(pooled=False).spec()
        'sparsity(pooled=False)'
    """

    layers: tuple[str, ...] = ()
    pooled: bool = True

    @property
    def needs(self) -> Needs:
        return Needs(layers=self.layers, pooled=self.pooled)

    def observe(self, view: View, *, draws: Draws) -> Tally:
        layers = [responses.flatten(1) for responses in view.activations.values()]
        if not layers:
            return Tallies()
        blocks = [layers] if self.pooled else [[layer] for layer in layers]  # means are few: all at once; whole maps one by one
        sums = [_sums(block) for block in blocks]
        widths = widths_of(dict(zip(view.activations, layers, strict=True)))
        return Tallies({"layers": widths, "sums": Sum.of({key: torch.cat([part[key] for part in sums]) for key in sums[0]})})

    def read(self, tally: Tally) -> list[Reading]:
        if "layers" not in tally:
            return [Reading.undefined("zeros", "no layer was recorded: the network has no ReLU, or there is no sample")]
        readings: list[Reading] = []
        for place, (name, units) in enumerate(units_of(tally.parts["layers"]).items()):
            seen = {key: value[place] if key in _OF_LAYERS else value[units] for key, value in tally.parts["sums"].values.items()}
            readings += _layer(name, seen)
        return [*readings, *(over_layers([r for r in readings if r.name == name]) for name in _PER_LAYER)]


def over_layers(layers: list[Reading]) -> Reading:
    """The mean of a reading over layers, the layers in its array; UNDEFINED as soon as one layer is."""
    lost = next((reading for reading in layers if reading.value is None), None)
    if lost is not None:
        return Reading.undefined(lost.name, f"layer {lost.layer}: {lost.reason}", n=lost.n)
    values = np.array([reading.value for reading in layers])
    return Reading(layers[0].name, float(values.mean()), n=layers[0].n, array=values, axis="layer")


def _sums(layers: list[Tensor]) -> dict[str, Tensor]:
    """layers: (n, u) each. The population measures are summed per sample, since a sample is never split over shards.

    Returns:
        Entries of all units side by side, and those in `_OF_LAYERS` of all layers.
    """
    narrow = torch.cat(layers, 1)
    r = narrow.double()
    powers = r.square()
    energy = powers.sum(0)
    whole = bool(energy.isfinite().all())  # squares of float64 can overflow, so the rest is counted
    widths = [layer.shape[1] for layer in layers]
    total, squares = (torch.stack([part.sum(1) for part in values.split(widths, 1)], 1) for values in (r, powers))
    m = torch.tensor(widths, dtype=r.dtype, device=r.device)
    live = squares > 0
    return {
        "n": torch.full((len(widths),), len(r)), "live": live.sum(0),
        "population": torch.where(live, _treves_rolls(total, squares, m), 0.0).sum(0),
        "population_hoyer": torch.where(live, _hoyer(total, squares, m), 0.0).sum(0),
        "negative": negatives(narrow), "broken": torch.zeros_like(energy, dtype=torch.int64) if whole else (~r.isfinite()).sum(0),
        "zeros": (narrow == 0).sum(0), "total": r.sum(0), "squares": energy,
    }  # fmt: skip


def _layer(layer: str, seen: dict[str, Tensor]) -> list[Reading]:
    n, units, broken, negative = int(seen["n"]), len(seen["zeros"]), int(seen["broken"].sum()), int(seen["negative"].sum())
    reason = ""
    if broken:
        reason = f"{broken} responses are NaN or inf"
    elif negative:
        reason = f"{negative} of {n * units} responses are negative; record a layer after its ReLU"
    elif n < 2 or units < 2:
        reason = f"there are {n} samples and {units} units; sparsity compares at least 2 of each"
    if reason:
        return [Reading.undefined(name, reason, layer=layer, n=n) for name in _PER_LAYER]
    zeros = Reading.over_units("zeros", (seen["zeros"].double() / n).numpy(), layer, n=n)
    if not int(seen["live"]):
        return [zeros, *(Reading.undefined(name, "every unit of this layer is dead", layer=layer, n=n) for name in _PER_LAYER[1:])]
    live = seen["squares"] > 0
    lifetime = [("lifetime_sparsity", _treves_rolls), ("lifetime_hoyer", _hoyer)]
    readings = [zeros]
    for name, measure in lifetime:
        values = torch.where(live, measure(seen["total"], seen["squares"], n), torch.nan).numpy()
        readings.append(Reading(name, float(np.nanmean(values)), layer, n=n, array=values, axis="unit"))
    for name in ("population", "population_hoyer"):
        value = float(seen[name]) / int(seen["live"])
        readings.append(Reading(name if name.endswith("hoyer") else "population_sparsity", value, layer, n=n))
    return readings
