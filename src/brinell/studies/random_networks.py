"""What studies of random networks measure on each network; pieces of work that a lab keeps and goes on from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brinell.core.draws import Draws, derive
from brinell.core.line import along, downhill, first_crossing, line_lengths, relative_step, value_and_gradient
from brinell.models.random_ensemble import BUDGET, Ensemble, Variance, chunks, gaussian, inputs, two_layer
from brinell.models.random_limit import relative_spread
from brinell.models.random_two_layer import reduced_step
from brinell.perturb.gradient_step import fixed_step, small_steps

MOST = 0.5
"""The largest relative step at which a sign change counts."""
CONTROL = 3.0
"""The fixed eta of the control steps: none, the wrong way, and in a random direction."""
_POINTS = 64
_VERSION = 1


@dataclass(frozen=True)
class Cell:
    """Networks of one architecture, and what is asked of them.

    Arguments:
        widths: of the input and the hidden layers. count: of networks. variance: see `gaussian`. signs: readout -1 or 1 over sqrt(k),
            hidden weights of variance 1 / d, as in `two_layer`. sphere: points on which the sign is compared. narrow: hidden layer,
            from 0, whose change is read. steps, activations: of `fixed_numbers`. step: of `walk_numbers`.
    """

    widths: tuple[int, ...]
    count: int
    variance: Variance = "he"
    signs: bool = False
    sphere: int = 0
    narrow: int | None = None
    steps: tuple[float, ...] = ()
    activations: tuple[str, ...] = ("relu",)
    step: float = 0.02

    @property
    def d(self) -> int:
        return self.widths[0]

    @property
    def layers(self) -> int:
        return len(self.widths) - 1

    @property
    def label(self) -> str:
        return "-".join(map(str, self.widths)) if len(self.widths) < 8 else f"{self.d}, {self.layers} x {self.widths[1]}"


@dataclass(frozen=True)
class Work:
    """Networks start, ..., cell.count - 1 of a cell, as a piece that is kept on its own."""

    cell: Cell
    start: int
    seed: int
    device: str = "cpu"
    budget: int = BUDGET

    @property
    def key(self) -> str:
        """Device and memory are no part of it: they change no number by more than rounding."""
        return f"{_VERSION} {self.start} {self.cell!r}"

    def chunks(self, points: int = _POINTS) -> Any:
        """The draws of the networks, as many at a time as memory allows."""
        of = self.cell
        return chunks(of.widths, of.count, seed=self.seed, path="random_networks", start=self.start, points=points, budget=self.budget,
                      device=self.device)  # fmt: skip

    def networks(self, draws: Draws) -> Ensemble:
        """The networks of these draws."""
        of = self.cell
        return two_layer(of.d, of.widths[1], draws) if of.signs else gaussian(of.widths, draws, variance=of.variance)


def gathered(
    lab: Any, function: Callable[[Work], dict[str, Tensor]], cells: Sequence[Cell], *, shard: int = 100, budget: int = BUDGET
) -> list[dict[str, np.ndarray]]:  # fmt: skip
    """What `function` measures in every cell, one number (or row of numbers) per network, in pieces of `shard` networks.

    Each piece is kept by the lab under its own key: an interrupted study loses one piece, and more networks add pieces.
    """
    device = str(getattr(lab, "device", "cpu"))
    work = [
        Work(replace(cell, count=min(start + shard, cell.count)), start, lab.seed, device, budget)
        for cell in cells
        for start in range(0, cell.count, shard)
    ]
    made = iter(lab.map(function, work, key=lambda piece: piece.key))
    found = []
    for cell in cells:
        parts = [next(made) for _ in range(0, cell.count, shard)]
        found.append({name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]})
    return found


def line_numbers(work: Work) -> dict[str, Tensor]:
    """Value, gradient, relative linear step, first sign change on the gradient's line, and controls, of each network at one point."""
    return _joined([_line(work, draws) for draws in work.chunks(max(_POINTS, work.cell.sphere))])


def _line(work: Work, draws: Draws) -> dict[str, Tensor]:
    cell, nets = work.cell, work.networks(draws)
    x = inputs(cell.d, draws)
    f, g = value_and_gradient(nets, x)
    linear, size, u = relative_step(f, g, x), x.double().norm(dim=1), downhill(f, g)
    lengths = line_lengths(linear, size, MOST)
    _, beyond = first_crossing(nets, x, f, u, lengths)
    eps = beyond / size
    way = torch.nan_to_num(linear) * size
    with torch.no_grad():
        random = inputs(cell.d, draws.at("control")) / math.sqrt(cell.d)
        straight, aside = along(x, u, torch.stack((way, 2 * way, -2 * way), 1)), along(x, random, 2 * way[:, None])
        moved = nets(torch.cat((straight, aside), 1)) * f.sign()[:, None]
        found = {
            "value": f, "gradient": g.double().norm(dim=1), "linear": linear, "crossing": torch.where(eps <= MOST, eps, torch.inf),
            "residual": torch.where(linear > 0, moved[:, 0] / f.abs().clamp(min=1e-300), torch.nan),
            "euler": (f - (x.double() * g.double()).sum(1)).abs() / f.abs().clamp(min=1e-300),
            "flipped": moved[:, 1] < 0, "wrong_way": moved[:, 2] < 0, "random": moved[:, 3] < 0, "dead": linear.isnan(),
        }  # fmt: skip
        if cell.layers:
            found |= _inside(nets, x, straight[:, :2], cell.narrow)
        if cell.sphere:
            found |= _sphere(work, nets)
    return found


def _inside(nets: Ensemble, x: Tensor, moved: Tensor, narrow: int | None) -> dict[str, Tensor]:
    """The share of hidden units that switch at the Newton step, and how far a layer's activations move at the linear one."""
    here, there = nets.hidden(x[:, None]), nets.hidden(moved)
    switched = torch.cat([((a > 0) != (b[:, 1:] > 0)).flatten(1) for a, b in zip(here, there, strict=True)], 1)
    found = {"switched": switched.double().mean(1)}
    if narrow is not None:
        a, b = here[narrow][:, 0].double(), there[narrow][:, 0].double()
        size = a.norm(dim=1)
        found["change"] = torch.where(size > 0, (b - a).norm(dim=1) / size.clamp(min=1e-300), torch.nan)
    return found


def sphere_points(d: int, count: int, seed: int) -> Tensor:
    """The points of the sphere of radius sqrt(d) on which signs are compared, the same for every network: (count, d)."""
    return inputs(d, derive(seed, "random_networks", "sphere", ids=range(count)))


def _sphere(work: Work, nets: Ensemble) -> dict[str, Tensor]:
    points = sphere_points(work.cell.d, work.cell.sphere, work.seed).to(work.device)
    f = nets(points.expand(len(nets), -1, -1))
    return {"one_sign": f.sign().sum(1).abs() == f.shape[1], "spread": relative_spread(f)}


def fixed_numbers(work: Work) -> dict[str, Tensor]:
    """A step of fixed eta on two-layer networks, for each activation and step; the weights are shared by the activations."""
    return _joined([_fixed(work, draws) for draws in work.chunks(len(work.cell.steps) + 2)])


def _fixed(work: Work, draws: Draws) -> dict[str, Tensor]:
    cell, found = work.cell, {}
    drawn, x = two_layer(cell.d, cell.widths[1], draws), inputs(cell.d, draws)
    random = inputs(cell.d, draws.at("control")) / math.sqrt(cell.d)
    for activation in cell.activations:
        nets = Ensemble(drawn.weights, activation)
        f, g = value_and_gradient(nets, x)
        length = g.double().norm(dim=1)
        with torch.no_grad():
            points = torch.stack([fixed_step(x, f, g, eta) for eta in cell.steps], 1)
            controls = torch.stack((x, 2 * x - fixed_step(x, f, g, CONTROL), x + random * (CONTROL * length).to(x.dtype)[:, None]), 1)
            moved, control = nets(points) * f.sign()[:, None], nets(controls) * f.sign()[:, None]
        own = {"flipped": moved < 0, "control": control < 0, "value": f, "squared_gradient": length.square()}
        found |= {f"{activation} {name}": value for name, value in own.items()}
    return found


def reduced_numbers(work: Work) -> dict[str, Tensor]:
    """The same from the exact law of two-layer networks, at O(k) cost whatever d is; widths are (d, k)."""
    cell, found = work.cell, {}
    draws = derive(work.seed, "random_networks", "reduced", ids=range(work.start, cell.count), device=work.device)
    for activation in cell.activations:
        step = reduced_step(cell.d, cell.widths[1], draws, cell.steps, activation=activation)
        own = {"flipped": step.flipped, "value": step.value, "squared_gradient": step.squared_gradient}
        found |= {f"{activation} {name}": value for name, value in own.items()}
    return {name: value.cpu() for name, value in found.items()}


def walk_numbers(work: Work) -> dict[str, Tensor]:
    """Many small normalised steps: whether the sign changes, how far that is, and how long the way was."""
    found = []
    for draws in work.chunks(1):
        x = inputs(work.cell.d, draws)
        walk = small_steps(work.networks(draws), x, work.cell.step, int(MOST * math.sqrt(work.cell.d) / work.cell.step))
        found.append({"flipped": walk.flipped, "distance": walk.distance, "path": walk.path})
    return _joined(found)


def jacobian_numbers(work: Work) -> dict[str, Tensor]:
    """The spectral norm of the Jacobian of every hidden layer, (n, L)."""
    found = []
    for draws in work.chunks(4 * max(work.cell.widths)):
        made = work.networks(draws).jacobians(inputs(work.cell.d, draws))
        short = [j if j.shape[1] <= j.shape[2] else j.mT for j in made]
        norms = [torch.linalg.eigvalsh(torch.bmm(j, j.mT).double())[:, -1].clamp(min=0).sqrt() for j in short]
        found.append({"norms": torch.stack(norms, 1)})
    return _joined(found)


def value_numbers(work: Work) -> dict[str, Tensor]:
    """f and |grad f|^2 alone, for the exact laws at finite width."""
    found = []
    for draws in work.chunks(1):
        f, g = value_and_gradient(work.networks(draws), inputs(work.cell.d, draws))
        found.append({"value": f, "squared_gradient": g.double().square().sum(1)})
    return _joined(found)


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name].detach().cpu() for part in parts]) for name in parts[0]}
