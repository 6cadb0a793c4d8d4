"""Minimum-norm attacks where the nearest point is known: linear networks, walls, spheres, and small ReLU networks by enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

import brinell as br
from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.network import Counted
from brinell.core.perturbation import DONE, GAVE_UP
from brinell.models.reference import exact_margin, linear_network

NORMS = (1, 2, math.inf)
X = derive(0, "x", ids=range(8)).uniform(1, 4, 4, low=0.3, high=0.7)
TWO, FIVE = derive(0, "weight", ids=[0, 1]).normal(16), derive(1, "weight", ids=range(5)).normal(16)
CASES = [  # attack, norms, how far above the exact distance on a linear network of two classes
    ("fab(steps=20, {})", NORMS, 1e-4),
    ("fab(steps=20, targets=1, {})", NORMS, 1e-4),
    ("fmn(steps=100, {})", NORMS, 1e-2),
    ("deepfool({})", (2, math.inf), 1e-4),
    ("carlini_wagner(steps=60, {})", (2,), 5e-3),
    ("ead(steps=60, {})", (1,), 0.6),
    ("hop_skip_jump(steps=10, {})", (2, math.inf), 0.2),
]
EACH = [pytest.param(text, norm, slack, id=f"{text.partition('(')[0]}-L{norm:g}") for text, norms, slack in CASES for norm in norms]
STRONG = [case for case in EACH if case.id is not None and case.id.split("-")[0] in ("fab", "fmn")]


def made(text, norm, net, x, y, *, low=-math.inf, high=math.inf, eps=math.inf, seed=0):
    threat = f"threat=ball(norm={norm:g}, eps={eps!r}, low={low!r}, high={high!r})"
    attack = parse(text.format(threat))
    return attack, attack(net, x, y, draws=derive(seed, ids=range(len(x))))


def labels(net, x):
    with torch.no_grad():
        return net(x).argmax(1)


def checked(attack, attempt, net, x, y) -> np.ndarray:
    """Distances, after a plain pass has confirmed every point."""
    assert (attempt.status == DONE).all()
    assert (labels(net, attempt.z) != y).all()
    ball = attack.threat
    assert ((attempt.z >= ball.low) & (attempt.z <= ball.high)).all()
    return ball.distance(x, attempt.z).numpy()


# ---------------------------------------------------------------- linear networks


@pytest.mark.parametrize(("text", "norm", "slack"), EACH)
def test_the_exact_distance_on_a_linear_network(text, norm, slack):
    net = linear_network(TWO)
    y = labels(net, X)
    ratio = checked(*made(text, norm, net, X, y), net, X, y) / exact_margin(TWO, None, X, y, norm).numpy()
    assert (ratio >= 1 - 1e-6).all()
    assert ratio.max() <= 1 + slack


@pytest.mark.parametrize("text", ["fab(steps=20, {})", "fab(steps=20, targets=4, {})", "deepfool({})"])
@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_of_several_classes(text, norm):
    if norm == 1 and text.startswith("deepfool"):
        return
    net = linear_network(FIVE)
    y = labels(net, X)
    ratio = checked(*made(text, norm, net, X, y), net, X, y) / exact_margin(FIVE, None, X, y, norm).numpy()
    assert ratio.min() >= 1 - 1e-6 and ratio.max() <= 1 + 5e-4


def nearest_in_a_box(g: np.ndarray, gap: float, low: np.ndarray, high: np.ndarray, norm: float) -> float:
    """min |v| with g.v >= gap and low <= v <= high, by linear programming (1, inf) or the Lagrangian's root (2)."""
    d = len(g)
    if norm == 1:
        return linprog(np.ones(2 * d), A_ub=[np.r_[-g, g]], b_ub=[-gap], bounds=[(0, b) for b in high] + [(0, -a) for a in low]).fun
    if norm == 2:
        s, t = 0.0, 1e6
        for _ in range(200):  # v = clip(m g) with the multiplier m halved
            m = (s + t) / 2
            s, t = (m, t) if g @ np.clip(m * g, low, high) < gap else (s, m)
        return float(np.linalg.norm(np.clip(t * g, low, high)))
    rows = np.r_[[np.r_[-g, 0]], np.c_[np.eye(d), -np.ones(d)], np.c_[-np.eye(d), -np.ones(d)]]
    return linprog(
        np.r_[np.zeros(d), 1], A_ub=rows, b_ub=np.r_[-gap, np.zeros(2 * d)], bounds=[*zip(low, high, strict=True), (0, None)]
    ).fun


@pytest.mark.parametrize(("text", "norm", "slack"), [case for case in EACH if case.id.split("-")[0] in ("fab", "fmn", "deepfool")])
def test_the_walls_of_the_domain_count(text, norm, slack):
    """Half the entries stand at a wall; what they cannot do others must."""
    x = torch.where(X > 0.55, 1.0, torch.where(X < 0.45, 0.0, X))
    net = linear_network(TWO, torch.tensor([0.1, 0.0]))
    y = labels(net, x)
    far = checked(*made(text, norm, net, x, y, low=0.0, high=1.0), net, x, y)
    for row, label in enumerate(y.tolist()):
        g = (TWO[1 - label] - TWO[label]).double().numpy()
        at = x[row].flatten().double().numpy()
        gap = -float(g @ at + (0.1 if label == 1 else -0.1))
        want = nearest_in_a_box(g, gap, -at, 1 - at, norm)
        assert want * (1 - 1e-5) <= far[row] <= want * (1 + max(slack, 0.02))


# ---------------------------------------------------------------- curved boundaries


class Sphere(nn.Module):
    """Class 0 inside the sphere of radius r around 1/2, class 1 outside."""

    def __init__(self, radius: float) -> None:
        super().__init__()
        self.radius = radius

    def forward(self, x):
        lead = (x.flatten(1) - 0.5).square().sum(1) - self.radius**2
        return torch.stack((-lead, lead), 1)


def to_the_sphere(x: np.ndarray, radius: float, norm: float) -> float:
    """From inside: the nearest point of the sphere; moving the largest entry, along the radius, or all entries alike."""
    d = np.abs(x.ravel() - 0.5)
    if norm == 2:
        return radius - np.linalg.norm(d)
    rest = radius**2 - d @ d
    if norm == 1:
        return -d.max() + math.sqrt(d.max() ** 2 + rest)
    return (-d.sum() + math.sqrt(d.sum() ** 2 + len(d) * rest)) / len(d)


@pytest.mark.parametrize(("text", "norm", "slack"), EACH)
def test_a_quadratic_boundary(text, norm, slack):
    net = Sphere(0.9)
    y = torch.zeros(len(X), dtype=torch.int64)
    far = checked(*made(text, norm, net, X, y), net, X, y)
    want = np.array([to_the_sphere(x.double().numpy(), 0.9, norm) for x in X])
    assert (far >= want * (1 - 1e-4)).all()
    most = {"hop_skip_jump": 1.6, "ead": 1.3, "deepfool": 1.15}.get(text.partition("(")[0], 1.02)
    assert np.median(far / want) <= most


def nearest_in_a_polygon(rows: np.ndarray, limits: np.ndarray) -> float:
    """min |v|_2 with rows v <= limits, in the plane: at 0, at the foot of a side, or in a corner."""
    flat = (rows == 0).all(1)
    if (limits[flat] < 0).any():
        return math.inf
    rows, limits = rows[~flat], limits[~flat]
    feet = [row * limit / (row @ row) for row, limit in zip(rows, limits, strict=True)]
    pairs = itertools.combinations(range(len(rows)), 2)
    corners = [np.linalg.solve(rows[list(pair)], limits[list(pair)]) for pair in pairs if abs(np.linalg.det(rows[list(pair)])) > 1e-12]
    inside = [v for v in (np.zeros(2), *feet, *corners) if (rows @ v <= limits + 1e-9).all()]
    return min((float(np.linalg.norm(v)) for v in inside), default=math.inf)


def exact_by_enumeration(first, bias, second, last, x, label, norm) -> float:
    """The distance to the other class of a ReLU network with two inputs: the least over all activation patterns."""
    best = math.inf
    for pattern in itertools.product((0.0, 1.0), repeat=len(bias)):
        s = np.array(pattern)
        g = (second[1 - label] - second[label]) * s  # the lead is g . (first z + bias) + a difference of last
        rows = np.r_[-(2 * s - 1)[:, None] * first, [-(g @ first)]]
        limits = np.r_[(2 * s - 1) * bias, g @ bias + last[1 - label] - last[label]]
        limits = limits - rows @ x  # in steps v = z - x
        if norm == 2:
            best = min(best, nearest_in_a_polygon(rows, limits))
            continue
        signs = np.c_[np.eye(2), -np.eye(2)] if norm == 1 else np.c_[np.eye(2), np.zeros(2)]
        extra = np.zeros((0, signs.shape[1])) if norm == 1 else np.r_[np.c_[np.eye(2), -np.ones(2)], np.c_[-np.eye(2), -np.ones(2)]]
        cost = np.ones(4) if norm == 1 else np.array([0.0, 0.0, 1.0])
        bounds = [(0, None)] * 4 if norm == 1 else [(None, None), (None, None), (0, None)]
        found = linprog(cost, A_ub=np.r_[rows @ signs, extra], b_ub=np.r_[limits, np.zeros(len(extra))], bounds=bounds)
        if found.status == 0:
            best = min(best, float(found.fun))
    return best


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
def test_small_relu_networks_by_enumeration(norm):
    """No point is nearer than the exact one, and together the attacks find it for most samples."""
    rng = np.random.default_rng(3)
    first, bias, second = rng.normal(size=(5, 2)), rng.normal(size=5), rng.normal(size=(2, 5))
    x = torch.tensor(rng.normal(size=(10, 2)))
    hidden = np.maximum(x.numpy() @ first.T + bias, 0)
    last = np.array([0.0, np.median(hidden @ (second[0] - second[1]))])  # half of the samples are of either class
    net = nn.Sequential(linear_network(torch.tensor(first), torch.tensor(bias)), nn.ReLU(),
                        linear_network(torch.tensor(second), torch.tensor(last)))  # fmt: skip
    y = labels(net, x)
    want = np.array([exact_by_enumeration(first, bias, second, last, at.numpy(), int(label), norm) for at, label in zip(x, y, strict=True)])
    assert np.isfinite(want).all() and 3 <= int(y.sum()) <= 7
    best = np.full(10, math.inf)
    for text in ("fab(steps=30, restarts=12, {})", "fmn(steps=200, rate=0.5, {})"):
        attack, attempt = made(text, norm, net, x, y)
        far = np.where((attempt.status == DONE).numpy(), attack.threat.distance(x, attempt.z).numpy(), math.inf)
        assert (far >= want * (1 - 1e-5)).all()
        best = np.minimum(best, far)
    assert (best <= want * 1.01).mean() >= 0.5 and (best <= want * 1.15).mean() >= 0.8  # the others end on another piece of the boundary


# ---------------------------------------------------------------- goals and endings


@pytest.mark.parametrize(("text", "norm", "slack"), EACH)
def test_a_given_class_is_reached(text, norm, slack):
    if text.startswith("hop_skip_jump"):
        return
    net = linear_network(FIVE)
    y = labels(net, X)
    attack, attempt = made(text.replace("{}", "goal=nearest(target(3)), {}"), norm, net, X, y)
    assert (labels(net, attempt.z) == 3).all() and (attempt.status == DONE).all()
    assert torch.equal(attempt.z[y == 3], X[y == 3])
    near = exact_margin(FIVE, None, X, y, norm)
    assert (attack.threat.distance(X, attempt.z)[y != 3] >= near[y != 3] * (1 - 1e-6)).all()


@pytest.mark.parametrize(("text", "norm", "slack"), EACH)
def test_who_is_wrong_already_stays_and_who_cannot_be_reached_gives_up(text, norm, slack):
    net = linear_network(torch.zeros(2, 16), torch.tensor([1.0, 0.0]))  # always class 0
    y = torch.arange(len(X)) % 2
    attack, attempt = made(text, norm, net, X, y, low=0.0, high=1.0)
    assert torch.equal(attempt.z, X)
    assert attempt.status.tolist() == [GAVE_UP if label == 0 else DONE for label in y.tolist()]
    assert attack.name in attempt.note


@pytest.mark.parametrize(("text", "norm", "slack"), EACH)
def test_in_a_ball_it_flips_beyond_the_margin_and_gives_up_below(text, norm, slack):
    net = linear_network(TWO)
    y = labels(net, X)
    margins = exact_margin(TWO, None, X, y, norm)
    eps = float(margins.median()) * (1 + 1e-9)
    attack, attempt = made(text.replace("{}", "goal=misclassify, {}"), norm, net, X, y, eps=eps)
    assert attack.threat.contains(X, attempt.z).all()
    flipped = labels(net, attempt.z) != y
    assert not flipped[margins > eps].any()
    assert flipped[margins * (1.05 + slack) < eps].all()
    assert torch.equal(attempt.status == DONE, flipped)


def test_with_goal_misclassify_samples_leave_at_their_first_success():
    net = linear_network(TWO)
    y = labels(net, X)
    passes = []
    for goal in ("misclassify", "nearest"):
        counted = Counted(net)
        made(f"fab(steps=20, goal={goal}, {{}})", 2, counted, X, y, eps=100.0)
        passes.append(counted.backwards)
    assert passes[0] == len(X) and passes[1] == 20 * len(X)


@pytest.mark.parametrize(("text", "norm", "slack"), EACH)
def test_without_bounds_the_first_success_ends_the_search(text, norm, slack):
    net = linear_network(TWO)
    y = labels(net, X)
    near, any_ = Counted(net), Counted(net)
    made(text, norm, near, X, y, low=0.0, high=1.0)
    _, attempt = made(text.replace("{}", "goal=misclassify, {}"), norm, any_, X, y, low=0.0, high=1.0)
    assert (attempt.status == DONE).all() and (labels(net, attempt.z) != y).all()
    assert any_.forwards < near.forwards


def test_the_distances_are_those_of_the_lab():
    """In a run: the stored L2 distance of every sample is the one the attack found, and each point is wrong."""
    data = br.Dataset.from_arrays(X, labels(linear_network(TWO), X), classes=2)
    table = br.Lab(device="cpu").measure({"net": linear_network(TWO)}, data, ["fab(steps=20)"])
    cell = table.samples("net", "fab(steps=20)")
    assert not cell["correct"].any()
    inside = [nearest_in_a_box((TWO[1 - k] - TWO[k]).double().numpy(), float((TWO[k] - TWO[1 - k]).double() @ x.flatten().double()),
                               -x.flatten().numpy().astype(float), 1 - x.flatten().numpy().astype(float), 2)
              for x, k in zip(X, data.labels().tolist(), strict=True)]  # fmt: skip
    assert cell["l2"] == pytest.approx(inside, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deepfool(threat=ball(norm=1, eps=inf))", "has the norms 2, inf, not 1"),
        ("carlini_wagner(threat=ball(eps=inf))", "has the norms 2, not inf"),
        ("fab(goal=maximise(kl))", "has no end"),
        ("pgd(threat=ball(eps=inf))", "give a finite eps"),
        ("uniform_noise(threat=ball(eps=inf))", "give a finite eps"),
        ("pgd(goal=nearest)", "minimum-norm attacks"),
    ],
)
def test_what_cannot_be_asked(text, message):
    with pytest.raises(SpecError, match=message):
        parse(text)


def test_saturated_and_broken_logits_do_not_count():
    """NaN is no success, and a lead within rounding of the logits is none either."""

    class Broken(nn.Module):
        def forward(self, x):
            s = x.flatten(1).sum(1, keepdim=True)
            return torch.cat((torch.ones_like(s), torch.where(s > 9.5, torch.nan, s - 10)), 1)

    y = torch.zeros(len(X), dtype=torch.int64)
    _, attempt = made("fmn(steps=10, {})", 2, Broken(), X, y, low=0.0, high=1.0)
    assert not torch.isnan(Broken()(attempt.z)[attempt.status == DONE]).any()
    flat = linear_network(torch.zeros(2, 16), torch.tensor([1.0, 1.0 + 1e-7]))
    _, attempt = made("fab(steps=3, {})", 2, flat, X, torch.ones_like(y), low=0.0, high=1.0)
    assert (attempt.status == GAVE_UP).all()
