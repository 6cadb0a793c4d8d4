"""The promises that hold around every perturbation, whoever wrote it."""

import pytest
import torch
from torch import nn

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import DataError
from brinell.core.perturbation import Attack, Attempt, Corruption, Perturbation, points

X, Y, IDS = torch.rand(4, 3), torch.arange(4) % 2, [3, 1, 4, 15]


class Jitter(Corruption, name="core_jitter"):
    def __call__(self, net, x, y, *, draws):
        self.seen.append((torch.is_grad_enabled(), x.requires_grad))
        return x + draws.uniform(*x.shape[1:])

    @property
    def seen(self):
        return SEEN


class Looks(Attack, name="core_looks"):
    def __call__(self, net, x, y, *, draws):
        SEEN.append((torch.is_grad_enabled(), x.requires_grad))
        if isinstance(net, nn.Module):
            SEEN.append((net.training, any(p.requires_grad for p in net.parameters())))
        if self.threat is not None:
            raise RuntimeError("inside")
        return x + draws.uniform(*x.shape[1:])


class Same(Corruption, name="core_same"):
    part: bool = False

    def __call__(self, net, x, y, *, draws):
        return x[:, :] if self.part else x


class SameAttack(Attack, name="core_same_attack"):
    def __call__(self, net, x, y, *, draws):
        return Attempt(x.detach(), torch.ones_like(y), "gave up")


class Writes(Attack, name="core_writes"):
    def __call__(self, net, x, y, *, draws):
        return x.mul_(0.5)


class WritesNumpy(Corruption, name="core_writes_numpy"):
    def __call__(self, net, x, y, *, draws):
        x.numpy()[:] = 0
        y.zero_()
        return x


class Double(Corruption, name="core_double"):
    def __call__(self, net, x, y, *, draws):
        return x.double() * 0.5


class Odd(Corruption, name="core_odd"):
    what: str = "none"

    def __call__(self, net, x, y, *, draws):
        return {"none": None, "list": [x], "status": Attempt(x.clone(), torch.zeros(3))}[self.what]


SEEN: list[tuple[bool, bool]] = []


@pytest.fixture(autouse=True)
def _forget():
    SEEN.clear()


def draws():
    return derive(0, "test", ids=IDS)


@pytest.mark.parametrize("kind", [Jitter, Looks])
def test_the_same_draws_give_the_same_result_and_do_not_move_on(kind):
    mine = draws()
    first = kind()(None, X, Y, draws=mine)
    assert torch.equal(kind()(None, X, Y, draws=mine), first) and (mine.counter == 0).all()
    assert torch.equal(first, X + draws().uniform(3))


def test_corruptions_run_without_gradients_and_results_carry_none():
    x = X.clone().requires_grad_()
    made = Jitter()(None, x, Y, draws=draws())
    assert SEEN == [(False, False)] and not made.requires_grad
    made = Looks()(None, x, Y, draws=draws())
    assert SEEN[1] == (True, False) and not made.requires_grad


@pytest.mark.parametrize("item", [Same(), Same(part=True), SameAttack()])
def test_the_result_owns_its_memory(item):
    x = X.clone()
    made = item(None, x, Y, draws=draws())
    assert torch.equal(points(made), X)
    points(made).zero_()
    assert torch.equal(x, X)
    if isinstance(made, Attempt):
        assert made.note == "gave up" and made.status is not None and made.status.tolist() == [1] * 4


def test_who_writes_into_the_input_is_refused():
    with pytest.raises(DataError, match="core_writes changed its input in place"):
        Writes()(None, X.clone(), Y, draws=draws())
    x, y = X.clone(), Y.clone()
    assert (points(WritesNumpy()(None, x, y, draws=draws())) == 0).all() and torch.equal(x, X) and torch.equal(y, Y)


def test_the_result_has_the_type_of_the_input():
    assert points(Double()(None, X, Y, draws=draws())).dtype == torch.float32


@pytest.mark.parametrize("fails", [False, True])
def test_attacks_run_on_a_frozen_network_that_is_put_back(fails):
    from brinell.core.threat import Ball

    net = nn.Sequential(nn.Linear(3, 2), nn.Dropout())
    net[0].bias.requires_grad_(False)
    net[1].eval()
    attack = Looks(threat=Ball() if fails else None)
    if fails:
        with pytest.raises(RuntimeError, match="inside"):
            attack(net, X, Y, draws=draws())
    else:
        attack(net, X, Y, draws=draws())
    assert SEEN[1] == (False, False)
    assert net.training and net[0].training and not net[1].training
    assert net[0].weight.requires_grad and not net[0].bias.requires_grad


def test_an_empty_batch_needs_no_attack():
    made = Looks()(None, X[:0], Y[:0], draws=derive(0, ids=[]))
    assert points(made).shape == (0, 3) and SEEN == []


@pytest.mark.parametrize(
    ("x", "y", "ids", "words"),
    [
        ([[0.5]], Y, IDS, "needs floating-point inputs .* got list"),
        (X.long(), Y, IDS, r"got torch.int64 of shape \(4, 3\)"),
        (X[:, 0], Y, IDS, r"got torch.float32 of shape \(4,\)"),
        (X, Y[:3], IDS, r"4 inputs need as many integer labels and rows of draws; got \(3,\) and 4"),
        (X, Y[:, None], IDS, r"got \(4, 1\)"),
        (X, Y.float(), IDS, "integer labels"),
        (X, Y.tolist(), IDS, "got list"),
        (X, Y, IDS[:2], r"got \(4,\) and 2"),
    ],
)
def test_inputs_are_checked(x, y, ids, words):
    with pytest.raises(DataError, match=words):
        Jitter()(None, x, y, draws=derive(0, ids=ids))
    assert SEEN == []


@pytest.mark.parametrize(
    ("what", "words"), [("none", "returned NoneType"), ("list", "returned list"), ("status", r"status of shape \(3,\)")]
)
def test_results_are_checked(what, words):
    with pytest.raises(DataError, match=words):
        Odd(what=what)(None, X, Y, draws=draws())


def test_perturbations_that_do_nothing_say_so():
    class Silent(Perturbation, name="core_silent"):
        pass

    with pytest.raises(TypeError, match="Silent does not say how it perturbs"):
        Silent()(None, X, Y, draws=draws())
    assert Silent().cost == (0, 0)


@pytest.mark.parametrize("spec", ["fog(severity=3)", "uniform_noise(threat=ball(eps=0.1))", "fgsm", "pgd(steps=2)"])
def test_inference_mode_changes_nothing(spec):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    item, y, ids = parse(spec), torch.tensor([0, 1, 2]), [4, 5, 6]
    x = derive(0, ids=ids).uniform(1, 8, 8)
    expected = points(item(net, x, y, draws=derive(0, ids=ids)))
    with torch.inference_mode():
        assert torch.equal(points(item(net, x, y, draws=derive(0, ids=ids))), expected)
        made = x.clone()
        assert torch.equal(points(item(net, made, y.clone(), draws=derive(0, ids=ids))), expected)
    assert torch.equal(points(item(net, made, y, draws=derive(0, ids=ids))), expected)
