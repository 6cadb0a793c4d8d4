"""How the study of random ReLU networks judges its claims."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from brinell.core.draws import derive
from brinell.core.errors import UndefinedReading
from brinell.core.study import Claim, Slope, Verdict, judge_all, judge_prediction, judge_range, log_slope
from brinell.models.random_limit import line_law, linear_quantile
from brinell.models.random_relu import dead_probability, kurtosis, output_law, second_moment
from brinell.studies.evidence import Number, gap, mean, median, rate

Numbers = dict[str, np.ndarray]
LAW, DEAD = (10, 10, 20, 15), (8, 6, 12, 5)
"""The widths at which the exact laws are tried: moments and distribution; silent layers."""


@dataclass(frozen=True)
class Measured:
    """The rows of the study: numbers of every network, by (d, L), by bottleneck b, by width n, or by all widths.

    Arguments:
        deep_width: n of rows D and E. narrow_d, width_d: d of rows F and H. sphere: points of row E. seed: of the lab.
    """

    wide: Mapping[tuple[int, int], Numbers]
    deep: Mapping[tuple[int, int], Numbers]
    narrow: Mapping[int, Numbers]
    width: Mapping[int, Numbers]
    chains: Mapping[tuple[int, ...], Numbers]
    laws: Mapping[tuple[int, ...], Numbers]
    deep_width: int
    narrow_d: int
    width_d: int
    sphere: int
    seed: int

    @property
    def depths(self) -> list[int]:
        return sorted({depth for _, depth in self.wide})

    @property
    def dims(self) -> list[int]:
        return sorted({d for d, _ in self.wide})

    @property
    def cells(self) -> int:
        """How many cells the claims about many of them speak of."""
        return len(self.wide) + len(self.deep) + len(self.narrow)


def scaled(numbers: Numbers, d: int, confidence: float = 0.95) -> Number:
    """sqrt(d) times the median relative linear step."""
    return median(numbers["linear"] * math.sqrt(d), confidence)


def flips(numbers: Numbers, confidence: float = 0.95) -> Number:
    """The share of networks that change their sign on the line."""
    return rate(np.isfinite(numbers["crossing"]), confidence)


def residual(numbers: Numbers, confidence: float = 0.95) -> Number:
    """The median of |f(x_lin) / f(x)|."""
    return median(np.abs(numbers["residual"]), confidence)


def normalised(widths: tuple[int, ...], norms: np.ndarray) -> np.ndarray:
    """Layer norms times sqrt(m_i / d_i), m_i the narrowest width up to the layer: (n, L).

    Example:
        >>> normalised((4, 1, 16), np.array([[3.0, 8.0]])).tolist()
        [[3.0, 2.0]]
    """
    narrowest = np.minimum.accumulate(widths)[1:]
    return norms * np.sqrt(narrowest / np.array(widths[1:]))


def slope_of(groups: Mapping[float, np.ndarray]) -> Slope:
    """The log-log slope of medians; NaN where there are too few numbers for one."""
    try:
        return log_slope({x: y.tolist() for x, y in groups.items()}, statistic=np.median)
    except UndefinedReading:
        return Slope(math.nan, math.nan, math.nan, math.nan)


def line_slope(m: Measured, name: str, depth: int) -> Slope:
    """The log-log slope in d of the median size of `linear` or `residual` at one depth."""
    return slope_of({float(d): np.abs(numbers[name]) for (d, at), numbers in m.wide.items() if at == depth})


def verdicts(claims: tuple[Claim, ...], m: Measured, confidence: float) -> Iterable[Verdict]:
    """One verdict for each claim, in their order; cells of one claim are judged at `confidence` each."""
    low, high, deepest = min(m.dims), max(m.dims), max(m.depths)

    def pooled(parts: Iterable[Numbers], what: Callable[[Numbers], np.ndarray]) -> Number:
        return rate(np.concatenate([np.zeros(0, bool), *(what(part) for part in parts)]))

    def crossed(numbers: Numbers) -> np.ndarray:
        return np.isfinite(numbers["crossing"])

    def ranged(c: Claim, found: Number, measure: str, *, least: float = -np.inf, most: float = np.inf) -> Verdict:
        return judge_range(c, *found.ends, measure, least=least, most=most, n=found.n)

    def steps(c: Claim, cells: Mapping[str, tuple[Numbers, int]]) -> Verdict:
        parts = {}
        for name, (numbers, d) in cells.items():
            found, expected = scaled(numbers, d, confidence), linear_quantile(0.5, d) * math.sqrt(d)
            told = f"median sqrt(d) lin, {name}"
            parts[name] = judge_prediction(c, *found.ends, expected, told, tolerance=0.02, resolution=expected / 2, n=found.n)
        return judge_all(c, parts)

    def sloped(c: Claim, slope: Slope, measure: str, n: int, *, least: float = -np.inf, most: float = np.inf) -> Verdict:
        why = f"standard error {slope.error:.2g}"
        return judge_range(c, slope.value, slope.low, slope.high, measure, least=least, most=most, n=n, why=why)

    def slopes(c: Claim, name: str, least: float, most: float) -> Verdict:
        return judge_all(c, {
            f"L = {depth}": sloped(c, line_slope(m, name, depth), f"log-log slope in d, L = {depth}", len(m.dims), least=least, most=most)
            for depth in m.depths
        })  # fmt: skip

    def depth_law(c: Claim) -> Verdict:
        parts = {}
        for (d, depth), numbers in m.deep.items():
            if depth <= m.deep_width / 20:
                found, name = flips(numbers, confidence), f"d = {d}, L = {depth}"
                expected = line_law(d, depth).flip_rate()
                parts[name] = judge_prediction(c, *found.ends, expected, f"flip rate, {name}", tolerance=0.05, resolution=0.25, n=found.n)
        return judge_all(c, parts)

    def deeper(what: Callable[[Numbers], Number]) -> tuple[Number, str]:
        d = min(d for d, _ in m.deep)
        depths = sorted(depth for at, depth in m.deep if at == d)
        return gap(what(m.deep[d, depths[-1]]), what(m.deep[d, depths[0]])), f"d = {d}, L = {depths[-1]} minus L = {depths[0]}"

    def constancy(c: Claim) -> Verdict:
        found, where = deeper(lambda numbers: rate(numbers["one_sign"]))
        return ranged(c, found, f"share of networks with one sign, {where}", least=0.0)

    def spread(c: Claim) -> Verdict:
        found, where = deeper(lambda numbers: median(numbers["spread"]))
        return ranged(c, found, f"median std / rms, {where}", most=0.0)

    def jacobian(c: Claim) -> Verdict:
        parts = {}
        for widths, numbers in m.chains.items():
            for layer, values in enumerate(normalised(widths, numbers["norms"]).T, 1):
                name = f"{'-'.join(map(str, widths))}, layer {layer}"
                parts[name] = ranged(c, mean(values, confidence), f"mean normalised norm, {name}", least=1, most=3.5)
        return judge_all(c, parts)

    def span(c: Claim) -> Verdict:
        norms = np.concatenate([numbers["norms"] for numbers in m.chains.values()], 1)
        return ranged(c, mean(norms.max(1) / norms.min(1)), "largest over smallest norm, mean over networks", least=8)

    def alive(c: Claim) -> Verdict:
        found = {b: rate(~numbers["dead"], confidence) for b, numbers in m.narrow.items()}
        return judge_all(c, {
            f"b = {b}": judge_prediction(c, *number.ends, 1 - 2.0**-b, f"alive, b = {b}", resolution=0.3, n=number.n)
            for b, number in found.items()
        })  # fmt: skip

    high_d = [numbers for (d, _), numbers in m.wide.items() if d >= 64]
    single = [numbers for b, numbers in m.narrow.items() if b == 1]
    judged: dict[str, Callable[[Claim], Verdict]] = {
        "linear_step": lambda c: steps(c, {f"d = {d}, L = {depth}": (n, d) for (d, depth), n in m.wide.items()}),
        "square_root": lambda c: slopes(c, "linear", -0.6, -0.4),
        "flips": lambda c: ranged(c, pooled([n for (d, depth), n in m.wide.items() if d >= 64 and depth == 1], crossed),
                                  "flip rate, L = 1, d >= 64", least=0.99),
        "flips_with_dimension": lambda c: ranged(c, gap(flips(m.wide[high, deepest]), flips(m.wide[low, deepest])),
                                                 f"flip rate, L = {deepest}, d = {high} minus d = {low}", least=0.0),
        "flips_with_depth": lambda c: ranged(c, gap(flips(m.wide[low, deepest]), flips(m.wide[low, min(m.depths)])),
                                             f"flip rate, d = {low}, L = {deepest} minus L = {min(m.depths)}", most=0.0),
        "linearity": lambda c: slopes(c, "residual", -0.6, -0.3),
        "depth_law": depth_law,
        "constancy": constancy,
        "spread": spread,
        "bottleneck_alive": alive,
        "bottleneck_constant": lambda c: ranged(c, pooled(single, lambda n: crossed(n)[~n["dead"]]), "flip rate of the living, b = 1",
                                                most=0.05),
        "bottleneck_step": lambda c: steps(c, {f"b = {b}": (n, m.narrow_d) for b, n in m.narrow.items()}),
        "bottleneck_flips": lambda c: ranged(c, pooled([n for b, n in m.narrow.items() if b >= 64], crossed), "flip rate, b >= 64",
                                             least=0.95),
        "bottleneck_change": lambda c: sloped(c, slope_of({float(b): n["change"] for b, n in m.narrow.items()}), "log-log slope in b",
                                              len(m.narrow), least=-0.6, most=-0.4),
        "jacobian": jacobian,
        "jacobian_span": span,
        "width": lambda c: sloped(c, slope_of({float(n): np.abs(r["residual"]) for n, r in m.width.items()}),
                                  "log-log slope of the residual in width", len(m.width), most=0.0),
        "direction": lambda c: ranged(c, pooled(high_d, lambda n: n["random"]), "flip rate, d >= 64", most=0.02),
        "wrong_way": lambda c: ranged(c, pooled(high_d, lambda n: n["wrong_way"]), "flip rate, d >= 64", most=0.02),
        "exact": lambda c: judge_all(c, exact(c, m)),
    }  # fmt: skip
    for claim in claims:
        yield judged[claim.name](claim)


def exact(claim: Claim, m: Measured, confidence: float = 0.9999) -> dict[str, Verdict]:
    """The exact laws at finite width, each with an interval of some four standard errors."""
    from scipy.stats import ks_2samp

    f, square = m.laws[LAW]["value"], m.laws[LAW]["squared_gradient"]
    unit = second_moment(len(LAW) - 1)
    numbers = {
        "E f^2": (mean(f**2 / unit, confidence), 1.0),
        "E |grad f|^2": (mean(square / unit, confidence), 1.0),
        "kurtosis": (fourth_over_second(f, confidence), kurtosis(LAW)),
        "dead": (rate(m.laws[DEAD]["squared_gradient"] == 0, confidence), dead_probability(DEAD)),
    }
    parts = {
        name: judge_prediction(claim, *found.ends, expected, name, resolution=0.5 * expected, n=found.n)
        for name, (found, expected) in numbers.items()
    }
    law = output_law(LAW, derive(m.seed, "random_relu", "law", ids=range(len(f)))).numpy()
    p = float(ks_2samp(f, law).pvalue)  # pyright: ignore[reportAttributeAccessIssue]
    parts["law of f"] = judge_range(claim, p, p, p, "p of a two-sample Kolmogorov-Smirnov test", least=1e-3, n=len(f))
    error = median(np.concatenate([numbers["euler"] for numbers in m.wide.values()]))
    parts["<x, grad f> = f"] = judge_range(claim, *error.ends, "median relative error of Euler's identity, float32", most=1e-4, n=error.n)
    return parts


def fourth_over_second(f: np.ndarray, confidence: float = 0.95) -> Number:
    """E f^4 / (E f^2)^2 with the interval of the delta method."""
    second, fourth = float(np.mean(f**2)), float(np.mean(f**4))
    ratio = fourth / second**2
    return mean(ratio + (f**4 - fourth) / second**2 - 2 * ratio * (f**2 - second) / second, confidence)
