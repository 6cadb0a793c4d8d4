"""Input-unit gradients: how strongly, and how evenly, do a layer's units depend on the input?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from brinell.core import norms
from brinell.core.draws import Draws, derive
from brinell.core.measurement import Bound, Reading
from brinell.core.probe import RECTIFIERS, Needs, Probe, View
from brinell.core.record import pooled, record
from brinell.core.tally import Max, Sum, Tallies, Tally

_PER_LAYER = ("input_gradient", "input_gradient_cv_samples", "input_gradient_cv_units")
_FAINT = 1e-8


def input_unit_gradients(net: Any, x: Tensor, layers: Mapping[str, Sequence[int] | None]) -> dict[str, Tensor]:
    """Size of the gradient of each unit's response in the input: m_u(x) = | d r_u(x) / dx |_2, r_u the mean over positions.

    One forward pass, and for each unit one backward pass of the whole batch from its layer down.

    Arguments:
        net: a network or module. x: (n, *d). layers: positions of units by layer name, None for all of a layer.

    Returns:
        (n, k) by layer name, in the order of the positions given.

    Raises:
        NetworkError: a name matches no recorded layer.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.ReLU())
        >>> _ = net[0].weight.data.copy_(torch.tensor([[3.0, 4.0]]))
        >>> input_unit_gradients(net, torch.ones(1, 2), {"1:0": None})
        {'1:0': tensor([[5.]])}
    """
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        with record(net, tuple(layers), kinds=RECTIFIERS, keep=pooled) as activations:
            net(z)
        return {name: _sizes(activations[name], z, units) for name, units in layers.items()}


def _sizes(responses: Tensor, z: Tensor, units: Sequence[int] | None) -> Tensor:
    columns = range(responses.shape[1]) if units is None else units
    if not responses.requires_grad:
        return torch.zeros(len(z), len(columns), device=z.device)
    found = []
    for unit in columns:
        (g,) = torch.autograd.grad(responses[:, unit].sum(), z, retain_graph=True)
        found.append(norms.length(g, 2))
    return torch.stack(found, 1) if found else torch.zeros(len(z), 0)


class InputGradient(Probe, name="input_gradient"):
    """Size and variability of the input-unit gradients of every layer.

    With m_u(x) = | d r_u(x) / dx |_2 for unit u (its response averaged over positions), readings of every layer:

    - `input_gradient`: mean of m over samples and units; array: of each unit measured;
    - `input_gradient_cv_samples`: std over samples of m_u over its mean, averaged over the units whose mean exceeds 1e-8; array: of each
      unit, NaN for the others;
    - `input_gradient_cv_units`: std over units of m(x) over its mean, averaged over the samples whose mean is not 0;

    and each of them for the network (no layer): the mean over layers. Standard deviations are those of a population (divisor n). A
    layer none of whose units depends on any input is UNDEFINED in the last two.

    Arguments:
        layers: names or patterns; () for every ReLU output. units: how many units of each layer are measured, those with the smallest
            hash of (layer, unit), the same for every network and cell; 0 for all. Each costs one backward pass.

    References: Leavitt & Morcos (2020), "Linking average- and worst-case perturbation robustness via class selectivity and
        dimensionality", arXiv 2010.07693 (that both axes are looked at; the norm was not found, the coefficient of variation is from
        the abstract's "variability"). Departure: units are sampled where a layer has more than `units`.

    Example:
        >>> InputGradient(units=0).spec()
        'input_gradient(units=0)'
    """

    layers: tuple[str, ...] = ()
    units: int = Field(default=16, ge=0)

    @property
    def needs(self) -> Needs:
        return Needs(layers=self.layers, net=True)

    @property
    def cost(self) -> tuple[int, int]:
        return 1, max(self.units, 1)

    def plan(self, layer: str, width: int) -> list[int]:
        """The units of a layer that are measured, in ascending order."""
        if not self.units or width <= self.units:
            return list(range(width))
        hashes = derive(0, "input_gradient.units", layer, ids=np.arange(width)).words(1).squeeze(1)
        return sorted(hashes.argsort(stable=True)[: self.units].tolist())

    def observe(self, view: View, *, draws: Draws) -> Tally:
        chosen = {name: self.plan(name, responses.shape[1]) for name, responses in view.activations.items()}
        layers = {name: _sums(m.double()) for name, m in input_unit_gradients(view.net, view.z, chosen).items()}
        order = {name: torch.tensor(place) for place, name in enumerate(layers)}
        return Tallies({"layers": Tallies(layers), "order": Max(order)})

    def read(self, tally: Tally) -> list[Reading]:
        layers = tally.parts.get("layers", Tallies()).parts
        if not layers:
            return [Reading.undefined("input_gradient", "no layer was recorded: the network has no ReLU, or there is no sample")]
        place = tally.parts["order"].values
        readings: list[Reading] = []
        for name in sorted(layers, key=lambda layer: (int(place[layer]), layer)):
            readings += _layer(name, layers[name])
        return [*readings, *(_network([r for r in readings if r.name == name]) for name in _PER_LAYER)]


def _sums(m: Tensor) -> Sum:
    """m: (n, k) float64 sizes."""
    mean = m.mean(1)
    spread = m.std(1, correction=0) / mean
    live = mean > 0
    return Sum.of(n=torch.tensor(len(m)), live=live.sum(), total=m.sum(0), squares=m.square().sum(0),
                  spread=torch.where(live, spread, 0.0).sum())  # fmt: skip


def _layer(layer: str, seen: Tally) -> list[Reading]:
    n = int(seen["n"])
    if not bool(torch.isfinite(seen["squares"]).all()):
        return [Reading.undefined(name, "a gradient is NaN or inf", layer=layer, n=n) for name in _PER_LAYER]
    mean = seen["total"] / n
    size = Reading("input_gradient", float(mean.mean()), layer, n=n, array=mean.numpy(), axis="unit")
    strong = mean > _FAINT
    if not bool(strong.any()):
        reason = "no measured unit of this layer depends on any input"
        return [size, *(Reading.undefined(name, reason, layer=layer, n=n) for name in _PER_LAYER[1:])]
    deviation = (seen["squares"] / n - mean.square()).clamp(min=0).sqrt()
    varied = torch.where(strong, deviation / mean, torch.nan).numpy()
    samples = Reading("input_gradient_cv_samples", float(np.nanmean(varied)), layer, n=n, array=varied, axis="unit")
    return [size, samples, Reading("input_gradient_cv_units", float(seen["spread"]) / int(seen["live"]), layer, n=n)]


def _network(layers: list[Reading]) -> Reading:
    """The mean over the layers that have a value; UNDEFINED where none has."""
    values = np.array([reading.value for reading in layers if reading.value is not None])
    if not len(values):
        return Reading.undefined(layers[0].name, f"layer {layers[0].layer}: {layers[0].reason}", n=layers[0].n)
    bound = Bound.EXACT if len(values) == len(layers) else Bound.ESTIMATE
    return Reading(layers[0].name, float(values.mean()), n=layers[0].n, bound=bound, array=values, axis="layer")
