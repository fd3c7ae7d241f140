"""The ladder: does control carry over to requests unlike those of training, rung by rung?

    python -m launch.evaluate --suites=ladder --workdir=runs/ladder

A rung changes one thing of a plain request (`tasks.rungs`), so `split` is the rung. Figures are
those of the control suite; `gamma_ratio` is γ of a rung by γ of L0, with Fieller's interval. In a
second ask the model is to tell which percentage was requested, out of four; `stated` is the share
of the right one among the four. A rung with low γ and high `stated` was understood and not
controlled. Slices "kind=NAME" are the kinds of request of a rung; γ of L3 stands there alone,
since it compares answers to equally many words.

What known askers score (`tests/suites/test_ladder.py`):

    asker                              tvd_res   gamma   request_gain   stated
    answers as requested               0         1       above 0        1
    ignores the request, no mass lost  above 0   0       0              .25
    larger chance always 3/4           above 0   0       above 0
    follows what a request names, not
      the fact that it hangs on (L11)  above 0   0       0
    copies the first percentage                                         near .5

Composed requests (L10, L11) ask a word set at the distances that its numbers come to: on L11 one.
Not here yet: verbal quantifiers (L7), a distribution held over a sequence (L9), suppressing a word
(L12), thinking first (L13) and seeds (L14).
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from antiimit_jax.errors import UserError
from antiimit_jax.metrics.baselines import baseline
from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.ratios import fieller
from antiimit_jax.metrics.rows import control_rows
from antiimit_jax.reporting.rows import figure, value_of
from antiimit_jax.reporting.tables import slice_table
from antiimit_jax.results import stage_named
from antiimit_jax.suites import control, suite
from antiimit_jax.tasks.items import Item
from antiimit_jax.tasks.rungs import RUNGS, rung_items, second_asks

SPLITS = RUNGS
_METRICS = ("tvd_res", "mass", "gamma", "gamma_corr", "request_gain")
FIGURES = (
    *(figure for figure in control.FIGURES if figure.name in _METRICS),
    *suite.figures("ladder"),
)
_SCHEMA = pa.schema([*control.ITEMS, pa.field("kind", pa.string())])
TABLES = {"ladder": _SCHEMA, "ladder_stated": _SCHEMA}  # answers to requests, to the second ask
_UNIFORM = "baseline:uniform"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Which rungs are asked, and how much of each."""

    rungs: tuple[str, ...] = suite.one_of(
        RUNGS, ("L1", "L2", "L3", "L4", "L5", "L6", "L8", "L10"), "besides L0, which always is"
    )
    n_sets: int = suite.at_least(1, 20, "word sets of a rung; each is asked 8 times, on L3 4 times")


def items_of(cfg: Config, seed: int) -> list[Item]:
    """The items of L0 and of all rungs asked."""
    rungs = dict.fromkeys(("L0", *cfg.rungs))
    return [item for rung in rungs for item in rung_items(rung, cfg.n_sets, seed)]


def programs(cfg: Config, seed: int, scoring: suite.Scoring) -> list[suite.Program]:
    """Words after the requests, percentages after the questions about them."""
    items = items_of(cfg, seed)
    asked = {"ladder": items, "ladder, stated": second_asks(items)}
    return [
        suite.Program(name=name, kind="words", asks=tuple(suite.asks_of(of)), scorings=(scoring,))
        for name, of in asked.items()
    ]


def measure(asker: suite.Asker, cfg: Config) -> suite.Tables:
    """The answers to all requests, and to the questions which percentage was requested.

    Raises:
      UserError: an item longer than the model's window, or a word that no tokens spell.
    """
    items = items_of(cfg, asker.eval_seed)
    return {
        "ladder": _answered(asker, items, "ladder"),
        "ladder_stated": _answered(asker, second_asks(items), "ladder, percentages stated"),
    }


def _answered(asker: suite.Asker, items: Sequence[Item], what: str) -> dict[str, list]:
    try:
        answers = asker.words(suite.asks_of(items), what=what)
    except UserError as error:
        raise UserError(f"{error} (ladder.rungs says which rungs are asked)") from None
    kinds = [item.facets["kind"] for item in items for _ in item.words]
    return control.item_columns(asker, items, answers, suite="ladder") | {"kind": kinds}


def score(tables: suite.Tables, cfg: Config, boot: suite.Bootstrap) -> list[suite.Row]:
    """Control figures, what is stated, and γ by that of L0; equal shares on the base's items."""
    rows = []
    for stage, _, table in suite.parts(tables["ladder"], "stage", "split"):
        rows += _on_slices(table, stage, lambda *part: _control_rows(*part, boot))
    for stage, _, table in suite.parts(tables["ladder_stated"], "stage", "split"):
        rows += _on_slices(table, stage, lambda *part: [_stated(*part, boot)])
    return rows + _ratios(rows)


def _on_slices(table: suite.Columns, stage: str, rows_of: Callable) -> list[suite.Row]:
    """Rows of a rung and of its kinds, and on the base's items those of equal shares."""
    results = control.results_of(table)
    kinds = table["kind"][table["word_index"] == 0]
    slices = {"all": np.ones(len(kinds), bool)}
    slices |= {f"kind={kind}": kinds == kind for kind in np.unique(kinds) if kind}
    answered = {stage: results}
    if stage_named(stage).kind == "base":
        answered[_UNIFORM] = baseline(results, "uniform")
    rows = []
    for name, given in answered.items():
        for where, mask in slices.items():
            place = dict(stage=name, suite="ladder", split=table["split"][0], slice=where)
            rows += rows_of(given.take(mask), place)
    return rows


def _control_rows(items: ControlResults, place: dict, boot: suite.Bootstrap) -> list[suite.Row]:
    place = dict(place)
    slices = {place.pop("slice"): np.ones(len(items.k), bool)}
    made = control_rows(items, **place, slices=slices, boot=boot)
    return [row for row in made if row["metric"] in _METRICS]


def _stated(items: ControlResults, place: dict, boot: suite.Bootstrap) -> suite.Row:
    """The mean share of the right percentage, on questions whose options have enough mass."""
    if not items.readable.any():
        missing = suite.Estimate(value=None, note="the options have too little probability")
        return suite.row_of(missing, place | {"metric": "stated"}, 0, 0)
    items = items.take(items.readable)
    right = {"right": (items.shares * items.target).sum(axis=1)}
    (row,) = suite.rows_at(place, [suite.mean("stated", "right")], right, items.cluster, boot)
    return row


def _ratios(rows: Sequence[suite.Row]) -> list[suite.Row]:
    """γ of every rung by that of L0, which has other word sets; none of baselines."""
    gammas = [row for row in rows if row["metric"] == "gamma" and ":" not in row["stage"]]
    plain = {row["stage"]: row for row in gammas if (row["split"], row["slice"]) == ("L0", "all")}
    found = []
    for row in gammas:
        if row["split"] != "L0":
            place = {name: row[name] for name in ("stage", "suite", "split", "slice")}
            place |= {"metric": "gamma_ratio"}
            ratio = fieller(_estimate(row), _estimate(plain[row["stage"]]))
            found.append(suite.row_of(ratio, place, row["n"], row["clusters"]))
    return found


def _estimate(row: suite.Row) -> suite.Estimate:
    return suite.Estimate(
        value=row["value"], low=row["ci_low"], high=row["ci_high"], note=row.get("note")
    )


def section(tables: suite.Tables, rows: suite.Rows) -> suite.Section:
    """A table a figure: a line a rung, a column a stage."""
    title, rungs = "The ladder: requests unlike those of training", rows.splits("ladder", SPLITS)
    if not rungs:
        return suite.Section(title, absent=["No rung was asked in this run."])
    stages = {stage: stage for stage in rows.stages("ladder")}
    return suite.Section(
        title,
        [
            "Each rung changes one thing of a plain request for two words. “γ by L0” is how much "
            "of graded control is left there: 1 all of it, 0 none. “Stated” is how surely the "
            "model tells which percentage was requested, out of four: where that is high and γ "
            "low, the request was understood and not followed."
        ],
        tables=[_table(rows, figure, rungs, stages) for figure in FIGURES],
        explained=FIGURES,
        link="Ladder",
    )


def questions(rows: suite.Rows) -> list[suite.Question]:
    """How much of graded control is left on each rung, where L0 has some."""
    stage = rows.subject("ladder")
    ratios = {rung: rows.get(stage, "ladder", rung, "all", "gamma_ratio") for rung in RUNGS}
    said = [
        f"{rung} ({RUNGS[rung]}) {figure(row, 2)}"
        for rung, row in ratios.items()
        if value_of(row) is not None
    ]
    return suite.question(
        asked="How far does control carry, rung by rung?",
        by="γ of a rung by γ of L0, plain requests: 1 all of it, 0 none",
        found=[f"{stage}: {'; '.join(said)}"] if said else [],
        beyond="rungs without a value, and those that the ladder does not hold",
    )


def _table(
    rows: suite.Rows, figure: suite.Figure, rungs: Sequence[str], stages: dict[str, str]
) -> suite.Table:
    lines = [
        slice_table(rows, ("ladder", rung), figure, {"all": f"{rung}: {RUNGS[rung]}"}, stages)
        for rung in rungs
    ]
    body = [line for table in lines for line in table.body]
    return suite.Table(head=lines[0].head, body=body)
