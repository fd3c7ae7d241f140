"""Several models on the same items: against one run's figures, by hand, and what is planted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from antiimit_jax.metrics.between_models import (
    METRICS,
    compared,
    doubling_weights,
    over_pairs,
    sign_flip,
)
from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.metrics.rows import control_rows, paired_rows
from tests.metrics.test_graded import answered, blocks

BOOT = Bootstrap(n_boot=200)


def made(
    items: ControlResults, rng: np.random.Generator, gamma: float, mass: float, sets: np.ndarray
) -> ControlResults:
    """Answers with this slope and mass; `sets` is what each word set adds to both."""
    extra = sets[items.cluster][:, None]
    log_q = (gamma + 0.2 * extra) * np.log(items.target) + 0.1 * rng.normal(size=items.q.shape)
    mass = mass + 0.02 * extra + 0.01 * rng.normal(size=(len(items.k), 1))
    return answered(items, log_q, np.clip(mass, 0, 1))


@pytest.fixture(scope="module")
def three() -> list[ControlResults]:
    rng = np.random.default_rng(0)
    items, sets = blocks(rng, 24), rng.normal(size=24)
    return [made(items, rng, gamma, mass, sets) for gamma, mass in ((0.4, 0.3), (0.5, 0.2), (1, 1))]


def test_one_model_and_two_have_the_figures_of_a_run(three):
    one, other, _ = three
    everything = {"all": np.ones(len(one.k), bool)}
    how = dict(split="train", slices=everything, boot=BOOT)
    rows = {row["metric"]: row for row in control_rows(one, stage="base", **how)}
    paired = {row["metric"]: row for row in paired_rows(one, other, stage="diff:a-b", **how)}
    for metric in METRICS:
        alone = compared([one], [1], metric, BOOT)
        row = rows[metric]
        assert (alone.value, alone.low, alone.high) == pytest.approx(
            (row["value"], row["ci_low"], row["ci_high"])
        )
        if metric in paired:  # tvd_cond is read on items that both answer
            both, row = compared([one, other], [1, -1], metric, BOOT), paired[metric]
            assert (both.value, both.low, both.high) == pytest.approx(
                (row["value"], row["ci_low"], row["ci_high"])
            )
    assert set(METRICS) - set(paired) == {"tvd_cond"}


def test_shares_are_compared_where_both_models_have_mass(three):
    one, other, _ = three
    silent = np.arange(len(other.k)) % 3 > 0
    part = other.with_q(np.where(silent[:, None], 1e-6 * other.q, other.q))
    found = compared([one, part], [1, -1], "tvd_cond", BOOT)
    heard = compared([one.take(~silent), other.take(~silent)], [1, -1], "tvd_cond", BOOT)
    assert found.value == pytest.approx(heard.value)
    nothing = compared([one, other.with_q(1e-6 * other.q)], [1, -1], "tvd_cond", BOOT)
    assert nothing.value is None and "no item" in nothing.note


def test_items_without_exchanged_percentages_have_no_slope(three):
    more = three[0].target[:, 0] > 0.5
    first = three[0].word[:, 0] == 0
    one, other = (items.take(more == first) for items in three[:2])
    found = compared([one, other], [1, -1], "gamma", BOOT)
    assert found.value is None and "exchanged" in found.note
    assert compared([one, other], [1, -1], "mass", BOOT).low is not None


def test_what_all_models_make_of_a_word_set_drops_out(three):
    weights = doubling_weights([1, 2, 4], [0, 0, 0])
    slope = compared(three, weights, "gamma", BOOT)
    alone = compared(three[:1], [1], "gamma", BOOT)
    assert slope.low < 0.3 < slope.high
    assert slope.high - slope.low < 0.5 * (alone.high - alone.low)


def test_weights_are_those_of_least_squares():
    sizes, figures = np.array([0.5, 1.5, 7, 70]), np.array([0.2, 0.5, 0.4, 0.9])
    slope, _ = np.polyfit(np.log2(sizes), figures, 1)
    assert doubling_weights(sizes, ["base"] * 4) @ figures == pytest.approx(slope)


def test_kinds_have_a_level_each_and_share_the_slope():
    weights = doubling_weights([1, 2, 1, 4, 8], ["base", "base", "chat", "chat", "other"])
    figures = np.array([0.1, 0.2, 5.0, 5.2, -9.0])
    assert weights @ figures == pytest.approx(0.1)
    assert weights[-1] == pytest.approx(0)  # alone of its kind
    assert doubling_weights([1, 4], ["base", "chat"]) is None
    assert doubling_weights([2, 2], ["base", "base"]) is None


def test_sign_flips_are_counted():
    values = [0.3, -0.1, 0.2, 0.05]
    sums = [np.dot(signs, values) for signs in itertools.product((1, -1), repeat=4)]
    assert sign_flip(values) == np.mean([total >= sum(values) - 1e-12 for total in sums])
    assert sign_flip([0.1] * 6) == 1 / 64
    assert (sign_flip([0.1]), sign_flip([-0.1]), sign_flip([0.0])) == (0.5, 1, 1)
    assert sign_flip([0.1, 0.2] * 10) == 2**-16  # drawn
    assert sign_flip([0.1, -0.1] * 10) == pytest.approx(0.588, abs=0.01)  # P(B(20, ½) ≥ 10)


def test_six_pairs_of_one_sign_are_told_from_nothing():
    alike = over_pairs([0.1, 0.2, 0.1, 0.3, 0.2, 0.1])
    assert (alike.low, alike.high) == pytest.approx((0.1, 0.3))
    assert over_pairs([0.1, 0.2, -0.1, 0.3, 0.2, 0.1]).low < 0
    with pytest.raises(ValueError, match="5 pairs; at least 6"):
        over_pairs([0.1] * 5)


def test_the_slope_between_models_is_covered():
    """The true slope per doubling is .1; word sets and what each model makes of them are drawn."""
    rng, hits, repeats = np.random.default_rng(1), 0, 120
    weights = doubling_weights([1, 2, 8], [0, 0, 0])
    for _ in range(repeats):
        items, sets = blocks(rng, 24), rng.normal(size=24)
        own = [sets + 0.5 * rng.normal(size=24) for _ in range(3)]
        models = [made(items, rng, 0.3 + 0.1 * x, 0.5, s) for x, s in zip((0, 1, 3), own)]
        found = compared(models, weights, "gamma", Bootstrap(n_boot=40))
        hits += found.low <= 0.1 <= found.high
    assert 0.9 <= hits / repeats <= 0.99
