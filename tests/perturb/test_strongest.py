"""Our default: the budget of passes, partial answers, samples without a gradient; verdicts are in test_misleading."""

import math

import pytest
import torch
from torch import nn

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.network import Counted, Network
from brinell.core.threat import Ball
from brinell.models.misleading import Quantised
from brinell.models.reference import exact_margin, linear_network
from brinell.perturb.strongest import Strongest

X = derive(0, "x", ids=range(8)).uniform(1, 4, 4, low=0.3, high=0.7)
WEIGHT = derive(5, ids=range(5)).normal(16)
NET = linear_network(WEIGHT)
with torch.no_grad():
    Y = NET(X).argmax(1)


def never(z):
    s = z.flatten(1).sum(1, keepdim=True)
    return torch.cat((s + 1000, -s, s - 3, 2 * s, s / 2), 1)


@pytest.mark.parametrize("budget", [1, 40, 130, 500, 2000])
def test_no_sample_costs_more_than_its_budget(budget):
    net, y = Counted(never), torch.zeros(8, dtype=torch.int64)
    attack = Strongest(threat=Ball(eps=0.1), passes=budget)
    made = attack(net, X, y, draws=derive(0, ids=range(8)))
    spent = sum(net.reset()) / 8
    assert spent <= max(budget, 4) and attack.threat.contains(X, made.z).all()
    assert spent > budget - 340 or budget > 1500  # what is left over is less than the next attack costs
    whole = budget >= 2000
    assert made.note.startswith("partial: 8 of 8 samples survived") != whole
    assert whole or "apgd(loss=dlr" in made.note


def test_the_plan_escalates():
    names = [part.name for part in Strongest().plan(classes=10)]
    assert names == ["pgd", "apgd", "apgd", "square", "apgd", "square"]
    assert 2990 <= sum(Strongest().cost) <= 3000 and 90 <= sum(Strongest(passes=100).cost) <= 100
    assert [part.name for part in Strongest(passes=200).plan(classes=10)] == ["pgd", "apgd", "square"]


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_exact_on_a_linear_network(norm):
    margins = exact_margin(WEIGHT, None, X, Y, norm)
    row = int(margins.argsort()[4])
    for factor, flips in ((1.05, True), (0.999, False)):
        ball = Ball(norm=norm, eps=float(margins[row]) * factor, low=-math.inf, high=math.inf)
        made = Strongest(threat=ball, passes=1000)(NET, X[row : row + 1], Y[row : row + 1], draws=derive(0, ids=[row]))
        assert ball.contains(X[row : row + 1], made.z).all() and bool(NET(made.z).argmax(1) != Y[row]) == flips


def test_a_partial_answer_says_nothing_where_nobody_survived():
    made = Strongest(threat=Ball(eps=0.6), passes=60)(NET, X, Y, draws=derive(0, ids=range(8)))
    assert (NET(made.z).argmax(1) != Y).all() and made.note == ""


def test_samples_without_a_gradient_meet_the_square_attack():
    net = Counted(Quantised().build((1, 4, 4), 4))
    x, y = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    made = Strongest(threat=Ball(eps=16 / 255), passes=400)(net, x, y, draws=derive(0, ids=range(3)))
    assert (net(made.z).argmax(1) == 1).all() and net.reset()[1] <= 3
    assert made.note == "no gradient at 3 of 3 samples: they met the square attack alone"


def test_few_classes_and_targets():
    net = linear_network(WEIGHT[:2])
    y = net(X).argmax(1).detach()
    made = Strongest(threat=Ball(eps=0.6))(net, X, y, draws=derive(0, ids=range(8)))
    assert (net(made.z).argmax(1) != y).all() and "the network has 2" in made.note
    attack = parse("strongest(goal=target(runner_up), threat=ball(norm=2, eps=4))")
    made = attack(NET, X, Y, draws=derive(0, ids=range(8)))
    assert torch.equal(NET(made.z).argmax(1), attack.goal.targets(Y, NET(X)))


def halves() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A linear network of three classes with samples whose least margin over the ball of radius 0.1 is positive in every other row."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Linear(6, 3, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.randn(3, 6, generator=generator, dtype=torch.float64))
    x = torch.rand(40, 6, generator=generator, dtype=torch.float64) * 0.6 + 0.2
    return net, x, net(x).argmax(1)


def exactly_closed(net: nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float) -> torch.Tensor:
    differences = net.weight[y][:, None] - net.weight  # the ball lies inside the domain, so the minimum is the dual norm's
    floors = (net(x).gather(1, y[:, None]) - net(x)) - eps * differences.abs().sum(2)
    return (floors > 0).scatter(1, y[:, None], True).all(1)


@pytest.mark.slow
@pytest.mark.parametrize("bound", ["ibp", "crown"])
def test_samples_that_a_certificate_closes_cost_no_attack(bound):
    net, x, y = halves()
    closed = exactly_closed(net, x, y, 0.1)
    assert 5 < int(closed.sum()) < 35
    plain, asking = (parse(f"strongest(threat=ball(eps=0.1){more})") for more in ("", f", bound={bound}"))
    seen = {}
    for attack in (plain, asking):
        counted = Counted(Network(net))
        found = attack(counted, x, y, draws=derive(0, ids=range(40)))
        seen[attack] = (net(found.z).argmax(1) == y, counted.forwards, found)
    assert torch.equal(seen[plain][0], seen[asking][0]) and torch.equal(seen[plain][0], closed)
    assert torch.equal(seen[asking][2].z[closed], x[closed]) and f"{bound} closed {int(closed.sum())} of 40 samples" in seen[asking][2].note
    assert seen[asking][1] < 0.1 * seen[plain][1]


def test_a_network_that_a_certifier_cannot_bound_is_attacked_all_the_same():
    net, x, y = halves()
    odd = nn.Sequential(net, nn.Tanh())
    attack = parse("strongest(threat=ball(eps=0.1), bound=ibp, passes=300)")
    found = attack(odd, x, y, draws=derive(0, ids=range(40)))
    assert "ibp closed no sample" in found.note and "anh" in found.note
    assert torch.equal(odd(found.z).argmax(1) == y, exactly_closed(net, x, y, 0.1))


def test_a_target_is_no_question_for_a_certifier():
    net, x, y = halves()
    specs = [f"strongest(threat=ball(eps=0.1), goal=target(label=1), passes=300{more})" for more in ("", ", bound=ibp")]
    plain, asking = (parse(spec)(net, x, y, draws=derive(0, ids=range(40))) for spec in specs)
    assert torch.equal(plain.z, asking.z)
