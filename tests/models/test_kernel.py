"""Kernels: values by expectation or by slow twins, the tangent kernel by automatic differentiation, symmetries."""

import math

import numpy as np
import pytest
import torch

from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import DataError, SpecError
from brinell.models import kernel as module
from brinell.models.kernel import NTK, RBF, Additive, Kernel, LearnerNTK, Polynomial, RandomFeatures, gram
from brinell.models.two_layer import TiedTwoLayer, initial_neurons
from brinell.models.two_layer_target import rotation

DRAWS = derive(0, "kernel", ids=[0])
KERNELS = [NTK(), NTK(layers="first"), LearnerNTK(width=7), LearnerNTK(width=7, activation="abs"), RBF(scale=0.7), Polynomial(degree=3),
           RandomFeatures(features=9), RandomFeatures(features=9, activation="abs"), Additive(scale=0.5)]  # fmt: skip


def points(n, d, name="x"):
    return derive(3, name, ids=range(n)).normal(d, dtype=torch.float64)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 1), (6, 4, 3)])
def test_a_kernel_is_symmetric_positive_and_made_in_blocks(kernel, n, k, d, monkeypatch):
    x, z = points(n, d), points(k, d, "z")
    whole = gram(kernel, x, z, draws=DRAWS)
    assert whole.shape == (n, k) and whole.dtype == torch.float64
    torch.testing.assert_close(gram(kernel, z, x, draws=DRAWS), whole.T)
    assert float(torch.linalg.eigvalsh(gram(kernel, x, x, draws=DRAWS)).min()) > -1e-10
    monkeypatch.setattr(module, "_BLOCK", 1)
    torch.testing.assert_close(gram(kernel, x, z, draws=DRAWS), whole)
    assert gram(kernel, x.float(), z.float(), draws=DRAWS).dtype == torch.float32


@pytest.mark.parametrize("kernel", [NTK(), NTK(layers="first"), RBF(scale=0.7), Polynomial(degree=3), Additive()], ids=str)
def test_float32_follows_float64(kernel):
    x = points(8, 5)
    torch.testing.assert_close(gram(kernel, x.float(), x.float(), draws=DRAWS).double(), gram(kernel, x, x, draws=DRAWS), atol=1e-3, rtol=0)


def test_the_tangent_kernel_of_a_wide_network():
    """K = E over w, b ~ N(0, 1) of the products of derivatives of b relu(w.x), in both layers (times 2 / d: torch has no 1/sqrt(d))."""
    x, z = points(3, 4), points(2, 4, "z")
    w = derive(1, "w", ids=range(400_000)).normal(4, dtype=torch.float64)
    hx, hz = x @ w.T, z @ w.T
    step = (hx > 0).double()[:, None] * (hz > 0).double()[None] * (x @ z.T)[..., None]
    outer = hx.relu()[:, None] * hz.relu()[None]
    for kernel, products in ((NTK(), step + outer), (NTK(layers="first"), step)):
        expected, error = 2 / 4 * products.mean(-1), 2 / 4 * products.std(-1) / math.sqrt(400_000)
        assert bool(((kernel(x, z, draws=DRAWS) - expected).abs() < 4 * error + 1e-12).all())


def test_known_values_of_the_tangent_kernels():
    x = points(5, 7)
    squares = x.square().sum(1)
    torch.testing.assert_close(gram(NTK(), x, x, draws=DRAWS).diagonal(), 2 * squares / 7)
    torch.testing.assert_close(gram(NTK(layers="first"), x, x, draws=DRAWS).diagonal(), squares / 7)
    torch.testing.assert_close(NTK()(x, -x, draws=DRAWS).diagonal(), torch.zeros(5, dtype=torch.float64), atol=1e-7, rtol=0)
    assert float(NTK()(torch.zeros(1, 7, dtype=torch.float64), x, draws=DRAWS).abs().max()) == 0


@pytest.mark.parametrize("activation", ["relu", "abs"])
def test_the_learner_s_tangent_kernel_by_automatic_differentiation(activation):
    x, z = points(4, 3), points(2, 3, "z")
    neurons = initial_neurons(6, 3, draws=DRAWS.fork(), dtype=torch.float64)

    def jacobian(part):
        net = TiedTwoLayer(neurons, activation)
        return torch.stack([torch.autograd.grad(value, net.neurons)[0].flatten() for value in net(part)[:, 0].unbind()])

    expected = 6 * torch.cat([jacobian(row[None]) for row in x]) @ torch.cat([jacobian(row[None]) for row in z]).T
    torch.testing.assert_close(LearnerNTK(width=6, activation=activation)(x, z, draws=DRAWS), expected)


def test_simple_kernels_by_numpy():
    x, z = points(4, 3), points(2, 3, "z")
    a, b = x.numpy(), z.numpy()
    for i in range(4):
        for j in range(2):
            expected = {
                RBF(scale=0.7): math.exp(-np.sum((a[i] - b[j]) ** 2) / (2 * 3 * 0.49)),
                Polynomial(degree=3, offset=0.5): (0.5 + a[i] @ b[j] / 3) ** 3,
                Additive(scale=0.5): sum(math.exp(-((u - v) ** 2) / 0.5) for u, v in zip(a[i], b[j], strict=True)) / 3,
            }
            for kernel, value in expected.items():
                assert float(kernel(x, z, draws=DRAWS)[i, j]) == pytest.approx(value, rel=1e-9)
    v = initial_neurons(9, 3, draws=DRAWS.fork(), dtype=torch.float64)[0].numpy()
    features = np.maximum(a @ v.T, 0) @ np.maximum(b @ v.T, 0).T / 9
    np.testing.assert_allclose(RandomFeatures(features=9)(x, z, draws=DRAWS), features, rtol=1e-12)


def test_who_sees_the_axes():
    """A rotation of the data changes the additive kernel, and none of those that a network is fairly compared with."""
    x, q = points(6, 4), rotation(4, draws=derive(8, ids=[0]))
    for kernel in (NTK(), NTK(layers="first"), RBF(), Polynomial()):
        torch.testing.assert_close(gram(kernel, x @ q, x @ q, draws=DRAWS), gram(kernel, x, x, draws=DRAWS))
    assert not torch.allclose(gram(Additive(), x @ q, x @ q, draws=DRAWS), gram(Additive(), x, x, draws=DRAWS), atol=0.01)


def test_random_kernels_repeat_and_leave_the_draws_alone():
    x, draws = points(5, 3), derive(4, ids=[0])
    for kernel in (LearnerNTK(width=5), RandomFeatures(features=5)):
        first = gram(kernel, x, x, draws=draws)
        assert torch.equal(gram(kernel, x, x, draws=draws), first) and int(draws.counter[0]) == 0
        assert not torch.allclose(gram(kernel, x, x, draws=derive(5, ids=[0])), first)


def test_refusals_and_texts():
    with pytest.raises(DataError, match="a kernel matrix needs"):
        gram(NTK(), torch.ones(2, 3), torch.ones(2, 4), draws=DRAWS)
    for text in ("ntk(layers=last)", "rbf(scale=0)", "polynomial(degree=0)", "random_features(features=0)", "learner_ntk(width=0)"):
        with pytest.raises(SpecError):
            parse(text, Kernel)
    names = ("ntk", "learner_ntk", "rbf", "polynomial", "random_features", "additive")
    assert all(isinstance(parse(name), Kernel) for name in names)
    assert all(parse(kernel.spec(full=True), Kernel) == kernel for kernel in KERNELS)
    with pytest.raises(TypeError, match="does not say"):
        Kernel()(torch.ones(1, 1), torch.ones(1, 1), draws=DRAWS)
