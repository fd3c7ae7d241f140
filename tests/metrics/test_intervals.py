"""Intervals against scipy, exact tests and resampling done the slow way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from antiimit_jax.metrics import baselines, calibration, control
from antiimit_jax.metrics.baselines import lazy_columns
from antiimit_jax.metrics.calibration import calibration_columns
from antiimit_jax.metrics.control import item_metrics
from antiimit_jax.metrics.intervals import Statistic, estimate, mean, median, trimmed_mean, wilson
from antiimit_jax.metrics.resampling import column_sums, resample
from antiimit_jax.metrics.rows import control_values
from tests.metrics.test_control import padded


def mean_interval(x, resampling, kind="smooth"):
    return estimate(
        mean("m", "x", kind=kind),
        column_sums({"x": x, "n": np.ones(len(x))}, resampling),
        resampling,
    )


def finished(statistic, sums, draw):
    with np.errstate(invalid="ignore"):
        return statistic.finish(*(sums.resampled[column][draw] for column in statistic.columns))


@pytest.mark.parametrize("two_way", [False, True])
def test_weighted_sums_equal_figures_of_resampled_items(two_way):
    """Every figure of every resample, computed anew on items repeated as their weight says."""
    rng = np.random.default_rng(0)
    results = padded(
        rng, 240, shot_set=rng.integers(-1, 22, size=240) if two_way else np.full(240, -1)
    )
    results = results.take(results.readable)
    resampling = resample(results.cluster, results.shot_set, n_boot=4, seed=3)
    columns = item_metrics(results) | lazy_columns(results) | calibration_columns(results)
    columns |= {"readable": np.ones(len(results.k))}
    sums = column_sums(columns, resampling)
    sets = np.where(resampling.shot_set >= 0, resampling.shot_set, 0)
    for draw in range(4):
        weight = resampling.cluster_weights[draw][resampling.cluster]
        if two_way:
            by_set = resampling.set_weights[draw][sets]
            weight = weight * np.where(resampling.shot_set >= 0, by_set, 1)
        repeated = np.repeat(np.arange(len(weight)), weight.astype(int))
        values = control_values(results.take(repeated))
        statistics = (
            *control.ON_ALL,
            *control.ON_READABLE,
            *calibration.ON_READABLE,
            baselines.ON_ALL[0],
        )
        for statistic in statistics:
            assert finished(statistic, sums, draw) == pytest.approx(values[statistic.name]), (
                statistic.name
            )
        fixed = 1 - columns["tvd_res"][repeated].mean() / columns["tvd_rank_only"][repeated].mean()
        assert finished(baselines.ON_ALL[1], sums, draw) == pytest.approx(fixed)


def test_influences_leave_levels_out():
    rng = np.random.default_rng(1)
    cluster, shot_set, x = rng.integers(0, 25, 200), rng.integers(-1, 8, 200), rng.random(200)
    sums = column_sums({"x": x}, resample(cluster, shot_set, n_boot=10))
    assert sums.total["x"] == pytest.approx(x.sum())
    assert sums.without_cluster["x"] == pytest.approx([x[cluster != c].sum() for c in range(25)])
    assert sums.without_set["x"] == pytest.approx([x[shot_set != s].sum() for s in range(8)])
    cells = sorted({(c, s) for c, s in zip(cluster, shot_set) if s >= 0})
    gone = [x[~((cluster == c) & (shot_set == s))].sum() for c, s in cells]
    assert sums.without_cell["x"] == pytest.approx(gone)


VARIANCE = Statistic(
    name="variance", columns=("x", "xx", "n"), finish=lambda x, xx, n: xx / n - (x / n) ** 2
)


@pytest.mark.parametrize(("statistic", "plain"), [(mean("m", "x"), np.mean), (VARIANCE, np.var)])
def test_bca_agrees_with_scipy(statistic, plain):
    """A skewed and a biased figure; many clusters, so that the t quantile hardly matters."""
    x = np.random.default_rng(0).lognormal(sigma=0.7, size=300)
    resampling = resample(np.arange(300), n_boot=20_000)
    sums = column_sums({"x": x, "xx": x * x, "n": np.ones(300)}, resampling)
    ours = estimate(statistic, sums, resampling)
    low, high = stats.bootstrap(
        (x,), plain, n_resamples=8000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours.low == pytest.approx(low, abs=0.04 * (high - low))
    assert ours.high == pytest.approx(high, abs=0.04 * (high - low))


def test_few_clusters_invert_the_sign_flip_test():
    """The exact two-sided test keeps a mean just inside the interval and rejects one outside."""
    x = np.random.default_rng(5).gamma(2, size=8)
    signs = np.array(list(itertools.product([-1, 1], repeat=8)))

    def p_value(centre):
        return np.mean(abs(signs @ (x - centre)) >= abs((x - centre).sum()) - 1e-12)

    figure = mean_interval(x, resample(np.arange(8)))
    assert p_value(figure.low + 1e-6) > 0.05 >= p_value(figure.low - 1e-6)
    assert p_value(figure.high - 1e-6) > 0.05 >= p_value(figure.high + 1e-6)


def test_sign_flip_covers_symmetric_values_exactly():
    """A mean over 7 clusters of unequal size with normal deviations, which is a ratio."""
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(7), [1, 2, 3, 4, 5, 6, 7])
    resampling, hits = resample(cluster), 0
    for _ in range(1000):
        figure = mean_interval(rng.normal(size=7)[cluster] + rng.normal(size=28), resampling)
        hits += figure.low <= 0 <= figure.high
    assert 0.93 <= hits / 1000 <= 0.98


def test_fewer_than_six_clusters_have_no_interval():
    figure = mean_interval(np.arange(20.0), resample(np.arange(20) % 5))
    assert figure.value == 9.5 and figure.low is None and "5 of the 6 clusters" in figure.note


def test_wilson_against_scipy():
    for passes, n in ((0, 10), (7, 10), (190, 200), (200, 200)):
        theirs = stats.binomtest(passes, n).proportion_ci(method="wilson")
        assert wilson(passes / n, n) == pytest.approx((theirs.low, theirs.high))
    x = np.repeat([1.0, 0.0], [190, 10])
    figure = mean_interval(x, resample(np.arange(200), n_boot=50), kind="proportion")
    assert (figure.low, figure.high) == pytest.approx((0.910, 0.973), abs=5e-4)


def test_clustered_proportions():
    """Items alike within clusters count as clusters; items that all pass leave room for doubt."""
    cluster = np.repeat(np.arange(50), 4)
    alike = np.repeat(np.arange(50) < 35, 4).astype(float)
    figure = mean_interval(alike, resample(cluster, n_boot=4000), kind="proportion")
    theirs = stats.binomtest(35, 50).proportion_ci(method="wilson")
    assert (figure.low, figure.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)
    sure = mean_interval(np.ones(200), resample(cluster), kind="proportion")
    assert sure.high == 1 and sure.low == pytest.approx(wilson(1, 50, stats.t.ppf(0.975, 49))[0])


def test_two_factors_add_their_variances():
    """Fully crossed additive effects: the standard error of the grand mean is known."""
    rng = np.random.default_rng(2)
    clusters, sets = np.divmod(np.arange(40 * 24), 24)
    a, b = rng.normal(0, 1, 40), rng.normal(0, 0.8, 24)
    x = a[clusters] + b[sets] + rng.normal(0, 0.5, len(clusters))
    error = np.sqrt(a.var(ddof=1) / 40 + b.var(ddof=1) / 24)
    both = mean_interval(x, resample(clusters, sets, n_boot=10_000))
    assert (both.high - both.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.06)
    one = mean_interval(x, resample(clusters))
    assert (one.high - one.low) < 0.8 * (both.high - both.low)


def test_noise_of_items_is_not_counted_thrice():
    """No effect of either factor: the pigeonhole draws would be too wide by more than half."""
    rng = np.random.default_rng(3)
    cluster, sets, x = np.repeat(np.arange(50), 4), rng.integers(0, 8, 200), rng.normal(size=200)
    figure = mean_interval(x, resample(cluster, sets))
    assert (figure.high - figure.low) / (2 * 1.96 / np.sqrt(200)) == pytest.approx(1.15, abs=0.25)


def test_few_shot_sets_are_noted():
    figure = mean_interval(
        np.random.default_rng(0).random(90), resample(np.arange(90) // 3, np.arange(90) % 3)
    )
    assert figure.low is not None and "3 shot sets not included" in figure.note


def test_undefined_resamples():
    never = Statistic(name="x", columns=("x",), finish=lambda x: np.where(x > 50, np.nan, x))
    resampling = resample(np.arange(60), n_boot=200)
    sums = column_sums({"x": np.random.default_rng(0).random(60) * 1.6}, resampling)
    figure = estimate(never, sums, resampling)
    assert figure.value is not None and figure.low is None and "undefined in" in figure.note


def test_median_and_trimmed_mean():
    rng = np.random.default_rng(4)
    values, truth, hits = rng.lognormal(size=(300, 120)), 1.0, 0
    resampling = resample(np.arange(120) // 2, n_boot=500)
    for x in values:
        figure = median(x, resampling)
        assert figure.value == np.median(x)
        hits += figure.low <= truth <= figure.high
    assert 0.92 <= hits / 300 <= 0.985
    trimmed = trimmed_mean(values[0], resampling)
    assert trimmed.value == pytest.approx(stats.trim_mean(values[0], 0.1))
    winsorised = stats.mstats.winsorize(values[0], (0.1, 0.1)).data
    error = winsorised.std(ddof=1) / (0.8 * np.sqrt(120))  # Tukey and McLaughlin
    assert (trimmed.high - trimmed.low) / (2 * 1.98 * error) == pytest.approx(1, abs=0.2)


def test_same_seed_same_interval():
    x = np.random.default_rng(0).random(60)
    draw = lambda seed: mean_interval(x, resample(np.arange(60), seed=seed))
    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_kind_of_interval_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="of kind 'slope', not of .*jackknife"):
        mean("mean", "x", kind="slope")
