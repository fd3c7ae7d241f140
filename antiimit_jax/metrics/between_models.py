"""Models that answered the same items, compared: slopes over their sizes, differences of pairs.

A comparison is a weighted sum of one figure of several models: a difference has the weights 1 and
-1, a slope those of its least squares. Models are resampled together by word set, since all
answered the same, so what is hard about a word set for all of them drops out.

`tvd_cond` is read on the items where every model of a comparison has mass on the words; the other
figures stand on all items.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from antiimit_jax.metrics.control import ControlResults, item_metrics
from antiimit_jax.metrics.graded import graded_control
from antiimit_jax.metrics.intervals import Estimate, Statistic, clustered_mean, estimate, mean
from antiimit_jax.metrics.resampling import LEAST_CLUSTERS, Bootstrap, column_sums
from antiimit_jax.metrics.word_sets import Measured

METRICS = ("gamma", "mass", "tvd_res", "tvd_cond")
_LEAST_SQUARES = 0.125  # of sizes in doublings, as of two that are half a doubling apart
_MOST_COUNTED = 16  # pairs, whose assignments of signs are all counted


def compared(
    models: Sequence[ControlResults], weights: Sequence[float], metric: str, boot: Bootstrap
) -> Estimate:
    """The weighted sum of a figure of models that answered the same two-word items.

    Args:
      weights: one a model.
      metric: of METRICS.
    """
    if metric == "tvd_cond":
        readable = np.all([items.readable for items in models], axis=0)
        if not readable.any():
            return Estimate(value=None, note="no item on which all of them give the words mass")
        models = [items.take(readable) for items in models]
    measured = [_measured(items, metric) for items in models]
    (one,) = measured[0].statistics
    size = len(one.columns)

    def finish(*sums: np.ndarray) -> np.ndarray:
        own = (one.finish(*sums[i * size : (i + 1) * size]) for i in range(len(weights)))
        return sum(weight * figure for weight, figure in zip(weights, own))

    columns = {
        f"{name} of {i}": units.columns[name]
        for i, units in enumerate(measured)
        for name in one.columns
    }
    how = dict(columns=tuple(columns), finish=finish, kind=one.kind, missing=one.missing)
    cluster, shot_set = measured[0].cluster, measured[0].shot_set
    drawn = boot.draw(cluster, shot_set) if len(cluster) else None
    return estimate(Statistic(name=metric, **how), column_sums(columns, drawn), drawn)


def _measured(items: ControlResults, metric: str) -> Measured:
    """The columns that one figure is made of."""
    if metric == "gamma":
        graded = ((units, s) for units in graded_control(items) for s in units.statistics)
        units, gamma = next((units, s) for units, s in graded if s.name == metric)
        return units._replace(statistics=(gamma,))
    columns = {metric: item_metrics(items)[metric], "n": np.ones(len(items.k))}
    return Measured(columns, items.cluster, items.shot_set, (mean(metric, metric),))


def doubling_weights(parameters: Sequence[float], alike: Sequence[Hashable]) -> np.ndarray | None:
    """Weights [models] of a slope per doubling of parameters; None where sizes hardly vary.

    Args:
      alike: of each model, what it is besides its size: kinds have a level of their own each, and
        one slope together.
    """
    x, kinds = np.log2(np.asarray(parameters, float)), list(dict.fromkeys(alike))
    kind = np.array([kinds.index(one) for one in alike])
    centred = x - (np.bincount(kind, x) / np.bincount(kind))[kind]
    squares = (centred**2).sum()
    return centred / squares if squares >= _LEAST_SQUARES else None


def over_pairs(differences: Sequence[float]) -> Estimate:
    """The mean difference of six pairs or more, with the interval of the exact sign-flip test.

    It is about pairs like these on the items that were asked: items are not resampled.

    Raises:
      ValueError: fewer than six pairs, which no two-sided test at 5% can tell from 0.
    """
    if len(differences) < LEAST_CLUSTERS:
        raise ValueError(f"{len(differences)} pairs; at least {LEAST_CLUSTERS}")
    value, low, high = clustered_mean(np.array(differences), np.arange(len(differences)))
    return Estimate(value=value, low=low, high=high)


def sign_flip(differences: Sequence[float]) -> float:
    """One-sided p of "the mean of these is not above 0", over assignments of their signs.

    Of n pairs up to 16 all assignments are counted, so p is at least 2**-n; of more, 65,536 drawn.
    """
    values = np.array(differences)
    n = len(values)
    if n <= _MOST_COUNTED:
        negative = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        negative = np.random.default_rng(0).integers(2, size=(2**_MOST_COUNTED, n))
        negative[0] = 0  # as they are
    sums = (1 - 2 * negative) @ values
    return float((sums >= values.sum() - 1e-12 * abs(values).sum()).mean())
