"""Resampling whole clusters: weights drawn once, and sums of per-item columns under all of them.

Every figure of `metrics` is a function of sums over items, so one matrix product serves all
resamples of all figures. The weights depend on the design and the seed only: two stages measured on
the same items are resampled alike.

A factor with 20 levels or more is drawn as in the bootstrap (levels with replacement). One with 6
to 19 is drawn as random non-empty subsets, all 2^G - 1 of them where these are few: Hartigan's
(1969) typical values, whose tails fit few levels. One with fewer is not drawn.

A second factor (shot sets, crossed with clusters) is drawn independently and the weights are
multiplied: the two-way "pigeonhole" bootstrap (Owen 2007). An item's own noise then counts up to
three times, once in either factor and once in the product; `Resampling.excess` says by how much
resampled figures spread too widely, from jackknife influences A of clusters (c), shot sets (s) and
cells (e). With weight variances v the resampled variance is v_c A_c + v_s A_s + v_c v_s A_e, and
what it should be is v_c A_c + v_s A_s - min(v_c, v_s) A_e (Cameron, Gelbach and Miller 2011), at
least the greater of the first two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

FEW_CLUSTERS = 20  # below: subsets instead of the bootstrap
LEAST_CLUSTERS = 6  # below: no two-sided 95% sign-flip interval exists, 2 / 2^5 > .05
Table = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Column sums over all items, over each resample, and with parts of the items left out."""

    total: Table  # name -> scalar
    resampled: Table = field(default_factory=dict)  # name -> [B]
    without_cluster: Table = field(default_factory=dict)  # name -> [clusters]
    without_set: Table = field(default_factory=dict)  # name -> [sets]
    without_cell: Table = field(default_factory=dict)  # name -> [cells]: a cluster in a shot set


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """Weights drawn for one set of items. Make it with `resample`."""

    cluster: np.ndarray  # [n] index 0..clusters-1
    shot_set: np.ndarray  # [n] index 0..sets-1, -1 for none
    cell: np.ndarray  # [n] index of the (cluster, shot set) pair, -1 for none
    cluster_weights: np.ndarray  # [B, clusters]
    set_weights: np.ndarray  # [B, sets]
    cluster_variance: float  # of one weight, v in the module's formula
    set_variance: float
    note: str | None

    @property
    def n(self) -> int:
        return len(self.cluster)

    @property
    def clusters(self) -> int:
        return self.cluster_weights.shape[1]

    @property
    def two_way(self) -> bool:
        return self.set_weights.shape[1] > 0

    def excess(self, by_cluster: np.ndarray, by_set: np.ndarray, by_cell: np.ndarray) -> float:
        """Factor, at most 1, that brings resampled deviations to size; from influences."""
        if not self.two_way:
            return 1.0
        v_cluster, v_set = self.cluster_variance, self.set_variance
        clusters, sets = v_cluster * (by_cluster**2).sum(), v_set * (by_set**2).sum()
        cells = (by_cell**2).sum()
        drawn = clusters + sets + v_cluster * v_set * cells
        wanted = max(clusters + sets - min(v_cluster, v_set) * cells, clusters, sets)
        return float(np.sqrt(wanted / drawn)) if drawn > 0 and np.isfinite(drawn) else 1.0


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How often and from which seed the intervals of a run are resampled."""

    n_boot: int = 2000  # 0: no intervals
    seed: int = 0

    def draw(self, cluster: np.ndarray, shot_set: np.ndarray | None = None) -> Resampling | None:
        """`resample` with this seed; None where there are to be no intervals."""
        if not self.n_boot:
            return None
        return resample(cluster, shot_set, n_boot=self.n_boot, seed=self.seed)


def resample(
    cluster: np.ndarray, shot_set: np.ndarray | None = None, *, n_boot: int = 2000, seed: int = 0
) -> Resampling:
    """Draw weights for items with these cluster labels [n] and shot sets [n] (int, -1 for none).

    The same labels and seed give the same weights. Fewer than 6 shot sets are left undrawn, which
    the note says.
    """
    rng = np.random.default_rng(seed)
    labels, cluster = np.unique(np.asarray(cluster), return_inverse=True)
    shot_set = np.full(len(cluster), -1) if shot_set is None else np.asarray(shot_set)
    sets, note = np.unique(shot_set[shot_set >= 0]), None
    if 0 < len(sets) < LEAST_CLUSTERS:
        plural = "s" * (len(sets) > 1)
        note = f"spread over {len(sets)} shot set{plural} not included: fewer than {LEAST_CLUSTERS}"
        sets = sets[:0]
    crossed = (shot_set >= 0) & (len(sets) > 0)
    shot_set = np.where(crossed, np.searchsorted(sets, shot_set), -1)
    cell = np.full(len(cluster), -1)
    pairs = cluster[crossed] * len(sets) + shot_set[crossed]
    cell[crossed] = np.unique(pairs, return_inverse=True)[1]
    weights = _draw(len(labels), n_boot, rng, enumerate_all=len(sets) == 0)
    set_weights = _draw(len(sets), len(weights), rng, enumerate_all=False)
    return Resampling(
        cluster=cluster,
        shot_set=shot_set,
        cell=cell,
        cluster_weights=weights,
        set_weights=set_weights,
        cluster_variance=float(weights.var(axis=0).mean()),
        set_variance=float(set_weights.var(axis=0).mean()) if len(sets) else 0.0,
        note=note,
    )


def column_sums(columns: Mapping[str, np.ndarray], resampling: Resampling | None) -> Sums:
    """Sums of per-item columns, each [n] float; totals alone where there is no resampling."""
    values = np.stack(list(columns.values()), axis=1)  # [n, D]
    total = values.sum(axis=0)  # [D]
    named = lambda table: dict(zip(columns, table.T))
    if resampling is None:
        return Sums(total=named(total))
    resampled = np.zeros((len(resampling.cluster_weights), values.shape[1]))  # [B, D]
    for shot_set in np.unique(resampling.shot_set):
        inside = resampling.shot_set == shot_set
        present, position = np.unique(resampling.cluster[inside], return_inverse=True)
        part = resampling.cluster_weights[:, present] @ _level_sums(values[inside], position)
        resampled += part if shot_set < 0 else resampling.set_weights[:, [shot_set]] * part
    return Sums(
        total=named(total),
        resampled=named(resampled),
        without_cluster=named(total - _level_sums(values, resampling.cluster)),
        without_set=named(total - _level_sums(values, resampling.shot_set)),
        without_cell=named(total - _level_sums(values, resampling.cell)),
    )


def _draw(levels: int, n_boot: int, rng: np.random.Generator, *, enumerate_all: bool) -> np.ndarray:
    """Weights [B, levels] with mean 1: multinomial counts, or subsets for few levels."""
    if levels == 0:
        return np.zeros((n_boot, 0))
    if levels >= FEW_CLUSTERS:
        drawn = rng.integers(levels, size=(n_boot, levels)) + levels * np.arange(n_boot)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n_boot * levels)
        return counts.reshape(n_boot, levels).astype(float)
    subsets = 2**levels - 1
    if enumerate_all and subsets <= n_boot:
        code = np.arange(1, subsets + 1)
    else:
        code = rng.integers(1, subsets + 1, size=n_boot)
    chosen = ((code[:, None] >> np.arange(levels)) & 1).astype(float)
    return chosen * levels / chosen.sum(axis=1, keepdims=True)


def _level_sums(values: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Sums [levels, D] of values [n, D] by level [n]; items at level -1 are left out."""
    out = np.zeros((level.max() + 1, values.shape[1]))
    np.add.at(out, level[level >= 0], values[level >= 0])
    return out
