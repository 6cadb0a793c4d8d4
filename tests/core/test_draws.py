"""The random stream: where a number comes from, and that the numbers are random."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from brinell.core.draws import derive

MASK = (1 << 64) - 1
IDS = [0, 1, 2, 7, 1000, 2**31, 2**40 + 3, 2**63 - 1, -1, -(2**63)]


def slow_words(draws, row: int, count: int, start: int = 0) -> list[int]:
    """The documented hash in Python integers."""
    k1, k2 = int(draws.k1[row]) & MASK, int(draws.k2[row]) & MASK
    found = []
    for counter in range(start, start + count):
        z = (k1 + counter * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK) ^ k2
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        found.append(z ^ z >> 31)
    return found


def test_words_are_the_documented_hash():
    draws = derive(3, "path", 4, ids=IDS)
    words = draws.words(50)
    for row in range(len(IDS)):
        assert [int(word) & MASK for word in words[row]] == slow_words(draws, row, 50)
    later = draws.words(3)
    assert [int(word) & MASK for word in later[0]] == slow_words(draws, 0, 3, start=50)


def test_uniforms_are_the_documented_bits():
    draws = derive(0, ids=[5, 6])
    words = slow_words(draws, 0, 3)
    plain = draws.fork().uniform(5)[0].double()
    high, low = [(word >> 41) + 0.5 for word in words], [(word >> 18 & (1 << 23) - 1) + 0.5 for word in words]
    assert (plain * 2**23).tolist() == [*high, *low[:2]]
    wide = draws.fork().uniform(3, dtype=torch.float64)[0]
    assert (wide * 2**52).tolist() == [(word >> 12) + 0.5 for word in words]


def test_known_answers_do_not_move():
    """A change here changes every stored result: raise versions and say so."""
    draws = derive(2024, "known", ids=[11])
    assert draws.words(2).tolist() == [[2685826371548129695, -7921321582850121591]]
    assert draws.integers(0, 1000, 4).tolist() == [[613, 544, 674, 271]]


@pytest.mark.parametrize("method", ["uniform", "normal", "signs"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 3, 64, 1001, 70_001])
def test_a_row_does_not_depend_on_its_batch_mates(method, dtype, count):
    ids = list(range(50, 55))
    together = getattr(derive(1, "a", ids=ids), method)(count, dtype=dtype)
    assert together.dtype == dtype
    backwards = getattr(derive(1, "a", ids=ids[::-1]), method)(count, dtype=dtype)
    assert torch.equal(backwards.flip(0), together)
    for row in (0, 2, 4):
        assert torch.equal(getattr(derive(1, "a", ids=ids[row : row + 1]), method)(count, dtype=dtype)[0], together[row])


def test_integers_and_poisson_do_not_depend_on_batch_mates():
    ids = list(range(9))
    rate = torch.rand(9, 500) * 100
    for draw in (lambda d, rows: d.integers(-5, 9, 500), lambda d, rows: d.poisson(rate[rows])):
        together = draw(derive(1, ids=ids), ids)
        for row in ids:
            assert torch.equal(draw(derive(1, ids=[row]), [row])[0], together[row])


def test_a_row_goes_on_after_its_batch_mates_have_left():
    whole, parted = derive(0, ids=range(6)), derive(0, ids=range(6))
    whole.uniform(7)
    parted.uniform(7)
    want = whole.normal(5)
    mask = torch.tensor([True, False, True, False, False, True])
    part = parted[mask]
    assert torch.equal(part.normal(5), want[mask])
    parted.put(mask, part)
    assert parted.counter.tolist() == [c if m else 4 for c, m in zip(whole.counter.tolist(), mask.tolist(), strict=True)]
    assert torch.equal(parted[~mask].normal(5), want[~mask])
    assert torch.equal(parted[mask].uniform(3), whole.uniform(3)[mask])
    assert len(parted[2]) == 1
    assert len(parted[1:4]) == 3
    assert torch.equal(derive(0, ids=range(6))[torch.tensor([4, 1])].uniform(3), derive(0, ids=[4, 1]).uniform(3))


def test_a_part_and_a_fork_leave_the_stream_alone():
    draws = derive(0, ids=range(3))
    draws[0:2].uniform(10)
    draws.fork().uniform(10)
    draws.at("elsewhere").uniform(10)
    draws.to("cpu").fork().normal(3)
    assert draws.counter.tolist() == [0, 0, 0]
    assert torch.equal(draws.uniform(4), derive(0, ids=range(3)).uniform(4))


def test_numbers_depend_on_seed_path_and_id():
    def first(seed, *path, ids=(5,)):
        return tuple(derive(seed, *path, ids=ids).words(2).reshape(-1).tolist())

    streams = [first(0), first(1), first(-1), first(2**70), first(0, "a"), first(0, "b"), first(0, "a", "b"), first(0, "ab"), first(0, 1),
               first(0, "1"), first(0, 1, 2), first(0, 12), *(first(0, ids=[i]) for i in IDS)]  # fmt: skip
    assert len(set(streams)) == len(streams)
    assert first(0, "a") == first(0, "a")


def test_at_gives_independent_streams_that_ignore_the_position():
    draws = derive(0, ids=range(200))
    early = draws.at("restart", 1).uniform(100)
    draws.uniform(9)
    assert torch.equal(draws.at("restart", 1).uniform(100), early)
    others = [
        draws.at("restart", 2),
        draws.at("restart"),
        draws.at("restart", 1).at("restart", 1),
        derive(1, ids=range(200)).at("restart", 1),
        draws,
    ]
    for other in others:
        values = other.fork().uniform(100)
        assert abs(correlation(early, values)) < 5 / math.sqrt(20_000)
        for lag in (1, 2):
            assert abs(correlation(early[lag:], values[:-lag])) < 5 / math.sqrt(19_000)


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(np.corrcoef(a.double().numpy().ravel(), b.double().numpy().ravel())[0, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniforms_are_uniform_and_open(dtype):
    values = derive(0, "u", ids=range(400)).uniform(2500, dtype=dtype)
    assert 0 < float(values.min()) < 1e-5
    assert 1 - 1e-5 < float(values.max()) < 1
    flat = values.double().numpy().ravel()
    counts = np.bincount((flat * 1000).astype(int), minlength=1000)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.kstest(flat[:100_000], "uniform").pvalue > 1e-3
    rows = [stats.kstest(row, "uniform").pvalue for row in values.double().numpy()]
    assert stats.kstest(rows, "uniform").pvalue > 1e-3


def test_uniforms_fill_an_interval():
    values = derive(0, ids=[1]).uniform(10_000, low=-3.0, high=2.0)
    assert float(values.min()) > -3
    assert float(values.max()) < 2
    assert abs(float(values.mean()) + 0.5) < 5 * 5 / math.sqrt(12 * 10_000)


@pytest.mark.parametrize(
    "ids", [range(2000), [i * 2**20 for i in range(2000)], [-i for i in range(2000)], [2**62 + i for i in range(2000)]]
)
def test_samples_are_uncorrelated_with_each_other_and_in_time(ids):
    values = derive(0, "cross", ids=ids).uniform(64).double().numpy() - 0.5
    z = values * math.sqrt(12)
    for lag in (1, 2, 3, 16, 32):  # between samples, and along each
        across = (z[lag:] * z[:-lag]).mean(1) * 8
        assert abs(across.mean()) < 5 / math.sqrt(len(across))
        assert abs(across.std() - 1) < 5 / math.sqrt(2 * len(across))
        along = (z[:, lag:] * z[:, :-lag]).ravel()
        assert abs(along.mean()) < 5 / math.sqrt(len(along))
    column = z.mean(0) * math.sqrt(len(z))
    assert np.abs(column).max() < 5


def test_every_bit_is_balanced_and_no_two_bits_agree_too_often():
    words = derive(7, ids=range(200)).words(500).reshape(-1).numpy().view(np.uint64)
    bits = np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little").astype(float) * 2 - 1
    n = len(bits)
    assert np.abs(bits.mean(0)).max() * math.sqrt(n) < 5
    agree = (bits.T @ bits)[np.triu_indices(64, 1)] / math.sqrt(n)
    assert np.abs(agree).max() < 5.5
    assert abs(agree.std() - 1) < 0.1
    flips = (bits[1:] * bits[:-1]).mean(0) * math.sqrt(n)
    assert np.abs(flips).max() < 5


def test_words_of_many_streams_do_not_collide():
    words = derive(0, ids=range(100_000)).words(10).reshape(-1)
    assert len(words.unique()) == len(words)


def test_one_bit_of_the_id_flips_half_of_the_word():
    base = derive(0, ids=[12345] * 64).words(20).numpy().view(np.uint64)
    near = derive(0, ids=[12345 ^ (1 << i) if i < 63 else 12345 - 2**63 for i in range(64)]).words(20).numpy().view(np.uint64)
    flipped = np.unpackbits((base ^ near).view(np.uint8).reshape(64, -1), axis=1).mean(1)
    assert np.abs(flipped - 0.5).max() < 5 * 0.5 / math.sqrt(1280)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_are_normal(dtype):
    values = derive(0, "n", ids=range(200)).normal(5001, dtype=dtype)
    flat = values.double().numpy().ravel()
    n = len(flat)
    assert abs(flat.mean()) < 5 / math.sqrt(n)
    assert abs(flat.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs(stats.skew(flat)) < 5 * math.sqrt(6 / n)
    assert abs(stats.kurtosis(flat)) < 5 * math.sqrt(24 / n)
    assert stats.kstest(flat[:200_000], "norm").pvalue > 1e-3
    assert 4 < np.abs(flat).max() < (5.8 if dtype == torch.float32 else 8.7)
    first, second = values[:, :2500], values[:, 2501:5001]  # the two halves of Box and Muller's pairs
    assert abs(correlation(first, second)) < 5 / math.sqrt(first.numel())
    assert abs(correlation(first.square(), second.square())) < 5 / math.sqrt(first.numel())
    assert derive(0, ids=[0]).normal(1000, std=0.1).std().item() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(("low", "high"), [(0, 2), (-3, 4), (0, 7), (0, 1000), (5, 6), (-(2**30), 2**30)])
def test_integers_are_equally_likely(low, high):
    values = derive(0, low, high, ids=range(50)).integers(low, high, 2000)
    assert values.dtype == torch.int64
    assert int(values.min()) >= low
    assert int(values.max()) < high
    groups = min(high - low, 1000)
    counts = np.bincount(((values.reshape(-1).double().numpy() - low) * groups / (high - low)).astype(int), minlength=groups)
    assert groups == 1 or stats.chisquare(counts).pvalue > 1e-3


def test_integers_refuse_empty_and_too_wide_ranges():
    for low, high in ((0, 0), (3, 2), (0, 2**31 + 1)):
        with pytest.raises(ValueError, match="range"):
            derive(0, ids=[0]).integers(low, high, 3)


def test_signs_are_fair_and_independent():
    values = derive(0, ids=range(300)).signs(1001)
    assert set(values.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(values.mean())) * math.sqrt(values.numel()) < 5
    for lag in (1, 32, 64):
        assert abs(correlation(values[:, lag:], values[:, :-lag])) < 5 / math.sqrt(values.numel() - 300 * lag)
    assert derive(0, ids=[0]).signs(3, 5, dtype=torch.float64).shape == (1, 3, 5)


@pytest.mark.parametrize("mean", [1e-6, 0.01, 0.5, 2.0, 10.0, 51.0, 251.0, 500.0, 1e4, 1e6])
def test_poisson_numbers_fit_their_law(mean):
    values = derive(0, "p", ids=range(50)).poisson(torch.full((50, 1000), mean, dtype=torch.float64)).numpy().ravel()
    assert (values == np.floor(values)).all()
    assert values.min() >= 0
    edges = np.unique(stats.poisson.ppf(np.linspace(0, 1, 40)[1:-1], mean))
    mass = np.diff(np.concatenate(([0.0], stats.poisson.cdf(edges, mean), [1.0])))
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(mass))
    kept = mass * len(values) >= 5
    if kept.sum() > 1:
        mass, counts = np.append(mass[kept], mass[~kept].sum()), np.append(counts[kept], counts[~kept].sum())
        real = mass > 1e-12
        assert counts[~real].sum() == 0
        assert stats.chisquare(counts[real], mass[real] / mass[real].sum() * counts.sum()).pvalue > 1e-3
    assert abs(values.mean() - mean) < 5 * math.sqrt(mean / len(values)) + 1e-9
    assert mean < 0.1 or abs(values.var() / mean - 1) < 5 * math.sqrt((2 + 1 / mean) / len(values))


def test_poisson_is_the_inverse_distribution_function_of_its_uniforms():
    """k is the smallest whole number with F(k) >= u, far into the tails, by scipy's distribution function."""
    rates = torch.tensor([0.0, 1e-9, 0.01, 0.1, 0.3, 1.0, 3.3, 12.0, 80.0, 300.0, 5000.0, 1e6], dtype=torch.float64)
    draws, n = derive(0, ids=range(40_000)), 40_000
    u = draws.fork().uniform(len(rates), dtype=torch.float64).numpy()
    k = draws.poisson(rates.expand(n, -1)).numpy()
    mean = np.broadcast_to(rates.numpy(), k.shape)
    assert (stats.poisson.cdf(k, mean) >= u * (1 - 1e-9)).all()
    assert (stats.poisson.cdf(k - 1, mean) < u * (1 + 1e-9)).all()
    assert (k[:, 0] == 0).all()


def test_poisson_keeps_shape_and_type_and_refuses_bad_rates():
    rate = torch.rand(2, 3, 4, 5)
    assert derive(0, ids=[0, 1]).poisson(rate).shape == rate.shape
    assert derive(0, ids=[0, 1]).poisson(rate).dtype == torch.float32
    for bad in (-rate, rate * math.nan, rate * math.inf, rate[:1]):
        with pytest.raises(ValueError, match="poisson needs 2 rows"):
            derive(0, ids=[0, 1]).poisson(bad)


def test_shapes_and_empty_batches():
    draws = derive(0, ids=[])
    assert len(draws) == 0
    assert draws.uniform(3, 4).shape == (0, 3, 4)
    assert draws.normal(5).shape == (0, 5)
    one = derive(0, ids=[4])
    assert one.uniform().shape == (1,)
    assert one.uniform(0).shape == (1, 0)
    assert one.normal(2, 3).shape == (1, 2, 3)
    assert one.integers(0, 3).shape == (1,)
    assert one.device == torch.device("cpu")


def test_ids_may_come_as_tensors_arrays_or_iterators():
    want = derive(0, ids=[3, 4]).words(2)
    for ids in (torch.tensor([3, 4]), np.array([3, 4]), (3, 4), range(3, 5), iter([3, 4]), torch.tensor([3, 4], dtype=torch.int32)):
        assert torch.equal(derive(0, ids=ids).words(2), want)


def test_no_global_random_state_is_read_or_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = derive(0, ids=[0]).normal(10)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(derive(0, ids=[0]).normal(10), first)
