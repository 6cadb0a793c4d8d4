"""Similarity of a layer's activations before and after a perturbation."""

from __future__ import annotations

import torch
from torch import Tensor

from brinell.core.draws import Draws
from brinell.core.errors import UndefinedReading
from brinell.core.measurement import Reading
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Max, Sum, Tallies, Tally


def linear_cka(a: Tensor, b: Tensor) -> float:
    """Linear centred kernel alignment of two sets of activations of the same samples.

        CKA = |B'A|_F^2 / ( |A'A|_F |B'B|_F ),   A, B centred over samples

    In [0, 1]: 1 for activations that are equal up to rotation, shift and one scale; not invariant to other linear maps.

    Arguments:
        a: (n, u), b: (n, v).

    Raises:
        UndefinedReading: one of them does not vary, or their samples differ in number.

    References: Kornblith, Norouzi, Lee & Hinton (2019), "Similarity of neural network representations revisited", ICML, arXiv
        1905.00414, section 3.

    Example:
        >>> a = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]])
        >>> round(linear_cka(a, 3 * a @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]]) + 5), 6)
        1.0
    """
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise UndefinedReading(f"CKA compares (n, u) and (n, v) activations of the same samples; got {tuple(a.shape)} and {tuple(b.shape)}")
    return _cka(_moments(a.double(), b.double()))


def _moments(a: Tensor, b: Tensor) -> Sum:
    return Sum.of(n=torch.tensor(len(a)), a=a.sum(0), b=b.sum(0), aa=a.T @ a, bb=b.T @ b, ab=a.T @ b)


def _cka(seen: Tally) -> float:
    n, a, b = seen["n"], seen["a"], seen["b"]
    aa, bb, ab = (seen["aa"] - torch.outer(a, a) / n, seen["bb"] - torch.outer(b, b) / n, seen["ab"] - torch.outer(a, b) / n)
    for centred, raw in ((aa, seen["aa"]), (bb, seen["bb"])):
        if not float(centred.trace()) > 1e-12 * float(raw.trace()):
            raise UndefinedReading("activations that do not vary over samples have no CKA")
    return float((ab.square().sum() / (aa.norm() * bb.norm())).clamp(0, 1))


class Similarity(Probe, name="similarity"):
    """Linear CKA between each layer's activations at the clean and at the perturbed inputs: where does a perturbation arrive?

    Reading of every layer: `cka`, in [0, 1], 1 where the perturbation changes nothing but a rotation and a scale; the formula is in
    `linear_cka`. Exact for the samples measured. A layer whose activations do not vary is UNDEFINED.

    Arguments:
        layers: names or patterns; () for every ReLU output. Responses are means over positions.

    References: Kornblith et al. (2019), arXiv 1905.00414.

    Example:
        >>> Similarity().spec()
        'similarity'
    """

    layers: tuple[str, ...] = ()

    @property
    def needs(self) -> Needs:
        return Needs(layers=self.layers, clean=True)

    def observe(self, view: View, *, draws: Draws) -> Tally:
        clean = view.clean.activations if view.clean is not None else view.activations
        layers = {name: _moments(clean[name].flatten(1).double(), z.flatten(1).double()) for name, z in view.activations.items()}
        order = {name: torch.tensor(place) for place, name in enumerate(layers)}
        return Tallies({"layers": Tallies(layers), "order": Max(order)})

    def read(self, tally: Tally) -> list[Reading]:
        layers = tally.parts.get("layers", Tallies()).parts
        if not layers:
            return [Reading.undefined("cka", "no layer was recorded: the network has no ReLU, or there is no sample")]
        place = tally.parts["order"].values
        return [_read(name, layers[name]) for name in sorted(layers, key=lambda layer: (int(place[layer]), layer))]


def _read(layer: str, seen: Tally) -> Reading:
    n = int(seen["n"])
    if not all(bool(torch.isfinite(seen[name]).all()) for name in ("aa", "bb")):
        return Reading.undefined("cka", "activations hold NaN or inf", layer=layer, n=n)
    try:
        return Reading("cka", _cka(seen), layer, n=n)
    except UndefinedReading as error:
        return Reading.undefined("cka", str(error), layer=layer, n=n)
