import math

import numpy as np
import pytest
import torch
from scipy import stats

from brinell.core import norms
from brinell.core.component import parse
from brinell.core.draws import derive
from brinell.core.errors import DataError, SpecError
from brinell.core.threat import Ball, Threat
from brinell.perturb.noise import (
    GaussianNoise,
    ImpulseNoise,
    L2Noise,
    NormalNoise,
    ShotNoise,
    SpeckleNoise,
    UniformNoise,
    normal_scale,
    photon_counts,
)

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
    for noise in (UniformNoise(), NormalNoise(), GaussianNoise(), L2Noise()):
        with pytest.raises(DataError, match="floating-point"):
            ask(noise, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize("photons", [3, 5, 12, 50, 100, 250, 500])
def test_tabulated_photons_follow_poisson_at_every_level(photons):
    """Pearson's chi square at each of 30 levels, against scipy's Poisson law with all above `photons` in one cell."""
    n, levels = 4000, [0, 1, 2, *range(3, 255, 10), 254, 255]
    level = torch.tensor(levels, dtype=torch.int32).expand(n, -1).contiguous()
    counts = photon_counts(level, photons, derive(photons, ids=range(n))).numpy()
    assert counts[:, 0].max() == 0
    worst = []
    for at, value in enumerate(levels[1:], 1):
        law = stats.poisson(photons * value / 255)
        upto = np.arange(photons)
        expected = np.append(law.pmf(upto), law.sf(photons - 1)) * n
        seen = np.bincount(counts[:, at].astype(int), minlength=photons + 1)
        assert len(seen) == photons + 1
        edges = np.unique(np.searchsorted(np.cumsum(expected), np.arange(8, n, max(8, n / 40))))  # cells of enough counts
        cells = [np.add.reduceat(part, np.unique(np.append(0, edges[edges <= photons]))) for part in (seen, expected)]
        kept = cells[1] > 5
        if kept.sum() > 1:
            worst.append(stats.chi2.sf(((cells[0] - cells[1]) ** 2 / cells[1])[kept].sum(), kept.sum() - 1))
    assert min(worst) > 1e-3 / len(levels)
    assert 0.2 < np.mean(worst) < 0.8


@pytest.mark.parametrize("preset", ["cifar", "tiny_imagenet", "imagenet"])
@pytest.mark.parametrize("severity", [1, 5])
def test_shot_noise_has_mean_v_and_variance_v_over_c(ask, preset, severity):
    (c,) = ShotNoise.ladder[preset][severity - 1]
    for v in (51 / 255, 0.123456):  # 8-bit, and not
        z = ask(ShotNoise(severity=severity, preset=preset, quantize=False), torch.full((10, 3, 64, 64), v)).double().numpy()
        k = np.arange(2000)
        law = stats.poisson.pmf(k, v * c)
        clipped = np.minimum(k / c, 1)
        mean, spread = (law * clipped).sum(), np.sqrt((law * clipped**2).sum() - (law * clipped).sum() ** 2)
        assert abs(z.mean() - mean) < 4 * spread / math.sqrt(z.size)
        assert z.var() == pytest.approx(spread**2, rel=0.03)
        whole = z * c
        assert np.abs(whole - whole.round()).max() < 1e-3


def test_shot_noise_of_half_a_light_at_50_photons(ask):
    z = ask(ShotNoise(severity=5, preset="cifar", quantize=False), torch.full((40, 3, 32, 32), 0.5)).double()
    assert abs(float(z.var()) - 0.01) < 0.0003
    assert abs(float(z.mean()) - 0.5) < 0.002


def test_a_sample_between_the_grey_levels_does_not_change_its_mates(ask, photos):
    x = photos(32, 32, n=4)
    mixed = x.clone()
    mixed[2] += 0.3 / 255 * (x[2] < 0.5)
    z, other = ask(ShotNoise(), x), ask(ShotNoise(), mixed)
    assert [torch.equal(z[row], other[row]) for row in range(4)] == [True, True, False, True]
    assert torch.equal(ask(ShotNoise(), mixed[2:3], ids=[2])[0], other[2])


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_impulse_noise_hits_the_stated_share_half_black_half_white(ask, severity):
    for preset in ("cifar", "imagenet"):
        (c,) = ImpulseNoise.ladder[preset][severity - 1]
        x = torch.full((20, 3, 64, 64), 0.5)
        z = ask(ImpulseNoise(severity=severity, preset=preset, quantize=False), x)
        n = x.numel()
        for value in (0, 1):
            assert abs(float((z == value).double().mean()) - c / 2) < 3.5 * math.sqrt(c / 2 / n)
        assert float(((z == 0) | (z == 1) | (z == 0.5)).double().mean()) == 1
        hit = (z != 0.5).double()
        apart = float((hit[:, 0] * hit[:, 1]).mean()) - c**2  # channels are hit apart
        assert abs(apart) < 5 * c / math.sqrt(n / 3)


@pytest.mark.parametrize("preset", ["cifar", "tiny_imagenet", "imagenet"])
def test_speckle_noise_is_in_proportion_to_the_light(ask, preset):
    for severity in (1, 3, 5):
        (c,) = SpeckleNoise.ladder[preset][severity - 1]
        for v in (0.1, 0.3):
            z = ask(SpeckleNoise(severity=severity, preset=preset, quantize=False), torch.full((20, 3, 32, 32), v)).double().numpy()
            twin = np.clip(v + v * np.random.default_rng(severity).normal(size=z.shape, scale=c), 0, 1)
            assert stats.ks_2samp(z.ravel(), twin.ravel()).pvalue > 1e-3
            assert z.std() == pytest.approx(twin.std(), rel=0.02)
    assert float(ask(SpeckleNoise(severity=5), torch.zeros(1, 3, 32, 32)).max()) == 0


@pytest.mark.parametrize("eps", [0.0, 1e-3, 0.5, 4.0, 20.0])
@pytest.mark.parametrize("shape", [(5, 3, 32, 32), (4, 700)])
def test_l2_noise_has_just_the_given_length(ask, eps, shape):
    x = torch.rand(shape, dtype=torch.float64)
    x[0], x[1] = 0, 1  # corners: half of the noise is cut off
    for inputs, tolerance in ((x, 1e-9), (x.float(), 1e-5)):
        z = ask(L2Noise(eps=eps), inputs)
        length = np.linalg.norm((z - inputs).double().numpy().reshape(len(x), -1), axis=1)
        assert length == pytest.approx(eps if eps < 20 or shape[1] == 3 else length, abs=tolerance, rel=tolerance)
        assert length.max() <= eps + tolerance
        assert float(z.min()) >= 0
        assert float(z.max()) <= 1


def test_l2_noise_is_white_and_goes_as_far_as_there_is_room(ask):
    x = torch.full((50, 2000), 0.5, dtype=torch.float64)
    z = ask(L2Noise(eps=1.0), x)
    assert stats.kstest(((z - x) * math.sqrt(2000)).numpy().ravel(), "norm").pvalue > 1e-3
    far = ask(L2Noise(eps=1000.0), x)
    assert set(far.unique().tolist()) <= {0.0, 1.0}
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        ask(L2Noise(), torch.full((1, 5), 2.0))
