import pytest
import torch
from torch import nn

from brinell.core.dataset import Dataset
from brinell.core.draws import derive
from brinell.core.errors import DataError, NetworkError
from brinell.core.perturbation import points
from brinell.core.threat import Ball
from brinell.harden.fit import Fit
from brinell.perturb.fgsm import FGSM

FIT = Fit(epochs=2, batch_size=16, lr=0.02)


def test_a_regularizer_of_zero_changes_nothing(toy, small, same):
    seen = []

    def nothing(step):
        seen.append((dict(step.activations), step.logits.shape, len(step.y), step.epoch))
        return step.logits.sum() * 0

    assert same(FIT(small, toy, seed=0), FIT(small, toy, seed=0, regularizer=nothing))
    assert [epoch for *_, epoch in seen] == [0] * 3 + [1] * 3
    activations, shape, labels, _ = seen[0]
    assert {name: tuple(value.shape) for name, value in activations.items()} == {"2:0": (16, 4), "4:0": (16, 6)}
    assert shape == (16, 3) and labels == 16


def test_a_regularizer_reaches_the_early_layers(toy, small):
    """With the loss on the logits cut off, all that moves the first convolution is the regulariser."""
    module = nn.Sequential(*small.module[:6], Cut(), *small.module[6:])
    still = FIT.replace(weight_decay=0.0)(module, toy, seed=0)
    assert torch.equal(still.module[0].weight, module[0].weight)

    def quiet(step):
        return step.activations["2:0"].square().mean()

    moved = FIT.replace(weight_decay=0.0)(module, toy, seed=0, regularizer=quiet, layers=("2:*",))
    assert not torch.equal(moved.module[0].weight, module[0].weight)
    assert torch.equal(moved.module[3].weight, module[3].weight), "the second convolution lies behind what was penalised"


class Cut(nn.Module):
    """Lets values through and no gradient."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach()


def test_only_the_layers_asked_for_are_recorded(toy, small):
    names = set()

    def look(step):
        names.update(step.activations)
        return step.logits.sum() * 0

    FIT(small, toy, seed=0, regularizer=look, layers=("4:*",))
    assert names == {"4:0"}
    with pytest.raises(NetworkError, match=r"no recorded layer is called absent"):
        FIT(small, toy, seed=0, regularizer=look, layers=("absent",))


def test_inputs_come_from_the_hook(toy, small, same):
    def same_inputs(net, x, y, *, draws):
        return x

    assert same(FIT(small, toy, seed=0), FIT(small, toy, seed=0, inputs=same_inputs))

    def noise(net, x, y, *, draws):
        return x + 0.1 * draws.normal(*x.shape[1:])

    first = FIT(small, toy, seed=0, inputs=noise)
    assert not same(first, FIT(small, toy, seed=0))
    assert same(first, FIT(small, toy, seed=0, inputs=noise))


def test_an_attack_is_an_inputs_hook():
    """One strong feature that is right nine times in ten, forty weak ones that are always right: the weak ones are what an attack of
    their size turns round, and adversarial training lets go of them."""
    sign = torch.tensor([-1.0, 1.0]).repeat(60)
    strong = torch.where(torch.arange(120) % 10 < 9, sign, -sign) * 0.4
    x = 0.5 + torch.cat((strong[:, None], sign[:, None] * 0.05 * torch.ones(120, 40)), 1)
    data = Dataset.from_arrays(x, (sign > 0).long())
    attack, net = FGSM(threat=Ball(eps=0.1)), nn.Linear(41, 2)
    for p in net.parameters():
        nn.init.zeros_(p)
    fit = Fit(epochs=30, batch_size=40, lr=0.5, weight_decay=0.0)
    plain, hard = fit(net, data, seed=0), fit(net, data, seed=0, inputs=attack, title="hard")

    def accuracy(network):
        z = points(attack(network, data.x(), data.labels(), draws=derive(0, ids=data.ids)))
        return float((network(z).argmax(1) == data.labels()).float().mean())

    assert accuracy(plain) < 0.5
    assert accuracy(hard) > 0.89
    assert hard.notes == ("trained by hard on arrays (120 samples), seed 0",)


def test_a_hook_must_keep_the_shape(toy, small):
    with pytest.raises(DataError, match=r"made \(16, 1, 5, 6\) of inputs of shape \(16, 1, 6, 6\)"):
        FIT(small, toy, seed=0, inputs=lambda net, x, y, *, draws: x[:, :, 1:])


def test_the_hook_also_makes_the_held_out_inputs(toy, small):
    counts = []

    def watch(net, x, y, *, draws):
        counts.append((len(x), net.module.training))
        return x

    FIT.replace(holdout=0.25)(small, toy, seed=0, inputs=watch)
    assert counts == [(16, True), (16, True), (4, True), (12, False)] * 2


@pytest.mark.parametrize("scope", [torch.no_grad, torch.inference_mode])
def test_the_gradient_mode_around_a_training_does_not_matter(toy, small, scope):
    with scope():
        inside = FIT(small, toy, seed=0)
    outside = FIT(small, toy, seed=0).module.state_dict()
    assert all(torch.equal(value, outside[name]) for name, value in inside.module.state_dict().items())
