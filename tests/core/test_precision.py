"""Which arithmetic attacks draft in, and that what they draft is confirmed in float32."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from brinell.core import precision
from brinell.core.ascent import ascend, drafted
from brinell.core.draws import derive
from brinell.core.goal import Maximise, Misclassify
from brinell.core.network import Counted, Network
from brinell.core.precision import decide, drafting, drafts

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def big() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 600), nn.ReLU(), nn.Linear(600, 4)).requires_grad_(False).eval()


@pytest.fixture
def clock(monkeypatch):
    """Passes take the seconds that are put here, float32 first; the list of what was timed is returned."""
    seconds, timed = {False: 1.0, True: 1.0}, []

    def fake(module, z, low):
        timed.append((low, tuple(z.shape)))
        return seconds[low]

    monkeypatch.setattr(precision, "_seconds", fake)
    return seconds, timed


@pytest.mark.parametrize(("low", "gains"), [(1.0, False), (1 / 1.19, False), (1 / 1.21, True), (0.1, True), (2.0, False)])
def test_bfloat16_must_gain(clock, low, gains):
    clock[0][True] = low
    assert drafts(big(), X) == gains
    assert {shape for _, shape in clock[1]} == {(32, 3, 8, 8)}


def test_a_network_is_timed_once_whatever_is_wrapped_around_it(clock):
    clock[0][True] = 0.1
    net = big()
    assert drafts(net, X) and drafts(Counted(Network(net)), X[:2])
    assert [low for low, _ in clock[1]] == [False, True] * 4
    decide(Network(net), False)
    assert not drafts(net, X)
    assert drafted(net, X, 40, exact=False) == 0
    decide(net, True)
    assert [drafted(net, X, steps, exact=False) for steps in (3, 4, 10, 40)] == [0, 3, 7, 30] and drafted(net, X, 40, exact=True) == 0


def test_copies_keep_the_answer_also_in_other_processes(clock):
    net = big()
    for choice in (True, False):
        decide(Network(net), choice)
        twins = copy.deepcopy(net), pickle.loads(pickle.dumps(net)), Network(net).frozen_copy()
        assert [drafts(twin, X) for twin in twins] == [choice] * 3
    assert not clock[1]
    assert Network(net).digest == Network(big()).digest  # it is no part of what the network is


def test_who_is_never_timed(clock):
    clock[0][True] = 0.1
    small = nn.Linear(4, 3)
    assert not drafts(lambda x: x, X) and not drafts(small, X) and not drafts(big(), X.double()) and not drafts(big(), X[:0])
    assert clock[1] == []


def test_the_clock_runs_both_ways_and_a_network_that_refuses_stays_with_float32():
    assert precision._seconds(big(), X, True) > 0 and precision._seconds(big(), X, False) > 0

    class Refuses(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = big()

        def forward(self, x):
            out = self.inner(x)
            if out.dtype == torch.bfloat16:
                raise RuntimeError("not in my name")
            return out

    assert not drafts(Refuses(), X)


class Watch:
    """Logits of one number, rounded as bfloat16 does inside the drafting context; class 1 beyond `at`."""

    def __init__(self, at):
        self.at, self.asked = at, []

    def __call__(self, z):
        low = torch.is_autocast_enabled("cpu")
        self.asked.append((low, z.requires_grad, len(z)))
        value = z.flatten(1).sum(1)
        value = value.bfloat16().to(z.dtype) if low else value
        return torch.stack((torch.zeros_like(value), value - self.at), 1)


def climb(net, x, draft, steps=8, goal=None, **more):
    y = torch.zeros(len(x), dtype=torch.int64)
    return ascend(net, x, y, net(x).detach(), goal or Misclassify(), start=lambda f: f.x.clone(), step=lambda f, g: f.z + 0.01 * g.sign(),
                  done=lambda f: f.step >= steps, draws=derive(0, ids=range(len(x))), draft=draft, **more)  # fmt: skip


def test_the_first_looks_are_bfloat16_and_the_last_float32():
    net = Watch(9.0)
    climb(net, torch.tensor([[0.5]]), draft=6)
    assert net.asked[1:] == [(True, True, 1)] * 6 + [(False, True, 1)] * 2 + [(False, False, 1)]


def test_an_arrival_in_bfloat16_counts_once_float32_confirms_it():
    net = Watch(1.0025)  # bfloat16 has 1.0 and 1.0078
    x = torch.tensor([[0.9951], [0.9999]])  # 1.0051 after one step: 1.0078 in bfloat16, and beyond; 1.0099
    found = climb(net, x, draft=6)
    assert found.reached.all() and found.steps.tolist() == [1, 1] and found.forwards.tolist() == [3, 3]
    net = Watch(1.0065)
    found = climb(net, torch.tensor([[0.9951]]), draft=6)  # bfloat16 sees 1.0078 at 1.0051, float32 does not
    assert found.reached.all() and found.steps.tolist() == [2] and found.z.item() == pytest.approx(1.0151)
    assert found.forwards.tolist() == [5] and found.backwards.tolist() == [3]
    assert net.asked[1:] == [(True, True, 1), (True, True, 1), (False, False, 1), (True, True, 1), (False, False, 1)]


def test_what_is_kept_is_the_best_that_float32_has_seen():
    """bfloat16 rounds 0.99 + 0.005 k up and down; the loss returned is one of float32."""
    net = Watch(0.0)
    found = climb(net, torch.tensor([[0.993]]), draft=3, steps=4, goal=Maximise(quantity="margin"))
    assert found.loss.item() == pytest.approx(found.z.item(), abs=1e-9) and found.z.item() == pytest.approx(1.033)


def test_going_on_after_the_goal_is_reached():
    net = Watch(0.505)
    found = climb(net, torch.tensor([[0.5]]), draft=0, steps=5, leave=False)
    assert found.reached.all() and found.z.item() == pytest.approx(0.55) and found.steps.tolist() == [5]
    assert found.forwards.tolist() == [6] and found.backwards.tolist() == [5]


def test_the_context_is_left_as_it_was():
    with drafting(X):
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")
    with drafting(X, False):
        assert not torch.is_autocast_enabled("cpu")


def test_robust_accuracy_with_and_without_drafting():
    from brinell.core.component import parse
    from brinell.core.perturbation import points

    net = big()
    x = derive(0, ids=range(200)).uniform(3, 8, 8)
    y, kept = net(x).argmax(1), []
    decide(net, True)
    for exact in (False, True):
        for attack in ("pgd(steps=20", "apgd(steps=20, loss=dlr"):
            z = points(parse(f"{attack}, exact={exact}, threat=ball(eps=0.012))")(net, x, y, draws=derive(0, ids=range(200))))
            kept.append((net(z).argmax(1) == y).double().mean().item())
    assert 0.1 < kept[2] < 0.9 and math.isclose(kept[0], kept[2], abs_tol=0.005) and math.isclose(kept[1], kept[3], abs_tol=0.005)


class Autocast(nn.Module):
    """Remembers the precision of every pass."""

    def __init__(self):
        super().__init__()
        self.inner, self.asked = big(), []

    def forward(self, x):
        self.asked.append((torch.is_autocast_enabled("cpu"), len(x)))
        return self.inner(x)


def test_queries_in_bfloat16_are_confirmed_too():
    from brinell.core.component import parse
    from brinell.core.perturbation import points

    net = Autocast()
    decide(net, True)
    x = derive(0, ids=range(40)).uniform(3, 8, 8)
    y = net.inner(x).argmax(1)
    attack = parse("square(queries=40, threat=ball(eps=0.03))")
    z = points(attack(net, x, y, draws=derive(0, ids=range(40))))
    broken = net.inner(z).argmax(1) != y
    assert 3 < broken.sum() < 37
    lows = [rows for low, rows in net.asked if low]
    assert len(lows) == 31 and lows[-1] < lows[0] == 40  # the start and three in four queries
    assert not net.asked[-1][0] and sum(rows for low, rows in net.asked if not low) >= 11 * int((~broken).sum())


def test_minimum_norm_steps_are_drafted_where_only_the_threat_counts():
    from brinell.core.component import parse

    net = Autocast()
    decide(net, True)
    x = derive(0, ids=range(60)).uniform(3, 8, 8)
    y, found = net.inner(x).argmax(1), []
    for exact in (False, True):
        net.asked.clear()
        attack = parse(f"fab(steps=12, targets=3, bisections=0, exact={exact}, goal=misclassify, threat=ball(eps=0.012))")
        made = attack(net, x, y, draws=derive(0, ids=range(60)))
        broken = net.inner(made.z).argmax(1) != y
        assert torch.equal(broken, made.status == 0) and attack.threat.contains(x, made.z).all()  # what counts is what float32 sees
        found.append((int(broken.sum()), sum(rows for low, rows in net.asked if low), sum(rows for low, rows in net.asked if not low)))
    (drafted, lows, others), (plain, none, all_passes) = found
    assert 5 < plain < 55 and abs(drafted - plain) <= 1
    assert none == 0 and lows > 2 * others and all_passes > 2 * others
    net.asked.clear()
    parse("fab(steps=4, threat=ball(norm=2, eps=inf))")(net, x[:4], y[:4], draws=derive(0, ids=range(4)))
    assert not any(low for low, _ in net.asked)  # distances are measured in float32
