"""Points of curves, computed from the table of items: calibration, and the graded slope's."""

import dataclasses
from typing import Any

import numpy as np

from antiimit_jax.metrics import graded
from antiimit_jax.metrics.control import MIN_MASS, PASS_SLACK
from antiimit_jax.metrics.intervals import clustered_mean
from antiimit_jax.metrics.resampling import LEAST_CLUSTERS
from antiimit_jax.results import Columns, taken
from antiimit_jax.suites.control.arrays import results_of
from antiimit_jax.tasks.templates import plain_requests

SPREAD = 0.8  # of the counted items of a level lie in its band


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """First-named words of n two-word items of one stage and split."""

    asked: np.ndarray  # [n] the share asked of the first-named word
    share: np.ndarray  # [n] its share of the probability that is on the two words, NaN at mass 0
    mass: np.ndarray  # [n] probability on the two words
    counted: np.ndarray  # [n] bool, mass >= MIN_MASS
    x: np.ndarray  # [levels] mean share asked at a level
    mean: np.ndarray  # [levels] mean share given, counted items only
    grouped: bool  # levels are tenths, not single percentages
    low: np.ndarray  # [levels] ends of the 95% interval over word sets, NaN where there is none
    high: np.ndarray  # [levels]
    band: np.ndarray  # [2, levels] the ends between which `SPREAD` of the items' shares lie
    sets: np.ndarray  # [levels] word sets


def calibration(items: Columns, stage: str, split: str) -> Calibration | None:
    """Points of one stage's and split's plain requests for two words; None where there are none."""
    table = _plain_pairs(items, stage, split)
    if table is None:
        return None
    table = taken(table, table["word_index"] == 0)
    mass = 1.0 - table["residual"]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(mass > 0, table["q"] / mass, np.nan)
    asked, counted = table["target"], mass >= MIN_MASS - PASS_SLACK
    levels = _levels(asked[counted], share[counted], table["cluster"][counted])
    return Calibration(asked=asked, share=share, mass=mass, counted=counted, **levels)


def slope_points(items: Columns, stage: str, split: str) -> tuple[np.ndarray, np.ndarray] | None:
    """x and d [units] of `metrics.graded`: log-odds asked and given, a word set at one distance.

    Of one stage's and split's plain requests for two words; None where there are none.
    """
    table = _plain_pairs(items, stage, split)
    return None if table is None else graded.slope_points(results_of(table))


def _plain_pairs(items: Columns, stage: str, split: str) -> Columns | None:
    """Rows of one stage's and split's plain requests for two words; None where there are none."""
    chosen = (items["stage"] == stage) & (items["split"] == split) & (items["k"] == 2)
    if not chosen.any():
        return None
    table = taken(items, chosen)
    return taken(table, plain_requests(table["template_heldout"], table["n_shots"]))


def _levels(asked: np.ndarray, share: np.ndarray, cluster: np.ndarray) -> dict[str, Any]:
    """Points at single percentages, or at tenths where most of those have too few word sets."""
    level = np.round(asked, 6)
    sets = [np.unique(cluster[level == value]).size for value in np.unique(level)]
    grouped = bool(sets) and bool(np.median(sets) < LEAST_CLUSTERS)
    if grouped:
        level = np.floor(asked * 10 + 1e-9)
    rows, outside = [], (1 - SPREAD) / 2
    for value in np.unique(level):
        here = level == value
        band = np.quantile(share[here], [outside, 1 - outside])
        count = np.unique(cluster[here]).size
        rows.append((asked[here].mean(), *clustered_mean(share[here], cluster[here]), *band, count))
    x, mean_share, low, high, *band, count = np.array(rows, dtype=float).reshape(-1, 7).T
    points = {"x": x, "mean": mean_share, "low": low, "high": high, "band": np.array(band)}
    return points | {"grouped": grouped, "sets": count}
