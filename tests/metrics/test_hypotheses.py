"""Figures over seeds, Bayes' rule for a rate, and Holm's method, against numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from antiimit_jax.metrics.hypotheses import (
    holm,
    less,
    mean_apart,
    over_seeds,
    p_above,
    posterior,
    posterior_above,
)
from antiimit_jax.metrics.intervals import Estimate


def of(value, half=None) -> Estimate:
    if half is None:
        return Estimate(value=value, note="too few")
    return Estimate(value=value, low=value - half, high=value + half)


def test_one_seed_keeps_its_interval_and_equal_seeds_that_of_their_items():
    assert over_seeds([of(0.4, 0.1)]) == of(0.4, 0.1)
    same = over_seeds([of(0.4, 0.1)] * 3)
    assert (same.value, same.low, same.high) == pytest.approx((0.4, 0.3, 0.5))


def test_seeds_that_differ_widen_by_students_t():
    found = over_seeds([of(0.0, 0.3), of(1.0, 0.3), of(2.0, 0.3)])
    of_seeds = 4.302652730 / math.sqrt(3)  # t of 2 degrees of freedom, standard deviation 1
    assert found.value == 1
    assert found.high - 1 == pytest.approx(math.hypot(0.3, of_seeds))
    assert 1 - found.low == pytest.approx(found.high - 1)


def test_the_interval_over_seeds_covers_the_truth():
    """Items and seeds drawn anew 2,000 times, both normal: nearly 95%, seldom fewer."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        items = rng.normal(0, 0.1)
        found = over_seeds([of(items + rng.normal(0, 0.1), 0.196) for _ in range(3)])
        covered += found.low <= 0 <= found.high
    assert 0.94 <= covered / 2000 <= 0.995


def test_what_is_missing_stays_missing_with_its_note():
    nothing = Estimate(value=None, note="no item")
    assert over_seeds([of(1.0, 0.1), nothing]).note == "no item"
    assert over_seeds([of(1.0, 0.1), of(2.0)]) == Estimate(value=1.5, note="too few")
    assert less(of(1.0, 0.1), nothing) == Estimate(value=None, note="no item")
    assert less(of(1.0), of(0.5, 0.1)) == Estimate(value=0.5, note="too few")


def test_a_mean_of_figures_of_other_items_has_no_width_from_how_far_apart_they_are():
    both = mean_apart([of(0.9, 0.03), of(0.1, 0.04)])
    assert (both.value, both.low, both.high) == pytest.approx((0.5, 0.475, 0.525))
    assert mean_apart([of(0.9, 0.03), of(0.1)]).low is None
    assert mean_apart([of(0.9), of(None)]).value is None


def test_a_difference_adds_half_widths_as_squares():
    found = less(of(1.0, 0.3), of(0.2, 0.4))
    assert (found.value, found.low, found.high) == pytest.approx((0.8, 0.3, 1.3))


@pytest.mark.parametrize(
    "passes, n, least, after",
    [
        (98, 100, 0.0, 0.999),
        (95, 100, 0.0, 0.991),
        (90, 100, 0.0, 0.681),
        (190, 200, 0.0, 0.992),
        (98, 100, 0.5, 0.998),
        (95, 100, 0.5, 0.981),
        (90, 100, 0.5, 0.502),
        (190, 200, 0.5, 0.983),
    ],
)
def test_the_probability_of_a_rate_after_passes(passes, n, least, after):
    how = dict(boundary=0.95, prior=0.9, least=least)
    assert posterior(passes, n, **how) == pytest.approx(after, abs=6e-4)


def test_an_interval_that_ends_at_the_bound_has_the_level_of_one_side():
    assert p_above(of(0.7, 0.2), 0.5) == pytest.approx(0.025)
    assert p_above(of(0.5, 0.2), 0.5) == pytest.approx(0.5)


def test_an_interval_of_no_width_leaves_no_doubt():
    assert p_above(of(1.0, 0.0), 0.5) == 0 and p_above(of(0.5, 0.0), 0.5) == 1


def test_holm_stops_at_the_first_that_is_kept():
    p = {"a": 0.001, "b": 0.02, "c": 0.012}
    assert holm(p, 0.05) == {"a", "b", "c"}
    assert holm(p) == {"a", "b", "c"}  # .0083, .0125, .025
    assert holm({"a": 0.001, "b": 0.02, "c": 0.014}) == {"a"}
    assert holm({}) == frozenset()


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_figure_moves_the_probability_by_its_likelihood_in_either_region(scale):
    error, n, least, prior = 0.05 / stats.norm.ppf(0.975), 30, 0.02, 0.6
    at = np.linspace(-4, 4, 800_001)
    before = stats.norm(0, scale * error * math.sqrt(n)).pdf(at)
    likelihood = stats.norm(0.06, error).pdf(at)
    above = at > least
    mean = lambda region: (likelihood * before)[region].sum() / before[region].sum()
    odds = prior / (1 - prior) * mean(above) / mean(~above)
    found = posterior_above(of(0.06, 0.05), least, prior=prior, n=n, scale=scale)
    assert found == pytest.approx(odds / (1 + odds), abs=1e-4)


def test_a_figure_far_off_settles_a_hypothesis():
    how = dict(prior=0.8, n=40)
    assert posterior_above(of(2.0, 0.01), 0.0, **how) > 0.999
    assert posterior_above(of(-2.0, 0.01), 0.0, **how) < 0.001
    assert posterior_above(of(0.0, 0.1), 0.0, **how) == pytest.approx(0.8)
