"""All that the file of a suite imports of its surroundings.

A suite is a module `antiimit_jax/suites/NAME.py` (or a folder of that name) and its entry in
`SUITES`. It has these names:

    class Config                    a frozen dataclass; becomes RunConfig.NAME, --config.NAME.field
    TABLES: dict[str, pa.Schema]    what it writes, each with a column "stage"
    FIGURES: tuple[Figure, ...]     the metrics of its rows, here or in data/figures.jsonl
    measure(asker, cfg) -> Tables   asks one stage's model; writes tables, computes no figure
    score(tables, cfg, boot)        every row, from the joined tables of all stages; no model
    section(tables, rows) -> Section

and may have NEEDS (what it asks besides `words`), ASKS_OTHER (that it asks `asker.other` too),
SPLITS (split -> meaning, in order of interest), HEADLINE (those of FIGURES that model card and
TensorBoard show),
`places(rows)` ((split, slice) of the headline of each split -> that in words; else slice "all"),
`questions(rows)` (a list of `Question`, what of the study's questions it answers),
`samples(tables)` (for console and TensorBoard), `headline(rows)` (for the console),
`images(tables, rows)` (for TensorBoard) and `programs(cfg, eval_seed, scoring)` (for the memory
plan).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from antiimit_jax.evaluation.asker import Asker
from antiimit_jax.fields import between, count, free, one_of, own_file, shared
from antiimit_jax.metrics.intervals import Estimate, Statistic, estimate, mean
from antiimit_jax.metrics.resampling import Bootstrap, column_sums
from antiimit_jax.metrics.rows import estimate_of, row_of
from antiimit_jax.reporting.rows import Rows
from antiimit_jax.results import (
    Cell,
    Columns,
    Figure,
    Line,
    Picture,
    Question,
    Row,
    Section,
    Stage,
    Table,
    Tables,
    make_row,
    taken,
)
from antiimit_jax.scoring.asks import Answer, Ask, FirstToken, Program, Scoring
from antiimit_jax.tasks.items import Item
from antiimit_jax.text.formats import Message

DRAWN_TWICE = "a text drawn twice would agree with itself: no interval"  # of pairs of texts
_FIGURES = Path(__file__).with_name("data") / "figures.jsonl"


def figures(suite: str) -> tuple[Figure, ...]:
    """What `data/figures.jsonl` holds of a suite, in the order of the file."""
    lines = [json.loads(line) for line in _FIGURES.read_text("utf-8").splitlines()]
    return tuple(Figure(**line) for line in lines if line.pop("suite") == suite)


def parts(table: Columns, *columns: str) -> Iterator[tuple]:
    """(value of each of the columns, its rows) for all values that stand together, as they come."""
    for values in dict.fromkeys(zip(*(table[name] for name in columns))):
        same = [np.asarray(table[name]) == value for name, value in zip(columns, values)]
        yield *values, taken(table, np.all(same, axis=0))


def joined(pieces: Iterable[Columns]) -> Columns:
    """Tables of the same columns, one below another; without a piece there is no column."""
    pieces = list(pieces)
    names = pieces[0] if pieces else ()
    return {name: [value for piece in pieces for value in piece[name]] for name in names}


def asks_of(items: Iterable[Item]) -> list[Ask]:
    """What items put to a model."""
    return [Ask(messages=item.messages, words=item.words) for item in items]


def columns_of_items(
    asker: Asker, items: Sequence[Item], answers: Sequence[Answer]
) -> dict[str, list]:
    """Columns that tables with one row an item have in common."""
    same = {"stage": asker.stage.name, "scoring": asker.scoring.name, "dtype": asker.dtype}
    return {name: [value] * len(items) for name, value in same.items()} | {
        "item": [item.item for item in items],
        "cluster": [item.cluster for item in items],
        "residual": [float(answer.residual) for answer in answers],
    }


def rows_at(
    place: Mapping[str, str],
    statistics: Iterable[Statistic],
    columns: Columns,
    cluster: np.ndarray,
    boot: Bootstrap,
) -> list[Row]:
    """A row of each statistic at one place (stage, suite, split, slice).

    Args:
      columns: [n] values that the statistics sum, one an item; "n" is a column of ones.
      cluster: [n] the unit of resampling.
    """
    n, drawn = len(cluster), boot.draw(cluster)
    sums = column_sums({"n": np.ones(n)} | dict(columns), drawn)
    counts = n, len(np.unique(cluster))
    return [
        row_of(estimate(s, sums, drawn), dict(place) | {"metric": s.name}, *counts)
        for s in statistics
    ]


def question(*, asked: str, by: str, found: Sequence[str], beyond: str) -> list[Question]:
    """A question of the study, where the run answers it."""
    return [Question(asked=asked, by=by, found=found, beyond=beyond)] if found else []
