"""From per-item results to rows of metrics.json: slices, values, intervals, baselines.

A row is a dict {stage, suite, split, slice, metric, value, ci_low, ci_high, n, clusters} with an
optional note, of plain Python values that strict JSON takes. `n` counts the items the figure is
computed on: figures of shares (tvd_cond and all calibration) stand on readable items only, of which
`coverage` is the fraction. `kl_fwd_trimmed` leaves out 10% at either end. The note of a value from
fewer than 20 clusters says so.

Skill is relative to lazy answers on the same items, those of the slice.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from antiimit_jax.metrics import baselines, calibration, control
from antiimit_jax.metrics.control import ControlResults, item_metrics
from antiimit_jax.metrics.graded import graded_control
from antiimit_jax.metrics.intervals import Estimate, Statistic, estimate, median, trimmed_mean
from antiimit_jax.metrics.resampling import FEW_CLUSTERS, Bootstrap, Resampling, Sums, column_sums
from antiimit_jax.metrics.word_sets import Measured, pair_icc, word_prior
from antiimit_jax.results import Columns, make_row

Figures = dict[str, tuple[Estimate, int, int]]  # metric -> (figure, n, clusters)
NO_INTERVALS = Bootstrap(n_boot=0)
FEW = f"fewer than {FEW_CLUSTERS} clusters"


def standard_slices(results: ControlResults) -> dict[str, np.ndarray]:
    """The slices of every report, name -> mask [n]; only those with items, "all" first.

    A region "k=2,distance=16-30" holds two-word items that ask for more than 15 and at most 30
    points above or below 50% (the last one for neither 0% nor 100%).
    """
    k, tokens, p = results.k, results.token_count, results.target[:, 0]
    pairs = k == 2
    slices = {"all": np.ones(len(k), bool)}
    slices |= {f"k={value}": k == value for value in np.unique(k)}
    slices |= {"tokens=1": tokens == 1, "tokens=2": tokens == 2, "tokens=3+": tokens >= 3}
    slices |= {"k=2,tokens=1": pairs & (tokens == 1), "k=2,tokens=2+": pairs & (tokens >= 2)}
    for facet, column in (("template", results.template), ("shots", results.n_shots)):
        slices |= {f"{facet}={value}": column == value for value in np.unique(column)}
    points = np.round(100 * abs(p - 0.5), 6)
    for low, high in ((0, 15), (16, 30), (31, 49)):
        inside = (points > low - 1) & (points <= high) & (points < 50)
        slices[f"k=2,distance={low}-{high}"] = pairs & inside
    return {name: mask for name, mask in slices.items() if mask.any()}


def control_values(results: ControlResults) -> dict[str, float | None]:
    """Every figure of these items without intervals; None where it cannot be had."""
    return {name: figure.value for name, (figure, _, _) in _figures(results, NO_INTERVALS).items()}


def control_rows(
    results: ControlResults,
    *,
    stage: str,
    suite: str = "control",
    split: str,
    slices: Mapping[str, np.ndarray],
    boot: Bootstrap,
) -> list[dict]:
    """Rows of all control figures for each slice (name -> mask [n])."""
    rows, known = [], {}
    for name, mask in slices.items():
        mask = np.asarray(mask, bool)
        if not mask.any():
            continue
        if mask.tobytes() not in known:
            known[mask.tobytes()] = _figures(results.take(mask), boot)
        place = dict(stage=stage, suite=suite, split=split, slice=name)
        rows += _rows(known[mask.tobytes()], place)
    return rows


def baseline_rows(
    results: ControlResults,
    *,
    split: str,
    slices: Mapping[str, np.ndarray],
    boot: Bootstrap,
    names: Sequence[str] = baselines.BASELINES,
    interval_slices: Sequence[str] = ("all",),
) -> list[dict]:
    """Rows "baseline:NAME" of each behaviour, with intervals on `interval_slices` only.

    Behaviours that need a few-shot turn or a measured
    prior are scored on the items that have one, with a note where these are not all; where no item
    has one there is no row.
    """
    rows = []
    for slice_name, mask in slices.items():
        if not np.any(mask):
            continue
        items = results.take(mask)
        for name in names:
            answered = baselines.baseline(items, name)
            if answered is None:
                continue
            figures = _figures(answered, boot if slice_name in interval_slices else NO_INTERVALS)
            place = dict(stage=f"baseline:{name}", suite="control", split=split, slice=slice_name)
            some, every = len(answered.k), len(items.k)
            rows += _rows(figures, place, f"applies to {some} of {every} items" * (some < every))
    return rows


def paired_rows(
    one: ControlResults,
    other: ControlResults,
    *,
    stage: str,
    split: str,
    slices: Mapping[str, np.ndarray],
    boot: Bootstrap,
) -> list[dict]:
    """Rows of the differences, one less other, of figures on all items of each slice.

    Both answer the same items, which are resampled together. `stage` is "diff:ONE-OTHER".
    """
    rows = []
    for name, mask in slices.items():
        ours, theirs = one.take(mask), other.take(mask)
        resampling = boot.draw(ours.cluster, ours.shot_set)
        statistics, found = (*control.ON_ALL, *baselines.ON_ALL), {}
        found |= _estimates(_columns(ours), statistics, resampling, _columns(theirs))
        found |= _graded(ours, boot, theirs)
        place = dict(stage=stage, suite="control", split=split, slice=name)
        rows += _rows(_counted(found, ours), place)
    return rows


def _columns(items: ControlResults) -> dict[str, np.ndarray]:
    """Per-item columns [n] of the figures on all items."""
    readable = items.readable.astype(float)
    return item_metrics(items) | baselines.lazy_columns(items) | {"readable": readable}


def _graded(
    items: ControlResults, boot: Bootstrap, against: ControlResults | None = None
) -> dict[str, Estimate]:
    """What shows graded control, or its difference, where all have two words or all have more."""
    numbers = np.unique(items.k)
    if numbers[0] < 2 or (numbers[0] == 2 and len(numbers) > 1):
        return {}
    found: dict[str, Estimate] = {}
    others = itertools.repeat(None) if against is None else graded_control(against)
    for units, other in zip(graded_control(items), others):
        found |= _of_units(units, boot, other)
    return found


def _of_units(
    units: Measured, boot: Bootstrap, other: Measured | None = None
) -> dict[str, Estimate]:
    again = boot.draw(units.cluster, units.shot_set) if len(units.cluster) else None
    return _estimates(units.columns, units.statistics, again, other and other.columns)


def _figures(items: ControlResults, boot: Bootstrap) -> Figures:
    """All figures of these items; those on the same items share their resamples."""
    resampling = boot.draw(items.cluster, items.shot_set)
    per_item = _columns(items)
    figures = _estimates(per_item, (*control.ON_ALL, *baselines.ON_ALL), resampling)
    for name, column in control.MEDIANS.items():
        figures[name] = median(per_item[column], resampling)
    for name, column in control.TRIMMED_MEANS.items():
        figures[name] = trimmed_mean(per_item[column], resampling)
    counted = _counted(figures, items)
    counted |= _counted(_graded(items, boot), items)
    if (items.k == 2).all():
        counted |= _counted(_of_units(pair_icc(items), boot), items)
        if items.readable.any():
            part = items.take(items.readable)
            counted |= _counted(_of_units(word_prior(part), boot), part)
    on_readable = (*control.ON_READABLE, *calibration.ON_READABLE)
    for chosen, statistics, which in (
        (items.readable, on_readable, "item"),
        (items.readable & (items.k == 2), calibration.ON_READABLE_PAIRS, "two-word item"),
    ):
        if chosen.any():
            part = items if chosen.all() else items.take(chosen)
            again = resampling if part is items else boot.draw(part.cluster, part.shot_set)
            columns = item_metrics(part) | calibration.calibration_columns(part)
            counted |= _counted(_estimates(columns, statistics, again), part)
        else:
            note = f"no {which} with {control.MIN_MASS:.0%} of its probability on its words"
            nothing = Estimate(value=None, note=note), 0, 0
            counted |= {statistic.name: nothing for statistic in statistics}
    return counted


def _estimates(
    columns: Columns,
    statistics: Sequence[Statistic],
    resampling: Resampling | None,
    against: Columns | None = None,
) -> dict[str, Estimate]:
    """Of columns [units], or of how they differ from those of other answers to the same."""
    needed = {name for statistic in statistics for name in statistic.columns} - {"n"}

    def sums(columns: Columns) -> Sums:
        kept = {name: columns[name] for name in needed}
        return column_sums(kept | {"n": np.ones(len(next(iter(columns.values()))))}, resampling)

    ours, theirs = sums(columns), None if against is None else sums(against)
    return {s.name: estimate(s, ours, resampling, theirs) for s in statistics}


def _counted(figures: dict[str, Estimate], items: ControlResults) -> Figures:
    clusters = len(np.unique(items.cluster))
    return {name: (figure, len(items.k), clusters) for name, figure in figures.items()}


def row_of(figure: Estimate, place: Mapping[str, str], n: int, clusters: int) -> dict:
    """One row of metrics.json; `place` holds stage, suite, split, slice and metric."""
    ends = dict(value=figure.value, ci_low=figure.low, ci_high=figure.high)
    return make_row(**place, **ends, n=n, clusters=clusters, note=figure.note or "")


def estimate_of(row: Mapping) -> Estimate:
    """The figure of a row."""
    return Estimate(
        value=row["value"], low=row["ci_low"], high=row["ci_high"], note=row.get("note")
    )


def _rows(figures: Figures, place: Mapping[str, str], note: str = "") -> list[dict]:
    rows = []
    for metric, (figure, n, clusters) in figures.items():
        few = FEW if figure.value is not None and clusters < FEW_CLUSTERS else ""
        told = "; ".join(filter(None, (figure.note, few, note)))
        known = dataclasses.replace(figure, note=told)
        rows.append(row_of(known, place | {"metric": metric}, n, clusters))
    return rows
