"""Surfaces in parameter space: how does the loss change when the weights move, instead of the input?"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from brinell.core import norms
from brinell.core.component import State
from brinell.core.draws import Draws, derive
from brinell.core.errors import UndefinedReading
from brinell.core.measurement import Reading
from brinell.core.network import Counted, frozen, logits_of, module_of
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Sample, Tally
from brinell.probe.surface_plane import axis, first_by_hash

_AT_ONCE = 256


def filter_direction(module: nn.Module, draws_of: Any, *, normalise: bool = True) -> dict[str, Tensor]:
    """A random direction in the parameters: normal numbers, each filter as long as the network's own.

        d_f <- d_f / |d_f| * |theta_f|     for every filter f: one row of a weight matrix, one output channel of a convolution

    Parameters with fewer than two dimensions (biases, the scales and shifts of normalisation) are not moved.

    Arguments:
        draws_of: (name, filters) -> Draws with one row for each. normalise: False leaves the normal numbers as they are.

    Returns:
        By name, in the shape and type of the parameter.

    References: Li, Xu, Taylor, Studer & Goldstein (2018), "Visualizing the Loss Landscape of Neural Nets", NeurIPS, arXiv 1712.09913,
        section 4 (filter normalisation).

    Example:
        >>> net = nn.Linear(2, 3)
        >>> found = filter_direction(net, lambda name, filters: derive(0, name, ids=range(filters)))
        >>> list(found), bool(torch.allclose(found["weight"].norm(dim=1), net.weight.norm(dim=1)))
        (['weight'], True)
    """
    found = {}
    for name, p in module.named_parameters():
        if p.ndim < 2:
            continue
        d = draws_of(name, len(p)).to(p.device).normal(*p.shape[1:], dtype=torch.float64)
        if normalise:
            size = norms.length(d, 2).clamp(min=1e-300)
            d = norms.scaled(d, norms.length(p.detach().double(), 2) / size)
        found[name] = d.to(p.dtype)
    return found


class ParameterSurface(Probe, name="parameter_surface"):
    """The loss over a random plane through the network's weights, for contrast with `surface`: is a flat minimum a robust network?

        L(a, b) = mean over samples of the cross-entropy of f(z; theta + a u + b v),   a, b on a grid of `grid` x `grid` points

    with u and v random directions that are normalised filter by filter (`filter_direction`). Rescaling a filter and undoing it in the next
    layer, which leaves the function of a ReLU network as it is, leaves this surface as it is, too; without the normalisation it does
    not. The network is in evaluation mode: running statistics do not move.

    Readings:

    - `parameter_surface`, for `cross_entropy` (nats) and `error` (share of wrong answers): mean over the plane; array (grid, grid), the
      last dimension along u;
    - `parameter_surface_rise`: the cross-entropy's mean over the plane less its value at the network itself;
    - `parameter_surface_axis`: the largest coordinate, with all of them.

    UNDEFINED where the network has no parameters of two dimensions or more, where there is no sample, and where a loss is not finite.

    Arguments:
        grid: points along a side, odd. radius: the largest coordinate. samples: how many are used, those with the smallest hash of
            their id. normalise: filter, or none for the bare random directions.
        seed: of the directions, which are the same for all networks of one structure, so that checkpoints share a plane.

    References: Li et al. (2018), arXiv 1712.09913. Dinh, Pascanu, Bengio & Bengio (2017), "Sharp Minima Can Generalize For Deep Nets",
        ICML, arXiv 1703.04933 (the rescaling).

    Departures: the paper uses the whole training set and a finer grid; both are fields here.

    Example:
        >>> ParameterSurface(grid=9).spec()
        'parameter_surface(grid=9)'
    """

    grid: int = Field(default=11, ge=3, le=201)
    radius: float = Field(default=1.0, gt=0)
    samples: int = Field(default=128, ge=1)
    normalise: Literal["filter", "none"] = "filter"
    seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> ParameterSurface:
        if self.grid % 2 == 0:
            raise ValueError(f"grid={self.grid} leaves the network itself between its points; give an odd number")
        return self

    @property
    def needs(self) -> Needs:
        return Needs(net=True)

    def prepare(self, net: Any, data: Any, *, draws: Draws) -> State | None:
        """Which samples are used."""
        return {"used": torch.from_numpy(np.asarray(data.ids, np.int64)[first_by_hash(data.ids)[: self.samples]])}

    def observe(self, view: View, *, draws: Draws) -> Tally:
        module, ids = module_of(view.net), view.ids.cpu()
        if module is None:
            raise UndefinedReading(f"{self.spec()}: the network is no torch.nn.Module, whose parameters could be moved")
        if self.state is not None:
            rows = torch.isin(ids, self.state["used"]).nonzero().squeeze(1)
        else:
            rows = Sample.pick(self.samples, ids, {"row": torch.arange(len(ids))})["row"]
        if not len(rows):
            return Sample()
        here = rows.to(view.z.device)
        with frozen(view.net), torch.no_grad():
            found = self._landscape(module, view.net, view.z[here], view.y[here])
        return Sample.pick(self.samples, ids[rows], found)

    def _landscape(self, module: nn.Module, net: Any, z: Tensor, y: Tensor) -> dict[str, Tensor]:
        """(n, grid, grid) float64 cross-entropies and bool errors of each sample."""
        u, v = (
            filter_direction(
                module, lambda name, filters, which=which: derive(self.seed, "parameter_surface", which, name, ids=range(filters)),
                normalise=self.normalise == "filter",
            )
            for which in ("first", "second")
        )  # fmt: skip
        if not u:
            raise UndefinedReading(f"{self.spec()}: the network has no weights of two dimensions or more")
        own, places = dict(module.named_parameters()), axis(self.grid, -self.radius, self.radius).tolist()
        entropy = torch.empty(self.grid, self.grid, len(y), dtype=torch.float64, device=z.device)
        wrong = torch.empty(self.grid, self.grid, len(y), dtype=torch.bool, device=z.device)
        for row, b in enumerate(places):
            for column, a in enumerate(places):
                moved = {name: own[name] + a * u[name] + b * v[name] for name in u}
                for part in torch.arange(len(y), device=z.device).split(_AT_ONCE):
                    logits = logits_of(torch.func.functional_call(module, moved, (z[part],)), z[part]).double()
                    entropy[row, column, part] = F.cross_entropy(logits, y[part], reduction="none")
                    wrong[row, column, part] = logits.argmax(1) != y[part]
        if isinstance(net, Counted):
            net.forwards += self.grid**2 * len(y)
        return {"cross_entropy": entropy.permute(2, 0, 1), "error": wrong.permute(2, 0, 1)}

    def read(self, tally: Tally) -> list[Reading]:
        if "id" not in tally or not len(tally["id"]):
            return [Reading.undefined("parameter_surface", "there is no sample to measure")]
        order = torch.argsort(tally["id"])
        n, places = len(order), axis(self.grid, -self.radius, self.radius).numpy()
        surfaces = {name: tally[name][order].double().mean(0) for name in ("cross_entropy", "error")}
        loss = surfaces["cross_entropy"]
        if not bool(loss.isfinite().all()):
            return [Reading.undefined("parameter_surface", "a loss on the plane is NaN or infinite", layer="cross_entropy", n=n)]
        rise = float(loss.mean() - loss[self.grid // 2, self.grid // 2])
        return [
            *(
                Reading("parameter_surface", float(values.mean()), name, n=n, array=values.numpy(), axis="point")
                for name, values in surfaces.items()
            ),
            Reading("parameter_surface_rise", rise, n=n),
            Reading("parameter_surface_axis", self.radius, n=n, array=places, axis="point"),
        ]
