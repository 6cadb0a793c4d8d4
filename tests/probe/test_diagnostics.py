"""Diagnostics: closed forms of their parts, the law of tallies, and the passes they cost. Broken networks are in tests/sabotage."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.measurement import Bound, Status
from brinell.core.network import Counted
from brinell.core.probe import View
from brinell.core.tally import unpack
from brinell.probe.diagnostics import Diagnostics, are_probabilities, logit_distance, plain_gradient, rescaled

N = 60


@pytest.fixture
def data():
    lot = np.random.default_rng(3)
    return br.Dataset.from_arrays(torch.tensor(lot.random((N, 2, 3, 3)), dtype=torch.float32), lot.integers(0, 4, N), classes=4)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(18, 4)).eval().requires_grad_(False)


@pytest.fixture
def view(data, net):
    x = data.x()
    return View(x=x, z=x, y=data.labels(), ids=torch.from_numpy(data.ids), logits=net(x), net=Counted(net))


def prepared(probe, data):
    return probe.prepared(probe.prepare(None, data, draws=derive(0, ids=data.ids)))


def observed(probe, view):
    return probe.observe(view, draws=derive(0, ids=view.ids))


def part(view, rows):
    x = view.x[rows]
    return replace(view, x=x, z=x, y=view.y[rows], ids=view.ids[rows], logits=view.logits[rows])


def named(readings):
    return {(reading.name, reading.layer): reading for reading in readings}


def test_probabilities_are_rows_of_the_simplex():
    rows = torch.tensor([[0.2, 0.8], [0.2, 0.80002], [1.0, 0.0], [-0.1, 1.1], [0.5, 0.4], [float("nan"), 1.0]])
    assert are_probabilities(rows).tolist() == [True, False, True, False, False, False]


def test_log_probabilities_are_fine():
    assert not are_probabilities(torch.randn(5, 3).log_softmax(1)).any()


def test_logit_distance_in_closed_form():
    nan, inf = float("nan"), float("inf")
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [nan, 0.0], [nan, 0.0], [1e30, 0.0]])
    b = torch.tensor([[3.0, 4.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [1.0, 0.0], [0.0, inf], [2e30, 0.0]])
    assert logit_distance(a, b).tolist() == pytest.approx([0, 2, 0, 1, 1, 0, 0.5])
    assert torch.equal(logit_distance(a, b), logit_distance(b, a))


def test_plain_gradients_saturate_where_the_softmax_does():
    x = torch.tensor([[1.0, 0.0], [200.0, 0.0]], requires_grad=True)
    gradient = plain_gradient(nn.functional.cross_entropy(x, torch.tensor([0, 0]), reduction="none"), x)
    assert gradient is not None
    p = 1 / (1 + np.exp(1.0))
    assert gradient[0].tolist() == pytest.approx([-p, p]) and gradient[1].abs().sum() == 0
    assert plain_gradient(x.detach().sum(1), x) is None


def test_scales_are_the_formulas(data):
    state = prepared(Diagnostics(), data).state
    x = data.x().numpy()
    mean, std = x.mean((0, 2, 3), dtype=np.float64), x.astype(np.float64).std((0, 2, 3))
    found = rescaled(data.x(), state)
    assert set(found) == {"standardised", "minus_one_to_one", "grey_levels"}  # two channels: ImageNet's numbers do not fit
    assert found["standardised"].numpy() == pytest.approx((x - mean[:, None, None]) / std[:, None, None], abs=1e-5)
    assert found["minus_one_to_one"].numpy() == pytest.approx(2 * x - 1, abs=1e-6)
    assert found["grey_levels"].numpy() == pytest.approx(255 * x, abs=1e-4)


def test_scales_follow_domain_and_channels():
    images = {"mean": torch.zeros(3), "std": torch.ones(3)}
    x = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2) * 255
    found = rescaled(x, {**images, "domain": torch.tensor([0.0, 255.0])})
    assert set(found) == {"standardised", "imagenet", "minus_one_to_one"}
    assert found["imagenet"].abs().max() < 1e-6
    assert set(rescaled(x, {**images, "domain": torch.tensor([-torch.inf, torch.inf])})) == {"standardised"}
    assert "minus_one_to_one" not in rescaled(x / 255, {**images, "domain": torch.tensor([-1.0, 1.0])})


def test_a_constant_channel_is_not_divided_by_zero():
    data = br.Dataset.from_arrays(torch.full((4, 2), 0.5), [0, 1, 0, 1])
    assert Diagnostics().prepare(None, data, draws=derive(0, ids=data.ids))["std"].tolist() == [1.0, 1.0]


def test_a_plain_network_has_nothing_to_report(view, data):
    probe = prepared(Diagnostics(share=1), data)
    found = named(probe.read(observed(probe, view)))
    plain = ("probability_share", "nonfinite_share", "repeat_difference", "repeat_changes", "batch_changes", "no_gradient",
             "mode_difference", "mode_changes", "gradient_calls", "state_changes")  # fmt: skip
    by_loss = itertools.product(("zero_gradient_share", "nonfinite_gradient_share"), ("cross_entropy", "margin", "dlr"))
    zero = [*((name, "") for name in plain), *by_loss]
    assert (view.logits.topk(3).indices[:, 2] == view.y).any()  # there DLR is 1 all around, which hides nothing
    want = dict.fromkeys(zero, 0.0)
    assert {key: found[key].value for key in zero} == want
    assert found["repeat_difference", ""].bound is Bound.LOWER
    assert found["batch_difference", ""].value == pytest.approx(0, abs=1e-6)
    assert all(reading.n == N for reading in found.values())


def test_only_a_gradient_without_any_entry_is_zero(view):
    """A network that looks at one pixel of the bright samples: the others have no gradient at all."""

    def net(x):
        first = x.flatten(1)[:, :1]
        return torch.cat((first.clamp(min=0.5), torch.zeros(len(x), 3)), 1)

    probe = Diagnostics(share=1)
    found = named(probe.read(observed(probe, replace(view, net=net, logits=net(view.x)))))
    dim = (view.x.flatten(1)[:, 0] < 0.5).float().mean().item()
    assert found["zero_gradient_share", "cross_entropy"].value == pytest.approx(dim)
    assert 0 < dim < 1


def test_the_labs_own_batch_is_compared_too(view):
    probe, logits = Diagnostics(share=1), view.logits.clone()
    logits[7] *= 2
    found = named(probe.read(observed(probe, replace(view, logits=logits))))
    assert found["batch_difference", ""].value == pytest.approx(0.5, abs=1e-6)
    assert found["repeat_difference", ""].value == 0


def test_the_gain_is_that_of_the_best_scale(view, data, net):
    probe = prepared(Diagnostics(share=1), data)
    (gain,) = [reading for reading in probe.read(observed(probe, view)) if reading.name == "normalisation_gain"]
    right = {name: (net(z).argmax(1) == view.y).float().mean().item() for name, z in rescaled(view.x, probe.state).items()}
    plain = (view.logits.argmax(1) == view.y).float().mean().item()
    assert gain.value == pytest.approx(max(right.values()) - plain)
    assert right[gain.layer] == max(right.values())
    assert gain.low is not None and gain.value is not None and gain.high is not None
    assert gain.low < gain.value < gain.high


@pytest.mark.parametrize("shards", [2, 7])
@pytest.mark.parametrize("share", [0.3, 1])
def test_any_split_in_any_order_gives_the_readings_of_the_whole(view, data, shards, share):
    probe = prepared(Diagnostics(share=share), data)
    total = None
    for rows in np.array_split(np.random.default_rng(shards).permutation(N), shards):
        kind, tensors = observed(probe, part(view, torch.from_numpy(rows))).pack()
        tally = unpack(kind, tensors)
        total = tally if total is None else tally + total
    whole = named(probe.read(observed(probe, view)))
    split = named(probe.read(total))
    assert split.keys() == whole.keys()
    for key, reading in whole.items():
        assert split[key].value == pytest.approx(reading.value, abs=1e-6) and split[key].n == reading.n


def test_the_share_is_chosen_by_ids(view, data):
    probe = Diagnostics(share=0.5)
    ids = observed(probe, view).parts["tried"]["id"]
    back = observed(probe, part(view, torch.arange(N - 1, -1, -1))).parts["tried"]["id"]
    assert 15 < len(ids) < 45 and sorted(ids.tolist()) == sorted(back.tolist())


def test_cells_other_than_the_clean_one_have_no_readings(view):
    net = view.net
    tally = observed(Diagnostics(), replace(view, z=view.x + 0.1))
    assert Diagnostics().read(tally) == [] and net.forwards == 0
    assert Diagnostics().read(observed(Diagnostics(), view) + tally) == []  # a cell of which one shard was left as it is
    assert Diagnostics().read(type(tally)()) == []


def test_an_empty_share_is_no_answer(view):
    found = Diagnostics(share=1e-9).read(observed(Diagnostics(share=1e-9), view))
    mute = [reading for reading in found if reading.name not in ("probability_share", "nonfinite_share")]
    assert len(mute) == 17 and all(reading.status is Status.UNDEFINED and "share" in reading.reason for reading in mute)


def test_without_fitted_scales_the_gain_has_no_answer(view):
    found = named(Diagnostics(share=1).read(observed(Diagnostics(share=1), view)))
    assert found["normalisation_gain", ""].status is Status.UNDEFINED


def test_torch_random_state_is_left_as_it_was(view):
    before = torch.get_rng_state()
    observed(Diagnostics(share=1), view)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("share", [0.25, 1])
def test_the_announced_passes_are_those_it_takes(view, data, share):
    probe = prepared(Diagnostics(share=share), data)
    tried = len(observed(probe, view).parts["tried"]["id"])
    view.net.reset()
    observed(probe, view)
    forwards, backwards = view.net.reset()
    assert forwards == 12 * tried + 4 and backwards == 3 * tried  # with ImageNet's scale, which needs 3 channels, 8
    if share == 1:
        assert forwards / N <= probe.cost[0] and backwards / N == probe.cost[1]


def test_the_text_of_the_probe_gives_it_back():
    assert parse(Diagnostics(share=0.5).spec()) == Diagnostics(share=0.5)
