"""Square attack: windows and bumps against slow twins, exact corners on linear networks, draws by id, queries counted."""

import math

import numpy as np
import pytest
import torch

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.network import Counted
from brinell.core.perturbation import points
from brinell.core.threat import Ball
from brinell.models.reference import exact_margin, linear_network
from brinell.perturb.square import Square, bump

X = derive(0, "x", ids=range(8)).uniform(2, 6, 6, low=0.3, high=0.7)
WEIGHT, BIAS = derive(0, "weight", ids=[0, 1]).normal(72), torch.tensor([0.3, -0.2])
NET = linear_network(WEIGHT, BIAS)
with torch.no_grad():
    Y = NET(X).argmax(1)


def ask(attack, net=NET, x=X, y=Y, ids=range(8)):
    return points(attack(net, x, y, draws=derive(0, ids=ids)))


def test_the_schedule_is_the_published_one():
    """p_init halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10,000 queries."""
    ends = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    for queries, rescale in ((10_000, True), (10_000, False), (5000, True), (500, True), (5000, False)):
        attack = Square(queries=queries, rescale=rescale)
        for query in (0, 5, 6, 10, 11, 100, 101, 250, 251, 499, 2600, 4999):
            if query < queries:
                at = int(query / queries * 10_000) if rescale else query
                assert attack.side(query) == 0.8 / 2 ** sum(at > end for end in ends)


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize(("tall", "wide"), [(3, 3), (5, 5), (7, 7), (3, 9), (1, 5), (4, 4)])
def test_bumps(norm, tall, wide):
    """Two hills of nested rectangles, 1/j^2 or 1/j^4 summed from the outside in, one up and one down."""

    def hill(a, b):
        v = np.zeros((a, b))
        for row in range(a):
            for column in range(b):
                away = max(abs(row - a // 2), abs(column - b // 2))
                v[row, column] = sum(1 / (j + 1) ** {1: 4, 2: 2}[norm] for j in range(away, max(a // 2, b // 2) + 1))
        size = np.linalg.norm(v.ravel(), norm) if v.size else 1
        return v / max(size, 1e-12)

    want = np.concatenate((hill(tall // 2, wide), -hill(tall - tall // 2, wide)))
    want /= np.linalg.norm(want.ravel(), norm)
    found = bump(tall, wide, norm, False)
    assert np.allclose(found.numpy(), want, atol=1e-6)
    assert torch.allclose(bump(wide, tall, norm, True), found.T)


def test_linf_reaches_the_exact_corner():
    margins = exact_margin(WEIGHT, BIAS, X, Y, math.inf)
    for factor, flips in ((1.1, True), (0.999, False)):
        for row in range(2):
            ball, at = Ball(eps=float(margins[row]) * factor, low=-math.inf, high=math.inf), slice(row, row + 1)
            z = ask(Square(threat=ball, queries=1000), x=X[at], y=Y[at], ids=[row])
            assert ball.contains(X[at], z).all() and bool(NET(z).argmax(1) != Y[row]) == flips


@pytest.mark.parametrize("norm", [1, 2, math.inf])
@pytest.mark.parametrize("shape", [(2, 6, 6), (1, 3, 8), (1, 1, 1), (9,), (4, 5), (1, 2, 2)])
def test_any_shape(norm, shape):
    count = math.prod(shape)
    x = derive(0, "x", ids=range(5)).uniform(*shape)
    net = linear_network(derive(1, ids=[0, 1, 2]).normal(count))
    y = net(x).argmax(1).detach()
    ball = Ball(norm=norm, eps=0.2)
    z = ask(Square(threat=ball, queries=30), net, x, y, range(5))
    assert z.shape == x.shape and ball.contains(x, z).all() and torch.isfinite(z).all()
    before, after = (torch.stack([net(v)[i].index_select(0, torch.tensor([k for k in range(3) if k != y[i]])).max() - net(v)[i, y[i]]
                                  for i in range(5)]) for v in (x, z))  # fmt: skip
    assert (after > before).any()


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_more_queries_never_lower_the_margin(norm):
    net = linear_network(WEIGHT, torch.tensor([30.0, 0.0]))  # class 0, out of reach
    y = torch.zeros(8, dtype=torch.int64)
    ball = Ball(norm=norm, eps=0.3)
    values = []
    for queries in (1, 20, 150):
        z = ask(Square(threat=ball, queries=queries, rescale=False), net, y=y)
        values.append(net(z)[:, 1] - net(z)[:, 0])
    assert (values[1] >= values[0] - 1e-4).all() and (values[2] >= values[1] - 1e-4).all() and (values[2] > values[0] + 1e-3).all()


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_rows_do_not_depend_on_their_batch_mates(norm):
    eps = float(exact_margin(WEIGHT, BIAS, X, Y, norm).median()) * 1.5
    attack = Square(threat=Ball(norm=norm, eps=eps), queries=90)
    together = ask(attack)
    for row in (0, 3, 7):
        assert torch.allclose(ask(attack, x=X[row : row + 1], y=Y[row : row + 1], ids=[row])[0], together[row], atol=1e-4)
    assert not torch.equal(ask(attack, ids=range(8, 16)), together)


def test_queries_are_counted_and_end_at_success():
    attack = Square(threat=Ball(eps=0.1), queries=70)
    net = Counted(linear_network(WEIGHT, torch.tensor([30.0, 0.0])))
    ask(attack, net, y=torch.zeros(8, dtype=torch.int64))
    forwards, backwards = net.reset()  # squares of 6 by 6 change nothing where the signs are those there already
    assert 8 * 40 < forwards < 8 * 72 and backwards == 0 and attack.cost == (71, 0)
    net = Counted(NET)
    z = ask(attack.replace(threat=Ball(eps=0.9)), net)
    assert (NET(z).argmax(1) != Y).all() and net.reset()[0] < 8 * 20
    assert torch.equal(ask(attack, y=1 - Y), X)  # wrong already


def bent(z):
    """Scores that are not linear; class 0 leads by a little."""
    scores = z.flatten(1) @ WEIGHT.T.to(z.dtype) / 8
    return torch.cat((torch.full_like(scores[:, :1], 0.98), torch.sin(5 * scores)), 1)


@pytest.mark.parametrize("norm", [1, 2, math.inf])
@pytest.mark.parametrize("queries", [1, 50, 300])
def test_asking_ahead_finds_the_same_for_a_quarter_more(norm, queries):
    y = torch.zeros(8, dtype=torch.int64)
    attack, counted = Square(threat=Ball(norm=norm, eps={1: 1.0, 2: 0.25, math.inf: 0.02}[norm]), queries=queries), Counted(bent)
    one_by_one, passes = ask(attack, counted, X.double(), y), counted.reset()[0]
    ahead, more = ask(attack.replace(ahead=True), counted, X.double(), y), counted.reset()[0]
    assert torch.equal(one_by_one, ahead) and passes <= more <= 8 * (attack.replace(ahead=True).cost[0] + 1)
    assert attack.replace(ahead=True).cost[0] == queries + 1 + queries // 4 and (queries == 1 or more > passes)
    assert queries < 300 or 0 < int((bent(ahead).argmax(1) != y).sum()) < 8


def test_asking_ahead_takes_few_passes_through_the_network():
    calls = []

    def watched(z):
        calls.append(len(z))
        noise = torch.sin(1e4 * z.double().flatten(1) @ WEIGHT[0].double())[:, None]  # a new record is rare
        return torch.cat((torch.ones_like(noise), noise - 2), 1)

    attack = Square(threat=Ball(norm=2, eps=0.1), queries=1000, ahead=True)
    ask(attack, watched, y=torch.zeros(8, dtype=torch.int64))
    assert 8 * 1000 < sum(calls) <= 8 * 1252 and len(calls) < 250 and max(calls) <= 8 * 64


def test_targets_and_few_classes():
    net = linear_network(derive(5, ids=range(3)).normal(72))
    y = net(X).argmax(1).detach()
    attack = parse("square(goal=target(runner_up), queries=400, threat=ball(eps=0.3))")
    assert torch.equal(net(ask(attack, net, y=y)).argmax(1), attack.goal.targets(y, net(X)))


@pytest.mark.parametrize(("fields", "words"), [("queries=0", "1"), ("share=0", "greater than 0"), ("share=2", "1")])
def test_fields_out_of_range(fields, words):
    with pytest.raises(SpecError, match=words):
        parse(f"square({fields})")
