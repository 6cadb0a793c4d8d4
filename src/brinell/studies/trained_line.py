"""Gradient lines on small trained networks: the two published protocols that carry the question from random networks to trained ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from brinell.core.dataset import load_dataset
from brinell.core.draws import Draws, derive
from brinell.core.errors import DataError
from brinell.core.line import Output, downhill, first_crossing, relative_step, value_and_gradient
from brinell.perturb.gradient_step import newton_step, small_steps

_VERSION = 1
_DIRECTIONS = 20


@dataclass(frozen=True)
class Training:
    """One network to train and to walk on.

    Arguments:
        train, test: specs of image data. epochs: at most. points: of the test set. width: hidden units of each layer. depth: fully
            connected layers. side: of the images, resized. step: of the walk. drift: C_0 of lazy training. batch: its size.
    """

    train: str
    test: str
    epochs: int
    points: int
    width: int
    depth: int = 2
    side: int = 0
    step: float = 0.05
    drift: float = 10.0
    batch: int = 128
    seed: int = 0

    @property
    def key(self) -> str:
        return f"{_VERSION} {self!r}"


def odd_even(of: Training) -> dict[str, Any]:
    """A bias-free ReLU network that tells odd from even labels, and gradient descent with small steps on it.

    Images are centred to mean 0 and scaled to |x| = sqrt(d). `depth` layers of `width` units, Glorot's normal initialisation, squared
    error to labels 0 and 1, threshold 1/2, Adam at its defaults, batches of 128. On test points: the distance to the other answer by
    normalised small steps and by the best of 20 random directions up to |x|, and whether one Newton step (m = 2) suffices; the step's
    relative length, and whether it suffices, also before training, when the threshold is 0.

    References: Daniely & Schacham (2020), "Most ReLU networks suffer from l2 adversarial perturbations", arXiv 2010.14927; the set-up
        is that of the authors' public code, whose steps (0.1, or 0.05 in its description) are not normalised.
    """
    (x, y), (points, labels) = (standardised(*_data(spec)) for spec in (of.train, of.test))
    y, labels = y % 2, labels % 2
    draws = derive(of.seed, "trained_line", of.depth, ids=[0])
    widths = [x.shape[1], *(of.width,) * (of.depth - 1), 1]
    weights = [draws.at("layer", at).normal(b, a, std=math.sqrt(2 / (a + b)))[0] for at, (a, b) in enumerate(pairwise(widths))]
    chosen = derive(of.seed, "trained_line", "points", ids=range(len(points))).words(1)[:, 0].argsort(stable=True)[: of.points]
    untrained = shared(lambda z: _forward(weights, z))
    before = _one_step(untrained, points[chosen])
    learned = [w.clone().requires_grad_() for w in weights]
    optimiser = torch.optim.Adam(learned)
    for rows in batches(len(x), of.batch, of.epochs, draws):
        optimiser.zero_grad()
        with torch.enable_grad():
            F.mse_loss(_forward(learned, x[rows]), y[rows].to(x.dtype)).backward()
        optimiser.step()
    final = [w.detach() for w in learned]
    with torch.no_grad():
        right = (_forward(final, points) > 0.5) == (labels == 1)
    output, seen = shared(lambda z: _forward(final, z) - 0.5), points[chosen]
    size = seen.double().norm(dim=1)
    walk = small_steps(output, seen, of.step, int(math.sqrt(seen.shape[1]) / of.step), select=lambda rows: output)
    after = _one_step(output, seen)
    found = {"flipped": walk.flipped, "distance": walk.distance, "path": walk.path, "size": size, "random": _random(output, seen, draws)}
    found |= {f"initial {name}": value for name, value in before.items()} | after
    return {"right": right, **found}


def lazy(of: Training) -> dict[str, Any]:
    """A two-layer ReLU network trained hardly away from its random start, on the first two classes, and the line of its gradient.

    Images are resized to `side` x `side`; hidden weights and biases start as N(0, 1), the readout is +-1 / sqrt(m) and stays, as do the
    biases. Logistic loss, SGD at 0.1, batches of 64, until some unit has moved by C_0 / sqrt(m). On test points classified correctly: the
    first sign change along the gradient in steps of 0.001, 5,000 at most; the gradient's norm; whether one Newton step (m = 2) suffices.

    References: Wang, Ullah, Mianjy & Arora (2022), "Adversarial robustness is at odds with lazy training", NeurIPS, arXiv 2207.00411; the
        set-up is that of the authors' public code. That biases stay was not found there.
    """
    (x, y), (points, labels) = (_two_classes(*_data(spec), of.side) for spec in (of.train, of.test))
    draws = derive(of.seed, "trained_line", "lazy", of.side, of.width, ids=[0])
    start, bias = draws.at("layer", 0).normal(of.width, x.shape[1])[0], draws.at("bias").normal(of.width)[0]
    readout = draws.at("readout").signs(of.width)[0] / math.sqrt(of.width)

    def forward(w: Tensor, z: Tensor) -> Tensor:
        return F.relu(z @ w.T + bias) @ readout

    w, taken = start.clone().requires_grad_(), 0
    for rows in batches(len(x), 64, of.epochs, draws):
        with torch.enable_grad():
            (g,) = torch.autograd.grad(F.softplus(-y[rows] * forward(w, x[rows])).mean(), w)
        moved = (w - 0.1 * g).detach()
        if float((moved - start).norm(dim=1).max()) > of.drift / math.sqrt(of.width):
            break
        w, taken = moved.requires_grad_(), taken + 1
    final = w.detach()
    with torch.no_grad():
        right = forward(final, points) * labels > 0
    seen = points[right][: of.points]
    output = shared(lambda z: forward(final, z))
    f, g = value_and_gradient(output, seen)
    grid = torch.arange(1, 5001, dtype=torch.float64) / 1000
    _, beyond = first_crossing(output, seen, f, downhill(f, g), grid.expand(len(seen), -1), rounds=0)
    found = {"distance": beyond, "gradient": g.double().norm(dim=1), "size": seen.double().norm(dim=1), **_one_step(output, seen)}
    return {"right": right, "steps": taken, **found}


def shared(function: Callable[[Tensor], Tensor]) -> Output:
    """One function of flat points (p, d), for every sample alike."""
    return lambda z: function(z.flatten(0, 1)).reshape(z.shape[:2])


def standardised(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Flat images of mean 0 and |x| = sqrt(d), and their labels; constant images stay 0."""
    flat = x.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    return F.normalize(flat, dim=1) * math.sqrt(flat.shape[1]), y


def batches(n: int, size: int, epochs: int, draws: Draws) -> Iterator[Tensor]:
    """The rows of each batch, in a new order every epoch; the last batch may be smaller."""
    for epoch in range(epochs):
        order = draws.at("order", epoch).words(n)[0].argsort(stable=True)
        yield from order.split(size)


def _forward(weights: list[Tensor], z: Tensor) -> Tensor:
    for w in weights[:-1]:
        z = F.relu(z @ w.T)
    return (z @ weights[-1].T)[:, 0]


def _one_step(output: Output, x: Tensor) -> dict[str, Tensor]:
    """The relative linear step, and whether twice that step changes the sign."""
    f, g = value_and_gradient(output, x)
    with torch.no_grad():
        moved = output(newton_step(x, f, g)[:, None])[:, 0]
    return {"linear": relative_step(f, g, x), "one_step": moved * f < 0}


def _random(output: Output, x: Tensor, draws: Draws) -> Tensor:
    """The nearest sign change in any of 20 random directions, up to |x|; inf where there is none."""
    size = x.double().norm(dim=1)
    grid = size[:, None] * torch.arange(1, 65, dtype=torch.float64) / 64
    f, _ = value_and_gradient(output, x)
    best = torch.full_like(size, torch.inf)
    for at in range(_DIRECTIONS):
        u = F.normalize(draws.at("direction", at).normal(*x.shape)[0], dim=1)
        best = torch.minimum(best, first_crossing(output, x, f, u, grid, rounds=1)[1])
    return best


@lru_cache(maxsize=4)
def _data(spec: str) -> tuple[Tensor, Tensor]:
    data = load_dataset(spec)
    if len(data.shape) != 3 or data.shape[0] != 1:
        raise DataError(f"{spec}: rows G and H want grey images of shape (1, height, width); got {data.shape}. Give train and test of such")
    return data.x(), data.labels()


def _two_classes(x: Tensor, y: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Flat images of the classes 0 and 1, resized, with labels -1 and 1."""
    kept = y < 2
    small = F.interpolate(x[kept], size=(side, side), mode="bilinear", antialias=True) if side else x[kept]
    return small.flatten(1), (2 * y[kept] - 1).to(x.dtype)
