"""Beyond the neural tangent kernel: does descent on a two-layer network learn what no kernel learns from as many samples?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from brinell.core.study import Claim, Outcome, Reference, Scale, Study
from brinell.models.kernel import Kernel
from brinell.studies.beyond_ntk_figures import figures
from brinell.studies.beyond_ntk_runs import ORDERS, Course, Problem, Regression, fit, follow, reaching
from brinell.studies.beyond_ntk_verdicts import Found, verdicts

Row = Literal["A", "B", "C", "D", "E", "F", "H", "P"]
KERNELS = (
    "ntk", "ntk(layers=first)", "learner_ntk(width=200)", "rbf(scale=2)", "polynomial(degree=4)", "random_features(features=1000)",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What one scale of the study runs.

    Arguments:
        rows: which rows of experiments. seeds: repetitions of each. leg: steps between two savings of a descent.
        courses: row A, (d, width, steps) of descents on the population. dims: row B, dimensions in which the NTK gets 2.5 d^2 samples.
        kernels, counts: row B at dimension `d`, each kernel at each number of samples; `many` are for the NTK of both layers alone.
        same: row C, (width, samples, steps) at dimension d, the kernel on the same samples. amounts: row D, likewise, the kernel at the
            numbers of samples that fit in `most`. online: row E, (width, batch, steps). thin: row F, dimension, widths and steps.
        hard: row H, (d, width, steps, samples of the kernel, block). published: row P, (d, widths, samples or 0 for the population, steps)
            of the abs learner.
    """

    rows: tuple[Row, ...]
    seeds: int
    d: int
    courses: tuple[tuple[int, int, int], ...]
    dims: tuple[int, ...]
    counts: tuple[int, ...]
    many: tuple[int, ...]
    same: tuple[int, int, int]
    amounts: tuple[tuple[int, int, int], ...]
    online: tuple[int, int, int]
    thin: tuple[int, tuple[int, ...], int]
    hard: tuple[int, int, int, int, int]
    published: tuple[tuple[int, tuple[int, ...], int, int], ...]
    kernels: tuple[str, ...] = KERNELS
    leg: int = 5000
    most: int = 8000


SETTINGS = {
    Scale.SMOKE: Settings(
        rows=("A", "B", "C", "D", "E", "F", "H", "P"), seeds=2, d=6, courses=((4, 20, 120), (8, 40, 250)), dims=(6, 8), counts=(60, 120),
        many=(240,), same=(24, 400, 150), amounts=((60, 24, 100), (240, 24, 100)), online=(24, 100, 150), thin=(6, (6, 12), 200),
        hard=(6, 24, 150, 120, 2), published=((6, (6, 12), 0, 120),), leg=100,
    ),
    Scale.SMALL: Settings(
        rows=("A", "B", "C", "D", "E", "F", "H", "P"), seeds=3, d=20,
        courses=((7, 70, 1500), (10, 100, 2000), (14, 140, 2500), (20, 200, 4000)), dims=(10, 14, 20, 28), counts=(250, 1000), many=(4000,),
        same=(60, 8000, 3000), amounts=((1000, 100, 2000), (4000, 100, 2000), (16000, 60, 2000)), online=(100, 500, 3000),
        thin=(12, (12, 24, 48, 120), 2500), hard=(20, 200, 3000, 1000, 4), published=((30, (30, 60, 100), 0, 5000),),
    ),
    Scale.PAPER: Settings(
        rows=("A", "B", "C", "D", "E", "F", "H", "P"), seeds=5, d=30,
        courses=((20, 200, 10_000), (30, 300, 15_000), (50, 500, 30_000), (100, 500, 100_000)), dims=(10, 14, 20, 30, 50),
        counts=(1000, 2000, 4000), many=(8000, 16_000, 30_000), same=(90, 30_000, 10_000),
        amounts=tuple((samples, 150, 8000) for samples in (2000, 10_000, 30_000, 100_000, 1_000_000)), online=(150, 1000, 10_000),
        thin=(20, (20, 40, 80, 200), 8000), hard=(32, 320, 15_000, 2500, 4),
        published=((30, (100,), 10_000, 40_000), (30, (60,), 10_000, 100_000), (30, (30, 60, 100), 0, 20_000)), most=30_000,
    ),
}  # fmt: skip


class BeyondNTK(Study, name="beyond_ntk"):
    """Trains two-layer learners on a target with a known answer, and kernels beside them: who passes the floor of kernels?

    The target is f*(x) = sum_j a_j |w*_j . x| in an unknown rotation, on standard normal inputs. Losses of learners are population
    losses in closed form; those of kernels are measured on fresh samples, with the ridge chosen on validation samples that the learner
    does not get, and also at the ridge that is best in hindsight. The floor is (1 - 3/pi) sum a^2, the loss of the best quadratic function.

    Rows: A descent on the population over dimensions, with the tensor errors and the recovered neurons; B kernels over samples and
    dimensions; C learner and kernel on the same samples; D learners over numbers of samples; E fresh samples at each step; F widths; H the
    Hadamard instance of the lower bound; P the published experiment, with the abs learner.

    Arguments:
        rows, seeds, kernels: replace those of the scale where given.

    References: Li, Ma & Zhang (2020), "Learning over-parametrized two-layer ReLU neural networks beyond NTK", COLT,
        https://arxiv.org/abs/2007.04596. Step sizes, truncation values and seeds of its figures were not found in it; ours are in
        `SETTINGS` and `models.two_layer_descent.stages`.

    Departures: at SMALL, row P descends on the population, where the paper's figures use 10^4 samples (PAPER).

    Example:
        >>> BeyondNTK(rows=("A", "B"), seeds=5).spec()
        'beyond_ntk(rows=(A, B), seeds=5)'
    """

    paper: ClassVar[Reference] = Reference(
        "Yuanzhi Li, Tengyu Ma, Hongyang R. Zhang", 2020,
        "Learning Over-Parametrized Two-Layer ReLU Neural Networks beyond NTK", "https://arxiv.org/abs/2007.04596",
    )  # fmt: skip
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("plateau", "Orders 0 and 2 are learnt first: the loss then stands at the floor of kernels.", "section 4, stage 1.1"),
        Claim("below_floor", "Descent on the population goes below a tenth of that floor.", "theorems 1 and 4"),
        Claim("plateau_length", "The plateau lasts about d^2 steps.", "section 4, stage 1.2"),
        Claim("recovery", "In the end nine tenths of the squared norms lie in neurons along the target's directions.", "section 4"),
        Claim("order_zero", "The error of order 0 stays below the largest of order 2.", "section 4"),
        Claim("lottery", "Neurons that begin nearer to one of the target's directions end larger.", "section 4, stage 1.2"),
        Claim("kernel_floor", "No kernel passes the floor with samples far below d^4 / 24.", "theorem 2"),
        Claim("kernel_scaling", "The loss of kernels falls with the dimension as 1/d, no faster.", "theorem 2"),
        Claim("kernel_passes", "With samples near d^4 / 24 the tangent kernel goes below the floor.", "arXiv 1904.12191"),
        Claim("rotation", "A kernel that knows the axes passes the floor, and no longer does once they are rotated.", "our control"),
        Claim("same_samples", "On the same, sufficient, samples the network's loss is below 0.35 of the kernel's.", "theorems 1 and 2"),
        Claim("few_samples", "With too few samples the network overfits and does not beat the kernel.", "our simulations"),
        Claim("more_samples", "The network's loss falls as its samples grow.", "theorem 1"),
        Claim("online", "With fresh samples at each step the loss goes below a fifth of the floor.", "our simulations"),
        Claim("narrow", "A network of d neurons, half of the target's 2d, stays at the floor.", "section 2"),
        Claim("wide", "Networks of 2d neurons and more go below a tenth of it.", "section 2; theorem 1"),
        Claim("hard_kernel", "On the Hadamard instance kernels stay at the floor too.", "theorem 2, appendix C"),
        Claim("hard_network", "On the Hadamard instance the network goes below a tenth of the floor.", "theorem 1"),
        Claim("published", "The abs learner with m = 100 > 2d brings orders 4 and 6 down to 1e-2.", "figure 1"),
        Claim("stuck", "The abs learner with m = 2d stays stuck in orders 2, 4 and 6.", "figure 2"),
        Claim("wider_is_faster", "After the same number of steps the wider abs learner has the smaller loss.", "section 5"),
    )  # fmt: skip

    rows: tuple[Row, ...] = ()
    seeds: int = Field(default=0, ge=0)
    kernels: tuple[Kernel, ...] = ()

    def settings(self, scale: Scale) -> Settings:
        """Those of the scale, with the fields that are given in their place."""
        given: dict[str, Any] = {name: getattr(self, name) for name in ("rows", "seeds") if getattr(self, name)}
        if self.kernels:
            given["kernels"] = tuple(kernel.spec() for kernel in self.kernels)
        return replace(SETTINGS[scale], **given)

    def __call__(self, lab: Any, *, scale: Scale) -> Outcome:
        """Run the rows, each item kept by the lab, and judge."""
        s = self.settings(scale)
        plan = Plan(s, range(lab.seed, lab.seed + s.seeds))
        found = Found()
        for row in s.rows:
            courses, tasks = plan.courses(row), plan.regressions(row)
            found.histories[row] = follow(lab, courses, s.leg)
            found.kernels[row] = fit(lab, tasks)
        rows = [*(line for row in s.rows for line in _rows(row, found))]
        notes = [
            "Kernels get 2000 validation samples beyond those of the network, and are judged at the ridge that is best in hindsight.",
            "Rows A, F and H, and P where samples is 0, descend on the population; only rows C and D compare on equal samples.",
        ]
        if set(s.rows) != set(SETTINGS[scale].rows):
            notes.append(f"Only the rows {', '.join(s.rows)} were run; claims on the others stay open.")
        return Outcome(self.spec(), scale, self.paper, tuple(verdicts(self.claims, found)), rows, tuple(figures(found)), tuple(notes))


@dataclass(frozen=True)
class Plan:
    """The descents and regressions of each row."""

    s: Settings
    seeds: range

    def courses(self, row: Row) -> list[Course]:
        s, first, members = self.s, self.seeds[0], len(self.seeds)
        match row:
            case "A":
                return [Course(Problem(d, first), width, steps, members=members) for d, width, steps in s.courses]
            case "C":
                return [self._empirical(*s.same, seed) for seed in self.seeds]
            case "D":
                return [self._empirical(width, samples, steps, seed) for samples, width, steps in s.amounts for seed in self.seeds]
            case "E":
                width, batch, steps = s.online
                return [Course(Problem(s.d, first), width, steps, rate=0.25, mode="online", samples=batch, members=members)]
            case "F":
                d, widths, steps = s.thin
                return [Course(Problem(d, first), width, steps, members=members) for width in widths]
            case "H":
                d, width, steps, _, block = s.hard
                return [Course(Problem(d, seed, kappa=2.0, block=block), width, steps) for seed in self.seeds]
            case "P":
                return [
                    Course(Problem(d, first), width, steps, 0.25, "abs", "empirical" if samples else "population", samples, members)
                    for d, widths, samples, steps in s.published
                    for width in widths
                ]
        return []

    def _empirical(self, width: int, samples: int, steps: int, seed: int) -> Course:
        return Course(Problem(self.s.d, seed), width, steps, mode="empirical", samples=samples)

    def regressions(self, row: Row) -> list[Regression]:
        s = self.s
        match row:
            case "B":
                grid = [(kernel, count) for kernel in s.kernels for count in s.counts] + [("ntk", count) for count in s.many]
                tasks = [Regression(Problem(s.d, seed), count, kernel) for kernel, count in grid for seed in self.seeds]
                tasks += [Regression(Problem(d, seed), round(2.5 * d * d)) for d in s.dims for seed in self.seeds]
                tasks += [
                    Regression(Problem(s.d, seed, axes=axes), max(s.counts), "additive") for axes in (True, False) for seed in self.seeds
                ]
                return list(dict.fromkeys(tasks))
            case "C":
                return [Regression(Problem(s.d, seed), s.same[1]) for seed in self.seeds]
            case "D":
                return [Regression(Problem(s.d, seed), samples) for samples, _, _ in s.amounts if samples <= s.most for seed in self.seeds]
            case "H":
                d, _, _, samples, block = s.hard
                return [Regression(Problem(d, seed, kappa=2.0, block=block), samples) for seed in self.seeds]
        return []


def _rows(row: str, found: Found) -> Iterator[dict[str, Any]]:
    """One line for every learner and every kernel."""
    for history in found.histories[row]:
        course, target = history.course, history.target
        for member in range(course.members):
            last = {name: float(values[-1, member]) for name, values in history.values.items()}
            yield {
                "row": row, "learner": f"{course.activation}, {course.mode}", "d": course.problem.d, "width": course.width,
                "samples": course.samples, "seed": course.problem.seed + member, "steps": course.steps, "loss": last["loss"],
                "loss / sum a^2": last["loss"] / target.energy, "loss / floor": last["loss"] / target.floor,
                "train loss": None if course.mode != "empirical" else last["train"],
                "half floor at step": float(reaching(history, 0.5)[member]),
                **{f"T{k} / sum a^2": last[f"T{k}"] / target.energy for k in ORDERS},
                "recovered mass": last["mass"], "largest norm^2": last["largest"],
            }  # fmt: skip
    for fitted in found.kernels[row]:
        task = fitted.task
        energy = task.problem.target().energy
        yield {
            "row": row, "learner": task.kernel, "d": task.problem.d, "samples": task.samples, "seed": task.problem.seed,
            "loss": fitted.loss, "loss / sum a^2": fitted.loss / energy, "loss / floor": fitted.loss / fitted.floor,
            "train loss": fitted.train, "axes known": task.problem.axes, "ridge": fitted.ridge,
            "best ridge": fitted.best_ridge, "best loss / floor": fitted.best / fitted.floor,
        }  # fmt: skip
