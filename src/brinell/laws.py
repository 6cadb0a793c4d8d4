"""The contract every item meets, as laws that run on any component, third-party ones too.

    >>> from brinell.core.threat import Ball
    >>> all(outcome.holds for outcome in check(Ball(norm=2, eps=0.5)))
    True

Each law is a function that raises `Broken` with the fact when it does not hold. `laws_of` says which laws an item has to meet;
`specimens` gives ready-made components to try an item with.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brinell.core import norms
from brinell.core.component import Component, items, parse
from brinell.core.dataset import Dataset, Source
from brinell.core.draws import Draws, derive
from brinell.core.errors import SpecError
from brinell.core.hardening import Hardening
from brinell.core.measurement import Reading
from brinell.core.network import Architecture, Counted, Network
from brinell.core.perturbation import Attack, Corruption, Perturbation, points
from brinell.core.probe import Probe, View
from brinell.core.tally import Tally
from brinell.core.threat import Ball, Threat
from brinell.models.reference import exact_margin, linear_network


class Broken(AssertionError):
    """A law does not hold; the message says what was found."""


@dataclass(frozen=True)
class Outcome:
    """Whether a component meets a law, and what was found where it does not."""

    law: str
    spec: str
    holds: bool
    detail: str = ""


Law = Callable[[Any], None]


def require(holds: Any, fact: str) -> None:
    """Raise `Broken` with the fact unless it holds."""
    if not bool(holds):
        raise Broken(fact)


def check(component: Component) -> list[Outcome]:
    """Try every law that this component has to meet."""
    outcomes = []
    for law in laws_of(component):
        try:
            law(component)
        except Exception as error:  # a third party's component may raise anything; whatever it is, the law does not hold
            outcomes.append(Outcome(law.__name__, component.spec(), False, f"{type(error).__name__}: {error}"))
        else:
            outcomes.append(Outcome(law.__name__, component.spec(), True))
    return outcomes


def laws_of(component: Component) -> tuple[Law, ...]:
    """The laws for this kind of component; every component has to meet `text_round_trip`."""
    for kind, laws in LAWS.items():
        if isinstance(component, kind):
            ball = isinstance(component, Attack) and isinstance(component.threat, Ball)
            return (text_round_trip, *laws, *((flips_where_it_must,) if ball else ()))
    return (text_round_trip,)


def specimens(cls: type[Component]) -> list[Component]:
    """Components of an item to try: its defaults in every norm, at every severity; none where a field is required (a file path)."""
    if any(info.is_required() for info in cls.model_fields.values()):
        return []
    if "severity" in cls.model_fields:
        return [cls(severity=severity) for severity in range(1, 6)]
    threat = cls.model_fields.get("threat")
    if threat is not None and isinstance(threat.get_default(), Ball):
        return [cls(threat=ball) for ball in _balls() if _accepts(cls, ball)]
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


# ---------------------------------------------------------------- what laws are tried on


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
    return _linear(draws.normal(math.prod(shape)).to(dtype), draws.normal(1).squeeze(1).to(dtype))


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):  # making a layer draws an initialisation, which is then overwritten
        return linear_network(weight, bias)


def _draws(ids: Tensor) -> Draws:
    return derive(7, "laws", ids=ids)


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return bool(torch.allclose(a, b, rtol=0, atol=tolerance))


def text_round_trip(component: Component) -> None:
    """The spec and the full spec both parse to an equal component with the same hash and key."""
    for text in (component.spec(), component.spec(full=True)):
        again = parse(text)
        require(again == component and hash(again) == hash(component), f"{text} parses to {again!r}")
        require(again.key() == component.key(), f"{text}: keys {again.key()} and {component.key()} differ")


def samples_inside(threat: Threat) -> None:
    """Random points of the threat lie in it, and so does the sample itself."""
    x, _, ids = images()
    require(threat.contains(x, threat.sample(x, _draws(ids))).all(), "a random point lies outside")
    require(threat.contains(x, x).all(), "the sample itself lies outside")


def projection(threat: Threat) -> None:
    """Projecting lands inside, changes nothing inside, and twice is once."""
    if not isinstance(threat, Ball):
        return
    x, _, ids = images()
    inside = threat.sample(x, _draws(ids))
    require(_close(threat.project(x, inside), inside, 1e-6), "projection moves points that are inside")
    far = x + _draws(ids).normal(*x.shape[1:])
    once = threat.project(x, far)
    require(threat.contains(x, once).all(), "projection lands outside")
    require(_close(threat.project(x, once), once, 1e-6), "projecting twice differs from once")


def steepest_is_dual(threat: Threat) -> None:
    """The steepest direction has length 1 and gains the dual norm of the gradient; a zero gradient gives no direction."""
    if not isinstance(threat, Ball):
        return
    g = _draws(torch.arange(5)).normal(40, dtype=torch.float64)
    u = threat.steepest(g)
    require(_close(norms.length(u, threat.norm), torch.ones(5, dtype=g.dtype), 1e-9), "its length is not 1")
    require(_close((g * u).sum(1), norms.length(g, norms.dual(threat.norm)), 1e-9), "it does not gain the dual norm")
    require((threat.steepest(torch.zeros_like(g)) == 0).all(), "a zero gradient gives a direction")


# ---------------------------------------------------------------- perturbations


def _ask(perturbation: Perturbation, x: Tensor, y: Tensor, ids: Tensor, net: Any = None) -> Tensor:
    return points(perturbation(net or linear_specimen(tuple(x.shape[1:])), x, y, draws=_draws(ids)))


@contextmanager
def _no_global_randomness() -> Iterator[None]:
    """Requires that what runs inside leaves the global random states of torch, numpy and Python alone."""
    with torch.random.fork_rng(devices=[]):
        _ = torch.rand(1), np.random.random(), random.random()  # noqa: NPY002 - who seeds must not find its own last state
        before = _random_states()
        yield
        require(_random_states() == before, "a global random state (of torch, numpy or Python) was used")


def _random_states() -> tuple[Any, ...]:
    numpys = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return torch.random.get_rng_state().tolist(), numpys["key"].tolist(), numpys["pos"], random.getstate()


def input_untouched(perturbation: Perturbation) -> None:
    """The input keeps its values; the result has its shape and type and memory of its own."""
    x, y, ids = images()
    before = x.clone()
    z = _ask(perturbation, x, y, ids)
    require(torch.equal(x, before), "the input was changed")
    require(z.shape == x.shape and z.dtype == x.dtype, f"shape {tuple(z.shape)} and type {z.dtype} instead of the input's")
    require(torch.isfinite(z).all(), "the result is not finite")
    z.fill_(-1.0)
    require(torch.equal(x, before), "the result shares memory with the input")


def same_draws_same_result(perturbation: Perturbation) -> None:
    """The same draws give the same result, whether asked again, alone, or in another order; no global random state is used."""
    x, y, ids = images()
    draws = _draws(ids)
    net = linear_specimen()
    with _no_global_randomness():
        first = points(perturbation(net, x, y, draws=draws))
        require(torch.equal(points(perturbation(net, x, y, draws=draws)), first), "a second call with the same draws differs")
    tolerance = 1e-5 if isinstance(perturbation, Attack) else 0.0
    alone = _ask(perturbation, x[2:3], y[2:3], ids[2:3])
    require(_close(alone[0], first[2], tolerance), "a sample alone differs from the same sample in a batch")
    back = torch.arange(len(x) - 1, -1, -1)
    require(_close(_ask(perturbation, x[back], y[back], ids[back]), first[back], tolerance), "the order of the batch matters")


def stays_in_threat(perturbation: Perturbation) -> None:
    """Every point lies in the threat, and in the domain [0, 1] of the images."""
    x, y, ids = images()
    z = _ask(perturbation, x, y, ids)
    require((z >= 0).all() and (z <= 1).all(), f"values from {z.min():.4g} to {z.max():.4g}")
    if perturbation.threat is not None:
        require(perturbation.threat.contains(x, z).all(), f"a point left {perturbation.threat.spec()}")


def takes_any_images(perturbation: Perturbation) -> None:
    """Sides from 8, non-square images, and 1, 3 and 4 channels give finite results of the same shape."""
    for shape in ((1, 8, 8), (3, 32, 48), (4, 16, 16)):
        x, y, ids = images(2, shape)
        z = _ask(perturbation, x, y, ids)
        require(z.shape == x.shape and torch.isfinite(z).all(), f"shape {shape} is not handled")


def ladder_grows(corruption: Corruption) -> None:
    """A stronger severity moves images further on average, except where the ladder is declared not to (`uneven`)."""
    if "severity" not in type(corruption).model_fields or getattr(corruption, "uneven", ""):
        return
    x, y, ids = images(16)
    moved = [float(norms.length(_ask(corruption.replace(severity=s), x, y, ids) - x, 2).mean()) for s in range(1, 6)]
    require(all(a <= b for a, b in pairwise(moved)), f"mean L2 distances by severity: {', '.join(f'{m:.3g}' for m in moved)}")


def flips_where_it_must(attack: Attack) -> None:
    """On a two-class linear network the attack flips a sample at 1.05 times its exact margin, and never at 0.95 times.

    A weaker attack declares a larger factor, `reach`, and says why in its docstring.
    """
    ball = attack.threat
    if not isinstance(ball, Ball) or attack.goal.name != "misclassify":
        return
    draws = derive(0, "laws", "margin", ids=[0, 1])
    weight, bias = draws.normal(36), draws.normal(1).squeeze(1)
    net = _linear(weight, bias)
    x, _, ids = images(8, (1, 6, 6))
    with torch.no_grad():
        y = net(x).argmax(1)
    margins = exact_margin(weight, bias, x, y, ball.norm)
    for factor, flips in ((getattr(attack, "reach", 1.05), True), (0.95, False)):
        for row in range(len(x)):
            at = slice(row, row + 1)
            threat = ball.replace(eps=float(margins[row]) * factor, low=-math.inf, high=math.inf)
            z = _ask(attack.replace(threat=threat), x[at], y[at], ids[at], net)
            require(threat.contains(x[at], z).all(), f"left its ball at {factor} x the margin")
            with torch.no_grad():
                flipped = bool(net(z).argmax(1) != y[at])
            require(flipped == flips, f"sample {row} at {factor} x its margin {float(margins[row]):.4g}: flipped={flipped}")


# ---------------------------------------------------------------- probes


def view(n: int = 24, dtype: torch.dtype = torch.float32) -> View:
    """A view of a small ReLU network on images, for trying probes without a lab."""
    x, _, ids = images(n, (1, 6, 6))
    draws = derive(0, "laws", "view", ids=range(16))
    features = nn.Sequential(_linear(draws.normal(36).to(dtype) / 6), nn.ReLU())
    net = nn.Sequential(features, _linear(draws[:3].normal(16).to(dtype) / 4))
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


def _observe(probe: Probe, seen: View) -> Tally:
    return probe.observe(seen, draws=derive(3, ids=seen.ids))


def _same_readings(a: list[Reading], b: list[Reading], tolerance: float) -> bool:
    def near(p: Any, q: Any) -> bool:
        return p is q if p is None or q is None else np.allclose(p, q, rtol=tolerance, atol=tolerance, equal_nan=True)

    return len(a) == len(b) and all(
        all(getattr(p, fact) == getattr(q, fact) for fact in ("name", "layer", "status", "n"))
        and all(near(getattr(p, number), getattr(q, number)) for number in ("value", "low", "high", "array"))
        for p, q in zip(a, b, strict=True)
    )


def tally_is_a_monoid(probe: Probe) -> None:
    """Readings are the same however the samples are cut into shards and in whatever order the shards are added."""
    whole = view()
    expected = probe.read(_observe(probe, whole))
    rows = torch.arange(len(whole.ids))
    cuts = [rows[:5], rows[5:6], rows[6:]]
    for order in ((0, 1, 2), (2, 0, 1)):
        shards = [_observe(probe, part(whole, cuts[k])) for k in order]
        require(_same_readings(expected, probe.read((shards[0] + shards[1]) + shards[2]), 1e-6), f"shards in order {order} read otherwise")
        require(_same_readings(expected, probe.read(shards[0] + (shards[1] + shards[2])), 1e-6), "addition is not associative")


def sample_order_is_irrelevant(probe: Probe) -> None:
    """Readings are the same for any order of the samples."""
    whole = view()
    back = torch.arange(len(whole.ids) - 1, -1, -1)
    require(_same_readings(probe.read(_observe(probe, whole)), probe.read(_observe(probe, part(whole, back))), 1e-6), "the order matters")


def single_agrees_with_double(probe: Probe) -> None:
    """float32 and float64 give the same readings to 1e-3."""
    a, b = (probe.read(_observe(probe, view(dtype=dtype))) for dtype in (torch.float32, torch.float64))
    require(_same_readings(a, b, 1e-3), "float32 and float64 read otherwise")


def samples_are_stable(source: Source) -> None:
    """Loading twice gives the same digest; a sample read alone equals the same sample read among others."""
    data = source.load()
    require(source.load().digest == data.digest, "loading twice gives another digest")
    require(torch.equal(data.x([2])[0], data.x([0, 1, 2])[2]), "a sample depends on what is read with it")
    require(np.array_equal(data.limit(20, 1).ids, source.load().limit(20, 1).ids), "the stratified sample is not repeatable")


def builds(architecture: Architecture) -> None:
    """Builds for images of one and three channels, gives (n, K) logits, and in evaluation mode the same ones twice."""
    for shape, classes in (((1, 32, 32), 10), ((3, 32, 32), 4)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = architecture.build(shape, classes).eval()
        x, _, _ = images(2, shape)
        with torch.no_grad():
            out = net(x)
            require(out.shape == (2, classes) and torch.isfinite(out).all(), f"outputs of shape {tuple(out.shape)} for {classes} classes")
            require(torch.equal(net(x), out), "two passes in evaluation mode differ")


def hardening_keeps_its_argument(hardening: Hardening) -> None:
    """The network given is unchanged, the same seed gives the same network, and its state fits the wrapped structure."""
    x, y, _ = images(32, (1, 8, 8))
    data = Dataset.from_arrays(x, y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    short = hardening.replace(epochs=2) if "epochs" in type(hardening).model_fields else hardening
    net = Network(module)
    before = net.digest
    with _no_global_randomness():
        first, second = short(net, data, seed=0), short(net, data, seed=0)
    require(net.digest == before, "the network that was passed in has changed")
    require(first.digest == second.digest, "the same seed gives two networks")
    short.wrap(net.frozen_copy().module).load_state_dict(first.module.state_dict())


LAWS: dict[type[Component], tuple[Law, ...]] = {
    Threat: (samples_inside, projection, steepest_is_dual),
    Perturbation: (input_untouched, same_draws_same_result, stays_in_threat, takes_any_images, ladder_grows),
    Probe: (tally_is_a_monoid, sample_order_is_irrelevant, single_agrees_with_double),
    Source: (samples_are_stable,),
    Architecture: (builds,),
    Hardening: (hardening_keeps_its_argument,),
}
