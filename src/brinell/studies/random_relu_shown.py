"""What the study of random ReLU networks shows: its table and its figures, measured beside predicted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from brinell.core.study import Curve, Figure
from brinell.models.random_limit import line_law, linear_quantile, sphere_law
from brinell.models.random_relu import dead_probability, kurtosis
from brinell.studies.evidence import Number, entry, mean, median, rate
from brinell.studies.random_networks import sphere_points
from brinell.studies.random_relu_claims import (
    DEAD,
    LAW,
    Measured,
    flips,
    fourth_over_second,
    line_slope,
    normalised,
    residual,
    scaled,
    slope_of,
)


@lru_cache(maxsize=64)
def predicted_sphere(d: int, layers: int, count: int, seed: int) -> tuple[float, float]:
    """Sign constancy and relative spread at infinite width on the study's own points."""
    return sphere_law(sphere_points(d, count, seed), layers, 4000)


def predicted_residual(d: int, layers: int) -> float:
    """The median of |f(x_lin) / f(x)| at infinite width."""
    return float(np.median(np.abs(line_law(d, layers).residual)))


def table(m: Measured) -> Iterable[dict[str, Any]]:
    """A line for each number: what was measured in which cell, and what was predicted."""
    for (d, depth), numbers in m.wide.items():
        cell = f"d = {d}, L = {depth}"
        yield entry("A", cell, "median sqrt(d) lin", scaled(numbers, d), linear_quantile(0.5, d) * math.sqrt(d))
        yield entry("B", cell, "flip rate on the line, eps <= 0.5", flips(numbers), line_law(d, depth).flip_rate())
        yield entry("B", cell, "flip rate at 2 lin", rate(numbers["flipped"]))
        yield entry("B", cell, "flip rate in a random direction", rate(numbers["random"]))
        yield entry("B", cell, "flip rate the wrong way", rate(numbers["wrong_way"]))
        yield entry("B", cell, "median sqrt(d) eps*", median(numbers["crossing"] * math.sqrt(d)),
                    float(np.median(line_law(d, depth).crossing)) * math.sqrt(d))  # fmt: skip
        yield entry("B", cell, "share of hidden units that switch", mean(numbers["switched"]))
        yield entry("C", cell, "median residual", residual(numbers), predicted_residual(d, depth))
    for depth in m.depths:
        for row, name in (("A", "linear"), ("C", "residual")):
            slope = line_slope(m, name, depth)
            shown = Number(slope.value, slope.low, slope.high, len(m.dims))
            yield {**entry(row, f"L = {depth}", f"log-log slope of {name} in d", shown, -0.5), "error": slope.error}
    for (d, depth), numbers in m.deep.items():
        cell = f"d = {d}, L = {depth}, n = {m.deep_width}"
        one, spread = predicted_sphere(d, depth, m.sphere, m.seed)
        yield entry("D", cell, "flip rate on the line, eps <= 0.5", flips(numbers), line_law(d, depth).flip_rate())
        yield entry("E", cell, "share with one sign on the sphere", rate(numbers["one_sign"]), one)
        yield entry("E", cell, "median std / rms on the sphere", median(numbers["spread"]), spread)
    for b, numbers in m.narrow.items():
        yield entry("F", f"b = {b}", "alive", rate(~numbers["dead"]), 1 - 2.0**-b)
        yield entry("F", f"b = {b}", "flip rate on the line", flips(numbers))
        yield entry(
            "F", f"b = {b}", "median sqrt(d) lin", scaled(numbers, m.narrow_d), linear_quantile(0.5, m.narrow_d) * math.sqrt(m.narrow_d)
        )
        yield entry("F", f"b = {b}", "median sqrt(b) times the bottleneck's change", median(numbers["change"] * math.sqrt(b)))
    for widths, numbers in m.chains.items():
        own = normalised(widths, numbers["norms"])
        for layer in range(own.shape[1]):
            cell = f"{'-'.join(map(str, widths))}, layer {layer + 1}"
            yield entry("G", cell, "Jacobian norm", mean(numbers["norms"][:, layer]))
            yield entry("G", cell, "Jacobian norm, normalised", mean(own[:, layer]))
    for n, numbers in m.width.items():
        yield entry("H", f"d = {m.width_d}, L = 3, n = {n}", "median residual", residual(numbers), predicted_residual(m.width_d, 3))
    f, scale = m.laws[LAW]["value"], 2.0 ** (len(LAW) - 1)
    law = "-".join(map(str, LAW))
    yield entry("X", law, "2^L E f^2", mean(f**2 * scale), 1.0)
    yield entry("X", law, "2^L E |grad f|^2", mean(m.laws[LAW]["squared_gradient"] * scale), 1.0)
    yield entry("X", law, "kurtosis", fourth_over_second(f), kurtosis(LAW))
    yield entry("X", "-".join(map(str, DEAD)), "dead", rate(m.laws[DEAD]["squared_gradient"] == 0), dead_probability(DEAD))


def curve(name: str, x: ArrayLike, numbers: Sequence[Number]) -> Curve:
    """Numbers over x, with their intervals."""
    ends = [[float(v) if np.isfinite(v) else None for v in number.ends] for number in numbers]
    value, low, high = (tuple(end[at] for end in ends) for at in range(3))
    return Curve(name, tuple(np.asarray(x, dtype=float).tolist()), value, low, high)


def figures(m: Measured) -> Iterable[Figure]:
    """The square-root law, flips over depth, the bottleneck, constancy, local linearity, and width."""

    def wide(depth: int) -> list[int]:
        return sorted(d for d, at in m.wide if at == depth)

    yield Figure("The relative linear step falls as the square root of the dimension", "log2 d", "log2 median lin", (
        *(curve(f"L = {depth}", np.log2(wide(depth)), [_logarithm(median(m.wide[d, depth]["linear"])) for d in wide(depth)])
          for depth in m.depths),
        Curve("infinite width", tuple(np.log2(m.dims).tolist()), tuple(math.log2(linear_quantile(0.5, d)) for d in m.dims)),
    ), "A straight line of slope -1/2 at every depth: the constant is that of |N(0, 1)|.")  # fmt: skip
    every = {**m.wide, **m.deep}
    places = sorted(every, key=lambda key: key[1] / math.sqrt(key[0]))
    yield Figure("Sign changes against depth over sqrt(d)", "log2 (L / sqrt(d))", "flip rate on the line", (
        *(curve(f"d = {d}", [_log_depth(key) for key in places if key[0] == d], [flips(every[key]) for key in places if key[0] == d])
          for d in sorted({d for d, _ in every})),
        Curve("infinite width", tuple(_log_depth(key) for key in places), tuple(line_law(*key).flip_rate() for key in places)),
    ), "All dimensions fall on one curve: constant depth means much less than sqrt(d) layers.")  # fmt: skip
    narrow = sorted(m.narrow)
    yield Figure("Sign changes behind a bottleneck", "log2 b", "rate, or sqrt(d) lin", (
        curve("flip rate", np.log2(narrow), [flips(m.narrow[b]) for b in narrow]),
        curve("alive", np.log2(narrow), [rate(~m.narrow[b]["dead"]) for b in narrow]),
        curve("median sqrt(d) lin", np.log2(narrow), [scaled(m.narrow[b], m.narrow_d) for b in narrow]),
    ), "The linear step does not know of the bottleneck; whether the sign changes does.")  # fmt: skip
    change = slope_of({float(b): m.narrow[b]["change"] for b in narrow})
    yield Figure("How far a bottleneck's activations move at the linear step", "log2 b", "log2 relative change",
                 (curve("median", np.log2(narrow), [_logarithm(median(m.narrow[b]["change"])) for b in narrow]),),
                 f"The slope is {change.value:.2f}, with a standard error of {change.error:.2g}; -1/2 is expected.")  # fmt: skip
    deep = sorted({d for d, _ in m.deep})
    for what, title, at in (("one_sign", "Networks of one sign on the sphere", 0), ("spread", "Spread over the sphere", 1)):
        shown = []
        for d in deep:
            depths = sorted(depth for key, depth in m.deep if key == d)
            own = [rate(m.deep[d, k][what]) if at == 0 else median(m.deep[d, k][what]) for k in depths]
            shown.append(curve(f"d = {d}", np.log2(depths), own))
            expected = tuple(predicted_sphere(d, k, m.sphere, m.seed)[at] for k in depths)
            shown.append(Curve(f"d = {d}, infinite width", tuple(np.log2(depths).tolist()), expected))
        yield Figure(title, "log2 L", "share of networks" if at == 0 else "median std / rms", tuple(shown),
                     f"At {m.sphere} points; deep networks are nearly constant.")  # fmt: skip
    yield Figure("Local linearity", "log2 d", "log2 median |f(x_lin) / f(x)|", tuple(
        shown for depth in m.depths for shown in (
            curve(f"L = {depth}", np.log2(wide(depth)), [_logarithm(residual(m.wide[d, depth])) for d in wide(depth)]),
            Curve(f"L = {depth}, infinite width", tuple(np.log2(wide(depth)).tolist()),
                  tuple(math.log2(predicted_residual(d, depth)) for d in wide(depth))),
        )
    ), "0 for a linear function; narrow networks bend more than wide ones.")  # fmt: skip
    sides = sorted(m.width)
    yield Figure("Width and local linearity", "log2 n", "median |f(x_lin) / f(x)|", (
        curve(f"d = {m.width_d}, L = 3", np.log2(sides), [residual(m.width[n]) for n in sides]),
        Curve("infinite width", tuple(np.log2(sides).tolist()), (predicted_residual(m.width_d, 3),) * len(sides)),
    ), "Wide networks approach the residual of infinite width.")  # fmt: skip


def _log_depth(key: tuple[int, int]) -> float:
    return math.log2(key[1] / math.sqrt(key[0]))


def _logarithm(number: Number) -> Number:
    with np.errstate(divide="ignore", invalid="ignore"):
        value, low, high = (float(np.log2(end)) for end in number.ends)
        return Number(value, low, high, number.n)
