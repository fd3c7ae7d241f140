"""What the figures draw, computed from a run's tables: calibration points, drift by category."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from antiimit_jax.metrics.control import MIN_MASS, PASS_SLACK
from antiimit_jax.metrics.intervals import estimate, mean
from antiimit_jax.metrics.resampling import LEAST_CLUSTERS, column_sums, resample
from antiimit_jax.tasks.templates import plain_requests

N_BOOT = 1000
Triple = tuple[float, float, float]  # value and the ends of its 95% interval


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


def calibration(
    items: pa.Table, stage: str, suite: str, split: str, k: int = 2
) -> Calibration | None:
    """Calibration points of one stage's and split's plain requests; None where there are none."""
    keep = pc.equal(items["stage"], stage)
    for name, value in (("suite", suite), ("split", split), ("k", k), ("word_index", 0)):
        keep = pc.and_(keep, pc.equal(items[name], value))
    table = items.filter(keep)
    if table.num_rows == 0:
        return None
    table = table.filter(
        pa.array(plain_requests(table["template"].to_numpy(), table["n_shots"].to_numpy()))
    )
    asked, q, residual = (_floats(table, name) for name in ("target", "q", "residual"))
    mass = 1.0 - residual
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(mass > 0, q / mass, np.nan)
    counted = mass >= MIN_MASS - PASS_SLACK
    cluster = np.asarray(table["cluster"].to_pylist())
    return Calibration(
        asked=asked,
        share=share,
        mass=mass,
        counted=counted,
        **_levels(asked[counted], share[counted], cluster[counted]),
    )


def clustered_mean(values: np.ndarray, cluster: np.ndarray, kind: str = "smooth") -> Triple:
    """Mean over items [n] with its 95% interval over clusters; NaN ends where none can be had."""
    resampling = resample(cluster, n_boot=N_BOOT)
    sums = column_sums({"x": values, "n": np.ones(values.size)}, resampling)
    found = estimate(mean("mean", "x", kind=kind), sums, resampling)
    if found.low is None or found.high is None:
        return found.value, float("nan"), float("nan")
    return found.value, found.low, found.high


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftPoint:
    """One stage's drift on one category of text."""

    stage: str
    category: str
    metric: str  # kl_base_tuned or top1_agree
    value: float
    low: float
    high: float
    tokens: int
    prompts: int


def drift_points(drift: pa.Table) -> list[DriftPoint]:
    """KL and top-1 agreement a stage and category; intervals over prompts."""
    stage = np.asarray(drift["stage"].to_pylist())
    category = np.asarray(drift["category"].to_pylist())
    prompt = np.asarray(drift["prompt_id"].to_pylist())
    values = {
        "kl_base_tuned": _floats(drift, "kl_base_tuned"),
        "top1_agree": (_floats(drift, "top1_base") == _floats(drift, "top1_tuned")).astype(float),
    }
    points = []
    for name in dict.fromkeys(stage):
        for kind in dict.fromkeys(category):
            rows = (stage == name) & (category == kind)
            if not rows.any():
                continue
            for metric, column in values.items():
                spread = "proportion" if metric == "top1_agree" else "smooth"
                value, low, high = clustered_mean(column[rows], prompt[rows], spread)
                points.append(
                    DriftPoint(
                        stage=str(name),
                        category=str(kind),
                        metric=metric,
                        value=value,
                        low=low,
                        high=high,
                        tokens=int(rows.sum()),
                        prompts=len(np.unique(prompt[rows])),
                    )
                )
    return points


def _levels(asked: np.ndarray, share: np.ndarray, cluster: np.ndarray) -> dict[str, Any]:
    """Points at single percentages, or at tenths where most of those have too few word sets."""
    level = np.round(asked, 6)
    sets = [np.unique(cluster[level == value]).size for value in np.unique(level)]
    grouped = bool(sets) and bool(np.median(sets) < LEAST_CLUSTERS)
    if grouped:
        level = np.floor(asked * 10 + 1e-9)
    rows = []
    for value in np.unique(level):
        here = level == value
        rows.append((asked[here].mean(), *clustered_mean(share[here], cluster[here])))
    x, mean_share, low, high = np.array(rows, dtype=float).reshape(-1, 4).T
    return {"x": x, "mean": mean_share, "grouped": grouped, "low": low, "high": high}


def _floats(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy().astype(float)
