"""Lazy and ideal behaviours, scored by the same code as a model, and the skill over them.

A behaviour is an array q [n, W] of what it would answer; `baseline(results, name)` gives results
with that q. Behaviours that go by rank share out what falls to equal words. For more than two
words:
  argmax          everything on the largest share: one word, of equals the first-named;
  flip            the shares in reversed order of size, so the largest word gets the smallest share;
  constant_60_40  .6 for the first-named word, .4 split evenly over the others;
  two_level       H_k / k for the largest word, with H_k = 1 + 1/2 + .. + 1/k, and the rest split
                  evenly: the mean largest share of a uniformly random point of the simplex, which
                  for two words is .75;
  rank_only       the best fixed shares by rank (`best_shares_by_rank`) for requests at large: for
                  each k and side of the percentages, fitted to draws of the task's own sampler and
                  not to the items of a slice;
  best_temperature  the answers' own shares c, sharpened or flattened: c^(1/T), renormalised, with
                  the one T over all items that has the least mean TVD. Of the base's answers: what
                  a temperature would bring, the format for free;
  few_shot_copy   the shares of the last few-shot turn; prior: the base model without percentages.
                  Both only on items that have them.
"""

import functools

import numpy as np
import scipy.sparse
from scipy.optimize import linprog

from antiimit_jax.errors import UserError
from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.intervals import Statistic, ratio
from antiimit_jax.text.lexicon import MOST_PERCENTS, TRAIN_PERCENTS, Side, sample_many

_POWERS = (0.0, *np.geomspace(1 / 64, 64, 121))  # 1 / T, and equal shares
_DRAWS = 100_000  # of requests, that fixed shares by rank are fitted to


def baseline(results: ControlResults, name: str) -> ControlResults | None:
    """The items a behaviour applies to, answered by it; None where it applies to no item."""
    if name not in BASELINES:
        raise UserError(f"unknown baseline {name!r}; choose from {', '.join(BASELINES)}")
    if name in _BEHAVIOURS:
        return results.with_q(_BEHAVIOURS[name](results))
    table = results.last_shot if name == "few_shot_copy" else results.prior
    table = np.where(results.named, table, 0)
    known = np.isfinite(table).all(axis=1)
    return results.take(known).with_q(table[known]) if known.any() else None


def ranks(results: ControlResults) -> np.ndarray:
    """[n, W] rank of each word's target, 0 the largest; equals as named, padding last."""
    order = np.argsort(np.where(results.named, -results.target, np.inf), axis=1, kind="stable")
    return np.argsort(order, axis=1, kind="stable")


def best_shares_by_rank(target: np.ndarray) -> np.ndarray:
    """The fixed shares r [k], largest first, with the least mean TVD to targets [n, k]; exact.

    Equal targets are given the mean of their ranks' shares. With sum 1, TVD is the sum of what
    targets exceed their shares by, so r solves a linear program: least total excess, where each
    excess is at least 0 and at least target less share, and no rank gets more than the one before.
    Terms that are alike are one.
    """
    n, k = target.shape
    values, place = np.unique(np.round(target, 9), return_inverse=True)
    place = place.reshape(n, k)
    first = (place[:, :, None] < place[:, None, :]).sum(axis=2)  # rank of the first of equals
    equal = (place[:, :, None] == place[:, None, :]).sum(axis=2)
    key = (place * k + first) * (k + 1) + equal
    key, times = np.unique(key, return_counts=True)
    key, equal = np.divmod(key, k + 1)
    place, first = np.divmod(key, k)
    terms, m = np.arange(len(key)), len(key)
    ranks_of = [range(start, start + many) for start, many in zip(first, equal)]
    at = np.repeat(terms, equal), np.concatenate(ranks_of)
    share = scipy.sparse.coo_matrix((np.repeat(1 / equal, equal), at), (m, k))
    falls = scipy.sparse.diags([-1.0, 1.0], [0, 1], (k - 1, k))
    solved = linprog(
        np.append(np.zeros(k), times / n),  # of shares, then of excesses
        A_ub=scipy.sparse.bmat([[-share, -scipy.sparse.eye(m)], [falls, None]]).tocsr(),
        b_ub=np.append(-values[place], np.zeros(k - 1)),
        A_eq=np.append(np.ones(k), np.zeros(m))[None],
        b_eq=[1.0],
    )
    return solved.x[:k]


@functools.cache
def rank_shares(k: int, side: Side) -> np.ndarray:
    """The best shares by rank [k] of requests for k words with percentages of one side."""
    return best_shares_by_rank(sample_many(np.random.default_rng(0), k, side, _DRAWS) / 100)


def _perfect(results: ControlResults) -> np.ndarray:
    return results.target


def _uniform(results: ControlResults) -> np.ndarray:
    return results.named / results.k[:, None]


def _argmax(results: ControlResults) -> np.ndarray:
    return (ranks(results) == 0).astype(float)


def _by_rank(results: ControlResults, shares: np.ndarray) -> np.ndarray:
    """Shares [n, W] of ranks, the largest target's first, given to words; equals share theirs."""
    given = np.take_along_axis(shares, ranks(results), axis=1)
    equal = abs(results.target[:, :, None] - results.target[:, None, :]) < 1e-9
    equal = equal & results.named[:, None, :]
    total = np.einsum("nvw,nw->nv", equal, given)
    return np.where(results.named, total / np.maximum(equal.sum(axis=2), 1), 0)


def _flip(results: ControlResults) -> np.ndarray:
    ascending = np.sort(np.where(results.named, results.target, np.inf), axis=1)
    return _by_rank(results, np.where(results.named, ascending, 0))


def _constant_60_40(results: ControlResults) -> np.ndarray:
    first = np.where(results.k == 1, 1.0, 0.6)[:, None]
    others = np.where(results.named, (1 - first) / np.maximum(results.k - 1, 1)[:, None], 0)
    return np.where(np.arange(results.target.shape[1]) == 0, first, others)


def _two_level(results: ControlResults) -> np.ndarray:
    harmonic = np.cumsum(1 / np.arange(1, results.target.shape[1] + 1))
    top = (harmonic[results.k - 1] / results.k)[:, None]
    rest = (1 - top) / np.maximum(results.k - 1, 1)[:, None]
    shares = np.where(np.arange(results.target.shape[1]) == 0, top, rest)
    return _by_rank(results, np.where(results.named, shares, 0))


def _rank_only(results: ControlResults) -> np.ndarray:
    """Items with any percentage that training does not use count as of the held-out side."""
    trained = np.isin(np.round(100 * results.target, 6), TRAIN_PERCENTS) | ~results.named
    trained = trained.all(axis=1)
    shares = np.zeros_like(results.target)
    for k, of_train in set(zip(results.k.tolist(), trained.tolist())):
        rows = (results.k == k) & (trained == of_train)
        if 2 <= k <= MOST_PERCENTS:
            shares[rows, :k] = rank_shares(k, "train" if of_train else "heldout")
        else:  # no such request is ever drawn
            shares[rows, :k] = best_shares_by_rank(results.target[rows, :k])
    return _by_rank(results, shares)


def _best_temperature(results: ControlResults) -> np.ndarray:
    largest = results.shares.max(axis=1, keepdims=True)
    relative = results.shares / np.where(largest > 0, largest, 1)  # none underflows in all words

    def answers(power: float) -> np.ndarray:
        raised = np.where(relative > 0, relative**power, 0)
        mass = raised.sum(axis=1, keepdims=True)
        return np.where(mass > 0, raised / np.where(mass > 0, mass, 1), _uniform(results))

    error = lambda power: abs(answers(power) - results.target).sum()
    return answers(min(_POWERS, key=error))


_BEHAVIOURS = {
    "perfect": _perfect,
    "uniform": _uniform,
    "argmax": _argmax,
    "flip": _flip,
    "constant_60_40": _constant_60_40,
    "two_level": _two_level,
    "rank_only": _rank_only,
    "best_temperature": _best_temperature,
}
BASELINES = (*_BEHAVIOURS, "few_shot_copy", "prior")
_COMPARED = ("uniform", "argmax", "rank_only")


def lazy_columns(results: ControlResults) -> dict[str, np.ndarray]:
    """TVD [n] of the behaviours that the skill figures compare with."""
    tvd = lambda q: abs(q - results.target).sum(axis=1) / 2  # all of them sum to 1
    return {f"tvd_{name}": tvd(_BEHAVIOURS[name](results)) for name in _COMPARED}


def _skill(tvd, *lazy):
    return 1 - ratio(tvd, np.minimum.reduce(lazy))


def _skill_over(name: str, lazy: tuple[str, ...], what: str) -> Statistic:
    columns = ("tvd_res", *(f"tvd_{behaviour}" for behaviour in lazy))
    missing = f"{what} already perfect on these targets"
    return Statistic(name=name, columns=columns, finish=_skill, missing=missing)


ON_ALL = (
    _skill_over("skill", ("uniform", "argmax"), "a lazy answer is"),
    _skill_over("skill_over_rank", ("rank_only",), "fixed shares by rank are"),
)
