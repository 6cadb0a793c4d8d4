"""Off-axis selectivity: has class selectivity left the single units for other directions of a layer?"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from brinell.core.draws import Draws, derive
from brinell.core.errors import UndefinedReading
from brinell.core.measurement import Bound, Reading
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Max, Sample, Tallies, Tally
from brinell.probe.selectivity import class_selectivity
from brinell.probe.sparsity import over_layers

_NAMES = ("on_axis_selectivity", "off_axis_selectivity", "random_axis_selectivity", "off_axis_gain")
_RATE = 0.01


def most_selective_rotation(responses: Tensor, labels: Tensor, start: Tensor, *, steps: int = 100, eps: float = 1e-6) -> Tensor:
    """An orthogonal W near `start` whose rotated and rectified responses are as class-selective as gradient ascent makes them.

        W = start (1 + B)^-1 (1 - B),  B = A - A',   maximise  mean_u SI_u( ReLU(r W) )  over A,   by Adam from A = 0

    Every B gives an orthogonal W (Cayley's transform). The best W met on the way is returned; it is never worse than `start`.

    Arguments:
        responses: (n, u) non-negative. labels: (n,). start: (u, u) orthogonal, float64 like the result.

    Example:
        >>> mixed = torch.eye(2).repeat(4, 1) @ torch.tensor([[0.6, 0.8], [-0.8, 0.6]]) + 1           # one class each, then turned
        >>> labels = torch.tensor([0, 1] * 4)
        >>> w = most_selective_rotation(mixed - mixed.min(), labels, torch.eye(2, dtype=torch.float64))
        >>> bool(rotated_selectivity(mixed - mixed.min(), labels, w) > rotated_selectivity(mixed - mixed.min(), labels, torch.eye(2)))
        True
    """
    r = responses.double()
    if not r.any():
        return start.double()
    r = r / r.amax()
    one = torch.eye(len(start), dtype=torch.float64)
    a, mean, square = torch.zeros(3, *start.shape, dtype=torch.float64)
    best, best_value = start.double(), -1.0
    for step in range(1, steps + 2):
        with torch.enable_grad():
            a.requires_grad_()
            turn = a - a.T
            w = start.double() @ torch.linalg.solve(one + turn, one - turn)
            value = class_selectivity((r @ w).relu(), labels, eps).mean()
            (slope,) = torch.autograd.grad(value, a)
        if value.item() > best_value:
            best, best_value = w.detach(), value.item()
        mean = 0.9 * mean + 0.1 * slope
        square = 0.999 * square + 0.001 * slope.square()
        a = a.detach() + _RATE * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-4)
    return best


def rotated_selectivity(responses: Tensor, labels: Tensor, rotation: Tensor, eps: float = 1e-6) -> float:
    """The mean class selectivity of ReLU(r W), W orthogonal with a new unit in each column; units that never answer count as 0."""
    return float(class_selectivity((responses.double() @ rotation.double()).relu(), labels, eps).mean())


class OffAxis(Probe, name="off_axis_selectivity"):
    """Is a layer more class-selective along other axes than its units'? Then lowering the units' selectivity may only have turned it.

    From a sample of responses r (n, u), one half (every second sample in the order of the hashes of their ids) to find a rotation, the
    other to read it. Readings of every layer:

    - `on_axis_selectivity`: mean index of the units as they are;
    - `off_axis_selectivity`: mean index of ReLU(r W) for the orthogonal W that made it largest on the first half, by gradient ascent from
      the units' own axes and from random ones (`most_selective_rotation`), the larger of the two;
    - `random_axis_selectivity`: of ReLU(r W) for a random W, mean over `rotations`: what turning and rectifying do by themselves;
    - `off_axis_gain`: off_axis_selectivity - on_axis_selectivity;

    and each for the network (no layer): the mean over layers. All are estimates: ascent may end in a local maximum, so the second is a
    lower bound of what the best rotation has on the first half. A layer with negative, NaN or infinite responses, or a half with fewer
    than 2 classes, is UNDEFINED. It takes some steps * u^3 operations.

    Arguments:
        layers: names or patterns; () for every ReLU output. sample: samples kept. steps: of the ascent. rotations: random ones.
            eps: of the index.

    References: Leavitt & Morcos (2021), "Selectivity considered harmful", ICLR, arXiv 2003.01262, has a control for selectivity off
        the axes of units; its method was not found, this one is ours.

    Example:
        >>> OffAxis(sample=300).spec()
        'off_axis_selectivity(sample=300)'
    """

    layers: tuple[str, ...] = ()
    sample: int = Field(default=1000, ge=4)
    steps: int = Field(default=100, ge=0)
    rotations: int = Field(default=3, ge=1)
    eps: float = Field(default=1e-6, gt=0)

    @property
    def needs(self) -> Needs:
        return Needs(layers=self.layers, pooled=True)

    def observe(self, view: View, *, draws: Draws) -> Tally:
        columns = {**{name: value.float() for name, value in view.activations.items()}, "labels": view.y}
        order = {name: torch.tensor(place) for place, name in enumerate(view.activations)}
        return Tallies({"sample": Sample.pick(self.sample, view.ids, columns), "order": Max(order)})

    def read(self, tally: Tally) -> list[Reading]:
        place = tally.parts["order"].values if "order" in tally else {}
        if not place:
            return [Reading.undefined(_NAMES[1], "no layer was recorded: the network has no ReLU, or there is no sample")]
        kept = tally.parts["sample"]
        readings: list[Reading] = []
        for name in sorted(place, key=lambda layer: (int(place[layer]), layer)):
            readings += self._layer(name, kept[name].double(), kept["labels"])
        return [*readings, *(over_layers([r for r in readings if r.name == name]) for name in _NAMES)]

    def _layer(self, layer: str, r: Tensor, labels: Tensor) -> list[Reading]:
        n, axes = len(r), torch.eye(r.shape[1], dtype=torch.float64)
        if bool((r < 0).any()):
            reason = "responses are negative, and class selectivity is defined for non-negative ones; record a layer after its ReLU"
            return [Reading.undefined(name, reason, layer=layer, n=n) for name in _NAMES]
        lots = [_random_rotation(r.shape[1], layer, k) for k in range(self.rotations)]
        (found_on, found_labels), (r, labels) = (r[::2], labels[::2]), (r[1::2], labels[1::2])
        try:
            found = [most_selective_rotation(found_on, found_labels, start, steps=self.steps, eps=self.eps) for start in (axes, lots[0])]
            on = float(class_selectivity(r, labels, self.eps).mean())
            off, by_chance = ([rotated_selectivity(r, labels, w, self.eps) for w in several] for several in (found, lots))
        except UndefinedReading as error:
            return [Reading.undefined(name, str(error), layer=layer, n=n) for name in _NAMES]
        numbers = (on, max(off), sum(by_chance) / len(by_chance), max(off) - on)
        return [Reading(name, number, layer, bound=Bound.ESTIMATE, n=n) for name, number in zip(_NAMES, numbers, strict=True)]


def _random_rotation(size: int, layer: str, lot: int) -> Tensor:
    """(size, size) orthogonal, uniform among all, the same for every network."""
    normal = derive(0, "off_axis.rotation", layer, lot, ids=range(size)).normal(size, dtype=torch.float64)
    q, r = torch.linalg.qr(normal)
    return q * r.diagonal().sign()
