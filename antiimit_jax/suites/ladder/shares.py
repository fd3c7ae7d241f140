"""Rungs whose requests name chances: the control figures, what is stated, and γ by that of L0."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from antiimit_jax.errors import UserError
from antiimit_jax.metrics.baselines import baseline
from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.ratios import fieller
from antiimit_jax.metrics.rows import control_rows
from antiimit_jax.results import stage_named
from antiimit_jax.suites import control, suite
from antiimit_jax.tasks.items import Item

METRICS = ("tvd_res", "mass", "gamma", "gamma_corr", "request_gain")
SCHEMA = pa.schema(
    [*control.ITEMS, pa.field("kind", pa.string())]
    + [pa.field(name, pa.int32()) for name in ("place", "said")]  # of L9: see `tasks.sequences`
)
UNIFORM = "baseline:uniform"


def asked(asker: suite.Asker, items: Sequence[Item], what: str) -> list[suite.Answer]:
    """What the model answers to all items.

    Raises:
      UserError: an item longer than the model's window, or a word that no tokens spell.
    """
    try:
        return asker.words(suite.asks_of(items), what=what)
    except UserError as error:
        raise UserError(f"{error} (ladder.rungs says which rungs are asked)") from None


def answered(asker: suite.Asker, items: Sequence[Item], what: str) -> dict[str, list]:
    """The answers to all items, one row an item and word; errors as `asked` raises."""
    columns = control.item_columns(asker, items, asked(asker, items, what), suite="ladder")
    for name, usual in (("kind", ""), ("place", 1), ("said", 0)):
        columns[name] = [item.facets.get(name, usual) for item in items for _ in item.words]
    return columns


def on_slices(table: suite.Columns, stage: str, rows_of: Callable) -> list[suite.Row]:
    """Rows of a rung and of its kinds, and on the base's items those of equal shares.

    Args:
      table: of one stage and rung.
      rows_of: (results, place without a metric) -> rows.
    """
    results = control.results_of(table)
    kinds = table["kind"][table["word_index"] == 0]
    slices = {"all": np.ones(len(kinds), bool)}
    slices |= {f"kind={kind}": kinds == kind for kind in np.unique(kinds) if kind}
    given = {stage: results}
    if stage_named(stage).kind == "base":
        given[UNIFORM] = baseline(results, "uniform")
    rows = []
    for name, of in given.items():
        for where, mask in slices.items():
            place = dict(stage=name, suite="ladder", split=table["split"][0], slice=where)
            rows += rows_of(of.take(mask), place)
    return rows


def rung_rows(table: suite.Columns, stage: str, boot: suite.Bootstrap) -> list[suite.Row]:
    """Control figures of one stage and rung."""

    def rows_of(items: ControlResults, place: dict) -> list[suite.Row]:
        where = {name: value for name, value in place.items() if name != "slice"}
        slices = {place["slice"]: np.ones(len(items.k), bool)}
        made = control_rows(items, **where, slices=slices, boot=boot)
        return [row for row in made if row["metric"] in METRICS]

    return on_slices(table, stage, rows_of)


def stated_rows(table: suite.Columns, stage: str, boot: suite.Bootstrap) -> list[suite.Row]:
    """The mean share of the right percentage, on questions whose options have enough mass."""

    def rows_of(items: ControlResults, place: dict) -> list[suite.Row]:
        if not items.readable.any():
            missing = suite.Estimate(value=None, note="the options have too little probability")
            return [suite.row_of(missing, place | {"metric": "stated"}, 0, 0)]
        items = items.take(items.readable)
        right = {"right": (items.shares * items.target).sum(axis=1)}
        return suite.rows_at(place, [suite.mean("stated", "right")], right, items.cluster, boot)

    return on_slices(table, stage, rows_of)


def ratios(rows: Sequence[suite.Row]) -> list[suite.Row]:
    """γ of every rung by that of L0, which has other word sets; none of baselines."""
    gammas = [row for row in rows if row["metric"] == "gamma" and ":" not in row["stage"]]
    plain = {row["stage"]: row for row in gammas if (row["split"], row["slice"]) == ("L0", "all")}
    found = []
    for row in gammas:
        if row["split"] != "L0":
            place = {name: row[name] for name in ("stage", "suite", "split", "slice")}
            place |= {"metric": "gamma_ratio"}
            ratio = fieller(suite.estimate_of(row), suite.estimate_of(plain[row["stage"]]))
            found.append(suite.row_of(ratio, place, row["n"], row["clusters"]))
    return found
