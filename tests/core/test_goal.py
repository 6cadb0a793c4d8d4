"""Goals against numpy, and the direction in which they are climbed against finite differences."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.ascent import goal_gradient
from brinell.core.component import parse
from brinell.core.errors import SpecError, UndefinedReading
from brinell.core.goal import Maximise, Misclassify, Target, divergence, dlr, margin

RNG = np.random.default_rng(0)
LOGITS, CLEAN = RNG.normal(0, 3, (40, 6)), RNG.normal(0, 3, (40, 6))
Y = RNG.integers(0, 6, 40)
T = torch.from_numpy


def log_softmax(z: np.ndarray) -> np.ndarray:
    return np.log(np.exp(z) / np.exp(z).sum(1, keepdims=True))


def slow_margin(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.array([max(v for k, v in enumerate(row) if k != label) - row[label] for row, label in zip(z, y, strict=True)])


def slow_divergence(kind: str, clean: np.ndarray, z: np.ndarray) -> np.ndarray:
    p, q = np.exp(log_softmax(clean)), np.exp(log_softmax(z))

    def kl(a, b):
        return (a * np.log(a / b)).sum(1)

    return {"kl": kl(p, q), "reverse_kl": kl(q, p), "js": kl(p, (p + q) / 2) / 2 + kl(q, (p + q) / 2) / 2}[kind]


def test_margin_and_misclassify():
    want = slow_margin(LOGITS, Y)
    assert margin(T(LOGITS), T(Y)).numpy() == pytest.approx(want)
    goal = Misclassify()
    assert goal.loss(T(LOGITS), T(Y), T(CLEAN), "margin").numpy() == pytest.approx(want)
    assert goal.loss(T(LOGITS), T(Y), T(CLEAN)).numpy() == pytest.approx(-log_softmax(LOGITS)[np.arange(40), Y])
    reached = goal.reached(T(LOGITS), T(Y), T(CLEAN)).numpy()
    assert np.array_equal(reached, want > 0) and 0 < reached.sum() < 40


@pytest.mark.parametrize("kind", ["kl", "reverse_kl", "js"])
def test_divergences(kind):
    want = slow_divergence(kind, CLEAN, LOGITS)
    assert divergence(kind, T(CLEAN), T(LOGITS)).numpy() == pytest.approx(want)
    goal = parse(f"maximise({kind})")
    assert goal.loss(T(LOGITS), T(Y), T(CLEAN)).numpy() == pytest.approx(want)
    assert not goal.reached(T(LOGITS), T(Y), T(CLEAN)).any()
    assert divergence(kind, T(CLEAN), T(CLEAN)).numpy() == pytest.approx(np.zeros(40), abs=1e-12)
    if kind == "js":
        far = torch.eye(6, dtype=torch.float64)[:2] * 1e6
        assert divergence("js", far[:1], far[1:]).item() == pytest.approx(math.log(2))


def test_maximise_of_the_classification_losses():
    assert parse("maximise(margin)").loss(T(LOGITS), T(Y), T(CLEAN)).numpy() == pytest.approx(slow_margin(LOGITS, Y))
    want = -log_softmax(LOGITS)[np.arange(40), Y]
    assert parse("maximise(cross_entropy)").loss(T(LOGITS), T(Y), T(CLEAN)).numpy() == pytest.approx(want)


@pytest.mark.parametrize("quantity", ["kl", "reverse_kl", "js", "margin", "cross_entropy"])
def test_a_scale_divides_the_logits(quantity):
    plain, scaled = parse(f"maximise({quantity})"), parse(f"maximise({quantity}, scale=2.5)")
    assert torch.equal(scaled.loss(T(LOGITS), T(Y), T(CLEAN)), plain.loss(T(LOGITS / 2.5), T(Y), T(CLEAN / 2.5)))
    assert scaled.flat == (quantity in ("kl", "reverse_kl", "js")) and parse(scaled.spec()) == scaled
    with pytest.raises(SpecError):
        parse(f"maximise({quantity}, scale=0)")


def test_targets_are_read_off_the_clean_prediction():
    order = np.array([[k for k in np.argsort(-row) if k != label] for row, label in zip(CLEAN, Y, strict=True)])
    for label, want in (("runner_up", order[:, 0]), ("least_likely", order[:, -1]), (4, np.full(40, 4))):
        goal = Target(label=label)
        assert np.array_equal(goal.targets(T(Y), T(CLEAN)).numpy(), want)
        assert goal.loss(T(LOGITS), T(Y), T(CLEAN)).numpy() == pytest.approx(log_softmax(LOGITS)[np.arange(40), want])
        assert goal.loss(T(LOGITS), T(Y), T(CLEAN), "margin").numpy() == pytest.approx(-slow_margin(LOGITS, want))
        assert np.array_equal(goal.reached(T(LOGITS), T(Y), T(CLEAN)).numpy(), LOGITS.argmax(1) == want)
    assert parse("target(4)") == Target(label=4) and parse("target(least_likely)") == Target(label="least_likely") != Target()


def test_goals_that_cannot_be():
    for wrong in (6, -1):
        with pytest.raises(UndefinedReading, match=r"classes 0\.\.5"):
            Target(label=wrong).targets(T(Y), T(CLEAN))
    for text in ("target(likely)", "target(True)", "maximise(accuracy)", "maximise(quantity=3)"):
        with pytest.raises(SpecError):
            parse(text)
    with pytest.raises(SpecError, match="a divergence has gradient zero at the clean input"):
        parse("pgd(goal=maximise(kl), random_start=False)")
    with pytest.raises(SpecError, match="needs random_start=True"):
        parse("fgsm(goal=maximise(reverse_kl))")
    assert parse("fgsm(goal=maximise(js), random_start=True)").random_start and not Misclassify().flat
    assert parse("pgd(goal=maximise(margin), random_start=False)").goal == Maximise(quantity="margin")


def slow_dlr(z: np.ndarray, y: np.ndarray, target: np.ndarray | None = None) -> np.ndarray:
    out = []
    for i, row in enumerate(z):
        order = sorted(row, reverse=True)
        if target is None:
            out.append(-(row[y[i]] - max(v for k, v in enumerate(row) if k != y[i])) / (order[0] - order[2]))
        else:
            out.append(-(row[y[i]] - row[target[i]]) / (order[0] - (order[2] + order[3]) / 2))
    return np.array(out)


def test_difference_of_logits_ratio():
    target = (Y + 2) % 6
    assert dlr(T(LOGITS), T(Y)).numpy() == pytest.approx(slow_dlr(LOGITS, Y))
    assert dlr(T(LOGITS), T(Y), T(target)).numpy() == pytest.approx(slow_dlr(LOGITS, Y, target))
    assert Misclassify().loss(T(LOGITS), T(Y), T(CLEAN), "dlr").numpy() == pytest.approx(slow_dlr(LOGITS, Y))
    least = CLEAN.argmin(1)
    wrong = least != Y
    found = Target(label="least_likely").loss(T(LOGITS), T(Y), T(CLEAN), "dlr").numpy()
    assert found[wrong] == pytest.approx(slow_dlr(LOGITS, Y, least)[wrong])
    assert torch.allclose(dlr(1e3 * T(LOGITS), T(Y)), dlr(T(LOGITS), T(Y))) and dlr(T(LOGITS), T(Y)).min() >= -1


@pytest.mark.parametrize("classes", [2, 3])
def test_below_four_classes_the_ratio_is_the_margin(classes):
    z, y = T(LOGITS[:, :classes]), T(Y % classes)
    assert torch.equal(dlr(z, y), margin(z, y))
    target = (y + 1) % classes
    want = (z.gather(1, target[:, None]) - z.gather(1, y[:, None])).squeeze(1)
    assert torch.equal(dlr(z, y, target), want)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_aiming_at_one_class_but_taking_any(rank):
    goal = Misclassify(toward=rank)
    aim = np.array([[k for k in np.argsort(-row) if k != label][rank - 1] for row, label in zip(CLEAN, Y, strict=True)])
    each = np.arange(40)
    assert goal.loss(T(LOGITS), T(Y), T(CLEAN)).numpy() == pytest.approx(log_softmax(LOGITS)[each, aim])
    assert goal.loss(T(LOGITS), T(Y), T(CLEAN), "margin").numpy() == pytest.approx(LOGITS[each, aim] - LOGITS[each, Y])
    assert goal.loss(T(LOGITS), T(Y), T(CLEAN), "dlr").numpy() == pytest.approx(slow_dlr(LOGITS, Y, aim))
    assert np.array_equal(goal.reached(T(LOGITS), T(Y), T(CLEAN)).numpy(), LOGITS.argmax(1) != Y)
    assert parse(f"misclassify(toward={rank})") == goal


def test_there_is_no_further_wrong_class():
    with pytest.raises(UndefinedReading, match="6 classes, so 5 wrong ones"):
        Misclassify(toward=6).loss(T(LOGITS), T(Y), T(CLEAN))


# ---------------------------------------------------------------- gradients

GOALS = [
    *((Misclassify(toward=k), kind) for k in (0, 2) for kind in ("cross_entropy", "margin", "dlr")),
    *((Target(label=label), kind) for label in ("runner_up", "least_likely", 2) for kind in ("cross_entropy", "margin")),
    *((Maximise(quantity=q), "cross_entropy") for q in ("kl", "reverse_kl", "js", "cross_entropy", "margin")),
]


def smooth() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4)).double().requires_grad_(False)


@pytest.mark.parametrize(("goal", "kind"), GOALS, ids=lambda part: part if isinstance(part, str) else part.spec())
def test_the_direction_is_that_of_finite_differences(goal, kind):
    net, step = smooth(), 1e-6
    x = br.derive(1, "x", ids=range(7)).uniform(2, 3, dtype=torch.float64)
    z = (x + 0.3 * br.derive(1, "z", ids=range(7)).normal(2, 3, dtype=torch.float64)).clamp(0, 1)
    y, clean = torch.arange(7) % 4, net(x)
    if kind == "dlr":
        y = net(z).argmax(1)  # the ratio is constant 1 where the label is third
    g, losses, logits = goal_gradient(net, z, y, clean, goal, kind)
    assert torch.equal(logits, net(z)) and torch.allclose(losses, goal.loss(net(z), y, clean, kind))
    slopes = torch.zeros_like(z).flatten(1)
    for entry in range(6):
        move = torch.zeros(6, dtype=z.dtype)
        move[entry] = step
        ends = [goal.loss(net(z + sign * move.reshape(2, 3)), y, clean, kind) for sign in (1, -1)]
        slopes[:, entry] = (ends[0] - ends[1]) / (2 * step)
    assert (slopes.norm(dim=1) > 1e-4).all()
    assert torch.allclose(nn.functional.cosine_similarity(g.flatten(1), slopes), torch.ones(7, dtype=z.dtype), atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("goal", "kind", "scale"),
    [
        *((Misclassify(), kind, scale) for kind in ("cross_entropy", "margin") for scale in (1.0, 10.0, 100.0, 1e3, 1e6)),
        *((Maximise(quantity="cross_entropy"), "cross_entropy", scale) for scale in (1.0, 10.0, 100.0)),
    ],
    ids=lambda part: part.spec() if isinstance(part, Misclassify | Maximise) else None,
)
def test_saturated_logits_still_give_the_direction(goal, kind, scale):
    """d cross-entropy / dz is proportional to the mean over k != y of w_k - w_y, weighted by the softmax of the other logits.

    In float32 it is exactly 0 here from some scale on, and in float64 the entry of y alone is."""
    draws = br.derive(0, "w", ids=range(5))
    weight = draws.normal(12)
    x = br.derive(0, "x", ids=range(30)).uniform(12)
    y = (x @ weight.T).argmax(1)

    def net(z):
        return (z @ weight.T) * scale

    plain = x.clone().requires_grad_()
    (vanished,) = torch.autograd.grad(nn.functional.cross_entropy(net(plain), y, reduction="sum"), plain)
    assert bool((vanished == 0).all(1).any()) == (scale >= 100)
    g, losses, _ = goal_gradient(net, x, y, net(x), goal, kind)
    others = net(x).double().scatter(1, y[:, None], -math.inf)
    share = nn.functional.one_hot(others.argmax(1), 5).double() if kind == "margin" else others.softmax(1)
    want = share @ weight.double() - weight[y].double()
    assert torch.isfinite(losses).all()
    assert torch.allclose(nn.functional.cosine_similarity(g.double(), want), torch.ones(30, dtype=torch.float64), atol=1e-6)


def test_a_gradient_that_is_not_there_or_not_finite_is_zero():
    x, y = torch.rand(3, 4), torch.zeros(3, dtype=torch.int64)

    def steep(z):  # the square root has an infinite slope at 0
        return torch.stack(((z - z.detach()).abs().sqrt().sum(1), z.sum(1)), 1)

    for net in (lambda z: z.detach()[:, :2] * 1.0, lambda z: torch.ones(3, 2), steep):
        g, _, logits = goal_gradient(net, x, y, net(x).detach(), Misclassify())
        assert torch.isfinite(g).all() and g.shape == x.shape and not logits.requires_grad
    assert (goal_gradient(lambda z: torch.ones(3, 2), x, y, torch.ones(3, 2), Misclassify())[0] == 0).all()


def test_gradients_are_taken_where_gradients_are_switched_off():
    net, x = smooth(), torch.rand(2, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        g, _, _ = goal_gradient(net, x, torch.tensor([0, 1]), net(x), Misclassify())
    assert (g.flatten(1).norm(dim=1) > 0).all() and not g.requires_grad


def test_nearest_is_its_inner_goal_with_another_ending():
    for text, inner in (
        ("nearest", "misclassify"),
        ("nearest(target(3))", "target(3)"),
        ("nearest(misclassify(toward=2))", "misclassify(toward=2)"),
    ):
        goal, aim = parse(text), parse(inner)
        assert goal.aim == aim and aim.aim == aim and parse(goal.spec()) == goal
        for kind in ("cross_entropy", "margin"):
            assert torch.equal(goal.loss(T(LOGITS), T(Y), T(CLEAN), kind), aim.loss(T(LOGITS), T(Y), T(CLEAN), kind))
        assert torch.equal(goal.reached(T(LOGITS), T(Y), T(CLEAN)), aim.reached(T(LOGITS), T(Y), T(CLEAN)))
    with pytest.raises(SpecError):
        parse("nearest(maximise(kl))")
