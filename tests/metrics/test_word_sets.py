"""Favourite words, favourite places and likeness within a set: known answers, and plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from antiimit_jax.metrics.baselines import baseline
from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.intervals import estimate
from antiimit_jax.metrics.resampling import Bootstrap, column_sums
from antiimit_jax.metrics.rows import control_rows
from antiimit_jax.metrics.word_sets import word_prior
from tests.metrics.test_control import results_of
from tests.metrics.test_graded import blocks

FIGURES = ("word_prior", "pair_icc", "first_position_bias")


def figures(items: ControlResults) -> dict:
    where = dict(stage="tuned", split="train", slices={"all": np.ones(len(items.k), bool)})
    rows = control_rows(items, **where, boot=Bootstrap(n_boot=0))
    return {row["metric"]: row for row in rows if row["metric"] in FIGURES}


def values(items: ControlResults) -> tuple[float | None, ...]:
    found = figures(items)
    return tuple(found[name]["value"] for name in FIGURES)


def shifted(items: ControlResults, by: np.ndarray, mass: float = 1.0) -> ControlResults:
    """The share of the word named first is `by` above what was asked."""
    return items.with_q(mass * (items.target + by[:, None] * np.array([1, -1])))


def middling(sets: int, distances: int = 2) -> ControlResults:
    """Items of two words that ask for 30% to 70%, so that shares can be moved either way."""
    items = blocks(np.random.default_rng(0), sets, distances=distances)
    apart = 0.05 * (1 + np.arange(len(items.k)) // 4 % distances)  # a block of four after another
    target = 0.5 + np.sign(items.target - 0.5 + 1e-12) * apart[:, None]
    target[:, 1] = 1 - target[:, 0]
    return results_of(target, target, word=items.word, cluster=items.cluster)


def favour(items: ControlResults, of_set: np.ndarray) -> np.ndarray:
    """By how much the first-named word gains where A gains `of_set` [sets] in its set."""
    a_first = np.where(items.word[:, 0] < items.word[:, 1], 1, -1)
    return a_first * of_set[items.cluster]


def test_perfect_answers_owe_nothing_and_are_all_alike():
    assert values(middling(30)) == (pytest.approx(0, abs=1e-12), None, pytest.approx(0, abs=1e-12))


def test_a_favourite_place_is_no_favourite_word():
    items = middling(30)
    prior, icc, place = values(shifted(items, np.full(len(items.k), 0.1)))
    assert (prior, place) == pytest.approx((0, 0.1), abs=1e-9) and icc is None


def test_favourite_words_are_no_favourite_place():
    items, of_set = middling(30), 0.2 * np.random.default_rng(1).uniform(-1, 1, 30)
    prior, icc, place = values(shifted(items, favour(items, of_set)))
    assert prior == pytest.approx(of_set.var(ddof=1)) and place == pytest.approx(0, abs=1e-12)
    assert icc == pytest.approx(1)


def test_a_step_function_has_no_favourites():
    prior, _, place = values(baseline(blocks(np.random.default_rng(2), 30, distances=2), "argmax"))
    assert (prior, place) == pytest.approx((0, 0), abs=1e-9)


def test_likeness_equals_a_plain_analysis_of_variance():
    items, rng = middling(12, distances=3), np.random.default_rng(3)
    given = shifted(items, rng.uniform(-0.2, 0.2, len(items.k)), mass=0.8)
    tvd = abs(given.q - given.target).sum(axis=1) / 2 + given.residual / 2
    by_set = tvd.reshape(12, 12)
    between = 12 * by_set.mean(axis=1).var(ddof=1)
    within = by_set.var(axis=1, ddof=1).mean()
    expected = (between - within) / (between + 11 * within)
    assert figures(given)["pair_icc"]["value"] == pytest.approx(expected)


def test_intervals_cover_the_variance_of_favourites():
    """Normal favourites with noise in every item, 38 sets as in an evaluation: SD .08."""
    items, rng, hits = middling(38), np.random.default_rng(4), []
    for _ in range(60):
        noise = 0.05 * rng.standard_normal(len(items.k))
        by = favour(items, 0.08 * rng.standard_normal(38)) + noise
        units = word_prior(shifted(items, np.clip(by, -0.29, 0.29)))
        drawn = Bootstrap(n_boot=400).draw(units.cluster)
        found = estimate(*units.statistics, column_sums(units.columns, drawn), drawn)
        hits.append(found.low <= 0.08**2 <= found.high)
    assert np.mean(hits) >= 0.88


def test_items_without_mass_leave_their_block_out():
    items, of_set = middling(30), np.full(30, 0.1)
    of_set[:15] = -0.1
    given = shifted(items, favour(items, of_set))
    q = given.q.copy()
    q[::4] *= 0.01  # one item of each block
    assert values(given.with_q(q))[0] is None
    q = given.q.copy()
    q[0] *= 0.01
    rows = figures(given.with_q(q))
    assert rows["word_prior"]["value"] == pytest.approx(0.1**2 * 30 / 29, rel=1e-3)
    assert rows["word_prior"]["n"] == len(items.k) - 1
