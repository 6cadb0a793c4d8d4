"""Infinite width: the arc-cosine map to six digits, the process along the line against published numbers and finite networks."""

import math

import numpy as np
import pytest
import torch

from brinell.core.draws import derive
from brinell.models.random_ensemble import gaussian, inputs
from brinell.models.random_limit import arc_cosine, line_law, linear_quantile, mean_residual, relative_spread, sphere_law


def kappa(c, layers):
    """The recursion as it is written, in plain Python."""
    slope = 1.0
    for _ in range(layers):
        slope *= 1 - math.acos(c) / math.pi
        c = (math.sqrt(1 - c * c) + c * (math.pi - math.acos(c))) / math.pi
    return c, slope


def test_the_map_at_known_points():
    for layers, expected in ((1, 1 / math.pi), (2, 0.493731), (4, 0.680953), (8, 0.834416), (16, 0.929456), (32, 0.974720), (64, 0.992066)):
        value, _ = arc_cosine(torch.tensor(math.pi / 2), layers)
        assert float(value) == pytest.approx(expected, abs=1e-6)
    assert float(arc_cosine(torch.tensor(math.pi / 2), 128)[0]) == pytest.approx(0.997727, abs=1e-6)
    assert float(arc_cosine(torch.tensor(math.pi, dtype=torch.float64), 1)[0]) == pytest.approx(0, abs=1e-12)
    for layers in (2, 5, 9):
        back = arc_cosine(torch.tensor(math.pi, dtype=torch.float64), layers)[0]
        assert float(back) == pytest.approx(float(arc_cosine(torch.tensor(math.pi / 2, dtype=torch.float64), layers - 1)[0]), abs=1e-12)
        assert float(arc_cosine(torch.tensor(0.0), layers)[1]) == 1
    deep = 1 - float(arc_cosine(torch.tensor(math.pi / 2), 4096)[0])
    assert deep == pytest.approx(9 * math.pi**2 / (2 * 4096**2), rel=0.01)


def test_the_map_against_plain_python_and_its_derivative():
    for angle in (0.3, 1.1, 2.0, 3.0):
        for layers in (0, 1, 3, 7):
            value, slope = (float(v) for v in arc_cosine(torch.tensor(angle, dtype=torch.float64), layers))
            assert (value, slope) == pytest.approx(kappa(math.cos(angle), layers), abs=1e-12)
            step = 1e-6
            difference = (kappa(math.cos(angle) + step, layers)[0] - kappa(math.cos(angle) - step, layers)[0]) / (2 * step)
            assert slope == pytest.approx(difference, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("d", "expected"),
    [
        (16, (0.899, 0.826, 0.686, 0.489, 0.303, 0.186, 0.103)),
        (64, (0.999, 0.995, 0.958, 0.793, 0.519, 0.292, 0.159)),
        (256, (1, 1, 1, 0.986, 0.817, 0.518, 0.276)),
        (1024, (1, 1, 1, 1, 0.992, 0.827, 0.512)),
    ],
)
def test_flip_rates_along_the_line(d, expected):
    for layers, rate in zip((1, 2, 4, 8, 16, 32, 64), expected, strict=True):
        assert line_law(d, layers).flip_rate() == pytest.approx(rate, abs=0.015), f"L = {layers}"


def test_a_linear_network_flips_at_its_linear_step():
    law = line_law(30, 0, samples=2000)
    assert np.allclose(law.crossing[law.linear < 0.5], law.linear[law.linear < 0.5], rtol=1e-3) and np.abs(law.residual).max() < 1e-4


def test_the_linear_step():
    law = line_law(40, 3, samples=20_000)
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(law.linear, share) == pytest.approx(linear_quantile(share, 40), rel=0.04)
    assert linear_quantile(0.5, 10**6) * 1000 == pytest.approx(0.67449, abs=1e-4) and linear_quantile(0.5, 1) == 1


def test_residuals():
    lin = 0.08
    assert mean_residual(lin, 1) == pytest.approx(math.sqrt(1 - lin**2) * lin / math.pi, abs=1e-12)
    law = line_law(64, 2, samples=20_000)
    close = np.abs(law.linear - lin) < 0.004
    found = law.residual[close]
    assert found.mean() == pytest.approx(mean_residual(lin, 2), abs=4 * found.std() / math.sqrt(len(found)))


def test_more_classes_lie_nearer():
    assert np.median(line_law(50, 1, classes=10, samples=4000).linear) < 0.6 * np.median(line_law(50, 1, samples=4000).linear)


def test_the_sphere():
    x = derive(0, "sphere", ids=range(30)).normal(12, dtype=torch.float64)
    shallow, deep = (sphere_law(x, layers, 4000) for layers in (1, 30))
    assert shallow[0] < 0.05 < deep[0] and deep[1] < 0.5 < shallow[1]
    assert relative_spread(torch.tensor([[2.0, 2.0], [-1.0, 1.0]])).tolist() == [0, 1] and relative_spread(torch.zeros(1, 3)).isnan().all()


@pytest.mark.slow
def test_wide_networks_follow_the_law_on_the_sphere():
    draws = derive(0, "wide", ids=range(300))
    nets, x = gaussian((10, 512, 512, 512), draws), inputs(10, derive(1, "points", ids=range(40)))
    f = nets(x.expand(300, -1, -1))
    one, spread = sphere_law(x, 3, 4000)
    assert float(relative_spread(f).median()) == pytest.approx(spread, abs=0.06)
    assert float((f.sign().sum(1).abs() == 40).double().mean()) == pytest.approx(one, abs=4 * math.sqrt(max(one, 0.02) / 300))
