"""95% intervals for figures that are functions of sums over items.

A `Statistic` names per-item columns and says how their sums make a figure; `resampling` gives those
sums under resampled clusters. Method, by the number of clusters G:
  G >= 20       BCa bootstrap (Efron 1987) over clusters, B = 2000, with the levels widened to a t
                quantile of G - 1 degrees of freedom (Hesterberg 2015): without that a mean over 30
                clusters is covered about 93%.
  6 <= G < 20   typical values (Hartigan 1969): order statistics of the figure on subsets of
                clusters. For a mean or a ratio this inverts the sign-flip test, so it is exact
                where deviations are symmetric; other figures get the same construction as an
                approximation.
  G < 6         none: the sign-flip test cannot reject at 5%.
Proportions (an item passes or not): Wilson at n_eff = p(1 - p) / resampled variance, at most n, and
at n_eff = G where all items agree, with a t quantile; plain Wilson where each item is its own
cluster. Slopes, correlations and preferences of graded control (`graded`): jackknife and Student's
t with Satterthwaite's degrees of freedom 2G / (kurtosis - 1), since a few sets with extreme shares
weigh most; correlations on Fisher's z, standard deviations on the square root, which keep their
bounds. Where slopes differ between sets BCa covered .88 to .93 and this .93 to .97 (G = 20, 33, 60;
`tests/metrics/test_graded.py`). `ece_share` is a sum of absolute values, which resampling noise can
only raise: its interval is reflected (2 value - resample). Medians: Woodruff (1952), the interval
of the share of items below the median carried to the values. Trimmed means: Tukey and McLaughlin
(1963), the interval of the winsorised mean over the share of items kept. Shot sets as a second
factor: see `resampling`.

Coverage, from `python -m tests.metrics.test_coverage`, 4 items a cluster; cells outside .93-.97 are
those to distrust.
  mean of TVD-like values (error .005)            G = 8    12    20    30    50   100
    skewed (skewness 1.2)                           .93   .94   .95   .95   .94   .96
    long tail (lognormal, skewness 4)               .88   .88   .92   .92   .93   .94
    5% of items refused (value near 1)              .81   .91   .97   .95   .95   .96
    10% of clusters refused                         .56   .72   .88   .95   .96   .96
  all control figures, 3% of items refused (error .01)
    G = 12    tvd_res .89, kl_fwd kl_mass kl_rev js_bits residual mass .76, the others .92-.99
    G = 30    ece_share .90, the others .92-.98
    G = 100   .93-.97
    G = 40 crossed with 8 shot sets, of any spread: ece_share .88, the others .93-1.0
So: below 20 clusters, means that rare refusals drive are covered far too seldom, since most samples
hold no refusal at all and nothing in the data can say so; read the median, the trimmed mean and
`coverage` there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy import stats

from antiimit_jax.metrics.resampling import (
    FEW_CLUSTERS,
    LEAST_CLUSTERS,
    Resampling,
    Sums,
    column_sums,
    resample,
)

MAX_UNDEFINED = 0.05  # share of resamples in which a figure may be undefined
NOT_COMPUTED = "interval not computed on this slice"


Kind = Literal["smooth", "proportion", "biased", "jackknife"]


class Scale(NamedTuple):
    """A scale on which an interval is computed, and its inverse, which keeps the bounds."""

    to: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


LINEAR = Scale(np.asarray, np.asarray)
# Of 1 itself, which has no Fisher z, the interval is 1.
FISHER_Z = Scale(lambda r: np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15)), np.tanh)
ROOT = Scale(lambda x: np.sqrt(np.maximum(x, 0)), lambda root: np.maximum(root, 0) ** 2)


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """A figure from column sums: `finish(*sums)`, elementwise, NaN where it cannot be had."""

    name: str
    columns: tuple[str, ...]
    finish: Callable[..., np.ndarray]
    kind: Kind = "smooth"
    scale: Scale = LINEAR  # of a jackknife; that of a difference is always linear
    missing: str = "no item to measure it on"  # the note of a null value

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"{self.name} is of kind {self.kind!r}, not of {get_args(Kind)}")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its 95% interval; what cannot be had is None and `note` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str | None = None


def estimate(
    statistic: Statistic, sums: Sums, resampling: Resampling | None, against: Sums | None = None
) -> Estimate:
    """The figure with its interval; `resampling=None` gives the value alone.

    With `against`, sums of the same units answered otherwise, it is the paired difference.
    """
    known = [sums] if against is None else [sums, against]

    def of(part: str) -> np.ndarray:
        figure, *other = (_finish(statistic, getattr(each, part)) for each in known)
        return figure - other[0] if other else figure

    value = float(of("total"))
    if not np.isfinite(value):
        return Estimate(value=None, note=statistic.missing)
    if resampling is None:
        return Estimate(value=value, note=NOT_COMPUTED)
    n, clusters = resampling.n, resampling.clusters
    kind = statistic.kind
    if against is not None and kind in ("proportion", "biased"):
        kind = "smooth"
    if kind == "proportion" and clusters == n and not resampling.two_way:
        return _estimate(value, wilson(value, n), resampling.note)
    if clusters < LEAST_CLUSTERS:
        return Estimate(value=value, note=_too_few(clusters))
    draws = of("resampled")  # [B]
    undefined = 1 - np.isfinite(draws).mean()
    if undefined > MAX_UNDEFINED:
        note = f"no interval: undefined in {undefined:.0%} of the resamples"
        return Estimate(value=value, note=note)
    parts = ("without_cluster", "without_set", "without_cell")
    without = [of(part) for part in parts]
    by_cluster, by_set, by_cell = map(_influence, without)
    excess = resampling.excess(by_cluster, by_set, by_cell)
    draws = value + excess * (draws[np.isfinite(draws)] - value)
    note = resampling.note
    if kind == "proportion":
        ends = _clustered_wilson(value, draws, n, clusters)
    elif np.ptp(draws) < 1e-12:
        ends = (value, value)
    elif kind == "jackknife":
        scale = statistic.scale if against is None else LINEAR
        on_scale = [_influence(scale.to(figures)) for figures in without[:2]]
        ends = scale.back(_jackknife_t(scale.to(value), *on_scale))
    elif kind == "biased":
        ends = _reflected(value, draws)
    elif clusters < FEW_CLUSTERS:
        ends = _typical_values(draws)
        note = "; ".join(filter(None, (f"sign-flip interval, {clusters} clusters", note)))
    else:
        ends = _expanded_bca(value, draws, np.concatenate([by_cluster, by_set]), clusters)
    return _estimate(value, ends, note)


def jackknife(value: float, without: np.ndarray) -> Estimate:
    """A figure with Student's interval, from the figure without each of G >= 6 clusters, [G]."""
    if len(without) < LEAST_CLUSTERS:
        return Estimate(value=value, note=_too_few(len(without)))
    return _estimate(value, _jackknife_t(value, _influence(without), np.zeros(0)), None)


def wilson(p: float, n: float, quantile: float = stats.norm.ppf(0.975)) -> tuple[float, float]:
    """Wilson's score interval of a proportion p of n independent items."""
    squared = quantile**2
    centre = (p + squared / (2 * n)) / (1 + squared / n)
    half = quantile / (1 + squared / n) * np.sqrt(p * (1 - p) / n + squared / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def median(values: np.ndarray, resampling: Resampling | None) -> Estimate:
    """Median of values [n] with Woodruff's interval."""
    if len(values) == 0:
        return Estimate(value=None, note="no item to measure it on")
    value = float(np.median(values))
    share = _mean_of(np.asarray(values <= value, float), resampling)
    if share.low is None:
        return Estimate(value=value, note=share.note)
    levels = np.clip(np.array([share.low, share.high]) - share.value + 0.5, 0, 1)
    ends = np.quantile(values, levels, method="inverted_cdf")
    return _estimate(value, (min(value, ends[0]), max(value, ends[1])), share.note)


def trimmed_mean(values: np.ndarray, resampling: Resampling | None, cut: float = 0.1) -> Estimate:
    """Mean of values [n] without the share `cut` at either end (Tukey and McLaughlin)."""
    if len(values) == 0:
        return Estimate(value=None, note="no item to measure it on")
    value = float(stats.trim_mean(values, cut))
    dropped = int(cut * len(values))
    ordered = np.sort(values)
    winsorised = _mean_of(np.clip(values, ordered[dropped], ordered[-1 - dropped]), resampling)
    if winsorised.low is None:
        return Estimate(value=value, note=winsorised.note)
    ends = (np.array([winsorised.low, winsorised.high]) - winsorised.value) / (1 - 2 * cut) + value
    return _estimate(value, ends, winsorised.note)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, NaN where the denominator is not clearly above 0."""
    positive = denominator > 1e-12
    return np.where(positive, numerator / np.where(positive, denominator, 1), np.nan)


def mean(name: str, column: str, *, kind: str = "smooth") -> Statistic:
    """The mean of a column over the items, which a column of ones named "n" counts."""
    return Statistic(name=name, columns=(column, "n"), finish=ratio, kind=kind)


def clustered_mean(
    values: np.ndarray, cluster: np.ndarray, kind: str = "smooth"
) -> tuple[float, float, float]:
    """Mean over items [n] and the ends of its interval over clusters; NaN where none can be had."""
    found = _mean_of(values, resample(cluster, n_boot=1000), kind)
    if found.low is None:
        return found.value, float("nan"), float("nan")
    return found.value, found.low, found.high


def _mean_of(values: np.ndarray, resampling: Resampling | None, kind: str = "smooth") -> Estimate:
    sums = column_sums({"x": values, "n": np.ones(len(values))}, resampling)
    return estimate(mean("mean", "x", kind=kind), sums, resampling)


def _too_few(clusters: int) -> str:
    return f"{clusters} of the {LEAST_CLUSTERS} clusters that a 95% interval needs"


def _finish(statistic: Statistic, sums: Mapping[str, np.ndarray]) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(statistic.finish(*(sums[column] for column in statistic.columns)))


def _estimate(value: float, ends: Sequence[float], note: str | None) -> Estimate:
    return Estimate(value=value, low=float(ends[0]), high=float(ends[1]), note=note)


def _clustered_wilson(p: float, draws: np.ndarray, n: int, clusters: int) -> tuple[float, float]:
    """Wilson at the effective sample size that the spread over resamples implies."""
    variance = draws.var()
    if p in (0.0, 1.0):
        effective = clusters
    else:
        effective = min(n, p * (1 - p) / variance) if variance > 0 else n
    return wilson(p, effective, stats.t.ppf(0.975, clusters - 1))


def _typical_values(draws: np.ndarray) -> tuple[float, float]:
    """Order statistics r and N + 1 - r: the truth lies in each of the N + 1 gaps alike."""
    rank = max(1, int(0.025 * (len(draws) + 1)))
    ordered = np.sort(draws)
    return ordered[rank - 1], ordered[-rank]


def _reflected(value: float, draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return max(0.0, 2 * value - high), max(0.0, 2 * value - low)


def _influence(figures: np.ndarray) -> np.ndarray:
    """Jackknife influence [levels] of a factor's levels; 0 where the figure needs that level.

    `figures` [levels] are without one level each.
    """
    known = np.isfinite(figures)
    centre = figures[known].mean() if known.any() else 0.0
    return np.where(known, centre - figures, 0)


def _jackknife_t(value: float, by_cluster: np.ndarray, by_set: np.ndarray) -> np.ndarray:
    """Jackknife variance and Student's t, its degrees of freedom by the influences' kurtosis."""
    levels = [factor for factor in (by_cluster, by_set) if len(factor) > 1]
    variance = sum((len(f) - 1) / len(f) * (f**2).sum() for f in levels)
    squares = (by_cluster**2).mean()
    kurtosis = (by_cluster**4).mean() / squares**2 if squares > 0 else 3.0
    freedom = min(len(by_cluster) - 1, 2 * len(by_cluster) / max(kurtosis - 1, 1e-9))
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    return np.array([value - half, value + half])


def _expanded_bca(
    value: float, draws: np.ndarray, influence: np.ndarray, clusters: int
) -> tuple[float, float]:
    """Bias-corrected and accelerated percentiles, levels widened to a t quantile.

    The acceleration is the estimate's skewness over 6; the third cumulants of independent factors
    add.
    """
    squares = (influence**2).sum()
    acceleration = (influence**3).sum() / (6 * squares**1.5) if squares > 0 else 0.0
    below = ((draws < value).mean() + (draws <= value).mean()) / 2
    edge = 1 / (len(draws) + 1)
    bias = stats.norm.ppf(np.clip(below, edge, 1 - edge))
    wide = stats.t.ppf(0.975, clusters - 1) * np.sqrt(clusters / (clusters - 1))
    shifted = bias + np.array([-wide, wide])
    levels = stats.norm.cdf(bias + shifted / np.maximum(1 - acceleration * shifted, 1e-3))
    return tuple(np.quantile(draws, np.clip(levels, edge, 1 - edge)))
