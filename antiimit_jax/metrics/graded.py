"""Graded control: do probabilities follow the percentages, whichever word a model prefers?

For two words A and B of a set (A first in the alphabet), l = log q(A) - log q(B) and
L = log t(A) - log t(B), with t the shares asked. Over the set's items at one distance |p - 1/2| > 0
(both orders, both assignments of the percentages)

    d = mean(l where L > 0) - mean(l where L < 0),    x likewise from L.

What a model prefers whatever is asked, a word or a place, drops out of d. `gamma` is the slope and
`gamma_step` the intercept a of least squares d = a + gamma x over all sets and distances: a perfect
controller has (0, 1), a step (s, 0), one that ignores the request (0, 0), a flipped one (0, -1).
`gamma_corr` is the correlation of d and x; `gamma_within` the mean of the sets' own slopes, where a
set has two distances or more; `preference_sd` the standard deviation over sets of a set's mean l,
in nats.

For more words, log q is centred within an item and regressed on log t, centred as well, with an
effect of each word of a set and one of each rank that all sets share (ranks from 0, the largest
share). Equal shares have the ranks from their first to their last in common, and these have an
effect of their own, so that whoever shares out by rank alone has slope 0 whatever is tied. `gamma`
is the slope, `gamma_corr` the partial correlation, `gamma_step` twice the effect of the first rank
less that of the last, where each is one word's alone: for two words the intercept above.
`preference_sd` is the root mean square difference of two words of a set in their mean log q; since
a set's shares are exchanged end for end alone, the middle words keep a trace of what was asked. Of
requests for different numbers of words above two, `gamma` is the one slope of all, with ranks'
effects apart for each number; steps are read for one number alone.

`request_gain`: with q_mean(w) the mean of q(w) over all requests of a set that name its words in
one order, the mean TVD of q_mean to t less that of q. It is at most 0 for a model that ignores the
request. A step may gain too, so it shows that the request is used, not that control is graded.

Probabilities are floored at `control.FLOOR` inside logarithms.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from antiimit_jax.metrics.control import FLOOR, ControlResults, tvd_res
from antiimit_jax.metrics.intervals import FISHER_Z, LINEAR, ROOT, Scale, Statistic, mean, ratio
from antiimit_jax.metrics.moments import MOMENTS, covariances, moment_columns
from antiimit_jax.metrics.word_sets import Measured, WordSets, codes, sets_of

_LEAST = 1e-9  # least variance, in squared nats, of what varies
_ONE_SHARE = "no word set is asked for unequal shares and for the same exchanged"
_FLAT = "the answers do not change with the request"
_DISTANCES = "no word set is asked at two distances from equal shares"
_SETS = "fewer than two word sets"
_ENDS = "no largest and no smallest share is one word's alone, or no set has its shares exchanged"


def graded_control(items: ControlResults) -> Iterator[Measured]:
    """The figures of this module for items with two words, or with more than two."""
    yield _request_gain(items)
    numbers = np.unique(items.k)
    if tuple(numbers) == (2,):
        yield from _pairs(_all_asked(items))
    elif numbers[0] > 2:
        yield from _many([_all_asked(items.take(items.k == k)) for k in numbers])


def slope_points(items: ControlResults) -> tuple[np.ndarray, np.ndarray]:
    """x and d [units] of two-word items: the points that `gamma` is the slope of."""
    return _units(_all_asked(items))[:2]


class _Asked(NamedTuple):
    """Items that ask for all their words; logarithms and ranks [n, k], words by name.

    Ranks are k times the first rank of those with that share, and the last.
    """

    sets: WordSets
    shot_set: np.ndarray  # [n]
    log_q: np.ndarray
    log_t: np.ndarray
    rank: np.ndarray  # of the shares asked


def _all_asked(items: ControlResults) -> _Asked:
    chosen = (items.target[:, : items.k[0]] > 0).all(axis=1)
    tables = (table[chosen] for table in _by_word(items))
    return _Asked(sets_of(items).take(chosen), items.shot_set[chosen], *tables)


def _by_word(items: ControlResults) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithms of q and of the shares asked, and ranks of those; [n, k], words by name."""
    k = items.k[0]
    by_name = np.argsort(items.word[:, :k], axis=1)
    q, t = (np.take_along_axis(table[:, :k], by_name, axis=1) for table in (items.q, items.target))
    log = lambda table: np.log(np.maximum(table, FLOOR))
    asked = -np.round(t, 9)
    first, last = (rankdata(asked, way, axis=1) - 1 if len(t) else t for way in ("min", "max"))
    return log(q), log(t), k * first + last


def _figure(
    name: str, columns: tuple[str, ...], finish: Callable, missing: str, scale: Scale = LINEAR
) -> Statistic:
    """A figure whose interval is a jackknife over word sets, on a scale."""
    how = dict(finish=finish, kind="jackknife", scale=scale, missing=missing)
    return Statistic(name=name, columns=columns, **how)


def _request_gain(items: ControlResults) -> Measured:
    """TVD of the mean answer to all requests of a set in one order, less the answer's own."""
    names = [items.cluster, items.shot_set, items.template, *items.word.T]
    _, order = np.unique(np.stack([codes(n) for n in names]), axis=1, return_inverse=True)
    order = order.ravel()
    n = np.bincount(order)
    q_mean = np.stack([np.bincount(order, column) for column in items.q.T], axis=1) / n[:, None]
    gain = tvd_res(items.target, q_mean[order]) - tvd_res(items.target, items.q)
    columns = {"gain": gain, "n": np.ones(len(gain))}
    return Measured(columns, items.cluster, items.shot_set, (mean("request_gain", "gain"),))


def _units(items: _Asked) -> tuple[np.ndarray, np.ndarray, WordSets, np.ndarray]:
    """Word sets at one distance from equal shares, asked both ways: x, d, set, shot set [units]."""
    given, asked = (table[:, 0] - table[:, 1] for table in (items.log_q, items.log_t))
    labels = (items.sets.number, items.shot_set, np.round(abs(asked), 9))
    keys = np.stack([codes(label) for label in labels])
    _, first, unit = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    unit = unit.ravel()
    more, less = asked > _LEAST, asked < -_LEAST
    exchanged = lambda values: _mean_by(unit, values, more) - _mean_by(unit, values, less)
    x, d = exchanged(asked), exchanged(given)  # [units], NaN without both assignments
    whole = np.isfinite(x)
    first = first[whole]
    return x[whole], d[whole], items.sets.take(first), items.shot_set[first]


def _pairs(items: _Asked) -> Iterator[Measured]:
    """Two words: units are a set at one distance, then sets."""
    x, d, of_unit, shot_set = _units(items)
    moments = moment_columns(x, d)
    statistics = tuple(
        _figure(name, MOMENTS, finish, missing, scale)
        for name, finish, scale, missing in (
            ("gamma", _slope, LINEAR, _ONE_SHARE),
            ("gamma_step", _intercept, LINEAR, _ONE_SHARE),
            ("gamma_corr", _correlation, FISHER_Z, _FLAT),
        )
    )
    yield Measured(moments, of_unit.cluster, shot_set, statistics)

    cluster, of_set = of_unit.each()
    sums = {name: np.bincount(of_set, column) for name, column in moments.items()}  # [sets]
    own = _slope(*(sums[name] for name in MOMENTS)) if len(cluster) else np.zeros(0)
    known = np.isfinite(own)
    columns = {"slope": own[known], "n": np.ones(known.sum())}
    within = _figure("gamma_within", ("slope", "n"), ratio, _DISTANCES)
    yield Measured(columns, cluster[known], np.full(known.sum(), -1), (within,))

    cluster, of_set = items.sets.each()
    given = items.log_q[:, 0] - items.log_q[:, 1]
    preferred = _mean_by(of_set, given, np.ones(len(given), bool))
    columns = {"n": np.ones(len(cluster)), "b": preferred, "bb": preferred**2}
    spread = _figure("preference_sd", ("n", "b", "bb"), _sd, _SETS, ROOT)
    yield Measured(columns, cluster, np.full(len(cluster), -1), (spread,))


def _mean_by(unit: np.ndarray, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Means [units] of the chosen values; NaN where a unit has none."""
    size = unit.max(initial=-1) + 1
    count = np.bincount(unit[chosen], minlength=size)
    total = np.bincount(unit[chosen], values[chosen], minlength=size)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _varying(n, *sums):
    """`covariances`, with the variance of an x that does not vary NaN."""
    mean_x, mean_y, var_x, covariance, var_y = covariances(n, *sums)
    varies = (n > 1.5) & (var_x > _LEAST)
    return mean_x, mean_y, np.where(varies, var_x, np.nan), covariance, var_y


def _slope(*sums):
    _, _, var_x, covariance, _ = _varying(*sums)
    return covariance / var_x


def _intercept(*sums):
    mean_x, mean_y, var_x, covariance, _ = _varying(*sums)
    return mean_y - covariance / var_x * mean_x


def _correlation(*sums):
    _, _, var_x, covariance, var_y = _varying(*sums)
    return np.clip(covariance / np.sqrt(var_x * np.where(var_y > _LEAST, var_y, np.nan)), -1, 1)


def _sd(n, b, bb):
    return np.sqrt(np.where(n > 1.5, np.maximum(bb - b * b / n, 0) / np.maximum(n - 1, 1), np.nan))


def _root_mean(n, squares):
    return np.sqrt(np.where(n > 1.5, squares / np.maximum(n, 1), np.nan))


def _many(groups: Sequence[_Asked]) -> Iterator[Measured]:
    """More than two words, one group for each number of words; units are sets."""
    fits = [_word_sums(group) for group in groups]
    n_sets = sum(len(fit.cluster) for fit in fits)
    columns, start = dict[str, np.ndarray](), 0
    for place, fit in enumerate(fits):
        own = slice(start, start := start + len(fit.cluster))
        for f, g in _upper(fit.size):
            column = columns[f"{place},{f},{g}"] = np.zeros(n_sets)
            column[own] = fit.squares[:, f, g]
    figures = [("gamma", LINEAR, _ONE_SHARE), ("gamma_corr", FISHER_Z, _FLAT)]
    if len(fits) == 1:
        figures.append(("gamma_step", LINEAR, _ENDS))
    statistics = tuple(
        _figure(
            name,
            tuple(columns),
            lambda *sums, name=name: _regression(fits, sums)[name],
            missing,
            scale,
        )
        for name, scale, missing in figures
    )
    cluster = np.concatenate([fit.cluster for fit in fits])
    unpaired = np.full(n_sets, -1)
    yield Measured(columns, cluster, unpaired, statistics)

    columns = {"n": np.ones(n_sets), "bb": np.concatenate([fit.differing for fit in fits])}
    spread = _figure("preference_sd", ("n", "bb"), _root_mean, _SETS, ROOT)
    yield Measured(columns, cluster, unpaired, (spread,))


class _WordSums(NamedTuple):
    """Sums over the answers of each set that ask for k words, less each word's mean."""

    cluster: np.ndarray  # [sets]
    squares: np.ndarray  # [sets, F, F] of log t, the rank effects, log q, centred within an item
    differing: np.ndarray  # [sets] mean square difference of two words' mean log q
    ends: np.ndarray  # places of the effects of the first rank and the last, where one word's alone

    @property
    def size(self) -> int:
        return self.squares.shape[-1]


def _word_sums(items: _Asked) -> _WordSums:
    (cluster, of_set), rank, k = items.sets.each(), items.rank, items.rank.shape[1]
    levels = np.unique(rank)
    centred = lambda table: table - table.mean(axis=1, keepdims=True)
    effects = centred((rank[..., None] == levels).astype(float))  # [n, k, levels]
    given, asked = centred(items.log_q), centred(items.log_t)
    table = np.concatenate([asked[..., None], effects, given[..., None]], axis=-1)  # [n, k, F]
    count = np.bincount(of_set)[:, None, None]
    total = np.zeros((len(cluster), *table.shape[1:]))
    np.add.at(total, of_set, table)
    means = total / np.maximum(count, 1)  # [sets, k, F] of each word
    table = table - means[of_set]
    squares = np.zeros((len(cluster), table.shape[-1], table.shape[-1]))
    np.add.at(squares, of_set, np.einsum("nkf,nkg->nfg", table, table))
    differing = 2 * k / (k - 1) * (means[..., -1] ** 2).mean(axis=1)
    ends = np.flatnonzero(np.isin(levels, (0, k * k - 1)))
    return _WordSums(cluster, squares, differing, ends)


def _upper(size: int) -> list[tuple[int, int]]:
    return [(f, g) for f in range(size) for g in range(f, size)]


def _regression(fits: Sequence[_WordSums], sums: tuple) -> dict[str, np.ndarray]:
    """Slope, partial correlation and twice the first rank's effect less the last's; each [...]."""
    shape, left, whole, start = np.shape(sums[0]), 0, 0, 0
    for fit in fits:
        size, places = fit.size, _upper(fit.size)
        squares = np.zeros((*shape, size, size))
        for (f, g), column in zip(places, sums[start:]):
            squares[..., f, g] = squares[..., g, f] = column
        start += len(places)
        outer, ranks = [0, size - 1], slice(1, size - 1)
        inverse = np.linalg.pinv(squares[..., ranks, ranks], rcond=1e-9, hermitian=True)
        both = squares[..., ranks, :][..., outer]  # [..., levels, 2]
        explained = inverse @ both
        after = squares[..., outer, :][..., outer]
        whole = whole + np.diagonal(after, axis1=-2, axis2=-1)  # [..., 2]
        left = left + after - np.swapaxes(both, -1, -2) @ explained  # [..., 2, 2]
    xx, xy, yy = left[..., 0, 0], left[..., 0, 1], left[..., 1, 1]
    xx = np.where(xx > _LEAST * np.maximum(whole[..., 0], 1), xx, np.nan)
    slope = xy / xx
    moving = np.where(yy > _LEAST * np.maximum(whole[..., 1], 1), yy, np.nan)
    corr = np.clip(xy / np.sqrt(xx * moving), -1, 1)
    effect = explained[..., 1] - slope[..., None] * explained[..., 0]  # [..., levels] of the last k
    both_ends = len(fit.ends) == 2
    step = (
        2 * (effect[..., fit.ends[0]] - effect[..., fit.ends[1]]) if both_ends else slope * np.nan
    )
    return {"gamma": slope, "gamma_corr": corr, "gamma_step": step}
