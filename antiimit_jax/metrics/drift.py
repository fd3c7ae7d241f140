"""Does the tuned model behave normally elsewhere? Figures over the tokens of unrelated text.

The unit is a scored token, the cluster a prompt. All logarithms are natural. Differences are tuned
less base, so `delta_entropy` > 0 means flatter predictions and `delta_ppl` > 0 a worse fit to the
text. Perplexity pools the tokens: exp(-mean log p), not a mean of perplexities.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from antiimit_jax.errors import UserError
from antiimit_jax.metrics.intervals import Statistic, estimate, mean, ratio
from antiimit_jax.metrics.resampling import Bootstrap, column_sums
from antiimit_jax.metrics.rows import row_of
from antiimit_jax.results import taken

LARGEST_NLL = 50.0  # a perplexity is exp of at most this, so that no figure is infinite
_LABELS = ("prompt_id", "category")
_DIVERGENCES = ("kl_base_tuned", "kl_tuned_base")
_LIMITS = {
    **dict.fromkeys((*_DIVERGENCES, "entropy_base", "entropy_tuned"), (-1e-3, np.inf)),
    **dict.fromkeys(("top1_agree", "top5_overlap"), (0, 1)),
    **dict.fromkeys(("logp_base", "logp_tuned"), (-np.inf, 1e-3)),
}


@dataclass(frozen=True, kw_only=True)
class DriftTokens:
    """Scored tokens, one entry each; checked when made, `UserError` names field and token."""

    prompt_id: np.ndarray  # [n] int or str, the cluster
    category: np.ndarray  # [n] str
    kl_base_tuned: np.ndarray  # [n] nats, over the full vocabulary
    kl_tuned_base: np.ndarray  # [n] nats
    top1_agree: np.ndarray  # [n] bool or 0/1
    top5_overlap: np.ndarray  # [n] fraction of the five commonest tokens that both have
    entropy_base: np.ndarray  # [n] nats
    entropy_tuned: np.ndarray  # [n] nats
    logp_base: np.ndarray  # [n] log-probability of the token that follows in the text
    logp_tuned: np.ndarray  # [n]

    def __post_init__(self) -> None:
        for name, given in list(vars(self).items()):
            column = np.asarray(given, dtype=None if name in _LABELS else np.float64)
            object.__setattr__(self, name, column)
            n = len(self.prompt_id)
            if column.shape != (n,) or n == 0:
                raise UserError(
                    f"DriftTokens.{name} has shape {column.shape}; give one entry a token, as "
                    f"prompt_id {self.prompt_id.shape}, one at least"
                )
        for name, (low, high) in _LIMITS.items():
            column = getattr(self, name)
            wrong = ~(np.isfinite(column) & (column >= low) & (column <= high))
            if wrong.any():
                first = np.flatnonzero(wrong)[0]
                raise UserError(
                    f"DriftTokens.{name}: token {first} is {column[first]}, not in [{low}, {high}] "
                    f"({wrong.sum()} such tokens); leave out tokens that were not scored and give "
                    "overlaps as fractions"
                )

    def take(self, chosen: np.ndarray) -> DriftTokens:
        """The tokens at a boolean mask [n] or at indices."""
        return DriftTokens(**taken(vars(self), chosen))


def _delta_perplexity(tuned, base, n):
    tuned, base = ratio(tuned, n), ratio(base, n)
    return np.exp(np.minimum(-tuned, LARGEST_NLL)) - np.exp(np.minimum(-base, LARGEST_NLL))


STATISTICS = (
    *(mean(name, name) for name in _DIVERGENCES),
    mean("top1_agree", "top1_agree", kind="proportion"),
    mean("top5_overlap", "top5_overlap"),
    mean("delta_entropy", "delta_entropy"),
    Statistic(name="delta_ppl", columns=("logp_tuned", "logp_base", "n"), finish=_delta_perplexity),
)


def drift_rows(
    tokens: DriftTokens,
    *,
    stage: str,
    split: str = "neutral",
    anchored: Collection[str],
    boot: Bootstrap,
) -> list[dict]:
    """Rows of the slices "all" and "category=NAME"; `n` counts tokens, `clusters` prompts.

    The slice "anchor=has" is of the categories `anchored`, of which training's anchor has texts,
    "anchor=lacks" of all others. A slice without a token has no row.
    """
    categories = np.unique(tokens.category)
    slices = _by_anchor(tokens, anchored)
    slices |= {f"category={name}": tokens.category == name for name in categories}
    return _on_slices(slices, dict(stage=stage, suite="drift", split=split), boot, tokens)


def paired_drift_rows(
    one: DriftTokens,
    other: DriftTokens,
    *,
    stage: str,
    split: str = "neutral",
    anchored: Collection[str],
    boot: Bootstrap,
) -> list[dict]:
    """Rows of the differences, one less other: over all tokens, and with and without an anchor.

    Both hold the same tokens, in one order; they are resampled together. `stage` is
    "diff:ONE-OTHER".
    """
    place = dict(stage=stage, suite="drift", split=split)
    return _on_slices(_by_anchor(one, anchored), place, boot, one, other)


def _on_slices(
    slices: Mapping[str, np.ndarray], place: dict[str, str], boot: Bootstrap, *both: DriftTokens
) -> list[dict]:
    """Rows of tokens, or of two stages' differences on the same ones, on every slice with any."""
    return [
        row
        for name, mask in slices.items()
        if mask.any()
        for row in _rows(place | {"slice": name}, boot, *(tokens.take(mask) for tokens in both))
    ]


def _by_anchor(tokens: DriftTokens, anchored: Collection[str]) -> dict[str, np.ndarray]:
    has = np.isin(tokens.category, list(anchored))
    return {"all": np.ones(len(has), bool), "anchor=has": has, "anchor=lacks": ~has}


def _rows(
    place: dict[str, str], boot: Bootstrap, tokens: DriftTokens, other: DriftTokens | None = None
) -> list[dict]:
    resampling, n = boot.draw(tokens.prompt_id), len(tokens.prompt_id)
    sums, clusters = column_sums(_columns(tokens), resampling), len(np.unique(tokens.prompt_id))
    against = None if other is None else column_sums(_columns(other), resampling)
    return [
        row_of(estimate(s, sums, resampling, against), place | {"metric": s.name}, n, clusters)
        for s in STATISTICS
    ]


def _columns(tokens: DriftTokens) -> dict[str, np.ndarray]:
    columns = {name: getattr(tokens, name) for name in _LIMITS}
    for name in _DIVERGENCES:
        columns[name] = np.maximum(columns[name], 0)  # rounding may leave -1e-7
    delta = {"delta_entropy": tokens.entropy_tuned - tokens.entropy_base}
    return columns | delta | {"n": np.ones(len(tokens.prompt_id))}
