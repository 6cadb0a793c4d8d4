"""What psi and decision surfaces must show on trained networks: natural, gradient-penalised, adversarial at two budgets, three seeds."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

import brinell as br
from brinell.studies.intrinsic_robustness_rescaling import louder
from brinell.summary.agreement import spearman

pytestmark = pytest.mark.slow

SEEDS = (0, 1, 2)
FIT = "fit(epochs=60, batch_size=65, optimizer=adamw, lr=0.002, weight_decay=0, schedule=constant)"
ATTACK = "pgd(steps=7, goal=maximise(cross_entropy), threat=ball(eps={}))"
TRAININGS = {
    "natural": FIT,
    "penalised": f"gradient_penalty(strength=0.5, fit={FIT})",  # with 1 psi is that of adversarial training at 0.1, and they tie
    "adversarial 0.1": f"adversarial(attack={ATTACK.format(0.1)}, fit={FIT})",
    "adversarial 0.2": f"adversarial(attack={ATTACK.format(0.2)}, fit={FIT})",
}
PSI = "psi(steps=30, restarts=3, curve=(0.02, 0.05, 0.2), threat=ball(eps=0.1))"
PGD = "pgd(steps=20, threat=ball(eps=0.1))"
PLANES = {kind: f"surface(plane={kind}, adaptive=False, grid=21, images=40)" for kind in ("gradient", "random")}


@cache
def halves():
    """1,300 digits to train on, the other 497 to measure."""
    data = br.load_dataset("digits(side=8, split=all)")
    train = data.limit(1300)
    return train, data.take(~np.isin(data.ids, train.ids))


@cache
def nets(seed):
    train, _ = halves()
    start = br.load_network("mlp(widths=(128,))", shape=train.shape, classes=10, seed=seed)
    return {how: br.Lab().harden({"net": start}, hardening, train, seed=seed)["net"] for how, hardening in TRAININGS.items()}


@cache
def measured(seed):
    return br.Lab().measure(nets(seed), halves()[1], [PGD], [PSI, "accuracy"])


@cache
def planes(seed):
    return br.Lab().measure({**nets(seed), "loud": louder(nets(seed)["natural"], 10.0)}, halves()[1], [], list(PLANES.values()))


def heights(surfaces, net, kind, layer):
    return surfaces.array(surfaces.row("surface", net=net, probe=PLANES[kind], layer=layer)).astype(float)


def lost(surfaces, net, kind):
    """Share of the plane with S < 0, over the images that are classified correctly."""
    margins = heights(surfaces, net, kind, "margin")
    middle = margins.shape[1] // 2
    return float((margins[margins[:, middle, middle] > 0] < 0).mean())


@pytest.mark.parametrize("seed", SEEDS)
def test_normalised_psi_orders_the_trainings(seed):
    psi = [measured(seed).value("psi", net=how, layer="normalised") for how in TRAININGS]
    assert all(a < b for a, b in pairwise(psi)) and 1.5 * psi[0] < psi[1], psi


@pytest.mark.parametrize("seed", SEEDS)
def test_planes_through_images(seed):
    """Robust networks lose less of the adversarial plane, and a random plane is not one."""
    shares = [lost(planes(seed), how, "gradient") for how in TRAININGS]
    assert all(a > b for a, b in pairwise(shares)), shares
    assert shares[0] >= 2 * lost(planes(seed), "natural", "random")


@pytest.mark.parametrize("seed", SEEDS)
def test_cross_entropy_saturates_and_the_margin_does_not(seed):
    plain, loud = ((heights(planes(seed), net, "gradient", "cross_entropy") < 1e-6).mean() for net in ("natural", "loud"))
    assert loud >= 0.4 and loud >= 2 * plain, (plain, loud)
    margins = heights(planes(seed), "loud", "gradient", "margin")
    assert np.mean([len(np.unique(part)) / part.size for part in margins]) > 0.99


@pytest.mark.parametrize("seed", SEEDS)
def test_the_largest_divergence_grows_with_the_ball(seed):
    for how in TRAININGS:
        rows = [measured(seed).row("psi_curve", net=how, layer=f"raw eps={eps}") for eps in (0.02, 0.05, 0.1, 0.2)]
        psi = [measured(seed).array(row) for row in rows]
        assert all(np.mean(small > large) >= 0.99 for small, large in pairwise(psi))


def test_raw_psi_follows_robust_accuracy_and_its_mean_does_not():
    rows = [(measured(seed), how) for how in TRAININGS for seed in SEEDS]
    robust = np.array([table.value("accuracy", net=how, perturbation=PGD) for table, how in rows])
    median, mean = (np.array([table.value(name, net=how, layer="raw") for table, how in rows]) for name in ("psi", "psi_mean"))
    assert float(spearman(median, robust)) >= 0.8
    assert float(spearman(mean, robust)) < 0.5
