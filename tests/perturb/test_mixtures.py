"""Two networks of which one is drawn at random: cases whose worst expected accuracy is known by hand, with the traps that hide it."""

import pytest
import torch

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import NetworkError
from brinell.core.perturbation import points
from brinell.models.reference import Mixture, linear_network

Y = torch.zeros(4, dtype=torch.int64)
FREE = "low=-inf, high=inf"
ATTACKS = ("pgd(restarts=8, {})", "apgd(restarts=8, {})", "strongest(passes=500, {})", "autoattack(queries=50, {})")


def member(start: float, slope: float, at: float = 0.5):
    """Class 0 leads by start + slope (x - at)."""
    return linear_network(torch.tensor([[slope], [0.0]]), torch.tensor([start - slope * at, 0.0]))


def left(text: str, net: Mixture, x: torch.Tensor, attacked=None) -> list[float]:
    """The expected accuracies at an attack's points."""
    z = points(parse(text)(net if attacked is None else attacked, x, Y[: len(x)], draws=derive(0, ids=range(len(x)))))
    return net.right(z, Y[: len(x)]).tolist()


X = torch.full((4, 1), 0.5)
CROSSED = Mixture([member(1, 1), member(1, -1)])  # margins 1 + d and 1 - d: for |d| <= 2 never both below 0
LURED = Mixture([member(0.5, 0.3), member(10, -10.5)])  # margins .5 + .3 d and 10 - 10.5 d: d = 1 breaks the second, d = -1 none


def test_a_start_where_the_gradient_is_zero_finds_nothing():
    assert left(f"pgd(random_start=False, threat=ball(eps=2, {FREE}))", CROSSED, X) == [1.0] * 4
    assert left(f"pgd(threat=ball(eps=2, {FREE}))", CROSSED, X) == [0.5] * 4


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(("net", "eps"), [(CROSSED, 2.0), (LURED, 1.0)], ids=["crossed", "lured"])
def test_half_is_the_least_that_can_be_left(attack, net, eps):
    assert left(attack.format(f"threat=ball(eps={eps}, {FREE})"), net, X) == [0.5] * 4


@pytest.mark.parametrize("d", [0.0, 0.3, 0.6])
def test_the_mean_probability_lures_away_from_the_member_that_would_break(d):
    """From d = 0 and 0.3 the climb ends at d = -1, where both members are right; from where the second is weak already it does not."""
    low, high = -0.5, 1.5  # the domain is |d| <= 1
    text = f"pgd(steps=100, random_start=False, threat=ball(eps=4, low={low}, high={high}))"
    weak = d + 0.35
    assert left(text, LURED, X + d) == [1.0] * 4 if d < 0.5 else left(text, LURED, X + weak) == [0.5] * 4


def test_an_attack_on_the_members_in_turn_breaks_what_the_mean_hides():
    text = f"pgd(random_start=False, threat=ball(eps=1, {FREE}))"
    assert min(left(text, LURED, X, attacked=part)[0] for part in LURED.members) == 0.5


def test_equal_members_and_a_single_one_are_ordinary_networks():
    net = linear_network(derive(1, "weight", ids=range(3)).normal(16))
    x = derive(0, "x", ids=range(20)).uniform(1, 4, 4)
    with torch.no_grad():
        y = net(x).argmax(1)
    attack, draws = parse("pgd(steps=10, loss=margin, threat=ball(eps=0.05))"), derive(0, ids=range(20))
    want = attack(net, x, y, draws=draws)
    kept = (net(want).argmax(1) == y).double()
    assert 0 < kept.sum() < 20
    for count in (1, 2, 5):
        mixture = Mixture([net] * count)
        z = attack(mixture, x, y, draws=draws)
        assert torch.allclose(z, want, atol=1e-5) and torch.equal(mixture.right(z, y), kept)
        none = attack.within(parse("ball(eps=0)"))(mixture, x, y, draws=draws)
        assert torch.equal(none, x) and torch.equal(mixture.right(none, y), torch.ones(20, dtype=torch.float64))


def test_a_mixture_needs_members():
    with pytest.raises(NetworkError, match="at least one network"):
        Mixture([])
    assert Mixture([member(1, 2), member(0, 1)])(X).exp().sum(1).tolist() == pytest.approx([1.0] * 4)
