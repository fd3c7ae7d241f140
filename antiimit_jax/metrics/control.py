"""Output control: the results of an evaluation and the figures of one item.

All figures are keyed by word: column j of `q` is compared with column j of `target`, never sorted.
The mass outside the words (the residual) counts in all of them unless the name says "cond" or
"share".
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from scipy.special import rel_entr

from antiimit_jax.errors import UserError
from antiimit_jax.metrics.intervals import mean
from antiimit_jax.results import taken

FLOOR = 1e-30  # least probability inside a logarithm: a word at 0 costs 69 nats times its share
PASS_SLACK = 1e-9  # half of .3 + .3 is .30000000000000004 in floats
MIN_MASS = 0.05  # least mass on the words at which shares are read
RESIDUAL_TARGET = 1e-4  # what KL_rev allows outside the words; a perfect model then scores 1e-4
TOLERANCES = {"pass_05": 0.05, "pass_10": 0.10, "pass_20": 0.20}
_TABLES = ("target", "q", "last_shot", "prior")  # [n, W]; the other fields are [n]


@dataclass(frozen=True, kw_only=True)
class ControlResults:
    """Exact word probabilities of n items, words in the order named, padded to W columns.

    Checked when made: `UserError` names the field and the item. Rounding is then settled, so that
    every identity holds exactly: probabilities down to -1e-6 become 0, and words that sum to at
    most 1 + 1e-5 are scaled to sum 1.
    """

    target: np.ndarray  # [n, W] 0 on padding
    q: np.ndarray  # [n, W] exact probabilities, 0 on padding
    word: np.ndarray  # [n, W] int, a word's number in an order by name, 0 on padding
    k: np.ndarray  # [n] number of words
    cluster: np.ndarray  # [n] int or str
    shot_set: np.ndarray  # [n] int, -1 for none (second cluster factor)
    n_shots: np.ndarray  # [n]
    template: np.ndarray  # [n] int
    token_count: np.ndarray  # [n] tokens of the item's longest word
    last_shot: np.ndarray  # [n, W] shares asked in the last few-shot turn, NaN rows without one
    prior: np.ndarray  # [n, W] base model's q without percentages, NaN where not measured

    def __post_init__(self) -> None:
        for name, given in list(vars(self).items()):
            kind = np.float64 if name in _TABLES else None
            object.__setattr__(self, name, np.array(given, dtype=kind))
        self._check_shapes()
        self._check_values()
        settled = np.maximum(self.q, 0)
        object.__setattr__(self, "q", settled / np.maximum(settled.sum(axis=1, keepdims=True), 1))

    def _check_shapes(self) -> None:
        all_shape = self.target.shape
        if len(all_shape) != 2 or self.target.size == 0:
            raise UserError(f"ControlResults.target has shape {all_shape}; give [items, words]")
        for name, column in vars(self).items():
            wide = name in (*_TABLES, "word")
            shape, wanted = column.shape, all_shape if wide else all_shape[:1]
            if shape != wanted:
                raise UserError(
                    f"ControlResults.{name} has shape {shape}; target asks for {wanted}"
                )

    def _check_values(self) -> None:
        for name in ("word", "k", "shot_set", "n_shots", "template", "token_count"):
            dtype = getattr(self, name).dtype
            if not np.issubdtype(dtype, np.integer):
                raise UserError(f"ControlResults.{name} has dtype {dtype}; give integers")
        padding, target, q = ~self.named, self.target, self.q
        off_padding = "is not 0 on padding; set k to the number of words"
        _refuse("k", (self.k < 1) | (self.k > q.shape[1]), "is not a number of columns of target")
        _refuse("target", ~np.isfinite(target), "is not finite; mend the item's shares")
        _refuse("target", target < 0, "is negative; give shares as fractions of 1")
        _refuse("target", abs(target.sum(axis=1) - 1) > 1e-6, "does not sum to 1; give fractions")
        _refuse("target", (target != 0) & padding, off_padding)
        _refuse("q", ~np.isfinite(q), "is not finite; look for overflow in the scores")
        _refuse("q", q < -1e-6, "is below -1e-6; give probabilities, not their logarithms")
        _refuse("q", q.sum(axis=1) > 1 + 1e-5, "sums to more than 1; do two words share a form?")
        _refuse("q", (q != 0) & padding, off_padding)
        for name in ("last_shot", "prior"):
            table = np.where(padding, 0.0, getattr(self, name))
            missing = np.isnan(table)
            some = missing.any(axis=1) & ~(missing | padding).all(axis=1)
            _refuse(name, some, "is partly NaN; give all words or none")
            table = np.where(missing, 0.0, table)
            wrong = (table < -1e-6).any(axis=1) | (table.sum(axis=1) > 1 + 1e-5)
            _refuse(name, wrong, "does not hold probabilities: at least 0, sum at most 1")

    @property
    def named(self) -> np.ndarray:
        """[n, W] True where a column is a word of the item."""
        return np.arange(self.target.shape[1]) < self.k[:, None]

    @property
    def mass(self) -> np.ndarray:
        """[n] probability on the words, m."""
        return self.q.sum(axis=1)

    @property
    def residual(self) -> np.ndarray:
        """[n] probability outside the words, 1 - m."""
        return np.maximum(1 - self.mass, 0)

    @property
    def shares(self) -> np.ndarray:
        """[n, W] conditional shares c = q / m; 0 where the words have no mass at all."""
        return self.q / np.maximum(self.mass, FLOOR)[:, None]

    @property
    def readable(self) -> np.ndarray:
        """[n] True where the words have enough mass (MIN_MASS) for their shares to be read."""
        return self.mass >= MIN_MASS - PASS_SLACK

    def take(self, chosen: np.ndarray) -> ControlResults:
        """The items at a boolean mask [n] or at indices, which may repeat."""
        return ControlResults(**taken(vars(self), chosen))

    def with_q(self, q: np.ndarray) -> ControlResults:
        """The same items answered with other probabilities [n, W]."""
        return dataclasses.replace(self, q=q)


def _refuse(field: str, wrong: np.ndarray, reason: str) -> None:
    wrong = wrong.any(axis=1) if wrong.ndim == 2 else wrong
    if wrong.any():
        item = f"item {np.flatnonzero(wrong)[0]} {reason} ({wrong.sum()} such items)"
        raise UserError(f"ControlResults.{field}: {item}")


def tvd_res(t: np.ndarray, q: np.ndarray) -> np.ndarray:
    """[n] total variation distance of answers to targets, both [n, W], the residual included."""
    return (abs(q - t).sum(axis=1) + np.maximum(1 - q.sum(axis=1), 0)) / 2


def item_metrics(results: ControlResults) -> dict[str, np.ndarray]:
    """The figures of each item, name -> [n]; KL in nats, JS in bits, passes 0 or 1.

    `tvd_cond` and `mae_share` are NaN where the item is not readable (mass below MIN_MASS).
    kl_fwd = kl_share + kl_mass holds exactly, with every word's probability floored at FLOOR in
    all three. `kl_rev` compares q with the target scaled to 1 - RESIDUAL_TARGET, and the residual
    with RESIDUAL_TARGET.
    """
    t, q, residual = results.target, results.q, results.residual
    off = tvd_res(t, q)
    tvd_cond = abs(results.shares - t).sum(axis=1) / 2
    floored = np.where(results.named, np.maximum(q, FLOOR), 0)
    kl_fwd = np.maximum(rel_entr(t, np.where(results.named, floored, 1)).sum(axis=1), 0)
    kl_mass = np.maximum(-np.log(floored.sum(axis=1)), 0)
    kl_rev = rel_entr(q, np.maximum((1 - RESIDUAL_TARGET) * t, FLOOR)).sum(axis=1)
    kl_rev = np.maximum(kl_rev + rel_entr(residual, RESIDUAL_TARGET), 0)
    readable = results.readable
    figures = {
        "tvd_res": off,
        "tvd_cond": np.where(readable, tvd_cond, np.nan),
        "kl_fwd": kl_fwd,
        "kl_share": kl_fwd - kl_mass,
        "kl_mass": kl_mass,
        "kl_rev": kl_rev,
        "js_bits": _jensen_shannon(t, q, residual) / np.log(2),
        "mae_share": np.where(readable, abs(results.shares[:, 0] - t[:, 0]), np.nan),
        "residual": residual,
        "mass": results.mass,
    }
    for name, tolerance in TOLERANCES.items():
        figures[name] = (off <= tolerance + PASS_SLACK).astype(float)
    return figures


def _jensen_shannon(t: np.ndarray, q: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """[n] nats, over the words and the residual (target 0)."""
    middle = (t + q) / 2
    twice = rel_entr(t, middle).sum(axis=1) + rel_entr(q, middle).sum(axis=1)
    return np.maximum((twice + rel_entr(residual, residual / 2)) / 2, 0)


# One refusal dominates a mean of KL, so its median and trimmed mean stand beside it.
MEDIANS = {f"{name}_median": name for name in ("kl_fwd", "kl_share", "kl_mass", "kl_rev")}
TRIMMED_MEANS = {"kl_fwd_trimmed": "kl_fwd"}
_MEANS = ("tvd_res", "kl_fwd", "kl_share", "kl_mass", "kl_rev", "js_bits", "residual", "mass")
ON_ALL = (
    *(mean(name, name) for name in _MEANS),
    *(mean(name, name, kind="proportion") for name in TOLERANCES),
    mean("coverage", "readable", kind="proportion"),
)
ON_READABLE = (mean("tvd_cond", "tvd_cond"), mean("mae_share", "mae_share"))
