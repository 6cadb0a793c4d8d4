"""Class selectivity: does a unit respond to one class, or to all alike?"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.errors import UndefinedReading
from brinell.core.measurement import Reading
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Max, Sum, Tallies, Tally

_PER_LAYER = ("selectivity", "preferred_classes", "dead_units", "response_level")


def class_selectivity(responses: Tensor, labels: Tensor, eps: float = 1e-6) -> Tensor:
    """The class selectivity index of every unit; differentiable, with the preferred class held constant.

    SI_u = (mu_max - mu_rest) / (mu_max + mu_rest + eps), where mu_c is the mean response of unit u to the samples of class c,
    mu_max the largest of these class means, and mu_rest the mean of the others, each class weighing the same whatever its size.
    In [0, 1): 0 for equal class means and for a dead unit (all responses 0), mu / (mu + eps) for a unit that responds to one
    class only. Multiplying responses by a number changes nothing (down to eps); adding a constant lowers the index.

    Arguments:
        responses: (n, u) non-negative responses: after the ReLU, averaged over positions. labels: (n,) classes; those that do
            not occur are left out. eps: > 0.

    Returns:
        (u,) in the dtype of `responses`.

    Raises:
        UndefinedReading: a response is negative, NaN or infinite; fewer than 2 classes occur; eps is not positive.

    References: Leavitt & Morcos (2021), "Selectivity considered harmful: evaluating the causal impact of class selectivity in
        DNNs", ICLR, arXiv 2003.01262; and (2020), "Linking average- and worst-case perturbation robustness via class selectivity
        and dimensionality", arXiv 2010.07693. That eps is 1e-6 there was not checked against the papers; it is configurable.

    Example:
        >>> responses = torch.tensor([[2.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
        >>> class_selectivity(responses, torch.tensor([0, 1, 2]))
        tensor([0.3333, 0.0000])
    """
    if responses.ndim != 2 or labels.shape != responses.shape[:1]:
        raise UndefinedReading(
            f"class selectivity needs (n, u) responses and (n,) labels; got {tuple(responses.shape)} and {tuple(labels.shape)}. "
            "Average over positions first"
        )
    if not bool(torch.isfinite(responses).all()):
        raise UndefinedReading("class selectivity of responses that hold NaN or inf does not exist")
    negative = int((responses < 0).sum())
    if negative:
        raise UndefinedReading(_signed(negative, responses.numel()))
    member = torch.nn.functional.one_hot(labels)
    return selectivity_index(member.to(responses.dtype).T @ responses, member.sum(0), eps)


def selectivity_index(sums: Tensor, counts: Tensor, eps: float = 1e-6) -> Tensor:
    """The class selectivity index from sums over the samples of each class; `class_selectivity` has the formula.

    Arguments:
        sums: (K, u) sums of non-negative responses. counts: (K,) samples of each class; classes with none are left out.

    Returns:
        (u,) in [0, 1).

    Raises:
        UndefinedReading: fewer than 2 classes have samples, or eps is not positive.

    Example:
        >>> selectivity_index(torch.tensor([[3.0], [99.0]]), torch.tensor([1, 99]))      # class means 3 and 1
        tensor([0.5000])
    """
    if not eps > 0:
        raise UndefinedReading(f"eps={eps} leaves dead units with 0/0; the usual value is 1e-6")
    best, rest, _ = _extremes(sums, counts)
    return (best - rest) / (best + rest + eps)


def _extremes(sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per unit: the largest class mean, the mean of the other class means, and the class that has the largest."""
    present = torch.nonzero(counts > 0).squeeze(1)
    if len(present) < 2:
        raise UndefinedReading(f"class selectivity compares classes, but {len(present)} class(es) have samples; at least 2 are needed")
    means = sums[present] / counts[present][:, None]
    best, place = means.max(0)
    rest = means.scatter(0, place[None], 0.0).sum(0) / (len(present) - 1)
    return best, rest, present[place]


def _signed(negative: int, total: int) -> str:
    return (
        f"{negative} of {total} responses are negative, and class selectivity is defined for non-negative ones; apply ReLU first, "
        "or record a layer after its ReLU"
    )


class Selectivity(Probe, name="selectivity"):
    """The class selectivity index of every unit, layer and of the network: do single units stand for single classes?

    The formula is in `class_selectivity`. Readings of every layer (all exact for the samples measured):

    - `selectivity`: mean over units; array: the index of each unit; dead units count as 0;
    - `preferred_classes`: number of classes that at least one unit prefers (responds to most); array: the preferred class of
      each unit (the first of equals), -1 for a dead one;
    - `dead_units`: share of units whose responses are all 0;
    - `response_level`: smallest mu_max + mu_rest among live units; where it is below about 100 eps, eps lowers the index; array:
      that of each unit;

    and `selectivity` of the network (no layer): the mean of the layers' means, so that wide layers do not dominate; array: the
    layers, in the order of the forward pass. Few samples per class inflate the index: for n samples per class with coefficient
    of variation cv, a unit that knows nothing of K classes has about 0.5 K/(K-1) m_K cv / sqrt(n), m_K the mean of the largest
    of K standard normals (1.54 at K = 10).

    A layer with negative, NaN or infinite responses, or fewer than 2 classes, is UNDEFINED, and the network with it.

    References: Leavitt & Morcos (2021), arXiv 2003.01262; Leavitt & Morcos (2020), arXiv 2010.07693.

    Departures: which layers the papers average is not stated in what was read of them; here every recorded ReLU output counts
    unless `layers` names some. The logits are no ReLU output and never count.

    Example:
        >>> Selectivity(layers=("layer1.*",)).spec()
        "selectivity(layers=('layer1.*',))"
    """

    layers: tuple[str, ...] = ()
    eps: float = Field(default=1e-6, gt=0)

    @property
    def needs(self) -> Needs:
        return Needs(layers=self.layers, pooled=True)

    def observe(self, view: View, *, draws: Draws) -> Tally:
        classes = len(view.classes) or view.logits.shape[1]
        member = torch.nn.functional.one_hot(view.y, classes)
        weights = member.T.double()
        layers = {
            name: Sum.of(
                sums=weights @ responses.double(),
                counts=member.sum(0),
                negative=(responses < 0).sum(),
                total=torch.tensor(responses.numel()),
            )
            for name, responses in view.activations.items()
        }
        order = {name: torch.tensor(place) for place, name in enumerate(layers)}
        return Tallies({"layers": Tallies(layers), "order": Max(order)})

    def read(self, tally: Tally) -> list[Reading]:
        layers = tally.parts.get("layers", Tallies()).parts
        if not layers:
            return [Reading.undefined("selectivity", "no layer was recorded: the network has no ReLU, or there is no sample")]
        place = tally.parts["order"].values
        readings: list[Reading] = []
        for name in sorted(layers, key=lambda layer: (int(place[layer]), layer)):
            readings += self._layer(name, layers[name])
        return [*readings, _network([reading for reading in readings if reading.name == "selectivity"])]

    def _layer(self, layer: str, seen: Tally) -> list[Reading]:
        sums, counts, n = seen["sums"], seen["counts"], int(seen["counts"].sum())
        if not bool(torch.isfinite(sums).all()):
            return [Reading.undefined(name, "responses hold NaN or inf", layer=layer, n=n) for name in _PER_LAYER]
        if int(seen["negative"]):
            reason = _signed(int(seen["negative"]), int(seen["total"]))
            return [Reading.undefined(name, reason, layer=layer, n=n) for name in _PER_LAYER]
        try:
            best, rest, preferred = _extremes(sums, counts)
        except UndefinedReading as error:
            return [Reading.undefined(name, str(error), layer=layer, n=n) for name in _PER_LAYER]
        level = (best + rest).numpy()
        live = level > 0
        classes = np.where(live, preferred.numpy(), -1)
        readings = [
            Reading.over_units("selectivity", selectivity_index(sums, counts, self.eps).numpy(), layer, n=n),
            Reading("preferred_classes", float(len(np.unique(classes[live]))), layer, n=n, array=classes, axis="unit"),
            Reading("dead_units", float(1 - live.mean()), layer, n=n),
        ]
        if not live.any():
            return [*readings, Reading.undefined("response_level", "every unit of this layer is dead", layer=layer, n=n)]
        return [*readings, Reading("response_level", float(level[live].min()), layer, n=n, array=level, axis="unit")]


def _network(layers: list[Reading]) -> Reading:
    means = [reading.value for reading in layers if reading.value is not None]
    if len(means) < len(layers):
        lost = next(reading for reading in layers if reading.value is None)
        return Reading.undefined("selectivity", f"layer {lost.layer}: {lost.reason}", n=lost.n)
    return Reading("selectivity", float(np.mean(means)), n=layers[0].n, array=np.array(means), axis="layer")
