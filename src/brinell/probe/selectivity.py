"""Class selectivity: does a unit respond to one class, or to all alike?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from brinell.core.component import State
from brinell.core.dataset import Dataset
from brinell.core.draws import Draws
from brinell.core.errors import UndefinedReading
from brinell.core.measurement import Bound, Reading
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Sample, Sum, Tallies, Tally, encode
from brinell.probe.layers import units_of, widths_of
from brinell.probe.tuning import f_ratio_of_sums, preference_auc

_PER_LAYER = ("selectivity", "preferred_classes", "dead_units", "response_level", "f_ratio")


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


def negatives(responses: Tensor) -> Tensor:
    """How many of the (n, u) responses of each unit are negative, (u,); most layers have none, which their minima tell sooner."""
    if len(responses) and not bool((responses.amin(0) < 0).any()):
        return torch.zeros(responses.shape[1], dtype=torch.int64, device=responses.device)
    return (responses < 0).sum(0)


def _signed(negative: int, total: int) -> str:
    return (
        f"{negative} of {total} responses are negative, and class selectivity is defined for non-negative ones; apply ReLU first, "
        "or record a layer after its ReLU"
    )


class Selectivity(Probe, name="class_selectivity", version=2):
    """The class selectivity index of every unit, layer and of the network: do single units stand for single classes?

    The formula is in `class_selectivity`. Readings of every layer (all exact for the samples measured):

    - `selectivity`: mean over units; array: the index of each unit; dead units count as 0;
    - `preferred_classes`: number of classes that at least one unit prefers (responds to most); array: the preferred class of
      each unit (the first of equals), -1 for a dead one;
    - `dead_units`: share of units whose responses are all 0;
    - `response_level`: smallest mu_max + mu_rest among live units; where it is below about 100 eps, eps lowers the index; array:
      that of each unit;
    - `f_ratio`: the F-ratio of each unit (`f_ratio`), mean over the units that have one; unlike the index it does not change when
      a constant is added to a response, as a bias can;
    - `preference_auc`: how well each unit detects the class it prefers (`preference_auc`), mean over live units, from up to
      `sample` samples (those with the smallest hash of their id);
    - `selectivity_null`: what the same responses give for shuffled labels, mean over `permutations`; low and high are the smallest and the
      largest of them. Few samples per class inflate the index: for n samples per class with coefficient of variation cv, a unit
      that knows nothing of K classes has about 0.5 K/(K-1) m_K cv / sqrt(n), m_K the mean of the largest of K standard normals
      (1.54 at K = 10);

    and `selectivity`, `selectivity_null` of the network (no layer): the mean of the layers' means, so that wide layers do not dominate;
    array: the layers, in the order of the forward pass.

    A layer with negative, NaN or infinite responses, or fewer than 2 classes, is UNDEFINED, and the network with it.

    Arguments:
        layers: names or patterns; () for every ReLU output. eps: of the index. by: a column of the data to use instead of the
            labels (`group`, say); its values in the order of their hashes are the classes. permutations: 0 for no null.
            sample: samples kept for `preference_auc`, 0 for none (the default: it costs more than all else here). The null, and `by`,
            need the probe to be prepared, as the lab does.

    References: Leavitt & Morcos (2021), arXiv 2003.01262; Leavitt & Morcos (2020), arXiv 2010.07693.

    Departures: which layers the papers average is not stated in what was read of them; here every recorded ReLU output counts
    unless `layers` names some. The logits are no ReLU output and never count.

    Example:
        >>> Selectivity(layers=("layer1.*",)).spec()
        "class_selectivity(layers=('layer1.*',))"
    """

    layers: tuple[str, ...] = ()
    eps: float = Field(default=1e-6, gt=0)
    by: str = ""
    permutations: int = Field(default=20, ge=0)
    sample: int = Field(default=0, ge=0)

    @property
    def needs(self) -> Needs:
        return Needs(layers=self.layers, pooled=True)

    def prepare(self, net: object, data: Dataset, *, draws: Draws) -> State:
        """The distinct values of the column, and the labels of all samples shuffled `permutations` times."""
        if self.by and self.by not in data.columns:
            raise UndefinedReading(f"{self.spec()}: {data.source} has no column {self.by!r}; it has {', '.join(data.columns) or 'none'}")
        codes = encode(data.columns[self.by])[0] if self.by else data.labels()
        order = torch.from_numpy(np.argsort(data.ids, kind="stable"))  # by id, so that the order of the samples does not matter
        values, labels = torch.unique(codes[order], return_inverse=True)
        state = {"ids": torch.from_numpy(data.ids)[order], "values": values}
        if self.permutations:
            mine = draws[order]
            lots = [mine.at("permutation", k).words(1).squeeze(1).argsort(stable=True) for k in range(self.permutations)]
            state["shuffled"] = torch.stack([labels[lot] for lot in lots]).to(torch.int32)
        return state

    def observe(self, view: View, *, draws: Draws) -> Tally:
        labels, classes, shuffled = self._labels(view)
        if not view.activations:
            return Tallies()
        responses = torch.cat(tuple(view.activations.values()), 1)  # all units side by side: one sum for all layers
        wide, member = responses.double(), torch.nn.functional.one_hot(labels, classes).T.double()
        parts: dict[str, Tally] = {
            "layers": widths_of(view.activations),
            "sums": Sum.of(
                sums=member @ wide, counts=member.sum(1), squares=wide.square().sum(0), negative=negatives(responses),
            ),
        }  # fmt: skip
        if shuffled is not None:
            # an estimate: within a batch in the precision of the responses, which halves the time of all this
            narrow = responses if responses.dtype == torch.float64 else responses.float()
            crowd = torch.nn.functional.one_hot(shuffled, classes).mT.flatten(0, 1).to(narrow)
            parts["null"] = Sum.of(sums=crowd @ narrow, counts=crowd.sum(1))
        if self.sample:
            parts["sample"] = Sample.pick(self.sample, view.ids, {"responses": responses, "labels": labels})
        return Tallies(parts)

    def _labels(self, view: View) -> tuple[Tensor, int, Tensor | None]:
        """(n,) classes, how many there are, and (permutations, n) shuffled ones."""
        state = self.state
        if state is None:
            if self.by:
                raise UndefinedReading(f"{self.spec()} must be prepared on the data before it observes; `Lab.measure` does so")
            return view.y, len(view.classes) or view.logits.shape[1], None
        labels, classes = view.y, max(len(view.classes), view.logits.shape[1])
        if self.by:
            codes = encode(view.columns[self.by])[0]
            labels, classes = torch.searchsorted(state["values"], codes).to(view.y.device), len(state["values"])
        if "shuffled" not in state:
            return labels, classes, None
        places = torch.searchsorted(state["ids"], view.ids.cpu())
        picked = state["shuffled"][:, places].long()
        return labels, classes, (picked if self.by else state["values"][picked]).to(view.y.device)

    def read(self, tally: Tally) -> list[Reading]:
        if "layers" not in tally:
            return [Reading.undefined("selectivity", "no layer was recorded: the network has no ReLU, or there is no sample")]
        readings: list[Reading] = []
        for name, units in units_of(tally.parts["layers"]).items():
            readings += self._layer(name, units, tally.parts)
        names = [name for name in ("selectivity", "selectivity_null") if any(reading.name == name for reading in readings)]
        return [*readings, *(_network([reading for reading in readings if reading.name == name]) for name in names)]

    def _layer(self, layer: str, units: slice, parts: dict[str, Tally]) -> list[Reading]:
        seen = parts["sums"]
        sums, counts, negative = seen["sums"][:, units], seen["counts"], int(seen["negative"][units].sum())
        n = int(counts.sum())
        names = (*_PER_LAYER, *(("preference_auc",) if self.sample else ()), *(("selectivity_null",) if "null" in parts else ()))
        if not bool(torch.isfinite(sums).all()):
            return [Reading.undefined(name, "responses hold NaN or inf", layer=layer, n=n) for name in names]
        if negative:
            reason = _signed(negative, n * sums.shape[1])
            return [Reading.undefined(name, reason, layer=layer, n=n) for name in names]
        try:
            best, rest, preferred = _extremes(sums, counts)
        except UndefinedReading as error:
            return [Reading.undefined(name, str(error), layer=layer, n=n) for name in names]
        level = (best + rest).numpy()
        live = level > 0
        classes = np.where(live, preferred.numpy(), -1)
        readings = [
            Reading.over_units("selectivity", selectivity_index(sums, counts, self.eps).numpy(), layer, n=n),
            Reading("preferred_classes", float(len(np.unique(classes[live]))), layer, n=n, array=classes, axis="unit"),
            Reading("dead_units", float(1 - live.mean()), layer, n=n),
        ]
        if "null" in parts:
            readings.append(self._null(layer, parts["null"]["sums"][:, units], parts["null"]["counts"], len(counts), n))
        if not live.any():
            dead = [name for name in names if name not in {reading.name for reading in readings}]
            return [*readings, *(Reading.undefined(name, "every unit of this layer is dead", layer=layer, n=n) for name in dead)]
        readings.append(Reading("response_level", float(level[live].min()), layer, n=n, array=level, axis="unit"))
        readings.append(_over_defined("f_ratio", lambda: f_ratio_of_sums(sums, counts, seen["squares"][units]), layer, n))
        if self.sample:
            kept = parts["sample"]
            area = lambda: preference_auc(kept["responses"][:, units], kept["labels"], torch.from_numpy(classes))  # noqa: E731
            readings.append(_over_defined("preference_auc", area, layer, len(kept["labels"])))
        return readings

    def _null(self, layer: str, sums: Tensor, counts: Tensor, classes: int, n: int) -> Reading:
        sums, counts = sums.unflatten(0, (-1, classes)), counts.unflatten(0, (-1, classes))
        present = counts[0] > 0  # shuffling changes no class's size
        means = sums[:, present] / counts[:, present, None]
        best = means.amax(1)
        rest = (means.sum(1) - best) / (int(present.sum()) - 1)
        levels = ((best - rest) / (best + rest + self.eps)).mean(1)
        return Reading(
            "selectivity_null", float(levels.mean()), layer, bound=Bound.ESTIMATE, low=float(levels.min()), high=float(levels.max()), n=n
        )


def _over_defined(name: str, measure: Callable[[], Tensor], layer: str, n: int) -> Reading:
    try:
        values = measure().numpy()
    except UndefinedReading as error:
        return Reading.undefined(name, str(error), layer=layer, n=n)
    if np.isnan(values).all():
        return Reading.undefined(name, "no unit of this layer has one: responses do not vary within classes", layer=layer, n=n)
    bound = Bound.EXACT if name == "f_ratio" else Bound.ESTIMATE
    return Reading(name, float(np.nanmean(values)), layer, bound=bound, n=n, array=values, axis="unit")


def _network(layers: list[Reading]) -> Reading:
    means = [reading.value for reading in layers if reading.value is not None]
    if len(means) < len(layers):
        lost = next(reading for reading in layers if reading.value is None)
        return Reading.undefined(lost.name, f"layer {lost.layer}: {lost.reason}", n=lost.n)
    return Reading(layers[0].name, float(np.mean(means)), bound=layers[0].bound, n=layers[0].n, array=np.array(means), axis="layer")
