"""Psi: vertices of the box, closed forms, rescaled networks, the small-eps law, and what the readings make of the search."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import brinell as br
from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import DataError, SpecError
from brinell.core.measurement import Bound, Status
from brinell.core.probe import Certifier
from brinell.core.threat import Ball
from brinell.models.reference import linear_network
from brinell.probe.logit_scale import logit_scale
from brinell.probe.psi import Psi, aggregates, divergence_bound
from brinell.probe.worst_divergence import Search, most, sweep

OPEN = {"low": -math.inf, "high": math.inf}


def slow_kl(clean: np.ndarray, logits: np.ndarray) -> np.ndarray:
    def log_softmax(z):
        z = z - z.max(-1, keepdims=True)
        return z - np.log(np.exp(z).sum(-1, keepdims=True))

    p, q = log_softmax(clean), log_softmax(logits)
    return (np.exp(p) * (p - q)).sum(-1)


def affine(seed: int, dims: int, classes: int):
    """Weights, biases, inputs and the module of an affine network in float64."""
    draws = derive(seed, "psi affine", ids=range(classes))
    weight, bias = draws.normal(dims, dtype=torch.float64), draws.normal(1, dtype=torch.float64).squeeze(1)
    x = derive(seed, "psi inputs", ids=range(6)).uniform(dims, dtype=torch.float64)
    return weight, bias, x, linear_network(weight, bias)


def found(net, x, ball, *, restarts=5, steps=50, quantity="kl", scales=None):
    """The largest divergences of a search, by layer, of each start."""
    search = Search(quantity, steps, 2.5, scales or {"raw": 1.0})
    with torch.no_grad():
        clean = net(x)
    draws = derive(0, "search", ids=range(len(x)))
    climbs = list(search.climbs(net, x, clean, ball, search.starts(x, ball, draws, restarts)))
    return {layer: torch.stack([peaks[layer].value for peaks, _ in climbs]) for layer in search.scales}


@pytest.mark.parametrize(("seed", "dims", "classes", "eps"), [(0, 8, 3, 0.3), (1, 12, 10, 0.1), (2, 5, 4, 1.0), (3, 1, 2, 0.5)])
def test_the_maximum_over_a_box_is_at_a_vertex(seed, dims, classes, eps):
    """KL of an affine softmax is convex in the input: all 2^d vertices against 20 restarts."""
    weight, bias, x, net = affine(seed, dims, classes)
    corners = eps * np.array(list(itertools.product((-1, 1), repeat=dims)))
    points = x.numpy()[:, None, :] + corners
    exact = slow_kl((x.numpy() @ weight.numpy().T + bias.numpy())[:, None], points @ weight.numpy().T + bias.numpy()).max(1)
    scales = {"raw": 1.0, "normalised": logit_scale(net(x).detach())}  # as psi searches
    ascended = found(net, x, Ball(eps=eps, **OPEN), restarts=20, scales=scales)["raw"].amax(0)
    assert ascended.numpy() == pytest.approx(exact, abs=1e-6, rel=1e-6)
    assert (ascended.numpy() <= exact * (1 + 1e-12)).all(), "a search inside the ball never finds more than there is"


def test_walls_cut_the_box():
    weight, bias, x, net = affine(4, 6, 3)
    ends = np.clip(x.numpy()[:, None, :] + 0.4 * np.array(list(itertools.product((-1, 1), repeat=6))), 0, 1)
    exact = slow_kl((x.numpy() @ weight.numpy().T + bias.numpy())[:, None], ends @ weight.numpy().T + bias.numpy()).max(1)
    assert found(net, x, Ball(eps=0.4), restarts=20)["raw"].amax(0).numpy() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize(("norm", "dual"), [(math.inf, 1), (2, 2)])
def test_two_classes_have_a_closed_form(norm, dual):
    weight, bias, x, net = affine(5, 20, 2)
    w, eps = (weight[0] - weight[1]).numpy(), 0.07
    m0 = x.numpy() @ w + float(bias[0] - bias[1])
    reach = eps * np.linalg.norm(w, dual)

    def kl(a, b):
        p, q = 1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-b))
        return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))

    exact = np.maximum(kl(m0, m0 + reach), kl(m0, m0 - reach))
    ascended = found(net, x, Ball(norm=norm, eps=eps, **OPEN), restarts=2)["raw"].amax(0).numpy()
    assert ascended == pytest.approx(exact, rel=1e-9), "a pair of starts sees both sides"


def test_ascent_beats_random_search():
    weight, _, x, net = affine(6, 8, 4)
    ball = Ball(eps=0.3, **OPEN)
    points = x[:, None] + derive(1, "uniform", ids=range(6)).uniform(20_000, 8, low=-0.3, high=0.3, dtype=torch.float64)
    sampled = slow_kl(net(x).detach().numpy()[:, None], (points @ weight.T + affine(6, 8, 4)[1]).numpy()).max(1)
    assert (found(net, x, ball)["raw"].amax(0).numpy() > 1.05 * sampled).all()


def test_more_restarts_never_find_less_and_are_the_same_ones():
    _, _, x, net = affine(7, 9, 5)
    few, many = (found(net, x, Ball(eps=0.2, **OPEN), restarts=count, steps=7)["raw"] for count in (3, 8))
    assert torch.equal(few, many[:3]) and bool((many.amax(0) >= few.amax(0)).all())


def test_a_start_at_the_clean_input_finds_nothing():
    """Why psi never starts there, and the attack refuses to."""
    _, _, x, net = affine(8, 5, 3)
    plain = x.clone().requires_grad_()
    log_p = torch.log_softmax(net(x).detach(), 1)
    (log_p.exp() * (log_p - torch.log_softmax(net(plain), 1))).sum().backward()
    assert plain.grad.abs().max() < 1e-15, "the gradient is zero but for rounding"
    assert bool((found(net, x, Ball(eps=0.2, **OPEN))["raw"].amax(0) > 1e-3).all())
    for attack in ("pgd(goal=maximise(kl), random_start=False)", "fgsm(goal=maximise(js))"):
        with pytest.raises(SpecError, match="needs random_start=True"):
            parse(attack)


def relu_network(seed: int = 0, dims: int = 12) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(dims, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).double()


def inputs(n: int = 8, dims: int = 12) -> torch.Tensor:
    return derive(2, "psi relu", ids=range(n)).uniform(dims, dtype=torch.float64)


@pytest.mark.parametrize("factor", [10.0, 0.01])
def test_a_rescaling_that_keeps_the_function_keeps_psi(factor):
    """Dinh et al. (2017): a ReLU layer times a, the next one's weights over a."""
    net, twin, x = relu_network(), relu_network(), inputs()
    with torch.no_grad():
        twin[0].weight *= factor
        twin[0].bias *= factor
        twin[2].weight /= factor
    assert net(x).detach().numpy() == pytest.approx(twin(x).detach().numpy(), rel=1e-12)
    scales = {"raw": 1.0, "normalised": 0.3}
    a, b = (found(f, x, Ball(eps=0.1), scales=scales) for f in (net, twin))
    for layer in scales:
        assert b[layer].amax(0).numpy() == pytest.approx(a[layer].amax(0).numpy(), rel=1e-9)


@pytest.mark.parametrize("factor", [3.0, 10.0, 0.1])
def test_a_factor_of_the_logits_changes_raw_psi_alone(factor):
    net, x = relu_network(), inputs()
    with torch.no_grad():
        net[4].weight *= 3
        s = logit_scale(net(x))
    a = found(net, x, Ball(eps=0.1), scales={"raw": 1.0, "normalised": s})
    b = found(lambda z: factor * net(z), x, Ball(eps=0.1), scales={"raw": 1.0, "normalised": factor * s})
    assert b["normalised"].amax(0).numpy() == pytest.approx(a["normalised"].amax(0).numpy(), rel=1e-9)
    assert float(b["raw"].amax(0).median()) != pytest.approx(float(a["raw"].amax(0).median()), rel=0.05)


def test_saturation_does_not_stop_the_search():
    """A float32 softmax of large logits is exactly one-hot, and a plain gradient of KL zero."""
    _, _, x, net = affine(11, 8, 4)
    x, net = x.float(), net.float()

    def loud(z):
        return 1000 * net(z)

    plain = (x + 0.001).requires_grad_()
    log_p = torch.log_softmax(loud(x), 1).detach()
    (log_p.exp() * (log_p - torch.log_softmax(loud(plain), 1))).sum().backward()
    assert float((plain.grad.abs().amax(1) == 0).float().mean()) > 0.5
    both = found(loud, x, Ball(eps=1.0, **OPEN), scales={"raw": 1.0, "normalised": logit_scale(loud(x).detach())}, steps=20)
    assert bool((both["raw"].amax(0) > 100).all()), "no sample is stuck"


def test_small_balls_obey_the_law_of_the_fisher_matrix():
    """max KL over its quadratic form tends to 1, and grows as eps squared."""
    weight, bias, x, net = affine(9, 10, 4)
    z = x.numpy() @ weight.numpy().T + bias.numpy()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    corners = np.array(list(itertools.product((-1, 1), repeat=10)))
    moved = corners @ weight.numpy().T  # (2^d, K)
    form = np.array([(moved**2 @ row - (moved @ row) ** 2).max() for row in p])
    worst = {eps: found(net, x, Ball(eps=eps, **OPEN), restarts=20)["raw"].amax(0).numpy() for eps in (1e-4, 1e-3, 1e-2)}
    ratios = [np.abs(worst[eps] / (0.5 * eps**2 * form) - 1).max() for eps in (1e-4, 1e-3, 1e-2)]
    assert ratios[0] < 2e-3 and ratios[0] < ratios[1] < ratios[2] < 0.2
    slope = np.log10(worst[1e-3] / worst[1e-4])
    assert slope == pytest.approx(np.full(6, 2.0), abs=0.02)


def test_the_curve_never_falls_and_meets_the_plain_search():
    net, x = relu_network(), inputs()
    clean = net(x).detach()
    search, ball, draws = Search("kl", 20, 2.5, {"raw": 1.0, "normalised": 0.2}), Ball(eps=0.1), derive(0, "sweep", ids=range(8))
    top = most(search.climb(net, x, clean, ball, start)[0] for start in search.starts(x, ball, draws, 5))
    curve = sweep(search, net, x, clean, ball, (0.01, 0.03, 0.1, 0.2), {0.1: top}, draws)
    values = torch.stack([peaks["raw"].value for peaks in curve.values()])
    assert bool((values[1:] >= values[:-1]).all()) and bool((values[2] >= top["raw"].value).all())
    alone = most(search.climb(net, x, clean, ball.replace(eps=0.2), s)[0] for s in search.starts(x, ball.replace(eps=0.2), draws, 5))
    near = (values[3] / alone["raw"].value - 1).abs() < 0.05
    assert float(near.double().mean()) >= 0.75, "warm starts mostly find what random ones find"
    for radius, peaks in curve.items():
        assert all(bool(ball.replace(eps=radius).contains(x, peak.z).all()) for peak in peaks.values())


@pytest.mark.parametrize("quantity", ["reverse_kl", "js"])
def test_other_divergences(quantity):
    net, x = relu_network(), inputs()
    loud = found(lambda z: 40 * net(z), x, Ball(eps=0.2), quantity=quantity)["raw"].amax(0)
    assert bool((loud > 0).all())
    if quantity == "js":
        assert float(loud.max()) <= math.log(2) + 1e-12


def view_of(net, x, make_view):
    with torch.no_grad():
        logits = net(x)
    return replace(make_view(logits, logits.argmax(1)), x=x, z=x, net=net)


def test_readings_by_a_slow_twin(make_view, measure):
    net, x = relu_network(), inputs(9)
    readings = {(r.name, r.layer): r for r in measure(Psi(scale=0.2, curve=(0.05,), steps=15), view_of(net, x, make_view))}
    for layer in ("raw", "normalised"):
        worst = readings["worst_divergence", layer]
        psi = 1 / worst.array
        assert worst.value == pytest.approx(worst.array.mean()) and worst.bound is Bound.LOWER
        head = readings["psi", layer]
        assert head.value == pytest.approx(np.sort(psi)[4]) and head.bound is Bound.UPPER and head.array == pytest.approx(psi)
        assert head.low <= head.value <= (head.high or np.inf)
        assert readings["psi_inverse_mean", layer].value == pytest.approx(1 / worst.array.mean())
        assert readings["psi_mean", layer].value == pytest.approx(psi.mean())
        assert readings["psi_trimmed_mean", layer].value == pytest.approx(psi.mean()), "a tenth of nine is none"
        assert readings["psi_capped", layer].value == 0 and 0 <= readings["psi_single", layer].value <= 1
        assert readings["psi_curve", f"{layer} eps=0.05"].value > readings["psi_curve", f"{layer} eps=0.1"].value
        assert readings["psi_curve", f"{layer} eps=0.1"].value <= head.value
    assert readings["psi_accuracy", ""].value == 1 and readings["psi_scale", ""].value == pytest.approx(0.2)
    assert readings["psi_flat", ""].value == 0


def test_the_mean_is_trimmed_and_capped_samples_are_counted():
    worst = np.array([0.0, 1e-13, *np.full(18, 0.5), 1e-9, 4.0])
    read = {r.name: r for r in aggregates(worst, "raw")}
    assert read["psi_capped"].value == 2 and "2 capped" in read["psi_mean"].reason
    assert read["psi_mean"].value > 1e7 and read["psi_trimmed_mean"].value == pytest.approx(2.0) and read["psi"].value == 2
    idle = {r.name: r for r in aggregates(np.zeros(5), "raw")}
    assert idle["psi"].status is Status.UNDEFINED and "5 of 5 samples are capped" in idle["psi"].reason
    assert idle["psi_mean"].status is idle["psi_inverse_mean"].status is Status.UNDEFINED and idle["psi_capped"].value == 5


def test_a_network_that_ignores_its_input_is_capped_not_robust(make_view, measure):
    view = view_of(lambda z: torch.tensor([[1.0, 0.0]], dtype=z.dtype).repeat(len(z), 1), inputs(3), make_view)
    readings = {(r.name, r.layer): r for r in measure(Psi(scale=1.0), view)}
    assert readings["psi", "raw"].value is None and readings["psi_capped", "raw"].value == 3 and readings["psi_flat", ""].value == 1


def test_no_ball_no_scale_no_finite_logits(make_view, measure):
    net, x = relu_network(), inputs(3)
    still = {(r.name, r.layer): r for r in measure(Psi(threat=Ball(eps=0)), view_of(net, x, make_view))}
    assert still["psi_capped", "raw"].value == 3
    assert "give scale" in still["psi", "normalised"].reason
    broken = replace(view_of(net, x, make_view), logits=torch.full((3, 4), torch.nan))
    assert all("NaN or inf" in r.reason for r in measure(Psi(scale=1.0), broken))
    moved = replace(view_of(net, x, make_view), z=x + 0.01)
    assert measure(Psi(), moved) == [], "psi is read on clean samples"
    assert measure(Psi(scale=1.0, restarts=1, steps=1), view_of(net, x[:1], make_view))[0].n == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("psi(threat=ball(norm=1, eps=1))", "norm 1"),
        ("psi(threat=ball(eps=inf))", "finite eps"),
        ("psi(curve=(0.1, 0))", "positive"),
        ("psi(quantity=tv)", "kl"),
        ("psi(quantity=js, bound=test_boxes)", "one of kl"),
        ("psi(scale=0)", "greater than 0"),
    ],
)
def test_fields_out_of_range(text, words):
    with pytest.raises(SpecError, match=words):
        parse(text)


class Boxes(Certifier, name="test_boxes"):
    """Exact bounds of an affine network in a box without walls."""

    threat: Ball = Ball()

    def bounds(self, net, x, threat, C):
        weight, bias = net.weight, net.bias
        middle, reach = (x @ weight.T + bias) @ C.T, threat.eps * (C @ weight).abs().sum(1)
        return middle - reach, middle + reach


def test_bound_maximum_and_ascent_come_in_this_order(make_view, measure):
    weight, bias, x, _ = affine(10, 8, 5)
    net = nn.Linear(8, 5).double()
    with torch.no_grad():
        net.weight.copy_(weight)
        net.bias.copy_(bias)
    corners = 0.2 * np.array(list(itertools.product((-1, 1), repeat=8)))
    clean = x.numpy() @ weight.numpy().T + bias.numpy()
    logits = (x.numpy()[:, None] + corners) @ weight.numpy().T + bias.numpy()
    for scale, layer in ((1.0, "raw"), (0.7, "normalised")):
        exact = slow_kl(clean[:, None] / scale, logits / scale).max(1)
        probe = Psi(threat=Ball(eps=0.2, **OPEN), bound=Boxes(), scale=0.7, steps=10, restarts=2)
        read = {(r.name, r.layer): r for r in measure(probe, view_of(net, x, make_view))}
        upper, lower = read["divergence_bound", layer], read["worst_divergence", layer]
        assert upper.bound is Bound.UPPER and (upper.array >= exact - 1e-12).all()
        assert (exact * (1 + 1e-12) >= lower.array).all()
        certified = read["psi_certified", layer]
        assert certified.bound is Bound.LOWER and (certified.array <= read["psi", layer].array).all()


@pytest.mark.parametrize("certifier", ["ibp", "crown"])
def test_certifiers_bound_what_attacks_find(certifier, make_view, measure):
    """On affine networks against every vertex, on a ReLU network against a long search."""
    weight, bias, x, net = affine(10, 8, 5)
    corners = 0.2 * np.array(list(itertools.product((-1, 1), repeat=8)))
    inside = np.clip(x.numpy()[:, None] + corners, 0, 1)
    clean = x.numpy() @ weight.numpy().T + bias.numpy()
    exact = slow_kl(clean[:, None], inside @ weight.numpy().T + bias.numpy()).max(1)
    probe = Psi(threat=Ball(eps=0.2), bound=parse(certifier), scale=0.7, steps=10, restarts=2)
    for module, least in ((net, exact), (relu_network(dims=8), None)):
        read = {(r.name, r.layer): r for r in measure(probe, view_of(module, x, make_view))}
        for layer in ("raw", "normalised"):
            upper, lower = read["divergence_bound", layer].array, read["worst_divergence", layer].array
            assert np.isfinite(upper).all() and (upper >= lower).all()
        if least is not None:
            assert (read["divergence_bound", "raw"].array >= least).all()


def test_the_bound_is_zero_where_nothing_moves_and_infinite_where_nothing_is_known(make_view, measure):
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert divergence_bound(z, z[:, None, :] - z[:, :, None]).abs().max() < 1e-12
    differences = torch.full((4, 6, 6), torch.inf)
    assert bool(divergence_bound(z, differences).isinf().all())

    class Silent(Certifier, name="test_silent"):
        threat: Ball = Ball()

    class Fussy(Certifier, name="test_fussy"):
        threat: Ball = Ball()

        def bounds(self, net, x, threat, C):
            if len(x) == 1:
                raise DataError("one sample is too few")
            return tuple(sign * torch.full((len(x), len(C)), 9.0, dtype=torch.float64) for sign in (-1, 1))

    shards = [view_of(relu_network(), x, make_view) for x in inputs(3).split(2)]
    shards = [replace(view, ids=torch.arange(2 * k, 2 * k + len(view.y))) for k, view in enumerate(shards)]
    mixed = {(r.name, r.layer): r for r in measure(Psi(bound=Fussy(), scale=1.0, steps=2), *shards)}
    assert mixed["divergence_bound", "raw"].status is Status.UNDEFINED, "nothing is known of one sample"
    assert (mixed["psi_certified", "raw"].array > 0).tolist() == [True, True, False]
    readings = measure(Psi(bound=Silent(), scale=1.0, steps=2), view_of(relu_network(), inputs(2), make_view))
    (told,) = [r for r in readings if (r.name, r.layer) == ("psi_certified", "raw")]
    assert told.status is Status.UNDEFINED and "does not bound the logits" in told.reason


def test_the_lab_fits_the_scale_once_on_clean_samples():
    data = br.load_dataset("digits(side=8)", limit=50)
    net = br.load_network("mlp(widths=(16,))", shape=data.shape, classes=10)
    table = br.Lab(batch_size=16).measure(net, data, probes=["psi(steps=5, restarts=2)", "divergence", "fisher"])
    with torch.no_grad():
        expected = logit_scale(net(data.x()))
    more = br.Lab(batch_size=50, seed=9).measure(net, data, probes=["psi(steps=5, restarts=4, curve=(0.2,))"])
    few, many = (found.array(found.row("worst_divergence", layer="raw")) for found in (table, more))
    assert (many >= few * (1 - 1e-5)).all() and (many > few * 1.001).any(), "starts are nested, whatever else is asked"
    assert table.value("psi_scale") == pytest.approx(expected, rel=1e-6)
    assert len(table.array(table.row("psi", layer="normalised"))) == 50
    assert {row["status"] for row in table.rows} == {"ok"}
