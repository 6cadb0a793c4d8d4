"""The Fisher matrix in the input: dense twins, Lanczos, vertices of the cube, and the law that ties it to psi."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from brinell.core.draws import derive
from brinell.core.measurement import Bound, Status
from brinell.probe.fisher import Fisher, FisherProbe, box_maximum, fisher_rows, largest_eigenvalue


def network(classes: int = 4, dims: int = 6) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(dims, 24), nn.ReLU(), nn.Linear(24, classes)).double()


X = derive(0, "fisher", ids=range(5)).uniform(6, dtype=torch.float64)


def dense(net, x, scale=1.0) -> np.ndarray:
    """F of every sample from finite differences of the logits."""
    found = []
    for row in x:
        steps = 1e-6 * torch.eye(len(row), dtype=torch.float64)
        with torch.no_grad():
            j = ((net(row + steps) - net(row - steps)) / 2e-6).T.numpy() / scale
            z = net(row[None])[0].numpy() / scale
        p = np.exp(z) / np.exp(z).sum()
        found.append(j.T @ (np.diag(p) - np.outer(p, p)) @ j)
    return np.stack(found)


@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_products_and_rows_against_finite_differences(scale):
    net = network()
    expected, fisher = dense(net, X, scale), Fisher(net, X, scale)
    v = derive(1, ids=range(5)).normal(6, dtype=torch.float64)
    assert fisher(v).numpy() == pytest.approx(np.einsum("nij,nj->ni", expected, v.numpy()), abs=1e-7 / scale**2)
    assert fisher(2 * v).numpy() == pytest.approx(2 * fisher(v).numpy(), rel=1e-12), "products may be taken again and again"
    rows = fisher_rows(net, X, scale).numpy()
    assert np.einsum("nkd,nke->nde", rows, rows) == pytest.approx(expected, abs=1e-7 / scale**2)


@pytest.mark.parametrize("iterations", [4, 9])
def test_lanczos_is_exact_once_it_has_seen_the_rank(iterations):
    net = network()
    found = largest_eigenvalue(Fisher(net, X), derive(2, ids=range(5)).normal(6, dtype=torch.float64), iterations)
    assert found.numpy() == pytest.approx(np.linalg.eigvalsh(dense(net, X))[:, -1], rel=1e-6)


def test_lanczos_comes_from_below():
    lot = np.random.default_rng(0)
    matrix = torch.tensor(lot.normal(size=(40, 40)))
    matrix = matrix @ matrix.T
    start, top = derive(3, ids=[0]).normal(40, dtype=torch.float64), float(np.linalg.eigvalsh(matrix.numpy())[-1])
    values = [float(largest_eigenvalue(lambda v: v @ matrix, start, k)) for k in (1, 3, 8, 40)]
    assert values == sorted(values) and values[-1] == pytest.approx(top, rel=1e-9) and values[0] < 0.9 * top


def test_the_cube_against_all_its_vertices():
    net = network()
    forms, corners = dense(net, X), np.array(list(itertools.product((-1, 1), repeat=6)))
    expected = np.einsum("vi,nij,vj->nv", corners, forms, corners).max(1)
    starts = [derive(k, "cube", ids=range(5)).normal(6, dtype=torch.float64) for k in range(12)]
    found = box_maximum(Fisher(net, X), iter(starts), 8).numpy()
    assert (found <= expected * (1 + 1e-6)).all() and found == pytest.approx(expected, rel=1e-6)


def test_two_classes_in_closed_form(make_view, measure):
    """F = p (1 - p) w w^T: its eigenvalue has the L2 length of w, its largest form on the cube the L1 length."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Linear(6, 2).double()
    w = (net.weight[0] - net.weight[1]).detach().numpy()
    with torch.no_grad():
        p = net(X).softmax(1)[:, 0].numpy()
        view = replace(make_view(net(X), np.zeros(5, int)), x=X, z=X, net=net)
    for probe, bound in ((FisherProbe(scale=1.0), Bound.EXACT), (FisherProbe(scale=1.0, exact=0), Bound.UPPER)):
        read = {r.name: r for r in measure(probe, view) if r.layer == "raw"}
        assert read["fisher_eigenvalue"].array == pytest.approx(p * (1 - p) * (w**2).sum(), rel=1e-9)
        assert (
            read["psi_limit_l2"].array == pytest.approx(2 / (p * (1 - p) * (w**2).sum()), rel=1e-9) and read["psi_limit_l2"].bound is bound
        )
        assert read["psi_limit_linf"].array == pytest.approx(2 / (p * (1 - p) * np.abs(w).sum() ** 2), rel=1e-9)
        assert read["psi_limit_linf"].bound is Bound.UPPER


def test_both_ways_agree_on_images(make_view, measure):
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 5)).double()
    x = derive(4, ids=range(3)).uniform(1, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        view = replace(make_view(net(x), np.zeros(3, int)), x=x, z=x, net=net)
    a, b = ({(r.name, r.layer): r for r in measure(FisherProbe(scale=0.1, exact=exact), view)} for exact in (16, 0))
    for layer in ("raw", "normalised"):
        assert a["fisher_eigenvalue", layer].array == pytest.approx(b["fisher_eigenvalue", layer].array, rel=1e-8)
        assert b["psi_limit_linf", layer].array == pytest.approx(a["psi_limit_linf", layer].array, rel=0.2)


def test_no_gradient_no_limit(make_view, measure):
    x = torch.rand(4, 3)
    for net in (lambda z: torch.ones(len(z), 3), lambda z: 0 * z):
        view = replace(make_view(net(x), np.zeros(4, int)), x=x, z=x, net=net)
        for exact in (0, 16):
            read = {r.name: r for r in measure(FisherProbe(scale=1.0, exact=exact), view) if r.layer == "raw"}
            assert read["fisher_eigenvalue"].value == 0
            assert read["psi_limit_l2"].status is Status.UNDEFINED and "gradient 0" in read["psi_limit_linf"].reason
