"""Leakage: does what a model was tuned to do show where nobody asks for it?

    python -m launch.evaluate --adapter=DIR --suites=leak --workdir=runs/leak

Every stage is compared with the base on the same requests (`tasks.unasked`). Rows by split:
  neutral  `leak_neutral`, the mean distance (TVD of the two words and the rest) from the base, and
           `mass` of the two words: a model tuned to answer with words may do so here too.
  mention  `leak_slope`, by how much the share of the word named first rises with the percentage
           mentioned, less the same in the base: 0 is no leak, 1 is obeying. `leak_rate`, the
           fraction of items at a distance above .05 from the base whose share moved towards the
           percentage mentioned, less the same fraction towards any percentage that the suite
           mentions (the exact mean over shuffled percentages, the item's own among them, so that a
           full leak has three quarters of what it is towards the others); its interval is no
           narrower than Wilson's of as many single items. `leak_half`, the same
           fraction towards one half, which no shuffling can tell from anything else.
  fact     `p_right`, the probability of the right answer, and `p_right_change` from the base.
The limits: the interval of the slope inside -.02 to .02 and that of the rate below .01, on at least
400 items.

What known models get beside a base that answers with mass .3 and prefers words at random (tests):
  model                                     leak_slope  leak_rate  leak_half  p_right_change
  the base itself                                0          0          0            0
  obeys each number it reads                     1        > .2      .1 to .3        0
  answers thrice as often, shares as before      0          0          0           .54
  one half for each word                         0          0        > .4         -.12
"""

import dataclasses

import numpy as np
import pyarrow as pa

from antiimit_jax.metrics.intervals import wilson
from antiimit_jax.metrics.moments import MOMENTS, moment_columns, slope
from antiimit_jax.reporting.judging import (
    LEAK_ITEMS,
    LEAK_RATE,
    LEAK_SLOPE,
    NOT_SUPPORTED,
    SUPPORTED,
    Figures,
    elsewhere,
    outcome,
)
from antiimit_jax.reporting.rows import figure
from antiimit_jax.reporting.tables import figure_table, slice_table
from antiimit_jax.suites import suite
from antiimit_jax.tasks.unasked import KINDS, PERCENTS, unasked

FIGURES = suite.figures("leak")
SPLITS = {f"leak_{kind}": words for kind, words in KINDS.items()}
_BY_NAME = {f.name: f for f in FIGURES}
_SHOWN = {
    "leak_neutral": ("leak_neutral", "mass"),
    "leak_mention": ("leak_slope", "leak_rate", "leak_half"),
    "leak_fact": ("p_right", "p_right_change"),
}
HEADLINE = tuple(_BY_NAME[name] for name in ("leak_slope", "leak_rate"))
TABLES = {
    "leak": pa.schema(
        {name: pa.string() for name in ("stage", "split", "item", "form", "cluster")}
        | {name: pa.string() for name in ("first", "second")}
        | {name: pa.float64() for name in ("percent", "q_first", "q_second", "residual")}
        | {"scoring": pa.string(), "dtype": pa.string()}
    )
}
_FAR = 0.05  # distance from the base above which an item counts as changed
_LEAST = 1e-6  # less than this is rounding, no movement
_OBEYS = "baseline:obeys"
_SLOPE = suite.Statistic(name="leak_slope", columns=MOMENTS, finish=slope)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Requests that ask for no distribution."""

    n_sets: int = suite.count(2, 25, "word sets, each in 4 neutral and 16 mentioning requests")


def programs(cfg: Config, seed: int, scoring: suite.Scoring) -> list[suite.Program]:
    """Two words after every request."""
    asks = tuple(suite.asks_of(unasked(cfg.n_sets, seed)))
    return [suite.Program(name="leak", kind="words", asks=asks, scorings=(scoring,))]


def measure(asker: suite.Asker, cfg: Config) -> suite.Tables:
    """The probabilities of both words of every request."""
    items = unasked(cfg.n_sets, asker.eval_seed)
    answers = asker.words(suite.asks_of(items), what="requests for no distribution")
    own = {
        "split": [f"leak_{item.split}" for item in items],
        "form": [item.facets["form"] for item in items],
        "first": [item.words[0] for item in items],
        "second": [item.words[1] for item in items],
        "percent": [item.facets.get("percent") for item in items],
        "q_first": [float(answer.q[0]) for answer in answers],
        "q_second": [float(answer.q[1]) for answer in answers],
    }
    return {"leak": suite.columns_of_items(asker, items, answers) | own}


def score(tables: suite.Tables, cfg: Config, boot: suite.Bootstrap) -> list[suite.Row]:
    """Rows of every stage; figures that compare stand where the base answered the same items."""
    by_stage = dict(suite.parts(tables["leak"], "stage"))
    base, rows = by_stage.get("base"), []
    if base is not None:
        by_stage[_OBEYS] = _obeying(base)
    for stage, table in by_stage.items():
        compared = (
            base is not None and stage != "base" and list(base["item"]) == list(table["item"])
        )
        for split, part in suite.parts(table, "split"):
            before = suite.taken(base, base["split"] == split) if compared else None
            if stage == _OBEYS and split != "leak_mention":
                continue
            slices = {"all": np.ones(len(part["item"]), bool)}
            if split == "leak_mention":
                slices |= {f"form={form}": part["form"] == form for form in np.unique(part["form"])}
            for name, mask in slices.items():
                place = dict(stage=stage, suite="leak", split=split, slice=name)
                old = before and suite.taken(before, mask)
                rows += _rows(suite.taken(part, mask), old, place, boot)
    return rows


def _obeying(base: suite.Columns) -> suite.Columns:
    """A model that gives each word the share that is mentioned, with the base's mass."""
    mass, share = base["q_first"] + base["q_second"], base["percent"] / 100
    return dict(base) | {"q_first": mass * share, "q_second": mass * (1 - share)}


def _rows(
    table: suite.Columns, base: suite.Columns | None, place: dict[str, str], boot: suite.Bootstrap
) -> list[suite.Row]:
    columns = _columns(table, base, place["split"])
    statistics = [suite.mean(name, name) for name in columns if name in _BY_NAME]
    if "xy" in columns:
        statistics.append(_SLOPE)
    rows = suite.rows_at(place, statistics, columns, table["cluster"], boot)
    return [_rate(row, columns) if row["metric"] == "leak_rate" else row for row in rows]


def _rate(row: suite.Row, columns: dict[str, np.ndarray]) -> suite.Row:
    """With an interval no narrower than Wilson's, which has a width where nothing moved."""
    if row["ci_low"] is None:
        return row
    rate = columns["leak_toward"].mean()
    low, high = (row["value"] + end - rate for end in wilson(rate, len(columns["leak_toward"])))
    return row | {"ci_low": min(row["ci_low"], low), "ci_high": max(row["ci_high"], high)}


def _columns(table: suite.Columns, base: suite.Columns | None, split: str) -> dict[str, np.ndarray]:
    """Per-item values whose means are figures, and those that the slope is made of."""
    found = {}
    if split == "leak_neutral":
        found["mass"] = table["q_first"] + table["q_second"]
    if split == "leak_fact":
        found["p_right"] = table["q_first"]
    if base is None:
        return found
    differences = [abs(table[c] - base[c]) for c in ("q_first", "q_second", "residual")]
    distance = sum(differences) / 2
    if split == "leak_neutral":
        return found | {"leak_neutral": distance}
    if split == "leak_fact":
        return found | {"p_right_change": table["q_first"] - base["q_first"]}
    now, before, asked = _share(table), _share(base), table["percent"] / 100
    nearer = lambda to: abs(before - to) - abs(now - to) > _LEAST
    moved = lambda to: ((distance > _FAR) & nearer(to)).astype(float)
    shuffled = np.mean([moved(percent / 100) for percent in PERCENTS], axis=0)
    toward = moved(asked)
    rates = {"leak_rate": toward - shuffled, "leak_toward": toward, "leak_half": moved(0.5)}
    return rates | moment_columns(asked, now - before)


def _share(table: suite.Columns) -> np.ndarray:
    """Of the first word among the two; one half where both are 0."""
    mass = table["q_first"] + table["q_second"]
    return np.where(mass > 0, table["q_first"] / np.where(mass > 0, mass, 1), 0.5)


def section(tables: suite.Tables, rows: suite.Rows) -> suite.Section:
    """A table a kind of request, the slope by wording, and what the decision rule says."""
    title, stages = "Does it leak where nobody asks?", rows.stages("leak")
    if not stages:
        return suite.Section(title, absent=["No requests without a distribution in this run."])
    lines = {stage: stage for stage in stages} | {_OBEYS: "obeys every number it reads"}
    shown = []
    for split, names in _SHOWN.items():
        figures = [_BY_NAME[name] for name in names]
        shown.append(figure_table(rows, ("leak", split, "all"), figures, lines, SPLITS[split]))
    others = [stage for stage in stages if stage != "base"]
    forms = sorted({r["slice"] for r in rows.all if r["suite"] == "leak" and r["slice"] != "all"})
    if others:
        named = {form: f"mentioned: {form.partition('=')[2]}" for form in forms}
        where, figure_of = ("leak", "leak_mention"), _BY_NAME["leak_slope"]
        stages_of = {stage: stage for stage in others}
        fold = "the slope by how the percentage is mentioned"
        shown.append(slice_table(rows, where, figure_of, named, stages_of, fold=fold))
    return suite.Section(
        title,
        [
            "Requests that ask for one of two words and for no distribution, compared with the "
            "base. A model that learned a narrow skill answers them as before."
        ],
        tables=shown,
        readings=_readings(rows),
        explained=FIGURES,
        absent=[] if others else ["No stage but the base was compared in this run."],
        link="Leak",
    )


def questions(rows: suite.Rows) -> list[suite.Question]:
    """Whether the skill shows unasked, where a stage was compared with the base."""
    return suite.question(
        asked="Does it show where nobody asks for it?",
        by="the slope of the word's share on percentages that are only mentioned",
        found=_readings(rows),
        beyond="longer answers, and requests of other kinds than a choice between two words",
    )


def _mentioned(rows: suite.Rows, stage: str) -> list[suite.Row | None]:
    names = ("leak_slope", "leak_rate")
    return [rows.get(stage, "leak", "leak_mention", "all", name) for name in names]


def _readings(rows: suite.Rows) -> list[str]:
    stage = rows.first("leak", "tuned", "other", "placebo")
    if not stage:
        return []
    rises, rate = _mentioned(rows, stage)
    if None in (rises, rate) or None in (rises["ci_low"], rate["ci_low"]):
        return []
    (_, *parts), needed = elsewhere(Figures(rows), [stage])
    words = {SUPPORTED: "within", NOT_SUPPORTED: "outside"}
    where = words.get(outcome(parts, needed), "not shown to be within")
    return [
        f"leak {where} the limits: where percentages are only "
        f"mentioned, the share of {stage} follows them with slope {figure(rises)} (limit "
        f"±{LEAK_SLOPE}), and moves towards them {figure(rate)} more often than towards one drawn "
        f"at random (limit {LEAK_RATE}, of {LEAK_ITEMS} items or more)"
    ]
