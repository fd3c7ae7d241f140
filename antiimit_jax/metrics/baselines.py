"""Lazy and ideal behaviours, scored by the same code as a model, and the skill over them.

A behaviour is an array q [n, W] of what it would answer; `baseline(results, name)` gives results
with that q. For more than two words:
  argmax          everything on the largest share (the first-named of equals);
  flip            the shares in reversed order of size, so the largest word gets the smallest share;
  constant_60_40  .6 for the first-named word, .4 split evenly over the others;
  two_level       H_k / k for the largest word, with H_k = 1 + 1/2 + .. + 1/k, and the rest split
                  evenly: the mean largest share of a uniformly random point of the simplex, which
                  for two words is .75. A tie for the largest shares it out (two
                  equal words get .5 each);
  rank_only       the best fixed shares by rank for each k, fitted to these very items
                  (`best_shares_by_rank`);
  few_shot_copy   the shares of the last few-shot turn; prior: the base model without percentages.
                  Both only on items that have them.
"""

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.intervals import Statistic, ratio


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
    """The fixed shares [k], largest first, with the least mean TVD to targets [n, k]; exact.

    With sum 1, TVD is the sum of (t_j - r_j)^+ over ranks j, so at the optimum every rank is
    exceeded by the same fraction of its targets: r is a common quantile of each rank's sorted
    targets, moved between two neighbouring order statistics until it sums to 1.
    """
    columns = np.sort(-np.sort(-target, axis=1), axis=0)  # [n, k] each rank's targets, ascending
    totals = columns.sum(axis=1)  # [n] ascending, from <= 1 to >= 1
    upper = min(np.searchsorted(totals, 1.0), len(totals) - 1)
    lower = max(upper - 1, 0)
    gap = totals[upper] - totals[lower]
    part = (1 - totals[lower]) / gap if gap > 0 else 0.0
    shares = columns[lower] + np.clip(part, 0, 1) * (columns[upper] - columns[lower])
    return shares / shares.sum()


def _perfect(results: ControlResults) -> np.ndarray:
    return results.target


def _uniform(results: ControlResults) -> np.ndarray:
    return results.named / results.k[:, None]


def _argmax(results: ControlResults) -> np.ndarray:
    return (ranks(results) == 0).astype(float)


def _flip(results: ControlResults) -> np.ndarray:
    ascending = np.sort(np.where(results.named, results.target, np.inf), axis=1)
    return np.where(results.named, np.take_along_axis(ascending, ranks(results), axis=1), 0)


def _constant_60_40(results: ControlResults) -> np.ndarray:
    first = np.where(results.k == 1, 1.0, 0.6)[:, None]
    others = np.where(results.named, (1 - first) / np.maximum(results.k - 1, 1)[:, None], 0)
    return np.where(np.arange(results.target.shape[1]) == 0, first, others)


def _two_level(results: ControlResults) -> np.ndarray:
    harmonic = np.cumsum(1 / np.arange(1, results.target.shape[1] + 1))
    top = (harmonic[results.k - 1] / results.k)[:, None]
    rest = (1 - top) / np.maximum(results.k - 1, 1)[:, None]
    largest = results.named & (results.target >= results.target.max(axis=1, keepdims=True) - 1e-12)
    tied = largest.sum(axis=1, keepdims=True)
    return np.where(largest, (top + (tied - 1) * rest) / tied, np.where(results.named, rest, 0))


def _rank_only(results: ControlResults) -> np.ndarray:
    q, place = np.zeros_like(results.target), ranks(results)
    for k in np.unique(results.k):
        rows = results.k == k
        q[rows, :k] = best_shares_by_rank(results.target[rows, :k])[place[rows, :k]]
    return q


_BEHAVIOURS = {
    "perfect": _perfect,
    "uniform": _uniform,
    "argmax": _argmax,
    "flip": _flip,
    "constant_60_40": _constant_60_40,
    "two_level": _two_level,
    "rank_only": _rank_only,
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


# The best shares by rank are fitted once, not again in each resample: at its optimum the fit has no
# first-order effect on the mean.
ON_ALL = (
    _skill_over("skill", ("uniform", "argmax"), "a lazy answer is"),
    _skill_over("skill_over_rank", ("rank_only",), "fixed shares by rank are"),
)
