"""What the study of single gradient steps shows: its table and its figures, measured beside predicted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from brinell.core.study import Curve, Figure
from brinell.models.random_limit import line_law
from brinell.models.random_two_layer import moments
from brinell.studies.evidence import Number, entry, mean, median, rate
from brinell.studies.random_relu_shown import curve
from brinell.studies.single_step_claims import Measured, bend, distances, line_slope, needed, random_flip_rate

_CONTROLS = ("no step", "the wrong way, C = 3", "random direction, length of C = 3")


def table(m: Measured) -> Iterable[dict[str, Any]]:
    """A line for each number: what was measured in which cell, and what was predicted."""
    for (d, k), numbers in m.pairs.items():
        for activation in m.activations:
            cell, of = f"{activation}, d = {d}, k = {k}", moments(activation)
            for step in m.steps:
                yield entry("A", cell, f"flip rate, C = {step:g}", m.flips(numbers, activation, step), of.flip_rate(step))
            yield entry("A", cell, "E f^2", mean(numbers[f"{activation} value"] ** 2), of.A)
            yield entry("A", cell, "E |grad f|^2", mean(numbers[f"{activation} squared_gradient"]), of.squared_gradient(d))
            for column, name in enumerate(_CONTROLS):
                expected = (0.0, 0.0, random_flip_rate(activation, d))[column]
                yield entry("control", cell, f"flip rate, {name}", rate(numbers[f"{activation} control"][:, column]), expected)
    for (d, k), numbers in m.pairs.items():
        if d == 256:
            yield entry("B", f"relu, d = {d}, k = {k}", "flip rate, C = 3", m.flips(numbers, "relu", 3.0), moments("relu").flip_rate(3))
    for d, numbers in m.line.items():
        yield entry(
            "C", f"d = {d}, k = {2 * d}", "median norm needed", needed(numbers, d), float(np.median(line_law(d, 1).crossing)) * math.sqrt(d)
        )
    slope = line_slope(m)
    shown = Number(slope.value, slope.low, slope.high, len(m.line))
    yield {**entry("C", "all d", "log-log slope of the relative step in d", shown, -0.5), "error": slope.error}
    for (d, k), numbers in m.huge.items():
        for step in m.steps:
            yield entry(
                "D", f"d = {d}, k = {k}", f"flip rate, C = {step:g}", m.flips(numbers, "relu", step), moments("relu").flip_rate(step)
            )
    for depth, numbers in m.deep.items():
        expected = line_law(m.deep_d, depth).flip_rate(2.0)
        yield entry("E", f"d = {m.deep_d}, L = {depth}", "flip rate, Newton step, m = 2", rate(numbers["flipped"]), expected)
        yield entry("E", f"d = {m.deep_d}, L = {depth}", "flip rate, random direction", rate(numbers["random"]))
    for d, numbers in m.cones.items():
        yield entry("F", f"d = {d}", "share found", rate(numbers["flipped"]))
        yield entry("F", f"d = {d}", "median distance", median(distances(numbers)))
        yield entry("F", f"d = {d}", "median length over distance", bend(numbers))
    for depth, numbers in m.trained.items():
        cell = f"depth {depth}"
        yield entry("G", cell, "test accuracy", rate(numbers["right"]))
        yield entry("G", cell, "share found", rate(numbers["flipped"]))
        yield entry("G", cell, "median distance", median(distances(numbers)))
        yield entry("G", cell, "mean distance of those found", mean(numbers["distance"][numbers["flipped"]]))
        yield entry("G", cell, "median distance over |x|", median(distances(numbers) / numbers["size"]))
        yield entry("G", cell, "median distance, best of 20 random directions", median(numbers["random"]))
        for when, prefix in (("trained", ""), ("untrained", "initial ")):
            yield entry("G", cell, f"flip rate, Newton step, {when}", rate(numbers[f"{prefix}one_step"]))
            yield entry("G", cell, f"median lin, {when}", median(numbers[f"{prefix}linear"]))
    for side, numbers in m.lazy.items():
        cell = f"side {side}"
        yield entry("H", cell, "test accuracy", rate(numbers["right"]))
        yield entry("H", cell, "training steps", Number(float(numbers["steps"]), np.nan, np.nan, 1))
        yield entry("H", cell, "mean gradient norm", mean(numbers["gradient"]))
        yield entry("H", cell, "median distance", median(numbers["distance"]))
        yield entry("H", cell, "median distance times side over |x|", median(numbers["distance"] / numbers["size"] * side))
        yield entry("H", cell, "median distance over gradient norm", median(numbers["distance"] / numbers["gradient"]))
        yield entry("H", cell, "flip rate, Newton step", rate(numbers["one_step"]))


def figures(m: Measured) -> Iterable[Figure]:
    """The success curve, width, the norm needed, depth, small steps, and trained networks."""
    d, k = max((pair for pair in m.pairs if pair[0] >= 256), default=max(m.pairs), key=lambda pair: len(m.pairs[pair]["relu value"]))
    steps = np.linspace(0, max(m.steps), 49)
    yield Figure("Success of a fixed step", "C", "flip rate", tuple(
        shown for activation in m.activations for shown in (
            curve(activation, m.steps, [m.flips(m.pairs[d, k], activation, step) for step in m.steps]),
            Curve(f"{activation}, erf(C D / sqrt(2 A))", tuple(steps.tolist()), tuple(moments(activation).flip_rate(c) for c in steps)),
        )
    ), f"Networks of d = {d} and k = {k}.")  # fmt: skip
    dims = sorted({d for d, _ in m.pairs})
    yield Figure("Success does not depend on the width", "log2 k", "flip rate, relu, C = 3", (
        *(curve(f"d = {d}", np.log2(_widths(m, d)), [m.flips(m.pairs[d, k], "relu", 3.0) for k in _widths(m, d)]) for d in dims),
        *(curve(f"d = {d}, exact sampler", [math.log2(k)], [m.flips(numbers, "relu", 3.0)]) for (d, k), numbers in m.huge.items()),
    ), "Undercomplete networks, k < d, behave as overcomplete ones.")  # fmt: skip
    line = sorted(m.line)
    yield Figure("The norm needed does not grow with the dimension", "log2 d", "median |delta|", (
        curve("measured", np.log2(line), [needed(m.line[d], d) for d in line]),
        Curve("infinite width", tuple(np.log2(line).tolist()), tuple(map(_predicted_norm, line))),
    ), "|x| = sqrt(d), so the relative size falls as d^-1/2.")  # fmt: skip
    depths = sorted(m.deep)
    yield Figure("One Newton step against depth", "log2 L", "flip rate, m = 2", (
        curve(f"d = {m.deep_d}", np.log2(depths), [rate(m.deep[depth]["flipped"]) for depth in depths]),
        Curve("infinite width", tuple(np.log2(depths).tolist()), tuple(line_law(m.deep_d, depth).flip_rate(2.0) for depth in depths)),
    ), "Success degrades with L / sqrt(d).")  # fmt: skip
    cones = sorted(m.cones)
    yield Figure("Small steps on networks whose layers shrink", "log2 d", "median", (
        curve("distance", np.log2(cones), [median(distances(m.cones[d])) for d in cones]),
        curve("length over distance", np.log2(cones), [bend(m.cones[d]) for d in cones]),
    ), "Hidden widths d/2, d/4, d/8.")  # fmt: skip
    if m.trained:
        at = sorted(m.trained)
        yield Figure("Distance to the other answer after training", "depth", "median distance over |x|", (
            curve("small gradient steps", at, [median(distances(m.trained[k]) / m.trained[k]["size"]) for k in at]),
            curve("best of 20 random directions", at, [median(m.trained[k]["random"] / m.trained[k]["size"]) for k in at]),
            curve("linear step, untrained", at, [median(m.trained[k]["initial linear"]) for k in at]),
            curve("linear step, trained", at, [median(m.trained[k]["linear"]) for k in at]),
        ), "One network of 100 units a layer per depth; intervals over test images.")  # fmt: skip
    if m.lazy:
        sides = sorted(m.lazy)
        yield Figure("Lazy training: the distance over |x| times the side", "side of the image", "median", (
            curve("distance times side over |x|", sides, [median(n["distance"] / n["size"] * s) for s, n in sorted(m.lazy.items())]),
        ), "Flat where the relative distance falls as the square root of the dimension.")  # fmt: skip


def _widths(m: Measured, d: int) -> list[int]:
    return sorted(k for at, k in m.pairs if at == d)


def _predicted_norm(d: int) -> float:
    """The median of sqrt(d) eps* at infinite width."""
    return float(np.median(line_law(d, 1).crossing)) * math.sqrt(d)
