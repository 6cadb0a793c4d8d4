"""The study beyond NTK: its smallest scale whole and resumed, verdicts on planted truth, the claims at small scale, the traps."""

import json

import numpy as np
import pytest
import torch

import brinell as br
from brinell.cli import main
from brinell.core.component import parse
from brinell.core.errors import SpecError, UndefinedReading
from brinell.core.study import Judgement, Scale, Study
from brinell.models.two_layer_loss import population_loss
from brinell.studies import beyond_ntk_runs
from brinell.studies.beyond_ntk import SETTINGS, BeyondNTK, Plan
from brinell.studies.beyond_ntk_figures import figures
from brinell.studies.beyond_ntk_runs import Course, Fitted, History, Leg, Problem, Regression, fit, follow, reaching, regress, walk
from brinell.studies.beyond_ntk_verdicts import Found, at_plateau, verdicts

STEPS = np.array([0, 10, 50, 100, 500, 1000, 2000])


def history(course: Course, floors: list[float], mass: float, ordered: bool, share: float = 0.5) -> History:
    """A made-up descent: losses in floors at STEPS, mass recovered at the end, T4 and T6 proportional to the loss."""
    target, members = course.problem.target(), course.members
    wobble = 1 + 0.01 * np.arange(members)
    loss = np.outer(floors, wobble) * target.floor
    low = np.outer(np.where(STEPS >= 50, 1e-4, 0.5), wobble) * target.energy
    high = loss / target.floor * target.energy * share
    values = {"loss": loss, "train": loss, "T0": low, "T2": low, "T4": high, "T6": high, "largest": loss}
    values |= {"mass": np.outer(STEPS / 2000 * mass, wobble), "second": low, "trace": low / 2 if ordered else low * 2}
    w = course.start()
    luck = (w @ target.directions.T.float()).square().amax(-1, keepdim=True) / w.square().sum(-1, keepdim=True)
    return History(course, STEPS, values, w / w.norm(dim=-1, keepdim=True) * (luck.sqrt() if ordered else 1 - luck / 2))


def planted(true: bool) -> Found:
    """Everything as claimed, or everything the other way round."""
    found, seeds = Found(), range(3)
    falling, standing = [30, 1, 0.99, 0.95, 0.4, 0.06, 0.02], [30, 1, 0.99, 0.98, 0.97, 0.96, 0.95]
    good = falling if true else standing

    def half_at(step: float) -> list[float]:
        """Losses that come to half the floor at this step, as a power of the steps."""
        power = 1.5 if true else 0.1
        return [30, *(0.5 * (step / t) ** power for t in STEPS[1:])]

    def course(d: int = 20, width: int = 100, seed: int = 0, **more) -> Course:
        return Course(Problem(d, seed, **more.pop("problem", {})), width, 2000, **more)

    def kernel(floors: float, samples: int, name: str = "ntk", seed: int = 0, **more) -> Fitted:
        task = Regression(Problem(more.pop("d", 20), seed, **more), samples, name)
        value = floors * (1 + 0.01 * seed) * task.problem.target().floor
        return Fitted(task, value, value, 1.0, 1.0, 0.0, task.problem.target().floor)

    found.histories["A"] = []
    for d in (8, 16):
        made = history(course(d, 5 * d, members=3), half_at(100 * (d / 8) ** (2.0 if true else 0.3)), 0.95 if true else 0.1, true)
        if not true:  # order 2 is learnt last
            made.values["T2"][:-1] = made.target.energy
        found.histories["A"].append(made)
    found.kernels["A"] = []
    found.kernels["B"] = [kernel(v, n, name, s) for s in seeds for name, n, v in (
        ("ntk", 1000, 1.02 if true else 0.3), ("rbf", 250, 3.0 if true else 0.2), ("ntk", 4000, 0.8 if true else 1.2))]  # fmt: skip
    found.kernels["B"] += [kernel(1.02 * (d / 10) ** (0 if true else -3), round(2.5 * d * d), seed=s, d=d) for s in seeds for d in (10, 28)]
    found.kernels["B"] += [kernel(0.03 if true else 0.5, 1000, "additive", s, axes=True) for s in seeds]
    found.kernels["B"] += [kernel(1.4 if true else 0.03, 1000, "additive", s) for s in seeds]
    empirical = {"mode": "empirical"}
    found.histories["C"] = [history(course(samples=8000, seed=s, **empirical), good, 0.9, True) for s in seeds]
    found.kernels["C"] = [kernel(0.8, 8000, seed=s) for s in seeds]
    over = [30, 1, 1, 1.1, 1.2, 1.3, 1.5]
    found.histories["D"] = [history(course(samples=n, seed=s, **empirical), over if (n == 1000) is true else falling, 0.9, True)
                            for n in (1000, 16_000) for s in seeds]  # fmt: skip
    found.kernels["D"] = [kernel(1.0, 1000, seed=s) for s in seeds]
    found.histories["E"] = [history(course(mode="online", samples=500, members=3), good, 0.9, True)]
    found.histories["F"] = [
        history(course(12, m, members=3), (standing if (m == 12) is true else falling), 0.9, True) for m in (12, 24, 48)
    ]
    hard = {"kappa": 2.0, "block": 4}
    found.histories["H"] = [history(course(seed=s, problem=hard), good, 0.9, True) for s in seeds]
    found.kernels["H"] = [kernel(1.02 if true else 0.3, 1000, seed=s, **hard) for s in seeds]
    stuck, small = [30, 1, 1, 1, 0.99, 0.98, 0.97], [30, 1, 0.9, 0.5, 0.1, 0.02, 0.01]
    found.histories["P"] = [history(course(30, m, activation="abs", members=3), path, 0.9, True)
                            for m, path in ((60, stuck if true else small), (100, small if true else stuck))]  # fmt: skip
    for row in ("E", "F", "P"):
        found.kernels[row] = []
    return found


def judged(found: Found) -> dict[str, Judgement]:
    return {verdict.claim.name: verdict.judgement for verdict in verdicts(BeyondNTK.claims, found)}


def test_every_claim_holds_where_the_truth_is_planted_and_fails_where_its_opposite_is():
    assert set(judged(planted(True)).values()) == {Judgement.HOLDS}, judged(planted(True))
    assert set(judged(planted(False)).values()) == {Judgement.FAILS}, judged(planted(False))


def test_what_was_not_run_stays_open():
    found = planted(True)
    partial = Found({"F": found.histories["F"]}, {"F": []})
    left = judged(partial)
    assert {name for name, judgement in left.items() if judgement is not Judgement.INCONCLUSIVE} == {"narrow", "wide"}
    assert list(left) == [claim.name for claim in BeyondNTK.claims] and len(set(left)) == 21
    assert all("was not run" in verdict.why for verdict in verdicts(BeyondNTK.claims, Found()))
    assert list(figures(Found())) == [] and len(list(figures(partial))) == 1


def test_figures_have_the_floor_of_kernels_and_the_tensor_orders():
    shown = {figure.title: figure for figure in figures(planted(True))}
    assert {"floor of kernels", "d = 8"} <= {curve.name for curve in shown["Loss on the population over training"].curves}
    assert [curve.name for curve in shown["Tensor orders over training, d = 16"].curves] == ["order 0", "order 2", "order 4", "order 6"]
    assert "Length of the plateau" in shown and any(title.startswith("Network and kernel on the same 8000") for title in shown)


def test_the_step_at_which_a_loss_is_reached():
    course = Course(Problem(4, 0), 8, 2000)
    made = history(course, [4, 2, 1, 0.9, 0.8, 0.5, 0.25], 0.9, True)
    assert reaching(made, 0.5)[0] == pytest.approx(1000) and reaching(made, 2**0.5)[0] == pytest.approx((10 * 50) ** 0.5)
    assert np.isnan(reaching(made, 0.1)[0]) and np.isnan(reaching(made, 5.0)[0]), "never, and from the start"
    assert at_plateau(made)[0] == pytest.approx(1.0)


def test_scales_and_fields():
    study = parse("beyond_ntk(rows=(A, F), seeds=2, kernels=(rbf, ntk(layers=first)))", Study)
    settings = study.settings(Scale.SMALL)
    assert (settings.rows, settings.seeds, settings.kernels) == (("A", "F"), 2, ("rbf", "ntk(layers=first)")) and parse(
        study.spec(), Study
    ) == study
    paper, small = SETTINGS[Scale.PAPER], SETTINGS[Scale.SMALL]
    assert max(d for d, _, _ in paper.courses) == 100 and max(paper.many) == 30_000
    assert {(30, (100,), 10_000, 40_000), (30, (60,), 10_000, 100_000)} <= set(paper.published) and small.same == (60, 8000, 3000)
    for wrong in ("rows=(Z,)", "seeds=-1", "kernels=(mlp,)", "kernels=(rbf(scale=0),)"):
        with pytest.raises(SpecError):
            parse(f"beyond_ntk({wrong})", Study)


@pytest.mark.parametrize("scale", list(Scale))
def test_rows_c_and_d_compare_on_the_same_samples(scale):
    """A network trained on the population, or on other samples, is never held against a kernel."""
    settings = SETTINGS[scale]
    plan = Plan(settings, range(5, 5 + settings.seeds))
    for row in ("C", "D"):
        courses, tasks = plan.courses(row), plan.regressions(row)
        assert tasks and {(task.problem, task.samples) for task in tasks} <= {(course.problem, course.samples) for course in courses}
        assert all(course.mode == "empirical" for course in courses)
    compared = [task for row in settings.rows for task in plan.regressions(row)]
    assert all(not task.problem.axes for task in compared if task.kernel != "additive"), "the directions are unknown"
    assert len({task.problem.seed for task in compared}) == settings.seeds
    keys = [repr(item) for row in settings.rows for item in plan.courses(row)]
    assert len(keys) == len(set(keys))


def test_kernel_and_network_see_the_same_numbers():
    problem = Problem(5, 3)
    assert torch.equal(problem.samples("train", 10), problem.samples("train", 20)[:10])
    assert not torch.equal(problem.samples("train", 10), problem.samples("test", 10))
    assert not torch.equal(problem.samples("train", 10), Problem(5, 4).samples("train", 10))
    assert not torch.allclose(problem.target().directions, Problem(5, 4).target().directions)
    assert torch.equal(Problem(5, 3, axes=True).target().directions, torch.eye(5, dtype=torch.float64))


@pytest.mark.parametrize("course", [Course(Problem(4, 1), 6, 25, members=2), Course(Problem(4, 1), 6, 25, 0.25, "abs", "empirical", 50),
                                    Course(Problem(4, 1), 6, 25, 0.25, "relu", "online", 20, 2)], ids=lambda c: c.mode)  # fmt: skip
def test_a_course_is_walked_in_legs_and_goes_on(course, tmp_path, monkeypatch):
    (whole,) = follow(br.Lab(tmp_path / "whole", device="cpu"), [course], 10)
    assert whole.step[0] == 0 and whole.step[-1] == 25 and (np.diff(whole.step) > 0).all()
    assert whole.values["loss"].shape == (len(whole.step), course.members) and whole.w.shape == (course.members, 6, 4)
    np.testing.assert_allclose(whole.values["loss"][-1], population_loss(whole.w, whole.target, course.activation).numpy())
    walked, walk_on = [], beyond_ntk_runs.walk

    def interrupted(leg):
        walked.append(leg.first)
        if len(walked) == 3:
            raise KeyboardInterrupt
        return walk_on(leg)

    interrupted.__qualname__ = walk_on.__qualname__
    monkeypatch.setattr(beyond_ntk_runs, "walk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        follow(br.Lab(tmp_path / "cut", device="cpu"), [course], 10)
    (again,) = follow(br.Lab(tmp_path / "cut", device="cpu"), [course], 10)
    assert walked == [0, 10, 20, 20], "finished legs are not walked again"
    assert torch.equal(again.w, whole.w) and all(np.array_equal(again.values[name], whole.values[name]) for name in whole.values)
    if course.mode == "population":
        (single,) = follow(br.Lab(tmp_path / "single", device="cpu"), [course], 100)
        assert torch.equal(single.w, whole.w)


def test_regressions_are_kept(tmp_path, monkeypatch):
    task = Regression(Problem(4, 0), 40, "rbf", valid=30, test=30)
    (first,) = fit(br.Lab(tmp_path, device="cpu"), [task])
    monkeypatch.setattr(beyond_ntk_runs, "ridge_path", None)
    assert fit(br.Lab(tmp_path, device="cpu"), [task]) == [first]
    assert first.best <= first.loss and first.floor == pytest.approx(0.04507 / 4, rel=1e-3)


def test_courses_that_cannot_be_walked():
    with pytest.raises(SpecError, match="mode is population"):
        Course(Problem(4, 0), 6, 10, mode="empirical")
    with pytest.raises(SpecError, match="mode is population"):
        Course(Problem(4, 0), 6, 10, mode="stochastic", samples=5)
    with pytest.raises(UndefinedReading, match=r"has diverged.*lower the rate"):
        walk(Leg(Course(Problem(4, 0), 6, 400, rate=1e3), 0, 400))


def test_a_row_of_the_smallest_scale_is_kept(tmp_path, monkeypatch):
    first = BeyondNTK(rows=("F",))(br.Lab(tmp_path, seed=3, device="cpu"), scale=Scale.SMOKE)
    assert {(row["row"], row["seed"], row["width"]) for row in first.rows} == {("F", seed, width) for seed in (3, 4) for width in (6, 12)}
    assert all(verdict.judgement is Judgement.INCONCLUSIVE for verdict in first.verdicts), "two seeds prove nothing"
    monkeypatch.setattr(beyond_ntk_runs, "population_loss", None)
    again = BeyondNTK(rows=("F",))(br.Lab(tmp_path, seed=3, device="cpu"), scale=Scale.SMOKE)
    assert again.to_json() == first.to_json(), "nothing is computed twice"


@pytest.mark.slow
def test_the_smallest_scale_runs_whole_and_is_kept(tmp_path, capsys):
    arguments = ["study", "beyond_ntk", "--scale", "smoke", "--out", str(tmp_path), "--json", "--device", "cpu"]
    assert main(arguments) == 0
    first = json.loads(capsys.readouterr().out)
    assert len(first["verdicts"]) == 21 and {row["row"] for row in first["rows"]} == set(SETTINGS[Scale.SMOKE].rows)
    assert all(row["loss"] > 0 for row in first["rows"]) and (tmp_path / "report.html").stat().st_size > 1e6
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "results").iterdir()}, "nothing is computed twice"


def course_of(**fields) -> dict[str, torch.Tensor]:
    course = Course(**fields)
    return walk(Leg(course, 0, course.steps))


@pytest.mark.slow
def test_descent_on_the_population_passes_the_floor_after_a_plateau():
    found = course_of(problem=Problem(10, 0), width=100, steps=1500)
    step, loss = found["step"], found["loss"][:, 0] * 10
    early = (step >= 30) & (step <= 70)
    assert bool(((loss[early] > 0.03) & (loss[early] < 0.0451)).all()), "the plateau"
    assert float(found["T0"][step >= 60].max()) * 10 < 0.005 and float(found["T2"][step >= 60].max()) * 10 < 0.005
    assert float(loss[-1]) < 0.1 * 0.0451 and float(found["mass"][-1]) > 0.9 and float(found["mass"][0]) < 0.1


@pytest.mark.slow
def test_the_plateau_grows_with_the_square_of_the_dimension():
    ends = [reaching(follow_one(Course(Problem(d, 0), 5 * d, steps, members=2)), 0.5) for d, steps in ((8, 500), (16, 1500))]
    assert 2.8 < float(ends[1].mean() / ends[0].mean()) < 5.5


def follow_one(course: Course) -> History:
    return beyond_ntk_runs._joined(course, [walk(Leg(course, 0, course.steps))])


@pytest.mark.slow
def test_half_the_neurons_stay_at_the_floor_and_all_of_them_pass_it():
    narrow, wide = (course_of(problem=Problem(8, 0), width=m, steps=1500, members=3)["loss"][-1] * 8 / 0.0451 for m in (8, 16))
    assert bool((narrow > 0.95).all()) and bool((wide < 0.2).all())


@pytest.mark.slow
def test_kernels_stand_at_the_floor_between_d2_and_d4_samples():
    few, many = (regress(Regression(Problem(20, 0), n)) for n in (250, 1000))
    assert many["best"] / many["floor"] == pytest.approx(1, abs=0.1) and many["best"] < few["best"]
    first = regress(Regression(Problem(20, 0), 250, "ntk(layers=first)"))
    assert first["best"] > 3 * few["best"], "the first layer alone needs more samples for the radius"
    uneven = regress(Regression(Problem(20, 0, kappa=2.0, block=4), 1000))
    assert uneven["best"] / uneven["floor"] == pytest.approx(1.05, abs=0.15), "the same on the Hadamard instance"


@pytest.mark.slow
def test_the_trap_of_known_axes():
    """An additive kernel learns the target along the axes; a random rotation takes that from it."""
    known, rotated = (regress(Regression(Problem(12, 0, axes=axes), 400, "additive")) for axes in (True, False))
    assert known["best"] < 0.2 * known["floor"] and rotated["best"] > rotated["floor"]


@pytest.mark.slow
def test_network_and_kernel_on_the_same_samples():
    """With enough of them the network wins by far; with few it overfits and loses."""
    problem = Problem(10, 0)
    enough, kernel = course_of(problem=problem, width=30, steps=1500, mode="empirical", samples=1000), regress(Regression(problem, 1000))
    assert float(enough["loss"][-1, 0]) < 0.35 * kernel["best"]
    few, kernel = course_of(problem=problem, width=50, steps=1500, mode="empirical", samples=150), regress(Regression(problem, 150))
    assert float(few["loss"][-1, 0]) > kernel["best"] and float(few["train"][-1, 0]) < 0.3 * float(few["loss"][-1, 0])


@pytest.mark.slow
def test_fresh_samples_at_each_step_pass_the_floor():
    found = course_of(problem=Problem(10, 0), width=50, steps=1500, rate=0.25, mode="online", samples=500)
    assert float(found["loss"][-1, 0]) * 10 < 0.2 * 0.0451
