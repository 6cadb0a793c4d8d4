"""Simultaneous intervals, against the formula written out."""

from __future__ import annotations

import pytest
from scipy.stats import beta, norm

from brinell.report.answer import Answer


def exact(hits: int, n: int, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson (1934) with scipy's beta quantiles."""
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, hits, n - hits + 1) if hits else 0.0
    high = beta.ppf(1 - tail, hits + 1, n - hits) if hits < n else 1.0
    return float(low), float(high)


@pytest.mark.parametrize(("hits", "n", "many"), [(50, 100, 75), (0, 30, 4), (30, 30, 4), (499, 500, 100)])
def test_among_many_the_interval_is_that_of_a_higher_confidence(hits: int, n: int, many: int):
    answer = Answer(hits / n, *exact(hits, n, 0.95), 0.95, n)
    wide = answer.among(many)
    assert (wide.low, wide.high) == pytest.approx(exact(hits, n, 1 - 0.05 / many))
    assert (wide.value, wide.confidence, wide.n) == (answer.value, 0.95, n)
    assert answer.among(1) is answer


def test_an_interval_of_clusters_is_stretched_like_a_normal_one():
    wide = Answer(0.5, 0.3, 0.7, 0.95, 100).among(10)
    factor = norm.ppf(1 - 0.005 / 2) / norm.ppf(0.975)
    assert (wide.low, wide.high) == pytest.approx((0.5 - factor * 0.2, 0.5 + factor * 0.2))
    assert Answer(0.9, 0.5, 1.0, 0.95, 100).among(10).high == 1.0


@pytest.mark.parametrize(
    "answer", [Answer(None, status="failed", reason="x"), Answer(0.5), Answer(0.5, 0.4, 0.6, None, 10), Answer(3.0, 2.0, 4.0, 0.95, 9)]
)
def test_what_is_no_share_with_an_interval_stays_as_it_is(answer: Answer):
    assert answer.among(10) is answer
