"""The parts of the seed score, against other programs and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from antiimit_jax.metrics.intervals import jackknife
from antiimit_jax.metrics.seed_words import components, dependence, distinct, edits, kendall


def test_kendall_is_that_of_scipy_without_ties_and_counts_ties_as_no_order():
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y = rng.normal(size=(2, 7))
        assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)
    assert kendall(np.ones(4), np.arange(4)) == 0
    assert kendall(np.array([0, 0, 1]), np.arange(3)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "a, b, count, apart",
    [
        ("kitten", "sitting", 3, True),
        ("abate", "abatement", 4, False),
        ("river", "rover", 1, False),
        ("", "zebu", 4, True),
    ],
)
def test_edits_and_common_beginnings_tell_roots_apart(a, b, count, apart):
    assert edits(a, b) == edits(b, a) == count
    assert distinct(a, b) == apart


@pytest.mark.parametrize("n", [32, 48])
def test_dependence_is_the_share_of_seeds_that_can_be_told_from_their_words(n):
    own = np.kron(np.eye(n), [0.5, 0.5])
    assert dependence(own) == pytest.approx(1)
    assert dependence(own[:1].repeat(n, axis=0)) == pytest.approx(0, abs=1e-12)
    assert dependence(np.zeros((n, 3))) == 0
    halves = own[np.arange(n) % 2]
    assert dependence(halves) == pytest.approx(1 / (n - 1))


def test_jackknife_of_a_mean_is_students_interval():
    x = np.random.default_rng(1).normal(size=400)
    found = jackknife(x.mean(), (x.sum() - x) / (len(x) - 1))
    low, high = stats.t.interval(0.95, len(x) - 1, x.mean(), x.std(ddof=1) / np.sqrt(len(x)))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3)
    assert jackknife(1.0, np.ones(5)).low is None


def test_the_first_word_is_told_on_odd_levels_and_scored_on_the_others():
    percents = range(10, 100, 10)
    p = np.array(percents) / 100
    q = np.zeros((2, 9, 2))
    q[0, :, 0], q[1, :, 0] = p, 1 - p
    q[0, 1::2, 0] = p[1::2][::-1]  # plain requests, even levels: the other way round
    q[..., 1] = 1 - q[..., 0]
    found = components(q, ("abate", "zebu"), percents)
    assert found["order"] == 0 and found["calibration"] < 1
    q[0, :, 0], q[0, :, 1] = p, 1 - p
    assert components(q, ("abate", "zebu"), percents)["order"] == 1
