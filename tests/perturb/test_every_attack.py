"""Every attack under unusual conditions: few classes, one sample, eps = 0, float64, another domain, aims; nothing is left behind."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from brinell.core.component import items, parse
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.perturbation import DONE, Attack, Attempt, points
from brinell.core.threat import Ball
from brinell.engine.observing import inspect_points
from brinell.perturb.pgd import PGD
from brinell.perturb.square import Square

CHEAP = {"steps": 4, "queries": 12, "passes": 90}
SHAPE = (1, 4, 6)
WRAPPED = ("backward_as", "eot", "eps_curve", "transfer", "worst_of")
PLAIN = {name: cls for name, cls in items(Attack).items() if cls.__module__.startswith("brinell.perturb.") and name not in WRAPPED}
BALLED = [(name, norm) for name, cls in PLAIN.items() if cls.model_fields["threat"].default is not None for norm in cls.has_norms]


def network(classes, dtype):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = nn.Sequential(nn.Flatten(), nn.Linear(24, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, classes))
    return layers.to(dtype)


def made(name, norm, ball, goal):
    cls = items(Attack)[name]
    fields = {field: value for field, value in CHEAP.items() if field in cls.model_fields}
    goals = {} if goal is None else {"goal": parse(goal)}
    inner = PGD(steps=4, threat=ball.replace(norm=norm), **goals)
    if name == "worst_of":
        return cls(attacks=(inner, Square(queries=12, threat=inner.threat, **goals)))
    if name in WRAPPED:
        more = {"eot": {"samples": 2}, "transfer": {"source": parse("mlp(widths=(8,))")}, "backward_as": {"module": "2"},
                "eps_curve": {"eps": (0.03, 0.06)}}  # fmt: skip
        return cls(attack=inner, **more[name])
    return cls(threat=inner.threat, **fields, **goals)


def asked(name, norm, *, classes, n, dtype=torch.float32, low=0.0, high=1.0, eps=0.1, goal=None):
    """The points, the samples, and the network; whatever must not change is compared."""
    ball = Ball(eps=eps, low=low, high=high)
    attack = made(name, norm, ball, goal)
    net = network(classes, dtype)
    x = derive(0, "odd", ids=range(n)).uniform(*SHAPE, low=low, high=high, dtype=dtype)
    x[0, 0, 0] = high  # a sample at the wall
    with torch.no_grad():
        y = net.eval()(x).argmax(1)
    y[-1] = (y[-1] + (n > 1)) % classes  # a sample that is wrong already
    net.train()
    net[4].eval().weight.requires_grad_(False)
    seen = []
    net[4].register_forward_hook(lambda *_: seen.append(1))
    if name == "universal":
        data = Samples(x, y, (low, high))
        attack = attack.prepared(attack.prepare(net.eval(), data, draws=derive(1, ids=range(n))))
        net.train()[4].eval()

    def state():
        parts = [part.training for part in net.modules()], [p.requires_grad for p in net.parameters()], len(net[4]._forward_hooks)
        return *parts, torch.random.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    before, weights, kept = state(), [p.clone() for p in net.parameters()], x.clone()
    out = attack(net, x, y, draws=derive(1, ids=range(n)))
    z = points(out)
    assert state() == before and all(map(torch.equal, weights, net.parameters())) and torch.equal(x, kept)
    assert all(p.grad is None for p in net.parameters())
    assert seen or name in ("transfer", "universal")
    assert z.dtype == dtype
    status = torch.full((n,), DONE) if not isinstance(out, Attempt) or out.status is None else out.status
    z = torch.where((status == DONE).reshape(-1, 1, 1, 1), z, x)
    inspect_points(attack, x, z, torch.arange(n), (low, high))
    return z, x, y, net


class Samples:
    """As much of a data set as `universal` reads."""

    def __init__(self, x, y, domain):
        self.tensors, self.domain, self.ids, self.shape = (x, y), domain, np.arange(len(x)), tuple(x.shape[1:])
        self.classes = tuple("ab")

    def __len__(self):
        return len(self.ids)

    def x(self, rows=None):
        return self.tensors[0] if rows is None else self.tensors[0][rows]

    def labels(self, rows=None):
        return self.tensors[1] if rows is None else self.tensors[1][rows]

    def shards(self, size):
        return [np.arange(start, min(start + size, len(self))) for start in range(0, len(self), size)]


pytestmark = pytest.mark.slow

EVERY = [*BALLED, *((name, math.inf) for name in WRAPPED)]


@pytest.mark.parametrize("name, norm", EVERY, ids=str)
def test_two_classes_one_sample_in_float64_and_another_domain(name, norm):
    asked(name, norm, classes=2, n=1, dtype=torch.float64, low=-1.0, high=1.0)


@pytest.mark.parametrize("name, norm", [case for case in EVERY if case[0] != "eps_curve"], ids=str)
def test_nothing_moves_without_a_budget(name, norm):
    z, x, _, _ = asked(name, norm, classes=3, n=3, eps=0.0)
    assert torch.equal(z, x)


@pytest.mark.parametrize("goal", ["target(label=1)", "target(label=runner_up)", "target(label=least_likely)"])
@pytest.mark.parametrize("name, norm", EVERY, ids=str)
def test_every_attack_aims(name, norm, goal):
    asked(name, norm, classes=3, n=3, goal=goal)


@pytest.mark.parametrize("name", ["autoattack", "fab", "fmn", "deepfool", "carlini_wagner", "ead", "hop_skip_jump", "gradient_step"])
def test_what_needs_an_end_refuses_a_goal_without_one(name):
    with pytest.raises(SpecError, match="has no end"):
        parse(f"{name}(goal=maximise(margin))")
