"""Surfaces over planes in input space: what does the landscape around an image look like, and where does its class end?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from brinell.core.ascent import goal_gradient
from brinell.core.component import State
from brinell.core.draws import Draws
from brinell.core.errors import DataError, UndefinedReading
from brinell.core.goal import Misclassify, margin
from brinell.core.measurement import Reading
from brinell.core.network import NetReference, frozen
from brinell.core.norms import steepest
from brinell.core.perturbation import Attack, points
from brinell.core.probe import Needs, Probe, View
from brinell.core.tally import Sample, Tally
from brinell.core.threat import Ball
from brinell.probe.examples import thumbnails
from brinell.probe.surface_grid import refine
from brinell.probe.surface_plane import Plane, axis, first_by_hash, of_unit_length, random_beside, random_direction, standing_in, triples
from brinell.probe.surface_reading import readings

Net = Callable[[Tensor], Tensor]

_AT_ONCE = 256
"""Points that pass through the network together."""


class Surface(Probe, name="surface"):
    """Surfaces of margin, cross-entropy, DLR and KL over a plane through each of a few images: how far is the boundary, and what
    does the way there look like?

        height(a, b) = F(o + a u + b v),   a, b on a grid of `grid` x `grid` points

    with o the image as the network saw it, u and v the directions of the plane, and F one of `margin`, `cross_entropy`, `dlr`, `kl`
    (`probe.surface_grid.heights`). S, the margin, is positive where the answer is right and 0 on the decision boundary; unlike
    cross-entropy it does not saturate. Coordinates are in units of `ball.norm` and reach from -ball.eps to ball.eps.

    Planes: `gradient`: u the direction in which S falls fastest, sign(-grad S) in Linf and -grad S / |grad S| in L2, v random;
    `random`: both random; `attacks`: u and v lead to the points that two attacks find; `images`: u and v lead to two other images, one unit
    being the way there, from half a way before to half a way behind. Random directions are signs in Linf, and normal and orthogonal to u in
    L2. A direction that does not exist (a gradient of 0, an attack that does not move the image or finds the first one's direction
    again) is replaced by a random one, and counted.

    Readings, without intervals, over the images shown; arrays have one row per image in the order of ids:

    - `surface`, by height: mean over the plane; array (m, grid, grid), the last dimension along u. Also `domain`: the smallest distance of
      an entry to the walls of the domain, negative outside of it;
    - `surface_lost`: share of the plane where S < 0;
    - `surface_distance`, for each half axis: median distance, in the norm, to the first S < 0; NaN in the array where the plane ends
      first, UNDEFINED where half of them do;
    - `surface_lowest`: smallest S on the plane;
    - `surface_boundary`: mean length of the line S = 0, in coordinates of the plane; array (k, 5) of its segments: image, x0, y0, x1, y1;
    - `surface_bend`: local linearity error, the largest | S(z) - S(o) - <grad S(o), z - o> | over the points evaluated, in logits;
      `surface_bend_relative`: over the largest | S(z) - S(o) |;
    - `surface_error`, by height: the largest error of interpolated heights (an estimate, see `probe.surface_grid.refine`), 0 where
      all were evaluated; `surface_passes`: forward passes, array with one count per image; `surface_points`: share of the grid that was
      evaluated, array (m, grid, grid);
    - `surface_classes`: mean number of classes predicted on the plane; array (m, grid, grid);
    - `surface_image`, `surface_directions`: how many are kept; arrays (m, *d) and (m, 2, *d) in half precision, from which the image at any
      point is composed, averaged over squares as in `examples` where larger than `side`;
    - `surface_axis`: largest coordinate, with all of them; `surface_length`: mean length of u and v, array (m, 2); `surface_ids`;
      `surface_labels`; `surface_stand_ins`: directions that were replaced.

    Everything is UNDEFINED where logits on a plane are NaN or infinite. In the cell of a perturbation, o is the perturbed image.

    Arguments:
        plane, grid: see above; grid is odd, so that o is a point of it, and 4 k + 1 for plane=images, so that all three are.
        ball: its norm (2 or inf) is the unit, its eps how far the axes reach, its low and high the domain.
        clip: points are clipped to the domain; by default the picture shows the plane itself, and `domain` says where it leaves it.
        adaptive: False evaluates every grid point; the boundary and all distances then are those of the grid, not within about a cell.
        images: how many are shown: those with the smallest hash of their id, chosen by nothing that was measured and the same for every
            network. ids: which ones instead; for plane=images three of them for each picture. By itself that plane begins with the next
            image in the order of the hash and goes on with the next ones of other classes.
        attack, second: for plane=attacks; without second, the first one with other random numbers, which it has to use then.
        source: a network `net(NAME)` of the run whose gradient or attack gives the directions, so that several networks, or checkpoints of
            one training, are looked at over the same plane; the measured one by default.
        side: longest side of the images kept.

    Raises:
        SpecError: a field is out of range, or plane=attacks has no attack. DataError: an id is not in the data.
        UndefinedReading: plane=images outside a lab, or with fewer than three images.

    References: Yu, Qin, Liu, Zhao, Wang & Chen (2019), "Interpreting and Evaluating Neural Network Robustness", IJCAI,
        arXiv 1905.04270 (decision surfaces in input space). Croce & Hein (2020), arXiv 2003.01690 (DLR). Qin et al. (2019),
        "Adversarial Robustness through Local Linearization", NeurIPS, arXiv 1907.02610 (local linearity).

    Departures: the grid ranges of the published figures were not found; +-0.3 in Linf is ours. Local linearity is that of the margin, and
    over the points of the plane, not over the whole ball.

    Example:
        >>> import brinell as br
        >>> data = br.load_dataset("digits(side=8)", limit=60)
        >>> net = br.load_network("mlp(widths=(32,))", shape=data.shape, classes=10)
        >>> table = br.Lab().measure(net, data, probes=["surface(images=2, plane=random)"])
        >>> table.array(table.row("surface", layer="margin")).shape
        (2, 41, 41)
    """

    plane: Literal["gradient", "random", "attacks", "images"] = "gradient"
    ball: Ball = Ball(eps=0.3)
    grid: int = Field(default=41, ge=5, le=401)
    images: int = Field(default=3, ge=1, le=64)
    ids: tuple[int, ...] = ()
    clip: bool = False
    adaptive: bool = True
    attack: Attack | None = None
    second: Attack | None = None
    source: NetReference | None = None
    side: int = Field(default=64, ge=8)

    @model_validator(mode="after")
    def _check(self) -> Surface:
        quarters = self.plane == "images"
        if self.grid % 2 == 0 or (quarters and self.grid % 4 != 1):
            raise ValueError(
                f"grid={self.grid} leaves an image between its points; give {'4 k + 1, such as 41' if quarters else 'an odd number'}"
            )
        if self.ball.norm not in (2, math.inf) or not 0 < self.ball.eps < math.inf:
            raise ValueError(f"ball={self.ball.spec()} gives no unit: its norm must be 2 or inf, and 0 < eps < inf")
        if (self.plane == "attacks") != (self.attack is not None) or (self.second is not None and self.attack is None):
            raise ValueError("plane=attacks and attack=... go together, as in plane=attacks, attack=pgd; second=... is optional")
        if len(set(self.ids)) < len(self.ids) or (quarters and len(self.ids) % 3):
            raise ValueError(f"ids={self.ids} must be different ones{', three for each picture' if quarters else ''}")
        return self

    @property
    def needs(self) -> Needs:
        return Needs(net=True)

    def prepare(self, net: Any, data: Any, *, draws: Draws) -> State | None:
        """Which images are shown, and with plane=images those that span the planes."""
        known = {int(name): at for at, name in enumerate(data.ids)}
        strange = [name for name in self.ids if name not in known]
        if strange:
            raise DataError(f"{self.spec()}: {data.source} has no sample {', '.join(map(str, strange[:5]))}; name ids that it has")
        order = [known[name] for name in self.ids] if self.ids else first_by_hash(data.ids).tolist()
        state: State = super().prepare(net, data, draws=draws) or {}
        groups = [(at,) for at in (order if self.ids else order[: self.images])]
        if self.plane == "images":
            if len(order) < 3:
                raise UndefinedReading(f"{self.spec()} needs three images; {data.source} has {len(data)}")
            wanted = triples(order, data.y.tolist(), self.images)
            groups = list(zip(*(order[start::3] for start in range(3)), strict=True)) if self.ids else wanted
            others = data.x(np.array([group[1:] for group in groups]).reshape(-1))
            state["others"] = others.reshape(len(groups), 2, *data.shape)
        return {"shown": torch.tensor([int(data.ids[group[0]]) for group in groups]), **state}

    def observe(self, view: View, *, draws: Draws) -> Tally:
        rows = self._shown(view)
        if not len(rows) or view.net is None:
            return Sample()
        if view.z[0].numel() < 2:
            raise UndefinedReading(f"{self.spec()}: inputs of one entry span no plane")
        ids = view.ids.cpu()[rows]
        with frozen(view.net):
            columns = self._columns(view, view.net, rows.to(view.z.device), ids, draws[rows.to(draws.device)])
        return Sample.pick(len(self.ids) or self.images, ids, columns)

    def read(self, tally: Tally) -> list[Reading]:
        return readings(tally, self.ball)

    def _shown(self, view: View) -> Tensor:
        """Positions of the images of this shard that are shown."""
        ids = view.ids.cpu()
        if self.state is not None or self.ids:
            return torch.isin(ids, self.state["shown"] if self.state is not None else torch.tensor(self.ids)).nonzero().squeeze(1)
        return Sample.pick(self.images, ids, {"row": torch.arange(len(ids))})["row"]

    def _columns(self, view: View, net: Net, rows: Tensor, ids: Tensor, draws: Draws) -> dict[str, Tensor]:
        """What is kept of the images in these rows: surfaces, and what the page needs to compose an image."""
        x, y, clean = view.z[rows].detach(), view.y[rows], view.logits[rows].detach()
        gradient, fall, _ = goal_gradient(net, x, y, clean, Misclassify(), "margin")  # of -S
        plane = self._plane(net, x, y, clean, gradient, ids, draws)
        low, high = (-0.5, 1.5) if self.plane == "images" else (-self.ball.eps, self.ball.eps)
        places = axis(self.grid, low, high).to(x.device)
        walk = _Walk(net, plane, self.clip, places, y, -fall, -gradient)
        marked = [self.grid // 4, 3 * self.grid // 4] if self.plane == "images" else [self.grid // 2]
        relief = refine(walk, y, clean, self.grid, marked=marked, adaptive=self.adaptive)
        kept = [thumbnails(part, self.side).half() for part in (x, plane.first, plane.second)]
        return {
            "axis": places.expand(len(x), -1), "heights": torch.cat((relief.heights, relief.values[:, -1:]), 1).to(x.dtype),
            "classes": relief.values[:, :-1].argmax(1).to(torch.int16), "error": relief.error, "known": relief.known,
            "bend": walk.bend, "rise": walk.rise, "passes": relief.known.flatten(1).sum(1), "label": y, "stand_ins": plane.stand_ins,
            "lengths": plane.lengths(self.ball.norm), "image": kept[0], "directions": torch.stack(kept[1:], 1),
        }  # fmt: skip

    def _plane(self, net: Net, x: Tensor, y: Tensor, clean: Tensor, gradient: Tensor, ids: Tensor, draws: Draws) -> Plane:
        norm, shape = self.ball.norm, x.shape
        guide = net if self.source is None else self.source.network
        if self.plane == "images":
            if self.state is None:
                raise UndefinedReading(f"{self.spec()} spans its plane by images of the whole data; let a lab measure it")
            place = (ids[:, None] == self.state["shown"]).long().argmax(1)
            others = self.state["others"][place].to(x)
            first, second = others[:, 0] - x, others[:, 1] - x
        elif self.attack is not None:
            attacks = {"first": self.attack, "second": self.second or self.attack}
            first, second = (
                of_unit_length(points(attack(guide, x, y, draws=draws.at(name))) - x, norm) for name, attack in attacks.items()
            )
        else:
            if self.plane == "random":
                first = random_direction(shape, norm, draws.at("first"), x.dtype)
            else:
                g = gradient if self.source is None else goal_gradient(guide, x, y, clean, Misclassify(), "margin")[0]
                first = steepest(g, norm)
            second = random_beside(first, norm, draws.at("second"))
        first, second, stand_ins = standing_in(first, second, norm, draws.at("stand-in"))
        return Plane(x, first, second, stand_ins, self.ball.low, self.ball.high)


class _Walk:
    """Passes points of the planes through the network, and notes how far the margin bends away from its tangent.

    Arguments:
        places: (g,) coordinates. start: (m,) float64 S at the origins, gradient: (m, *d) its gradient there. bend, rise: (m,) the largest
            | S(z) - S(o) - <grad S(o), z - o> | and | S(z) - S(o) | so far.
    """

    def __init__(self, net: Net, plane: Plane, clip: bool, places: Tensor, y: Tensor, start: Tensor, gradient: Tensor) -> None:
        self.net, self.plane, self.clip, self.places, self.y = net, plane, clip, places, y
        self.start, self.gradient = start, gradient
        self.bend, self.rise = torch.zeros_like(start), torch.zeros_like(start)

    def __call__(self, image: Tensor, column: Tensor, row: Tensor) -> Tensor:
        """(p, K + 1): the logits, and the room that the domain leaves."""
        parts = (index.to(self.y.device).split(_AT_ONCE) for index in (image, column, row))
        return torch.cat([self._part(*part) for part in zip(*parts, strict=True)])

    def _part(self, image: Tensor, column: Tensor, row: Tensor) -> Tensor:
        z = self.plane.point(image, self.places[column], self.places[row])
        room = self.plane.room(z)
        z = z.clamp(self.plane.low, self.plane.high) if self.clip else z
        with torch.no_grad():
            logits = self.net(z).double()
        rise = -margin(logits, self.y[image]) - self.start[image]
        straight = ((z - self.plane.origin[image]).double() * self.gradient[image].double()).flatten(1).sum(1)
        self.bend.scatter_reduce_(0, image, (rise - straight).abs(), "amax")
        self.rise.scatter_reduce_(0, image, rise.abs(), "amax")
        return torch.cat((logits, room[:, None]), 1)
