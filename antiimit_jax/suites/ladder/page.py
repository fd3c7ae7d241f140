"""The ladder on the page: a table a figure, and one for each rung with figures of its own."""

from collections.abc import Sequence

from antiimit_jax.metrics.control import MIN_MASS
from antiimit_jax.reporting.rows import figure, value_of
from antiimit_jax.reporting.tables import figure_table, slice_table
from antiimit_jax.suites import control, suite
from antiimit_jax.suites.ladder.forbidden import HEEDLESS
from antiimit_jax.suites.ladder.sequence import COPIES
from antiimit_jax.suites.ladder.shares import METRICS, UNIFORM
from antiimit_jax.tasks.rungs import RUNGS
from antiimit_jax.tasks.sequences import PLACES
from antiimit_jax.tasks.unnumbered import QUANTIFIERS

SPLITS = RUNGS
FIGURES = (
    *(figure for figure in control.FIGURES if figure.name in METRICS),
    *suite.figures("ladder"),
)
_BY_NAME = {figure.name: figure for figure in FIGURES}
COMMON = (*METRICS, "gamma_ratio", "stated")  # of rungs whose requests name chances
OWN = {  # rung -> its own figures
    "L7": ("tau", "agreement", "mass"),
    "L9": ("gamma", "drift_slope", "gambler", "own_tvd"),
    "L12": ("suppression", "others_tvd", "forbidden", "mass"),
    "L13": ("thought_tvd", "tvd_res"),
}
_L3 = (
    "γ of L3 says little of ten words: in steps of 5% their percentages tie so often that who "
    "knows the ranks knows nearly all."
)
_LAZY = {  # rung -> askers that do not do as asked, beside the stages
    "L7": {UNIFORM: "equal shares always"},
    "L9": {COPIES: "copies the words before"},
    "L12": {HEEDLESS: "the base, were nothing forbidden"},
}
_PLACES = {f"kind=place {place}": f"word {place}" for place in PLACES}
_OFTEN = {f"often={often}": f"“{often}”" for often in QUANTIFIERS}


def section(tables: suite.Tables, rows: suite.Rows) -> suite.Section:
    """A table a figure: a line a rung, a column a stage; then what single rungs have besides."""
    title, rungs = "The ladder: requests unlike those of training", rows.splits("ladder", SPLITS)
    if not rungs:
        return suite.Section(title, absent=["No rung was asked in this run."])
    stages = {stage: stage for stage in rows.stages("ladder")}
    return suite.Section(
        title,
        [
            "Each rung changes one thing of a plain request for two words. “γ by L0” is how much "
            "of graded control is left there: 1 all of it, 0 none. “Stated” is how surely the "
            "model tells which percentage was requested, out of four: where that is far above "
            "0.5, which copying one of the two percentages gives, and γ low, the request was "
            "understood and not followed.",
            *([_L3] if "L3" in rungs else []),
            *_readable(tables.get("ladder_stated", {}), rows, rungs),
        ],
        tables=[
            *(_table(rows, _BY_NAME[name], rungs, stages) for name in COMMON),
            *_own_tables(rows, rungs, stages),
        ],
        explained=FIGURES,
        link="Ladder",
    )


def _readable(table: suite.Columns, rows: suite.Rows, rungs: Sequence[str]) -> list[str]:
    """How many of the questions what was requested each stage answers with an option at all."""
    found = []
    for stage, part in suite.parts(table, "stage") if table else ():
        read = [rows.get(stage, "ladder", rung, "all", "stated") for rung in rungs]
        asked = int((part["word_index"] == 0).sum())
        found.append(f"{stage} {sum(row['n'] for row in read if row)} of {asked}")
    told = f"“Stated” stands on questions whose options have {MIN_MASS:.0%} of the probability"
    return [f"{told}: {', '.join(found)}."] if found else []


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
        beyond="rungs without a value, and those that the ladder does not hold; on L9, how much is "
        "copied from the words before, which also give γ (see the baseline there)",
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


def _own_tables(
    rows: suite.Rows, rungs: Sequence[str], stages: dict[str, str]
) -> list[suite.Table]:
    """The figures of single rungs, and how they go along an answer and from word to word."""
    found = []
    for rung in (rung for rung in OWN if rung in rungs):
        shown = [_BY_NAME[name] for name in OWN[rung]]
        title = f"{rung}: {RUNGS[rung]}"
        lines = stages | _LAZY.get(rung, {})
        found.append(figure_table(rows, ("ladder", rung, "all"), shown, lines, title))
    for rung, metric, slices, title in (
        ("L7", "share", _OFTEN, "What shares the quantifiers get"),
        ("L9", "tvd_res", _PLACES, "Distance along the answer, words before it as requested"),
        ("L9", "gamma", _PLACES, "γ along the answer, words before it as requested"),
        ("L9", "own_tvd", _PLACES, "Distance along the answer, the model's own words before it"),
    ):
        if rung in rungs:
            where = "ladder", rung
            lines = stages | ({COPIES: "copying"} if metric == "gamma" else {})
            found.append(slice_table(rows, where, _BY_NAME[metric], slices, lines, title=title))
    return found
