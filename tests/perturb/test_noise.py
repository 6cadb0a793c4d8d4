import math

import numpy as np
import pytest
import torch
from scipy import stats

from brinell.core import norms
from brinell.core.component import parse
from brinell.core.errors import DataError, SpecError
from brinell.core.threat import Ball, Threat
from brinell.perturb.noise import GaussianNoise, NormalNoise, UniformNoise, normal_scale

NORMS = [1, 2, math.inf]
EPS = {1: 20.0, 2: 1.0, math.inf: 8 / 255}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("noise", [UniformNoise, NormalNoise])
@pytest.mark.parametrize("shape", [(200, 6), (40, 3, 32, 32), (2, 1, 28, 30)])
def test_controls_land_inside_their_ball_and_the_domain(ask, noise, norm, shape):
    x = torch.rand(shape)
    x[0], x[1] = 0, 1  # corners of the domain
    for eps in (0.0, 1e-4, EPS[norm], 1000.0):
        ball = Ball(norm=norm, eps=eps)
        z = ask(noise(threat=ball), x)
        assert bool(ball.contains(x, z).all())
        assert float(z.min()) >= 0
        assert float(z.max()) <= 1
        assert eps == 0 or not torch.equal(z, x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("noise", [UniformNoise, NormalNoise])
def test_controls_are_nearly_as_long_as_the_ball_is_wide_away_from_the_walls(ask, noise, norm):
    x = torch.full((200, 3, 16, 16), 0.5)
    ball = Ball(norm=norm, eps=EPS[norm])
    length = ball.distance(x, ask(noise(threat=ball), x))
    assert float(length.mean()) > 0.9 * ball.eps
    assert float(length.max()) <= ball.eps + ball.slack(x)


def test_uniform_noise_has_the_radial_law_of_the_uniform_ball(ask):
    x = torch.full((4000, 5), 0.5)
    for norm in NORMS:
        ball = Ball(norm=norm, eps=0.2)
        share = (ball.distance(x, ask(UniformNoise(threat=ball), x)) / ball.eps) ** 5  # U^(1/D) to the D
        assert stats.kstest(share.numpy(), "uniform").pvalue > 1e-3


def test_uniform_noise_asks_another_threat_for_its_own_points(ask):
    class Halved(Threat, name="halved_for_a_test"):
        def sample(self, x, draws):
            return x / 2

    x = torch.rand(3, 4)
    assert torch.equal(ask(UniformNoise(threat=Halved()), x), x / 2)


@pytest.mark.parametrize("norm", NORMS)
def test_normal_noise_is_a_projected_gaussian_of_the_stated_size(ask, norm):
    """Free of the walls and inside the ball the entries are normal; half of the noises are cut to length eps."""
    n, count = 2000, 400
    x = torch.full((n, count), 0.5, dtype=torch.float64)
    ball = Ball(norm=norm, eps={1: 4.0, 2: 0.3, math.inf: 0.05}[norm])
    z = ask(NormalNoise(threat=ball), x)
    length = ball.distance(x, z)
    cut = length > ball.eps * (1 - 1e-6)
    assert abs(float(cut.double().mean()) - 0.5) < 3 * 0.5 / math.sqrt(n) + 0.02
    whole = ((z - x)[~cut] / (ball.eps * normal_scale(norm, count))).numpy()
    assert np.abs(whole).max() < 6
    assert abs(whole.std() - 1) < 0.05
    assert abs(stats.kurtosis(whole.ravel())) < 0.2


@pytest.mark.parametrize("count", [1, 2, 10, 3072, 150528])
def test_normal_scale_makes_the_typical_length_one(count):
    assert normal_scale(2, count) ** 2 * count == pytest.approx(1)
    assert normal_scale(1, count) * count * math.sqrt(2 / math.pi) == pytest.approx(1)
    t = 1 / normal_scale(math.inf, count)
    assert count * math.log1p(-2 * stats.norm.sf(t)) == pytest.approx(math.log(0.5), rel=1e-6)


def test_controls_have_text_forms_and_need_a_fitting_threat():
    noise = UniformNoise(threat=Ball(norm=2, eps=0.5))
    assert parse(noise.spec()) == noise
    assert parse("normal_noise(threat=ball(norm=1, eps=2))") == NormalNoise(threat=Ball(norm=1, eps=2))
    with pytest.raises(SpecError, match="threat"):
        NormalNoise(threat=parse("clean"))


@pytest.mark.parametrize("preset", ["cifar", "tiny_imagenet", "imagenet"])
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_gaussian_noise_has_the_published_spread(ask, preset, severity):
    published = {
        "cifar": (0.04, 0.06, 0.08, 0.09, 0.10),
        "tiny_imagenet": (0.04, 0.08, 0.12, 0.15, 0.18),
        "imagenet": (0.08, 0.12, 0.18, 0.26, 0.38),
    }[preset][severity - 1]
    x = torch.full((40, 3, 32, 32), 0.5)
    z = ask(GaussianNoise(severity=severity, preset=preset, quantize=False), x).double().numpy()
    rng = np.random.default_rng(severity)
    twin = np.clip(0.5 + rng.normal(size=x.shape, scale=published), 0, 1)
    assert abs(z.mean() - 0.5) < 5 * published / math.sqrt(z.size)
    assert abs(z.std() - twin.std()) < 0.01 * published + 1e-4
    assert stats.ks_2samp(z.ravel(), twin.ravel()).pvalue > 1e-3


def test_gaussian_noise_of_a_tenth_is_a_tenth_wide(ask):
    z = ask(GaussianNoise(severity=5, preset="cifar", quantize=False), torch.full((40, 3, 32, 32), 0.5))
    assert z.numel() >= 1e5
    assert abs(float(z.double().std()) - 0.1) < 0.002


def test_gaussian_noise_differs_between_samples_channels_and_seeds_only(ask):
    x = torch.full((2, 3, 32, 32), 0.5)
    noise = GaussianNoise(quantize=False)
    z = ask(noise, x)
    assert torch.equal(z, ask(noise, x))
    assert not torch.equal(z, ask(noise, x, seed=1))
    rows = (z - 0.5).reshape(6, -1).double().numpy()
    off = np.corrcoef(rows)[np.triu_indices(6, 1)]
    assert np.abs(off).max() < 5 / math.sqrt(rows.shape[1])


def test_gaussian_noise_cuts_to_grey_levels_like_the_published_generator(ask):
    """Cutting, not rounding, lowers the mean by half a grey level."""
    x = torch.full((40, 3, 32, 32), 0.5)
    z, exact = (ask(GaussianNoise(severity=3, preset="cifar", quantize=quantize), x).double() for quantize in (True, False))
    lost = (exact - z) * 255
    assert float(lost.min()) > -0.002
    assert float(lost.max()) < 1
    assert abs(float(lost.mean()) - 0.5) < 0.01


def test_gaussian_noise_is_the_same_in_every_float_type(ask):
    x = torch.full((2, 1, 16, 16), 0.5, dtype=torch.float64)
    wide, plain = (ask(GaussianNoise(quantize=False), image) for image in (x, x.float()))
    assert wide.dtype == torch.float64
    assert float((wide - plain.double()).abs().max()) < 1e-6


def test_distances_are_those_of_the_threat(ask):
    x = torch.rand(3, 2, 8, 8)
    z = ask(UniformNoise(threat=Ball(norm=2, eps=0.5)), x)
    twin = np.sqrt(((z - x).double().numpy() ** 2).reshape(3, -1).sum(1))
    assert norms.length((z - x).double(), 2).numpy() == pytest.approx(twin)


def test_integer_images_are_refused(ask):
    for noise in (UniformNoise(), NormalNoise(), GaussianNoise()):
        with pytest.raises(DataError, match="floating-point"):
            ask(noise, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
