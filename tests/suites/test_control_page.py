"""What the page says of control, from rows made by hand and from answers made by rule."""

from __future__ import annotations

import numpy as np

from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.metrics.rows import control_rows
from antiimit_jax.results import make_row
from antiimit_jax.suites.control.lead import graded_word
from tests.metrics.test_control import results_of

SHARES = (0.35, 0.1)  # of the first word by name, two distances a set
HERE = ("heldout_words", "k=2")


def word_sets(count: int = 20):
    """Items of two words in both orders and both assignments of two distances, and their sets."""
    p = np.tile([share for s in SHARES for share in (s, 1 - s)], 2)  # of the first-named word
    target = np.tile(np.stack([p, 1 - p], 1), (count, 1))
    cluster = np.repeat(np.arange(count), len(p))
    named = np.repeat([[0, 1], [1, 0]], len(p) // 2, axis=0)
    word = 2 * cluster[:, None] + np.tile(named, (count, 1))
    return results_of(target, target, word=word, k=np.full(len(target), 2), cluster=cluster)


def rows_of(results, stage: str = "tuned", where: str = "k=2") -> list[dict]:
    slices = {where: np.ones(len(results.k), bool)}
    how = dict(stage=stage, split="heldout_words", slices=slices, boot=Bootstrap(n_boot=100))
    return control_rows(results, **how)


def figure_of(rows: list[dict], metric: str) -> dict:
    (row,) = [row for row in rows if row["metric"] == metric]
    return row


def row(value: float, low: float | None, high: float | None, **place) -> dict:
    """A row of the tuned model's TVD at HERE, unless `place` says otherwise."""
    known = dict(zip(("split", "slice"), HERE), stage="tuned", suite="control", metric="tvd_res")
    known |= dict(n=160, clusters=40)
    return make_row(value=value, ci_low=low, ci_high=high, **(known | place))


def test_a_step_is_not_called_graded_whatever_rounding_leaves_of_its_slope():
    items = word_sets()
    step = items.with_q(np.where(items.target > 0.5, 0.73, 0.27))
    gamma = figure_of(rows_of(step), "gamma")
    assert abs(gamma["value"]) < 1e-9 and gamma["ci_low"] is not None
    for slope in (gamma, row(2e-15, 2e-15, 2e-15), row(0.015, 0.01, 0.02)):
        assert graded_word(slope) == "graded control is not shown"
    assert graded_word(row(-1.0, -1.1, -0.9)) == "shares run against the request"
    assert graded_word(figure_of(rows_of(items), "gamma")) == "graded control is there"
