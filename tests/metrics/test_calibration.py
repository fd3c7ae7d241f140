"""Calibration figures against scipy and against behaviours whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import linregress, pearsonr

from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.metrics.rows import control_rows, control_values
from tests.metrics.test_control import padded, results_of
from tests.metrics.test_graded import FIGURES as GRADED
from tests.metrics.test_word_sets import FIGURES as WORD_SETS

P = np.arange(1, 100) / 100


def two_words(p, c, m=1.0):
    return results_of(np.stack([p, 1 - p], 1), m * np.stack([c, 1 - c], 1))


def test_regression_and_correlation_against_scipy():
    results = padded(np.random.default_rng(0), 400)
    values, ready = control_values(results), results.take(results.readable)
    p, c = ready.target[:, 0], ready.shares[:, 0]
    line, curve = linregress(p, c), linregress(logit(p), logit(c))
    assert values["slope"] == pytest.approx(line.slope)
    assert values["intercept"] == pytest.approx(line.intercept)
    assert values["r2"] == pytest.approx(line.rvalue**2)
    assert values["corr"] == pytest.approx(pearsonr(p, c)[0])
    assert values["logit_slope"] == pytest.approx(curve.slope)
    assert values["mae_share"] == pytest.approx(abs(c - p).mean())
    assert values["first_position_bias"] == pytest.approx(c.mean() - p.mean())
    pairs = ready.take(ready.k == 2)
    p, c = pairs.target[:, 0], pairs.shares[:, 0]
    halves = [pearsonr(p[half], c[half])[0] for half in (p < 0.5, p > 0.5)]
    assert values["corr_within"] == pytest.approx(np.mean(halves))


def test_expected_calibration_error_by_loop():
    rng = np.random.default_rng(1)
    p = rng.integers(0, 101, size=300) / 100
    c = np.clip(p + rng.normal(0, 0.2, 300), 0, 1)
    expected = 0.0
    for b in range(10):
        inside = [i for i in range(300) if b == min(int(round(100 * p[i])) // 10, 9)]
        if inside:
            expected += len(inside) / 300 * abs(np.mean(c[inside]) - np.mean(p[inside]))
    assert control_values(two_words(p, c))["ece_share"] == pytest.approx(expected)


def test_bin_edges_are_safe_from_rounding():
    """1 - .9 is just below .1 in floats, but belongs to the bin [.1, .2)."""
    p = np.array([1 - 0.9, 0.15, 0.05])
    values = control_values(two_words(p, p + [0.3, -0.1, 0.05]))
    assert values["ece_share"] == pytest.approx((abs(0.3 - 0.1) + 0.05) / 3)


def test_step_function_has_no_graded_control():
    """On two words, uniform p, a step has skill .51, corr .87, corr_within 0."""
    step = np.where(P == 0.5, 0.5, np.where(P > 0.5, 0.75, 0.25))
    values = control_values(two_words(P, step))
    assert values["skill"] == pytest.approx(0.51, abs=0.005)
    assert values["corr"] == pytest.approx(0.87, abs=0.005)
    assert values["corr_within"] == 0
    assert values["skill_over_rank"] == pytest.approx(0, abs=0.03)


def test_step_similarity_and_collapse_at_their_ends():
    assert control_values(two_words(P, P))["step_similarity"] == 0
    collapsed = control_values(two_words(P, np.heaviside(np.round(P - 0.5, 9), 0.5)))
    assert collapsed["step_similarity"] == 1
    unequal = (P < 0.5) | (P > 0.5)
    named = np.mean(unequal & (np.maximum(P, 1 - P) <= 0.8 + 1e-9))
    assert collapsed["collapse_index"] == pytest.approx(named)
    assert collapsed["logit_slope"] > 5
    uniform = control_values(two_words(P, np.full(99, 0.5)))
    assert uniform["slope"] == uniform["corr"] == uniform["r2"] == uniform["logit_slope"] == 0
    assert uniform["collapse_index"] == 0
    assert uniform["intercept"] == pytest.approx(0.5)


def test_perfect_controller():
    values = control_values(two_words(P, P))
    wanted = {"slope": 1, "intercept": 0, "r2": 1, "corr": 1, "corr_within": 1, "logit_slope": 1}
    wanted |= {"ece_share": 0, "mae_share": 0, "tvd_cond": 0, "skill": 1, "skill_over_rank": 1}
    for name, value in wanted.items():
        assert values[name] == pytest.approx(value, abs=1e-9), name


def test_calibration_reads_readable_items_only():
    """Items with less than 5% of mass on their words do not move the shares, and are counted."""
    p = np.concatenate([P, P])
    c = np.concatenate([P, 1 - P])
    q = np.stack([c, 1 - c], 1) * np.repeat([0.05, 0.049], 99)[:, None]
    results = results_of(np.stack([p, 1 - p], 1), q)
    rows = control_rows(
        results,
        stage="s",
        split="train",
        slices={"all": np.ones(198, bool)},
        boot=Bootstrap(n_boot=50),
    )
    rows = {row["metric"]: row for row in rows}
    assert rows["slope"]["value"] == pytest.approx(1)
    assert rows["tvd_cond"]["value"] == pytest.approx(0, abs=1e-9)
    assert rows["coverage"]["value"] == 0.5
    assert rows["slope"]["n"] == rows["slope"]["clusters"] == 99
    assert rows["tvd_res"]["n"] == 198


@pytest.mark.parametrize(
    ("p", "missing"),
    [
        (np.full(40, 0.3), ("slope", "corr", "r2", "logit_slope", "intercept", "corr_within")),
        (np.linspace(0.01, 0.49, 40), ("corr_within",)),
        (np.tile([0.0, 1.0], 20), ("logit_slope", "corr_within", "skill")),
        (np.tile([0.25, 0.75], 20), ("skill_over_rank", "corr_within")),
    ],
)
def test_what_cannot_be_had_is_null_with_a_note(p, missing):
    results = two_words(p, p)
    slices = {"all": np.ones(40, bool)}
    for row in control_rows(
        results, stage="s", split="train", slices=slices, boot=Bootstrap(n_boot=50)
    ):
        if row["metric"] in missing:
            assert row["value"] is None and row["ci_low"] is None and row["note"], row
        elif row["metric"] not in ("step_similarity", "skill_over_rank", *GRADED, *WORD_SETS):
            assert row["value"] is not None, row
