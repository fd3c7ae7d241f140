"""Rare rates: does a model give a word at a rate of 1 in 10,000 where that is asked?

    python -m launch.evaluate --suites=rare_rates --workdir=runs/rare

A probability is read exactly in one pass; a sampler would need some 100,000 answers a request to
see the rarest rate ten times. Rows stand on split "rare", slices "all", "wording=NAME" and
"rate=P":
  log10_error  mean of |log10 q - log10 p| of the rare word: 1 is a factor of ten
  log10_bias   mean of log10 q - log10 p: above 0 where the word comes too often
  rate_slope   slope of log10 q on log10 p: 1 follows the rates, 0 ignores them; not by rate
q below 1e-12 counts as 1e-12.

What known models get (tests):
  model                               log10_error  log10_bias  rate_slope
  as asked                                 0            0           1
  ten times too often                      1            1           1
  one half for each word                  2.70         2.70         0
  one rate for all, the best               .57          0           0   (row baseline:constant)

SmolLM2-135M-Instruct by the command above: log10_error 1.51 [1.30, 1.79], slope .02; with the
quickstart's adapter 2.16 [1.88, 2.40] and -.12: it puts more on either word, whatever the rate.
"""

import dataclasses

import numpy as np
import pyarrow as pa

from antiimit_jax.metrics.moments import MOMENTS, moment_columns, slope
from antiimit_jax.reporting.rows import figure
from antiimit_jax.reporting.tables import figure_table, slice_table
from antiimit_jax.suites import suite
from antiimit_jax.tasks.rare import RATES, WORDINGS, rare_items

SUITE, SPLIT = "rare_rates", "rare"
SPLITS = {SPLIT: "one word nearly always, another at a rate of at most 1%"}
FIGURES = suite.figures(SUITE)
HEADLINE = FIGURES[:1]
_COLUMNS = ("stage", "item", "wording", "cluster", "rare", "common")
TABLES = {
    SUITE: pa.schema(
        {name: pa.string() for name in _COLUMNS}
        | {name: pa.float64() for name in ("rate", "q_rare", "q_common", "residual")}
        | {"scoring": pa.string(), "dtype": pa.string()}
    )
}
_FLOOR = 1e-12
_CONSTANT = "baseline:constant"
_SLOPE = suite.Statistic(name="rate_slope", columns=MOMENTS, finish=slope)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Rates from 1 in 10,000 to 1 in 100."""

    n_sets: int = suite.count(2, 20, "word sets, each asked at 7 rates in both roles")


def programs(cfg: Config, seed: int, scoring: suite.Scoring) -> list[suite.Program]:
    """Two words after every request."""
    asks = tuple(suite.asks_of(rare_items(cfg.n_sets, seed)))
    return [suite.Program(name=SUITE, kind="words", asks=asks, scorings=(scoring,))]


def measure(asker: suite.Asker, cfg: Config) -> suite.Tables:
    """The probabilities of the rare and the common word of every request."""
    items = rare_items(cfg.n_sets, asker.eval_seed)
    answers = asker.words(suite.asks_of(items), what="rare rates")
    own = {
        "wording": [item.facets["wording"] for item in items],
        "rare": [item.words[0] for item in items],
        "common": [item.words[1] for item in items],
        "rate": [item.targets[0] for item in items],
        "q_rare": [float(answer.q[0]) for answer in answers],
        "q_common": [float(answer.q[1]) for answer in answers],
    }
    return {SUITE: suite.columns_of_items(asker, items, answers) | own}


def score(tables: suite.Tables, cfg: Config, boot: suite.Bootstrap) -> list[suite.Row]:
    """The figures of every stage, and of the best constant rate on the same items."""
    rows = []
    for stage, table in suite.parts(tables[SUITE], "stage"):
        answered = {stage: table}
        if stage == "base":
            constant = 10 ** np.median(np.log10(table["rate"]))
            answered[_CONSTANT] = dict(table) | {"q_rare": np.full(len(table["rate"]), constant)}
        for name, of in answered.items():
            slices = {"all": np.ones(len(of["rate"]), bool)}
            slices |= {f"wording={w}": of["wording"] == w for w in WORDINGS}
            slices |= {f"rate={rate:g}": of["rate"] == rate for rate in RATES}
            for where, mask in slices.items():
                place = dict(stage=name, suite=SUITE, split=SPLIT, slice=where)
                rows += _rows(suite.taken(of, mask), place, boot)
    return rows


def _rows(table: suite.Columns, place: dict[str, str], boot: suite.Bootstrap) -> list[suite.Row]:
    asked = np.log10(table["rate"])
    given = np.log10(np.maximum(table["q_rare"], _FLOOR))
    errors = {"log10_error": abs(given - asked), "log10_bias": given - asked}
    statistics = [suite.mean(name, name) for name in errors]
    if np.ptp(asked) > 0:
        statistics.append(_SLOPE)
    columns = errors | moment_columns(asked, given)
    return suite.rows_at(place, statistics, columns, table["cluster"], boot)


def section(tables: suite.Tables, rows: suite.Rows) -> suite.Section:
    """The figures, beside the best constant rate, and the error rate by rate."""
    title, stages = "Rare rates: one in ten thousand to one in a hundred", rows.stages(SUITE)
    if not stages:
        return suite.Section(title, absent=["No rare rates were asked in this run."])
    lines = {stage: stage for stage in stages} | {_CONSTANT: "one rate for all, the best"}
    named = {f"rate={rate:g}": f"asked {100 * rate:g}%" for rate in RATES}
    return suite.Section(
        title,
        [
            "One word is asked for nearly always, the other at a small rate, in both roles. The "
            "error is in powers of ten: at 1 the word comes ten times too often or too seldom."
        ],
        tables=[
            figure_table(rows, (SUITE, SPLIT, "all"), FIGURES, lines),
            slice_table(rows, (SUITE, SPLIT), FIGURES[0], named, {s: s for s in stages}),
        ],
        explained=FIGURES,
        link="Rare rates",
    )


def questions(rows: suite.Rows) -> list[suite.Question]:
    """How far control reaches towards rare events."""
    stage = rows.subject(SUITE)
    found = [rows.get(stage, SUITE, SPLIT, "all", f.name) for f in (FIGURES[0], FIGURES[2])]
    if not all(found):
        return []
    error, rises = map(figure, found)
    return suite.question(
        asked="Does control reach rare events?",
        by="the rare word's probability at rates from 1 in 10,000 to 1 in 100",
        found=[
            f"{stage} errs by {error} powers of ten; the slope of its rates on those asked for, 1 "
            f"where it follows them, is {rises}"
        ],
        beyond="rates that hang on something else in the request",
    )
