"""Figures of the study "beyond NTK": descents with the floor of kernels, tensor orders, samples, widths, dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from brinell.core.study import Curve, Figure
from brinell.studies.beyond_ntk_runs import ORDERS, Fitted, History, reaching
from brinell.studies.beyond_ntk_verdicts import Found, published, scaling


def figures(found: Found) -> Iterator[Figure]:
    """Those of the rows that were run. Axes are logarithms to base 10."""
    yield from _descents(found.histories.get("A", []))
    if found.kernels.get("B"):
        yield from _kernels(found)
    if found.histories.get("C"):
        yield _against(found)
    if found.histories.get("D"):
        yield Figure("Network and kernel over samples", "log10 of samples", "log10 of loss / floor", (
            _spread("network", _grouped((h.course.samples, h.floors[-1, 0]) for h in found.histories["D"])),
            _spread("tangent kernel, same samples", _grouped((f.task.samples, f.best / f.floor) for f in found.kernels["D"])),
        ), "Bars run over repetitions. With few samples the network overfits on the plateau.")  # fmt: skip
    if found.histories.get("E"):
        (history,) = found.histories["E"]
        yield Figure("Fresh samples at each step", "log10 of step", "log10 of loss / floor",
                     (_path("network", history, history.floors), _level("floor of kernels", history)),
                     "Mean over repetitions.")  # fmt: skip
    if found.histories.get("F"):
        yield Figure("Loss after equally many steps over width", "log10 of m / d", "log10 of loss / floor", (
            _spread("network", _grouped((h.course.width / h.course.problem.d, v) for h in found.histories["F"] for v in h.floors[-1])),
        ), "The target has 2d ReLU neurons.")  # fmt: skip
    if found.histories.get("P"):
        runs = published(found)
        yield Figure("The abs learner: loss over widths", "log10 of step", "log10 of loss / floor",
                     (*(_path(f"m = {h.course.width}", h, h.floors) for h in runs), _level("floor of kernels", runs[-1])))  # fmt: skip
        for history in [h for h in runs if h.course.width == 2 * h.course.problem.d] + runs[-1:]:
            yield _orders(f"The abs learner, m = {history.course.width}: orders over training", history)


def _descents(histories: list[History]) -> Iterator[Figure]:
    if not histories:
        return
    largest = histories[-1]
    yield Figure("Loss on the population over training", "log10 of step", "log10 of loss / floor",
                 (*(_path(f"d = {h.course.problem.d}", h, h.floors) for h in histories), _level("floor of kernels", largest)),
                 "Mean over repetitions. The floor is (1 - 3/pi) sum a^2, the loss of the best quadratic function.")  # fmt: skip
    yield _orders(f"Tensor orders over training, d = {largest.course.problem.d}", largest)
    yield Figure("Recovered neurons", "log10 of step", "share of sum ||w||^2", tuple(
        _path(f"d = {h.course.problem.d}", h, h.values["mass"], logarithm=False) for h in histories
    ), "The share in neurons with a cosine above 0.95 to one of the target's directions.")  # fmt: skip
    times = {float(h.course.problem.d): [*reaching(h, 0.5)] for h in histories}
    if len(times) > 1 and np.isfinite([value for values in times.values() for value in values]).all():
        first = min(times)
        scale = float(np.exp(np.log(times[first]).mean())) / first**2
        yield Figure("Length of the plateau", "log10 of d", "log10 of the step at half the floor", (
            _spread("measured", times), _spread("d^2 through the first", {d: [scale * d**2] for d in times}),
        ), "Bars run over repetitions.")  # fmt: skip


def _kernels(found: Found) -> Iterator[Figure]:
    rotated = [fitted for fitted in found.kernels["B"] if not fitted.task.problem.axes]
    d = max({fitted.task.problem.d for fitted in rotated}, key=lambda d: sum(f.task.problem.d == d for f in rotated))
    names = dict.fromkeys(f.task.kernel for f in rotated if f.task.problem.d == d)
    counts = sorted({float(np.log10(f.task.samples)) for f in rotated if f.task.problem.d == d})
    yield Figure(f"Kernels over samples, d = {d}", "log10 of samples", "log10 of loss / floor", (
        *(_spread(name, _counted(f for f in rotated if f.task.problem.d == d and f.task.kernel == name)) for name in names),
        Curve("floor of kernels", tuple(counts), (0.0,) * len(counts)),
    ), f"At the best ridge in hindsight. Orders 3 and 4 come within reach near d^4 / 24 = {d**4 / 24:.0f} samples.")  # fmt: skip
    losses = scaling(found)
    if len(losses) > 1:
        floors = {f.task.problem.d: f.floor for f in rotated}
        yield Figure("Loss of the tangent kernel over dimensions", "log10 of d", "log10 of loss", (
            _spread("measured, N = 2.5 d^2", losses), _spread("floor of kernels", {d: [floors[int(d)]] for d in losses}),
        ), "The floor falls as 1/d.")  # fmt: skip


def _against(found: Found) -> Figure:
    histories, kernels = found.histories["C"], found.kernels["C"]
    joined = np.concatenate([history.floors for history in histories], 1)
    first = histories[0]
    reached = float(np.mean(np.log10([fitted.best / fitted.floor for fitted in kernels])))
    ends = _log_steps(first)[[0, -1]]
    return Figure(f"Network and kernel on the same {first.course.samples} samples", "log10 of step", "log10 of loss / floor", (
        _path("network", first, joined), Curve("tangent kernel", tuple(ends), (reached, reached)), _level("floor of kernels", first),
    ), "Mean over repetitions; the kernel at its best ridge in hindsight.")  # fmt: skip


def _orders(title: str, history: History) -> Figure:
    energy = history.target.energy
    paths = tuple(_path(f"order {k}", history, history.values[f"T{k}"] / energy) for k in ORDERS)
    return Figure(title, "log10 of step", "log10 of T / sum a^2", paths, "Squared errors of the moment tensors; mean over repetitions.")


def _log_steps(history: History) -> np.ndarray:
    return np.log10(history.step[history.step > 0])


def _path(name: str, history: History, values: np.ndarray, logarithm: bool = True) -> Curve:
    """Mean over members at every mark after the start; rounding below 1e-12 is cut off before the logarithm."""
    shown = values[history.step > 0]
    heights = (np.log10(np.maximum(shown, 1e-12)) if logarithm else shown).mean(1)
    return Curve(name, tuple(_log_steps(history).tolist()), tuple(heights.tolist()))


def _level(name: str, history: History) -> Curve:
    return Curve(name, tuple(_log_steps(history)[[0, -1]].tolist()), (0.0, 0.0))


def _counted(fitted: Iterable[Fitted]) -> dict[float, list[float]]:
    return _grouped((one.task.samples, one.best / one.floor) for one in fitted)


def _grouped(pairs: Iterable[tuple[float, float]]) -> dict[float, list[float]]:
    groups: dict[float, list[float]] = {}
    for x, y in pairs:
        groups.setdefault(float(x), []).append(float(y))
    return dict(sorted(groups.items()))


def _spread(name: str, groups: dict[float, Sequence[float]] | dict[float, list[float]]) -> Curve:
    """Logarithms of both, the mean and the range over repetitions."""
    logs = {float(np.log10(x)): np.log10(values) for x, values in groups.items()}
    low, mean, high = (tuple(float(what(values)) for values in logs.values()) for what in (np.min, np.mean, np.max))
    return Curve(name, tuple(logs), mean, low, high)
