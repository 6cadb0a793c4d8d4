"""One run over several budgets: exact on linear networks, who is tried where, and what a lab makes of it."""

import math

import pytest
import torch

import brinell as br
from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.network import Counted
from brinell.core.perturbation import Attack
from brinell.core.threat import Ball
from brinell.models.reference import exact_margin, linear_network
from brinell.perturb.eps_curve import EpsCurve
from watched import free

WEIGHT = derive(0, "weight", ids=[0, 1, 2]).normal(12)
X = derive(0, "x", ids=range(60)).normal(3, 4)
NET = linear_network(WEIGHT)
with torch.no_grad():
    Y = NET(X).argmax(1)
DRAWS = derive(0, ids=range(60))


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_on_a_linear_network_every_budget_is_exact(norm):
    net = linear_network(WEIGHT[:2])  # two classes: the steepest way is the shortest
    with torch.no_grad():
        y = net(X).argmax(1)
    margins = exact_margin(WEIGHT[:2], None, X, y, norm)
    radii = margins.quantile(torch.tensor([0.2, 0.5, 0.8]).double()).tolist()
    curve = EpsCurve(attack=parse("pgd(steps=40, loss=margin, sparsity=1e-3)").within(free(norm, radii[2])), eps=tuple(radii[:2]))
    z = curve(net, X, y, draws=DRAWS)
    with torch.no_grad():
        wrong = net(z).argmax(1) != y
    found = [wrong & free(norm, eps).contains(X, z) for eps in radii]
    for flags, eps in zip(found, radii, strict=True):
        expected = margins < eps
        unsure = (margins / eps - 1).abs() < 0.01
        assert torch.equal(flags[~unsure], expected[~unsure]) and 0 < int(expected.sum()) < 60


class Noted(Attack, name="test_noted"):
    """Returns the best corner of its ball, and notes whom it was asked about; the samples 0 to 9 it leaves alone."""

    threat: Ball = free(math.inf, 1.0)

    def __call__(self, net, x, y, *, draws):
        ids = torch.cdist(x.flatten(1), X.flatten(1)).argmin(1)
        asked.append((round(self.threat.eps, 6), ids.tolist()))
        others = (WEIGHT[:, None] - WEIGHT[None])[:, y].abs().sum(2)  # (K, n) |w_k - w_y|_1
        gaps = NET(x).gather(1, y[:, None]).T - NET(x).T
        best = torch.where(others > 0, gaps / others.clamp(min=1e-9), math.inf).argmin(0)
        step = (WEIGHT[best] - WEIGHT[y]).sign().reshape(x.shape) * (ids >= 10).reshape(-1, 1, 1)
        return x + self.threat.eps * step


asked: list = []


def test_only_who_yielded_is_tried_in_the_next_ball():
    margins = exact_margin(WEIGHT, None, X, Y, math.inf)
    radii = [round(value, 6) for value in sorted(margins[10:][[10, 25, 45]].mul(1.02).tolist(), reverse=True)]
    asked.clear()
    counted = Counted(NET)
    EpsCurve(attack=Noted(threat=free(math.inf, radii[0])), eps=tuple(radii[:0:-1]))(counted, X, Y, draws=DRAWS)
    assert asked[0] == (radii[0], list(range(60)))
    sure = [k for k in range(10, 60) if float((margins[k] / radii[0] - 1).abs()) > 1e-4]
    for (eps, ids), larger in zip(asked[1:], radii, strict=False):
        assert eps < larger and all(k >= 10 and float(margins[k]) < larger for k in ids if k in sure)
    # a corner moved into a smaller ball is its corner: wrong there if any point is, so the attack is asked about the others alone
    assert all(float(margins[k]) > radii[1] * 0.999 for k in asked[1][1])
    assert len(asked) == 3


def test_a_network_that_withstands_costs_one_run():
    attack = parse("pgd(steps=10, exact=True, threat=ball(eps=1e-6, low=-inf, high=inf))")
    counts = []
    for item in (attack, EpsCurve(attack=attack, eps=(1e-8, 1e-7))):
        counted = Counted(NET)
        item(counted, X, Y, draws=DRAWS)
        counts.append([spent / 60 for spent in counted.reset()])
    (forwards, backwards), (of_curve, back) = counts
    assert back == backwards and of_curve == forwards + 2  # the clean logits, and the check of what was found


def test_a_sample_that_is_wrong_at_first_stays_and_a_target_is_reached():
    wrong = (Y + 1) % 3
    curve = parse("eps_curve(attack=pgd(threat=ball(eps=2.0, low=-inf, high=inf)), eps=(0.5, 1.0))")
    assert torch.equal(curve(NET, X, wrong, draws=DRAWS), X)
    aimed = parse("eps_curve(attack=pgd(goal=target(label=1), threat=ball(eps=2.0, low=-inf, high=inf)), eps=(0.5, 1.0))")
    z = aimed(NET, X[:1], Y[:1], draws=DRAWS[:1])
    assert z.shape == (1, 3, 4) and aimed.goal == parse("target(label=1)")
    assert int(NET(aimed(NET, X, Y, draws=DRAWS)).argmax(1).eq(1).sum()) > 50


def test_in_another_ball_the_smaller_ones_shrink_with_it():
    curve = parse("eps_curve(attack=pgd(threat=ball(eps=0.4)), eps=(0.1, 0.2))").within(Ball(norm=2, eps=0.1))
    assert [(ball.norm, round(ball.eps, 9)) for ball in curve.threats] == [(2, 0.1), (2, 0.05), (2, 0.025)]


@pytest.mark.parametrize(
    "text, said",
    [
        ("eps_curve(attack=pgd(threat=ball(eps=0.1)), eps=(0.05, 0.1))", "the attack's own"),
        ("eps_curve(attack=pgd(threat=ball(eps=0.1)), eps=(0.0,))", "between 0 and"),
        ("eps_curve(attack=pgd(threat=ball(eps=0.1)), eps=(0.05, 0.05))", "different numbers"),
        ("eps_curve(attack=fmn)", "a ball with an end"),
        ("eps_curve(attack=spatial)", "a ball with an end"),
        ("eps_curve(attack=pgd, threat=ball(eps=0.1))", "to the inner attack"),
    ],
)
def test_what_makes_no_curve_is_refused(text, said):
    with pytest.raises(SpecError, match=said):
        parse(text)


@pytest.mark.slow
def test_a_lab_bounds_every_budget_and_the_points_obey_the_smallest():
    data = br.load_dataset("digits(side=8)", limit=80)
    net = br.load_network("mlp(widths=(16,))", shape=data.shape, classes=10)
    attack, eps = "pgd(steps=10, threat=ball(eps={}))", (0.02, 0.05, 0.1)
    curve = f"eps_curve(attack={attack.format(0.1)}, eps=(0.02, 0.05))"
    together = br.Lab().measure(net, data, [curve], summaries=["bound", "checks"])
    separate = br.Lab().measure(net, data, [attack.format(e) for e in eps], summaries=["bound"])
    rows = [{row["layer"]: row["value"] for row in table.select(name="robust_accuracy", bound="upper")} for table in (together, separate)]
    assert rows[0].keys() == rows[1].keys() and len(rows[0]) == 3
    assert all(abs(rows[0][ball] - rows[1][ball]) <= 0.05 for ball in rows[0])
    assert not [item.name for item in together.findings if item.verdict == "fail"]
    spent = [sum(row["forwards"] for row in {r["perturbation"]: r for r in table.rows if r["perturbation"]}.values()) for table in
             (together, separate)]  # fmt: skip
    assert spent[0] < spent[1]
