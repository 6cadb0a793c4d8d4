"""The largest inner product over a ball cut by a box, against linear programmes and a root found by bisection."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog

from brinell.core import norms


def best(a, eps, p, low, high):
    """max <a, v> over |v|_p <= eps and low <= v <= high, for one sample."""
    if p == math.inf:
        return np.where(a > 0, a * np.minimum(high, eps), -a * np.minimum(-low, eps)).sum()
    if p == 1:  # v = u - w with u, w >= 0
        bounds = [*((0, h) for h in high), *((0, -el) for el in low)]
        return -linprog(np.concatenate((-a, a)), A_ub=np.ones((1, 2 * len(a))), b_ub=[eps], bounds=bounds).fun
    corner = np.where(a > 0, high, low) * (a != 0)
    if np.linalg.norm(corner) <= eps or not a.any():
        return a @ corner
    if eps == 0:
        return 0.0
    t = brentq(lambda t: np.linalg.norm(np.clip(t * a, low, high)) - eps, 0, 1e9, xtol=1e-15, rtol=1e-14, maxiter=500)
    return a @ np.clip(t * a, low, high)


@pytest.mark.parametrize("p", [1, 2, math.inf])
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.6, 3.0, 50.0])
def test_support_is_the_maximum_from_above(p, eps):
    lot = np.random.default_rng(0)
    a, low, high = lot.normal(size=(20, 7)), -lot.uniform(size=(20, 7)), lot.uniform(size=(20, 7))
    a[0], a[1, 3:], high[2], low[3, :2] = 0, 0, 0, 0
    found = norms.support(*(torch.tensor(value) if isinstance(value, np.ndarray) else value for value in (a, eps, p, low, high))).numpy()
    expected = np.array([best(a[k], eps, p, low[k], high[k]) for k in range(20)])
    assert found == pytest.approx(expected, abs=1e-7) and (found >= expected - 1e-9).all()


@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_without_walls_it_is_the_dual_norm(p):
    a = torch.randn(9, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    far = torch.full_like(a, 1e3)
    assert torch.allclose(norms.support(a, 0.3, p, -far, far), 0.3 * norms.length(a, norms.dual(p)), rtol=1e-9)
