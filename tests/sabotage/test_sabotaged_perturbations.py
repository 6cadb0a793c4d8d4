"""Perturbations that break their promises: the cell fails and says why, and every other number stays what it was."""

import pytest
import torch
from torch import Tensor

import brinell as br
from brinell.core.errors import TamperedNetwork
from brinell.core.measurement import Verdict
from brinell.core.perturbation import Attack, Attempt, Corruption
from brinell.core.threat import Ball

PGD = "pgd(steps=5, threat=ball(eps=0.1))"
NOISE = "uniform_noise(threat=ball(eps=0.1))"


class OverBudget(Attack, name="sabotage_over_budget"):
    threat: Ball = Ball(eps=0.1)

    def __call__(self, net, x, y, *, draws):
        return (x + 0.3).clamp(0, 1)


class OverBudgetOnce(Attack, name="sabotage_over_budget_once"):
    """One sample of all, by a hundredth."""

    threat: Ball = Ball(eps=0.1)

    def __call__(self, net, x, y, *, draws):
        z = x.clone()
        z[0, 0, 0, 0] = abs(z[0, 0, 0, 0] - 0.11)
        return z


class ReturnsNaN(Attack, name="sabotage_returns_nan"):
    def __call__(self, net, x, y, *, draws):
        return x * float("nan")


class LeavesDomain(Corruption, name="sabotage_leaves_domain"):
    def __call__(self, net, x, y, *, draws):
        return x + 0.05


class WrongShape(Attack, name="sabotage_wrong_shape"):
    def __call__(self, net, x, y, *, draws):
        return x[:, :, :4]


class ReturnsNothing(Attack, name="sabotage_returns_nothing"):
    def __call__(self, net, x, y, *, draws):
        (x + 0.1).clamp(0, 1)


class Raises(Attack, name="sabotage_raises"):
    kind: str = "runtime"

    def __call__(self, net, x, y, *, draws):
        errors = {
            "runtime": RuntimeError,
            "assertion": AssertionError,
            "attribute": AttributeError,
            "key": KeyError,
            "zero": ZeroDivisionError,
        }
        raise errors[self.kind]("the third party's own words")


class CountsWrongly(Attack, name="sabotage_counts_wrongly"):
    def __call__(self, net, x, y, *, draws):
        return Attempt(x.clone(), status=torch.zeros(3, dtype=torch.int64))


class InPlace(Corruption, name="sabotage_in_place"):
    """Darkens the caller's tensor itself."""

    def __call__(self, net, x, y, *, draws):
        return x.mul_(0.5)


class InPlaceByNumpy(Corruption, name="sabotage_in_place_by_numpy"):
    """The same behind torch's back: no version counter moves."""

    def __call__(self, net, x, y, *, draws):
        pixels = x.numpy()
        pixels *= 0.5
        return torch.from_numpy(pixels)


class InPlaceAttack(Attack, name="sabotage_in_place_attack"):
    threat: Ball = Ball(eps=0.1)

    def __call__(self, net, x, y, *, draws):
        with torch.no_grad():
            net(x)
            return x.add_(0.1).clamp_(0, 1)


class AttackByNumpy(Attack, name="sabotage_attack_by_numpy"):
    """Writes into its input behind torch's back."""

    def __call__(self, net, x, y, *, draws):
        pixels = x.numpy()
        pixels *= 0.5
        return torch.from_numpy(pixels.copy())


class ChangesWeights(Attack, name="sabotage_changes_weights"):
    """Makes the network worse instead of the input."""

    def __call__(self, net, x, y, *, draws):
        for parameter in net.module.parameters():
            parameter.mul_(-1.0)
        return x.clone()


class Fouls(Attack, name="sabotage_fouls"):
    """Writes into the labels."""

    def __call__(self, net, x, y, *, draws):
        y.fill_(0)
        return x.clone()


def accuracies(table) -> dict[str, float | None]:
    return {row["perturbation"]: row["value"] for row in table.select(name="accuracy")}


@pytest.mark.parametrize(
    "item, said",
    [
        (OverBudget(), "ThreatViolation: sabotage_over_budget left ball(eps=0.1, norm=inf)"),
        (OverBudgetOnce(), "moved 0.11"),
        (ReturnsNaN(), "ThreatViolation: sabotage_returns_nan returned NaN or inf"),
        (LeavesDomain(), "ThreatViolation: sabotage_leaves_domain left the domain [0, 1]"),
        (WrongShape(), "ThreatViolation: sabotage_wrong_shape returned shape"),
        (ReturnsNothing(), "sabotage_returns_nothing returned NoneType"),
        (CountsWrongly(), "sabotage_counts_wrongly returned a status of shape (3,) for"),
        (InPlaceAttack(), "sabotage_in_place_attack changed its input in place"),
        *((Raises(kind=kind), "the third party's own words") for kind in ("runtime", "assertion", "attribute", "key", "zero")),
    ],
    ids=str,
)
def test_a_broken_promise_fails_its_cell_alone(item, said, healthy, audit, finding):
    honest = accuracies(audit(healthy, [PGD, NOISE]))
    table = audit(healthy, [item, PGD, NOISE])
    found = finding(table, "failed_cells")
    assert found.verdict is Verdict.FAIL and found.perturbation == item.spec() and said in found.message
    assert {spec: value for spec, value in accuracies(table).items() if spec != item.spec()} == honest
    assert table.samples("net", item) == {} and table.failed("net", item)


@pytest.mark.parametrize("item", [InPlace(), InPlaceByNumpy(), AttackByNumpy(), Fouls()], ids=str)
def test_what_an_item_does_to_its_arguments_stays_with_it(item, healthy, audit):
    honest = accuracies(audit(healthy, [PGD, NOISE]))
    table = audit(healthy, [item, PGD, NOISE])
    assert {spec: value for spec, value in accuracies(table).items() if spec != item.spec()} == honest


def test_an_attack_on_the_weights_stops_the_run_by_name(healthy, audit):
    with pytest.raises(TamperedNetwork, match="sabotage_changes_weights changed the network's parameters"):
        audit(healthy, [ChangesWeights(), NOISE])


@pytest.mark.parametrize("item", [InPlace(), InPlaceByNumpy()], ids=str)
def test_a_corruption_in_place_is_measured_as_what_it_made(item, healthy, audit, data):
    samples = audit(healthy, [item]).samples("net", item)
    order = torch.from_numpy(data.ids).argsort()
    assert samples["linf"] == pytest.approx((data.x().flatten(1).amax(1) / 2)[order].numpy())


@pytest.mark.parametrize("item", [InPlace(), InPlaceByNumpy()], ids=str)
def test_the_callers_own_tensor_is_never_changed(item):
    x: Tensor = torch.rand(4, 1, 8, 8)
    before = x.clone()
    z = item(None, x, torch.zeros(4, dtype=torch.int64), draws=br.derive(0, ids=range(4)))
    assert torch.equal(x, before) and torch.equal(z, before * 0.5)
