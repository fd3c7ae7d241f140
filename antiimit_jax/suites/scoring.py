"""What counts as saying a word: the same answers scored by other rules.

    python -m launch.evaluate --suites=scoring --workdir=runs/scoring

A figure that hardly moves from rule to rule does not hang on the rule. Each rule changes one thing
of the run's own scoring: where a word may end, which forms count, how many tokenisations of a form.
Two more rules leave the words and change the draw, to temperatures 1/2 and 2: a model that follows
percentages at 1 gives words of one token the shares t^2 and t^(1/2) there, scaled to sum 1.
What a run's scoring leaves out, since the tokenizer itself would write a word otherwise, are the
rows `noncanonical` (of all the words' mass) and `noncanonical_most` (of one word's q, at most).

Targets stay as they are asked at every temperature, so .080 and .082 are what the default's items
leave to a model that does exactly as asked. `tvd_res` of known models by rule (tests):
  model                          standard  narrow  wide  lenient  8 tokenisations  T=1/2   T=2
  as asked                           0        0      0       0           0          .080   .082
  log-odds half of those asked     .082     .082   .082    .082        .082          0     .141
  one half for each word           .209     .209   .209    .209        .209        .209    .209
  as asked, in other case            1        1      1       0           1           1       1
  as asked, with a full stop         0        1      0       0           0          .080   .082
  as asked, runs on                  1        1      0       1           1           1       1
  as asked, half in other tokens   .500     .500   .500    .500          0         .500    .510
`mass` is 0 where this is 1, .5 for the last but under its own rule, else 1. The last alone has
something outside its tokens: `noncanonical` .5, `noncanonical_most` .475.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from antiimit_jax.metrics.control import ControlResults
from antiimit_jax.metrics.intervals import Statistic, ratio
from antiimit_jax.metrics.rows import control_rows
from antiimit_jax.reporting.rows import figure, number, value_of
from antiimit_jax.reporting.tables import slice_table
from antiimit_jax.suites import control, suite

RULES: dict[str, tuple[Mapping[str, str | float], str]] = {  # name -> (what changes, in words)
    "standard": ({}, "as everywhere on this page"),
    "terminators_narrow": (
        {"terminators": "narrow"},
        "a word ends at white space or the end of the turn only",
    ),
    "terminators_wide": (
        {"terminators": "wide"},
        "a word ends at anything that does not continue it",
    ),
    "forms_lenient": ({"forms": "lenient"}, "other cases and a newline before the word count too"),
    "tokenisations_8": ({"tokenisations": 8}, "up to eight tokenisations of each form count"),
    "temperature_half": ({"temperature": 0.5}, "tokens drawn at temperature 0.5"),
    "temperature_2": ({"temperature": 2.0}, "tokens drawn at temperature 2"),
}
_OF_CONTROL = tuple(f for f in control.FIGURES if f.name in ("tvd_res", "mass"))
FIGURES = (*_OF_CONTROL, *suite.figures("scoring"))
TABLES = {"scoring": control.ITEMS}
_METRICS = ("tvd_res", "mass", "mae_share")
_MANY = "tokenisations_8"
_NEVER = "no answer has any of the words"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """How many of the control suite's items are scored again."""

    n_items: int = suite.count(0, 64, "plain requests for two words")
    control: "control.Config" = suite.shared("control")


def rule(own: suite.Scoring, name: str) -> suite.Scoring:
    """The run's own scoring with what a rule changes."""
    return dataclasses.replace(own, **RULES[name][0])


def programs(cfg: Config, seed: int, scoring: suite.Scoring) -> list[suite.Program]:
    """The same words under every rule."""
    asks = tuple(suite.asks_of(control.plain_pairs(cfg.control, seed, cfg.n_items)))
    rules = tuple(rule(scoring, name) for name in RULES)
    return [suite.Program(name="scoring", kind="words", asks=asks, scorings=rules)] if asks else []


def measure(asker: suite.Asker, cfg: Config) -> suite.Tables:
    """The items' answers under every rule; the column `scoring` names the rule."""
    items = control.plain_pairs(cfg.control, asker.eval_seed, cfg.n_items)
    if not items:
        return {}
    asks, pieces = suite.asks_of(items), []
    for name in RULES:
        answers = asker.words(asks, what=f"rule {name}", scoring=rule(asker.scoring, name))
        pieces.append(control.item_columns(asker, items, answers, suite="scoring", scoring=name))
    return {"scoring": suite.joined(pieces)}


def score(tables: suite.Tables, cfg: Config, boot: suite.Bootstrap) -> list[suite.Row]:
    """TVD, mass and the error of shares under every rule: slices "scoring=NAME".

    And of each stage, what other tokenisations hold: "noncanonical" and "noncanonical_most".
    """
    rows = []
    for stage, table in suite.parts(tables["scoring"], "stage"):
        place = dict(stage=stage, suite="scoring", split=table["split"][0])
        by_rule = {n: control.results_of(t) for n, t in suite.parts(table, "scoring")}
        for name, results in by_rule.items():
            slices = {f"scoring={name}": np.ones(len(results.k), bool)}
            made = control_rows(results, **place, slices=slices, boot=boot)
            rows += [row for row in made if row["metric"] in _METRICS]
        rows += _noncanonical(by_rule["standard"], by_rule[_MANY], place, boot)
    return rows


def _noncanonical(
    own: ControlResults, many: ControlResults, place: Mapping[str, str], boot: suite.Bootstrap
) -> list[suite.Row]:
    """What the run's own scoring leaves out: of the words' mass, and at most of one word's q."""
    more, drawn = many.q - own.q, boot.draw(many.cluster, many.shot_set)
    sums = suite.column_sums({"more": more.sum(axis=1), "all": many.q.sum(axis=1)}, drawn)
    statistic = Statistic(
        name="noncanonical", columns=("more", "all"), finish=ratio, missing=_NEVER
    )
    most = suite.Estimate(value=float(more.max()), note="a maximum has no interval")
    counts = len(more), len(np.unique(many.cluster))
    place = place | {"slice": f"scoring={_MANY}"}
    found = {statistic.name: suite.estimate(statistic, sums, drawn), "noncanonical_most": most}
    return [suite.row_of(f, place | {"metric": name}, *counts) for name, f in found.items()]


def section(tables: suite.Tables, rows: suite.Rows) -> suite.Section:
    """How TVD and mass move with what counts as saying a word."""
    title, split = "What counts as saying a word", rows.splits("scoring", control.SPLITS)
    if not split:
        return suite.Section(title, absent=["No items were scored by other rules in this run."])
    slices = {f"scoring={name}": words for name, (_, words) in RULES.items()}
    stages = {stage: stage for stage in rows.stages("scoring")}
    return suite.Section(
        title,
        [
            "The same items scored by other rules. A figure that hardly moves does not hang on it. "
            "Temperatures change what is drawn: what follows the percentages at 1, as it is asked "
            "for everywhere else, is too extreme at 0.5 and too even at 2.",
            *_left_out(rows, split[0]),
            *_narrow(rows, split[0]),
        ],
        tables=[slice_table(rows, ("scoring", split[0]), f, slices, stages) for f in _OF_CONTROL],
        link="Scoring",
    )


def _left_out(rows: suite.Rows, split: str) -> list[str]:
    """What words in other tokens than the tokenizer's own hold."""
    parts = []
    for stage in rows.stages("scoring"):
        found = [
            rows.get(stage, "scoring", split, f"scoring={_MANY}", name)
            for name in ("noncanonical", "noncanonical_most")
        ]
        if None not in map(value_of, found):
            all_words, one = map(figure, found)
            parts.append(f"{all_words} of stage “{stage}” (at most {one} for one word)")
    if not parts:
        return []
    return [
        "A form is counted in the tokens that the tokenizer itself writes it in. Of the words' "
        f"probability over up to {RULES[_MANY][0]['tokenisations']} tokenisations a form, that "
        f"leaves out {', '.join(parts)}."
    ]


def _narrow(rows: suite.Rows, split: str) -> list[str]:
    """How far mass and TVD hang on words that punctuation ends."""
    stage = rows.subject("scoring")
    found = [
        value_of(rows.get(stage, "scoring", split, f"scoring={rule}", metric))
        for metric in ("mass", "tvd_res")
        for rule in ("standard", "terminators_narrow")
    ]
    if None in found:
        return []
    mass, narrow, *tvd = found
    return [
        f"If only white space or the end of the turn ended a word (the narrow rule), the mass of "
        f"{stage} would go from {number(mass)} to {number(narrow)}: {number(mass - narrow)} of its "
        "probability is on words that punctuation, a quote or the like ends. TVD would go from "
        f"{number(tvd[0])} to {number(tvd[1])}."
    ]
