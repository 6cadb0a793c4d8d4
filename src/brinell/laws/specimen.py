"""What laws are tried on: components of every item, images, and small networks, all drawn from fixed streams."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from brinell.core.component import Component, items
from brinell.core.draws import Draws, derive
from brinell.core.errors import SpecError
from brinell.core.network import Counted
from brinell.core.probe import View
from brinell.core.threat import Ball
from brinell.models.reference import linear_network


def specimens(cls: type[Component]) -> list[Component]:
    """Components of an item to try: its defaults in every norm, at every severity; none where a field is required (a file path).

    An item that is costly at its defaults names smaller values in a class attribute `trial`, a dict of fields.
    """
    if any(info.is_required() for info in cls.model_fields.values()):
        return []
    if "severity" in cls.model_fields:
        return [cls(severity=severity) for severity in range(1, 6)]
    threat = cls.model_fields.get("threat")
    if threat is not None and isinstance(threat.get_default(), Ball):
        return [cls(threat=ball, **getattr(cls, "trial", {})) for ball in _balls() if _accepts(cls, ball)]
    if issubclass(cls, Ball):
        balls = [*_balls(), Ball(norm=2, eps=0.5, low=-math.inf, high=math.inf), Ball(eps=0.0)]
        return [cls(norm=ball.norm, eps=ball.eps, low=ball.low, high=ball.high) for ball in balls]
    return [cls()]


def every() -> Iterator[Component]:
    """Specimens of all registered items."""
    for cls in items().values():
        yield from specimens(cls)


def _balls() -> list[Ball]:
    return [Ball(norm=norm, eps=eps) for norm, eps in ((1, 4.0), (2, 0.5), (math.inf, 8 / 255))]


def _accepts(cls: type[Component], ball: Ball) -> bool:
    try:
        cls(threat=ball)
    except SpecError:
        return False  # the method does not have this norm
    return True


def images(n: int = 6, shape: tuple[int, ...] = (3, 32, 32)) -> tuple[Tensor, Tensor, Tensor]:
    """Random images in [0.1, 0.9] with the falling spectrum of photographs, labels of two classes, and ids."""
    ids = torch.arange(100, 100 + n)
    x = torch.full((n, *shape), 0.5)
    for octave, side in enumerate((4, 8, 16, 32)):  # amplitudes fall with frequency, as in photographs
        coarse = derive(0, "laws", "images", side, ids=ids).uniform(shape[0], side, side, low=-0.2, high=0.2) / 2**octave
        x += nn.functional.interpolate(coarse, size=shape[1:], mode="bilinear", align_corners=False)
    x = x.clamp_(0.1, 0.9)
    return x, ids % 2, ids


def linear_specimen(shape: tuple[int, ...] = (3, 32, 32), dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """A two-class linear network on images, weights from a fixed stream."""
    draws = derive(0, "laws", "linear", ids=[0, 1])
    return linear(draws.normal(math.prod(shape)).to(dtype), draws.normal(1).squeeze(1).to(dtype))


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):  # making a layer draws an initialisation, which is then overwritten
        return linear_network(weight, bias)


def draws_of(ids: Tensor) -> Draws:
    return derive(7, "laws", ids=ids)


def view(n: int = 24, dtype: torch.dtype = torch.float32) -> View:
    """A view of a small ReLU network on images, for trying probes without a lab."""
    x, _, ids = images(n, (1, 6, 6))
    draws = derive(0, "laws", "view", ids=range(16))
    features = nn.Sequential(linear(draws.normal(36).to(dtype) / 6), nn.ReLU())
    net = nn.Sequential(features, linear(draws[:3].normal(16).to(dtype) / 4))
    with torch.no_grad():
        z = x.to(dtype)
        hidden, logits = features(z), net(z)
    return View(z, z, ids % 3, ids, logits, {"0.1:0": hidden}, None, Counted(net), ("a", "b", "c"), {})


def part(whole: View, rows: Tensor) -> View:
    """Some samples of a view."""
    activations = {name: value[rows] for name, value in whole.activations.items()}
    columns = {name: value[rows.numpy()] for name, value in whole.columns.items()}
    x = whole.x[rows]
    return View(x, x, whole.y[rows], whole.ids[rows], whole.logits[rows], activations, None, whole.net, whole.classes, columns)
