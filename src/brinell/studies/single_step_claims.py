"""How the study of single gradient steps judges its claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from brinell.core.confidence import bonferroni
from brinell.core.study import Claim, Slope, Verdict, judge_all, judge_prediction, judge_range
from brinell.models.random_two_layer import moments
from brinell.studies.evidence import Number, gap, mean, median, rate
from brinell.studies.random_networks import CONTROL
from brinell.studies.random_relu_claims import slope_of

Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """The rows of the study: numbers of every network by (d, k), d, depth or side; of trained ones, by image.

    Arguments:
        activations, steps: of row A, the columns of its flips. deep_d: d of row E.
    """

    activations: tuple[str, ...]
    steps: tuple[float, ...]
    pairs: Mapping[tuple[int, int], Numbers]
    line: Mapping[int, Numbers]
    huge: Mapping[tuple[int, int], Numbers]
    deep_d: int
    deep: Mapping[int, Numbers]
    cones: Mapping[int, Numbers]
    trained: Mapping[int, Numbers]
    lazy: Mapping[int, Numbers]

    @property
    def cells(self) -> int:
        """How many cells the claims about many of them speak of."""
        return len(self.pairs) * len(self.activations) * len(self.steps)

    def flips(self, numbers: Numbers, activation: str, step: float, confidence: float = 0.95) -> Number:
        """The share of networks that a fixed step flips."""
        return rate(numbers[f"{activation} flipped"][:, self.steps.index(step)], confidence)


def needed(numbers: Numbers, d: int, confidence: float = 0.95) -> Number:
    """The median norm of the smallest step along the gradient that changes the sign, |x| = sqrt(d)."""
    return median(numbers["crossing"] * math.sqrt(d), confidence)


def line_slope(m: Measured) -> Slope:
    """The log-log slope in d of the median relative step that changes the sign."""
    return slope_of({float(d): np.minimum(numbers["crossing"], 1.0) for d, numbers in m.line.items()})


def bend(numbers: Numbers) -> Number:
    """The median length of the walks that arrived, over their distance."""
    arrived = numbers["flipped"]
    return median(numbers["path"][arrived] / np.maximum(numbers["distance"][arrived], 1e-300))


def distances(numbers: Numbers) -> np.ndarray:
    """Distances of the walks; inf where they did not arrive."""
    return np.where(numbers["flipped"], numbers["distance"], np.inf)


def random_flip_rate(activation: str, d: int) -> float:
    """P(flip) of a step of length C |grad f| in a random direction: arctan of the ratio of two Gaussians' sizes, over pi.

    f ~ N(0, A), and the change ~ N(0, C^2 D^2 / d) independently, for large d and k.

    Example:
        >>> round(random_flip_rate("relu", 256), 3)
        0.042
    """
    m = moments(activation)
    return math.atan(CONTROL * m.D / math.sqrt(m.A * d)) / math.pi


def verdicts(claims: tuple[Claim, ...], m: Measured, confidence: float) -> Iterable[Verdict]:
    """One verdict for each claim, in their order; cells of one claim are judged at `confidence` each."""

    def ranged(c: Claim, found: Number, measure: str, *, least: float = -np.inf, most: float = np.inf) -> Verdict:
        return judge_range(c, *found.ends, measure, least=least, most=most, n=found.n)

    def curve(c: Claim) -> Verdict:
        parts = {}
        for (d, k), numbers in m.pairs.items():
            for activation in m.activations if d >= 256 else ():
                for step in m.steps:
                    found, name = m.flips(numbers, activation, step, confidence), f"{activation}, d = {d}, k = {k}, C = {step:g}"
                    expected = moments(activation).flip_rate(step)
                    parts[name] = judge_prediction(
                        c, *found.ends, expected, f"flip rate, {name}", tolerance=0.03, resolution=0.15, n=found.n
                    )
        return judge_all(c, parts)

    def second(c: Claim) -> Verdict:
        parts = {}
        for (d, k), numbers in m.pairs.items():
            for activation in m.activations:
                name, of = f"{activation}, d = {d}, k = {k}", moments(activation)
                for what, values, expected in (
                    ("E f^2", numbers[f"{activation} value"] ** 2, of.A),
                    ("E |grad f|^2", numbers[f"{activation} squared_gradient"], of.squared_gradient(d)),
                ):
                    found = mean(values, confidence)
                    parts[f"{what}, {name}"] = judge_prediction(c, *found.ends, expected, what, resolution=0.6 * expected, n=found.n)
        return judge_all(c, parts)

    def width_free(c: Claim) -> Verdict:
        rates = {k: m.flips(numbers, "relu", 3.0) for (d, k), numbers in m.pairs.items() if d == 256}
        if len(rates) < 2:
            return judge_range(c, None, None, None, "range of the flip rate over k")
        ordered = sorted(rates.values(), key=lambda number: number.value)
        return ranged(c, gap(ordered[-1], ordered[0]), f"largest minus smallest flip rate over k = {', '.join(map(str, rates))}", most=0.08)

    def norm(c: Claim) -> Verdict:
        found = {d: needed(numbers, d, bonferroni(0.95, len(m.line))) for d, numbers in m.line.items() if d >= 64}
        return judge_all(c, {f"d = {d}": ranged(c, number, f"median norm, d = {d}", least=0.6, most=0.8) for d, number in found.items()})

    def huge(c: Claim) -> Verdict:
        found = {pair: m.flips(numbers, "relu", 3.0, 0.9999) for pair, numbers in m.huge.items()}
        return judge_all(c, {
            f"d = {d}, k = {k}": judge_prediction(c, *number.ends, moments("relu").flip_rate(3), f"flip rate, d = {d}, k = {k}",
                                                  resolution=0.12, n=number.n)
            for (d, k), number in found.items()
        })  # fmt: skip

    def each(c: Claim, cells: Mapping[int, Number], measure: str, *, least: float = -np.inf, most: float = np.inf) -> Verdict:
        return judge_all(c, {
            f"at {at}": ranged(c, number, f"{measure} {at}", least=least, most=most) for at, number in cells.items()
        })  # fmt: skip

    def control(c: Claim, column: int) -> Verdict:
        parts = {}
        for activation in m.activations:
            flags = [numbers[f"{activation} control"][:, column] for (d, _), numbers in m.pairs.items() if d >= 64]
            found = rate(np.concatenate([np.zeros(0, bool), *flags]), confidence)
            parts[activation] = ranged(c, found, f"flip rate, {activation}, d >= 64", most=0.02)
        return judge_all(c, parts)

    def direction(c: Claim) -> Verdict:
        parts = {}
        for (d, k), numbers in m.pairs.items():
            for activation in m.activations if d >= 64 else ():
                found, name = rate(numbers[f"{activation} control"][:, 2], confidence), f"{activation}, d = {d}, k = {k}"
                expected = random_flip_rate(activation, d)
                parts[name] = judge_prediction(c, *found.ends, expected, f"flip rate, {name}", tolerance=0.01, resolution=0.15, n=found.n)
        return judge_all(c, parts)

    def sloped(c: Claim, slope: Slope, measure: str, n: int, middle: float) -> Verdict:
        why = f"standard error {slope.error:.2g}"
        half = 0.2 * abs(middle)
        return judge_range(c, slope.value, slope.low, slope.high, measure, least=middle - half, most=middle + half, n=n, why=why)

    ends = (min(m.cones), max(m.cones))
    judged: dict[str, Callable[[Claim], Verdict]] = {
        "curve": curve,
        "moments": second,
        "width_free": width_free,
        "norm": norm,
        "square_root": lambda c: sloped(c, line_slope(m), "log-log slope of the median relative step in d", len(m.line), -0.5),
        "huge": huge,
        "shallow": lambda c: each(c, {k: rate(n["flipped"]) for k, n in m.deep.items() if k <= 3 and m.deep_d >= 256}, "flip rate, L =",
                                  least=0.95),
        "deep": lambda c: ranged(c, gap(rate(m.deep[max(m.deep)]["flipped"]), rate(m.deep[min(m.deep)]["flipped"])),
                                 f"flip rate, L = {max(m.deep)} minus L = {min(m.deep)}", most=0.0),
        "small_steps": lambda c: ranged(c, rate(m.cones[ends[1]]["flipped"]), f"share found, d = {ends[1]}", least=0.95),
        "small_distance": lambda c: each(c, {d: median(distances(n)) for d, n in m.cones.items()}, "median distance, d =",
                                         least=0.4, most=0.9),
        "straight": lambda c: ranged(c, gap(bend(m.cones[ends[1]]), bend(m.cones[ends[0]])),
                                     f"median length over distance, d = {ends[1]} minus d = {ends[0]}", most=0.0),
        "no_step": lambda c: control(c, 0),
        "wrong_way": lambda c: control(c, 1),
        "direction": direction,
        "trained_accuracy": lambda c: each(c, {k: rate(n["right"]) for k, n in m.trained.items()}, "test accuracy, depth", least=0.95),
        "trained_distance": lambda c: each(c, {k: median(distances(n) / n["size"]) for k, n in m.trained.items()},
                                           "median distance over |x|, depth", most=0.25),
        "trained_random": lambda c: each(c, {k: median(np.minimum(n["random"], n["size"]) / distances(n)) for k, n in m.trained.items()},
                                         "median of random over gradient distance, depth", least=3.0),
        "lazy_distance": lambda c: sloped(c, slope_of({float(side): n["distance"] / n["size"] for side, n in m.lazy.items()}),
                                          "log-log slope of the median distance over |x| in the side", len(m.lazy), -1.0),
        "lazy_step": lambda c: each(c, {side: rate(n["one_step"]) for side, n in m.lazy.items()}, "flip rate, side", least=0.9),
    }  # fmt: skip
    for claim in claims:
        yield judged[claim.name](claim)
