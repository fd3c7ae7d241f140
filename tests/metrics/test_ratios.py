"""Fieller's interval of a ratio holds exactly the ratios that are not rejected."""

from __future__ import annotations

import numpy as np
import pytest

from antiimit_jax.metrics.intervals import Estimate
from antiimit_jax.metrics.ratios import fieller


def figure(value: float, half: float) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


@pytest.mark.parametrize("top, bottom", [((0.5, 0.2), (1, 0.3)), ((-0.1, 0.3), (0.8, 0.7))])
def test_the_ends_are_where_a_ratio_is_just_not_rejected(top, bottom):
    found = fieller(figure(*top), figure(*bottom))
    assert found.value == pytest.approx(top[0] / bottom[0])
    ratios = np.linspace(-30, 30, 600_001)
    accepted = abs(top[0] - ratios * bottom[0]) <= np.hypot(top[1], ratios * bottom[1])
    assert [found.low, found.high] == pytest.approx(
        [ratios[accepted].min(), ratios[accepted].max()], abs=1e-3
    )


def test_the_interval_covers_the_ratio_of_noisy_figures():
    rng = np.random.default_rng(0)
    covered = []
    for top, bottom in zip(rng.normal(0.4, 0.1, 4000), rng.normal(0.8, 0.15, 4000)):
        found = fieller(figure(top, 0.196), figure(bottom, 0.294))
        covered.append(found.low is None or found.low <= 0.5 <= found.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_there_is_no_ratio_to_what_may_be_zero():
    assert fieller(figure(0.5, 0.1), figure(0.2, 0.3)).value is None
    assert "not clearly above 0" in fieller(figure(0.5, 0.1), Estimate(value=1.0)).note
    missing = Estimate(value=None, note="nothing measured")
    assert fieller(missing, figure(1, 0.1)) == missing
    without = fieller(Estimate(value=0.5, note="few clusters"), figure(1, 0.1))
    assert (without.value, without.low, without.note) == (0.5, None, "few clusters")
