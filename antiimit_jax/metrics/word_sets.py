"""What the answers to two words owe to their set, whatever the request: favourites and likeness.

A set is asked in both orders and with both assignments of its percentages. A block is all its items
at one distance |p - 1/2| after one shot set; b is the mean over a block of c(A) - t(A), the share
that A, the first word by name, has been given less the one asked. Within a whole block a place that
the model prefers drops out of b, and so does what it makes of the percentages. One-way analysis of
variance, with n_s values x in set s, N in all, T_s their sum and G sets, splits

    M_b = (sum T_s^2 / n_s - T^2 / N) / (G - 1),    M_w = (sum x^2 - sum T_s^2 / n_s) / (N - G)

into the component between sets V_b = (M_b - M_w) / n_0, n_0 = (N - sum n_s^2 / N) / (G - 1), and
that within, V_w = M_w. V_b has no bias, so it may lie a little below 0 where the truth is 0.
  word_prior  V_b of x = b, over sets in two blocks or more: the variance of a word's share that
              lies in which words a set has. It stands on items with mass on their words.
  pair_icc    V_b / (V_b + V_w) of x = TVD, over all items: the intra-class correlation by pair.
              n items in sets of m say as much of a mean as n / (1 + (m - 1) pair_icc) items
              that each have a set of their own.
Intervals of `word_prior` cover .93 over 38 sets in two blocks (`tests/metrics/test_word_sets.py`).
"""

from typing import NamedTuple

import numpy as np

from antiimit_jax.metrics.control import ControlResults, tvd_res
from antiimit_jax.metrics.intervals import Statistic

_LEAST = 1e-12  # least variance of what varies
_SUMS = ("n", "values", "squared", "x", "between", "xx")
_BLOCKS = "fewer than two word sets in whole blocks, or none of them in two"
_ALIKE = "fewer than two word sets, or all items have the same TVD"


class Measured(NamedTuple):
    """Columns of one kind of unit, and the statistics that their sums give."""

    columns: dict[str, np.ndarray]  # each [units]
    cluster: np.ndarray  # [units]
    shot_set: np.ndarray  # [units]
    statistics: tuple[Statistic, ...]


class WordSets(NamedTuple):
    """Word sets, within the cluster that resampling takes them by."""

    cluster: np.ndarray  # [n] of each item
    number: np.ndarray  # [n] int: equal for the same words in the same cluster

    def take(self, chosen: np.ndarray) -> "WordSets":
        return WordSets(self.cluster[chosen], self.number[chosen])

    def each(self) -> tuple[np.ndarray, np.ndarray]:
        """The cluster of each set [sets], and which set an item belongs to [n]."""
        _, first, of_set = np.unique(self.number, return_index=True, return_inverse=True)
        return self.cluster[first], of_set


def sets_of(items: ControlResults) -> WordSets:
    """The word sets of items with one number of words."""
    words = np.sort(items.word[:, : items.k[0]], axis=1)
    keys = np.stack([codes(items.cluster), *words.T])
    return WordSets(items.cluster, np.unique(keys, axis=1, return_inverse=True)[1].ravel())


def codes(labels: np.ndarray) -> np.ndarray:
    """Labels of any kind as whole numbers."""
    return np.unique(labels, return_inverse=True)[1].ravel()


def word_prior(items: ControlResults) -> Measured:
    """`word_prior` of two-word items with mass on their words; units are sets."""
    how = dict(columns=_SUMS, finish=_between, missing=_BLOCKS)
    return _analysed(*_blocks(items), Statistic(name="word_prior", **how))


def pair_icc(items: ControlResults) -> Measured:
    """`pair_icc` of two-word items; units are sets."""
    how = dict(columns=_SUMS, finish=_correlation, missing=_ALIKE)
    tvd = tvd_res(items.target, items.q)
    return _analysed(tvd, sets_of(items), Statistic(name="pair_icc", **how))


def _blocks(items: ControlResults) -> tuple[np.ndarray, WordSets]:
    """b [blocks] of the whole blocks, and their sets."""
    sets = sets_of(items)
    first = np.where(items.word[:, 0] < items.word[:, 1], 0, 1)[:, None]  # [n, 1] where A stands
    asked, given = (
        np.take_along_axis(table, first, axis=1)[:, 0] for table in (items.target, items.shares)
    )
    order, side = 1 - 2 * first[:, 0], np.sign(np.round(asked - 0.5, 9))
    labels = (sets.number, items.shot_set, np.round(abs(asked - 0.5), 9))
    keys = np.stack([codes(label) for label in labels])
    _, begins, block = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    total = lambda values: np.bincount(block.ravel(), values, minlength=len(begins))
    whole = (total(order) == 0) & (total(side) == 0) & (total(order * side) == 0)
    mean = total(given - asked) / total(np.ones(len(asked)))
    return mean[whole], sets.take(begins[whole])


def _analysed(x: np.ndarray, sets: WordSets, statistic: Statistic) -> Measured:
    """Values x [n] by set."""
    cluster, of_set = sets.each()
    n, total, squares = (np.bincount(of_set, w) for w in (np.ones(len(x)), x, x * x))
    columns = (np.ones(len(n)), n, n * n, total, total**2 / n, squares)
    unpaired = np.full(len(n), -1)
    return Measured(dict(zip(_SUMS, columns)), cluster, unpaired, (statistic,))


def _components(n, values, squared, x, between, xx):
    """V_b and V_w, from sums over sets; NaN with one set, or with one value in each."""
    enough = (n > 1.5) & (values > n + 0.5)
    freedom = np.where(enough, n - 1, np.nan)
    within = np.maximum(xx - between, 0) / np.where(enough, values - n, np.nan)
    size = (values - squared / values) / freedom
    return ((between - x**2 / values) / freedom - within) / size, within


def _between(*sums):
    return _components(*sums)[0]


def _correlation(*sums):
    between, within = _components(*sums)
    whole = between + within
    return between / np.where(whole > _LEAST, whole, np.nan)
