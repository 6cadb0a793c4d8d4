"""Adversarial training and TRADES: what they minimise, and that it helps."""

import numpy as np
import pytest
import torch

import brinell as br
from brinell.core.draws import derive
from brinell.core.errors import SpecError
from brinell.core.goal import Maximise
from brinell.core.perturbation import points
from brinell.core.threat import Ball
from brinell.harden.adversarial import Adversarial, Trades
from brinell.harden.fit import Fit
from brinell.harden.loop import Step
from brinell.perturb.fgsm import FGSM
from brinell.perturb.pgd import PGD

FIT = Fit(epochs=2, batch_size=16, lr=0.02)
BALL = Ball(eps=0.2)
FAST = FGSM(random_start=True, rate=1.25, threat=BALL)


def test_adversarial_is_fit_on_attacked_inputs(toy, small, same):
    made = Adversarial(attack=FAST, fit=FIT)(small, toy, seed=3)
    assert same(made, FIT(small, toy, seed=3, inputs=FAST))
    assert not same(made, FIT(small, toy, seed=3))
    assert made.notes[-1].startswith("trained by adversarial(attack=fgsm(")


def test_the_default_attack_is_that_of_the_reference():
    attack = br.parse("adversarial").attack
    assert (attack.steps, attack.step_size, attack.threat, attack.random_start) == (7, 2 / 255, Ball(eps=8 / 255), True)
    assert attack.goal == Maximise(quantity="cross_entropy")
    attack = br.parse("trades").attack
    assert (attack.steps, attack.step_size, attack.threat, attack.goal) == (10, 2 / 255, Ball(eps=8 / 255), Maximise(quantity="kl"))


def test_the_penalty_of_trades(toy, small):
    """Equal to the divergence computed by hand at the points of the same attack."""
    attack = PGD(steps=2, threat=BALL, goal=Maximise(quantity="kl"))
    net, x, y = small.frozen_copy(), toy.x(), toy.labels()
    heard = []

    class Loud(Fit, name="loud_fit_for_a_test"):
        def __call__(self, net, data, *, seed, **options):
            heard.append(options["regularizer"])
            return net

    Trades(beta=3, attack=attack, fit=Loud())(net, toy, seed=0)
    draws = derive(0, ids=toy.ids)
    with torch.no_grad():
        value = heard[0](Step(net, x, y, net(x), {}, 0, draws))
        z = points(attack(net, x, y, draws=draws))
        p, q = (torch.softmax(net(at).double(), 1).numpy() for at in (x, z))
    assert float(value) == pytest.approx(3 * (p * np.log(p / q)).sum(1).mean(), rel=1e-4)
    assert float(value) > 0


def test_trades_without_weight_is_fit(toy):
    net = br.load_network("mlp(widths=(8,))", shape=toy.shape, classes=3)
    made, plain = Trades(beta=0, fit=FIT)(net, toy, seed=0), FIT(net, toy, seed=0)
    assert torch.equal(made.module.state_dict()["1.weight"], plain.module.state_dict()["1.weight"])


def test_an_interrupted_adversarial_training_ends_with_the_same_weights(toy, small, same, watcher, tmp_path):
    how, file = Trades(fit=FIT.replace(epochs=3), attack=FAST), tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        how(small, toy, seed=0, checkpoint=file, progress=watcher(3))
    assert same(how(small, toy, seed=0, checkpoint=file), how(small, toy, seed=0))


@pytest.mark.parametrize("bad", ["trades(beta=-1)", "adversarial(attack=fog)", "adversarial(fit=adversarial)", "trades(beta=inf)"])
def test_nonsense_is_refused(bad):
    with pytest.raises(SpecError):
        br.parse(bad)


def climbing(quantity: str) -> PGD:
    return PGD(steps=5, threat=BALL, goal=Maximise(quantity=quantity))


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [Adversarial(attack=FAST), Adversarial(attack=climbing("cross_entropy")), Trades(attack=climbing("kl"))],
    ids=lambda how: how.spec()[:40],
)
def test_it_hardens_real_digits(how):
    """Against 20 steps at the trained radius, where the plainly trained network has lost most of its answers."""
    train, test = br.load_dataset("digits(side=8, split=train)"), br.load_dataset("digits(side=8)")
    fit = Fit(epochs=15, batch_size=64, lr=0.05)
    net = br.load_network("mlp(widths=(128,))", shape=train.shape, classes=10)
    attack = "pgd(steps=20, threat=ball(eps=0.2))"
    nets = {"plain": fit(net, train, seed=0), "hard": how.replace(fit=fit)(net, train, seed=0)}
    table = br.Lab().measure(nets, test, [attack], ["accuracy"])
    plain, hard = (table.value("accuracy", net=name, perturbation=attack) for name in nets)
    assert hard > plain + 0.2
    assert table.value("accuracy", net="hard", perturbation="clean") > 0.85
