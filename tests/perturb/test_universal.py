"""Universal perturbations: one direction beats noise of the same size, and the fit is the lab's."""

import pytest
import torch

import brinell as br
from brinell.core.draws import derive
from brinell.core.errors import DataError
from brinell.models.reference import linear_network

DATA = br.load_dataset("digits(side=8)", limit=200)


@pytest.fixture(scope="module")
def net():
    """The nearest class mean."""
    train = br.load_dataset("digits(side=8, split=train)")
    x, y = train.x().flatten(1), train.labels()
    means = torch.stack([x[y == k].mean(0) for k in range(10)])
    return linear_network(2 * means, -means.square().sum(1)).eval()


@pytest.mark.parametrize(("norm", "eps"), [("inf", 0.2), ("2", 1.5), ("1", 8.0)])
def test_one_change_for_all_breaks_more_than_noise(net, norm, eps):
    universal = f"universal(threat=ball(norm={norm}, eps={eps}))"
    noise = f"uniform_noise(threat=ball(norm={norm}, eps={eps}))"
    table = br.Lab(device="cpu").measure({"net": net}, DATA, [universal, noise], ["accuracy"])
    clean, by_change, by_noise = (table.value("accuracy", perturbation=br.parse(p).spec()) for p in ("clean", universal, noise))
    assert by_change < by_noise - 0.1 and by_noise > clean - 0.1


def test_it_is_one_change(net):
    attack = br.parse("universal(threat=ball(eps=0.1, low=-inf, high=inf))")
    fitted = attack.prepared(attack.prepare(net, DATA, draws=derive(0, ids=DATA.ids)))
    moved = fitted(net, DATA.x(), DATA.labels(), draws=derive(0, ids=DATA.ids)) - DATA.x()
    assert moved.abs().amax() <= 0.1 + 1e-6
    assert torch.allclose(moved, moved[:1].expand_as(moved), atol=1e-6)


def test_two_classes_shift_along_the_weight():
    """All samples of class 0 on a linear network: the best common change is eps * sign(w_1 - w_0), which one step finds."""
    weight = derive(0, "weight", ids=[0, 1]).normal(16)
    x = derive(0, "x", ids=range(20)).uniform(1, 4, 4, low=0.4, high=0.6)
    data = br.Dataset.from_arrays(x, torch.zeros(20, dtype=torch.int64), classes=2)
    attack = br.parse("universal(threat=ball(eps=0.1))")
    state = attack.prepare(linear_network(weight, torch.tensor([5.0, 0.0])), data, draws=derive(0, ids=data.ids))
    assert torch.allclose(state["delta"].flatten(), 0.1 * (weight[1] - weight[0]).sign())


def test_without_a_fit_it_says_what_to_do(net):
    with pytest.raises(DataError, match="has not been fitted"):
        br.parse("universal")(net, DATA.x(), DATA.labels(), draws=derive(0, ids=DATA.ids))
