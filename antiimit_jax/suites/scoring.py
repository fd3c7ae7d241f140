"""What counts as saying a word: the same answers scored by other rules.

    python -m launch.evaluate --suites=scoring --workdir=runs/scoring

A figure that hardly moves from rule to rule does not hang on the rule. Each rule changes one thing
of the run's own scoring: where a word may end, which forms count, how many tokenisations of a form.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from antiimit_jax.metrics.rows import control_rows
from antiimit_jax.reporting.tables import slice_table
from antiimit_jax.suites import control
from antiimit_jax.suites.suite import (
    Asker,
    Bootstrap,
    Program,
    Row,
    Rows,
    Scoring,
    Section,
    Tables,
    at_least,
    shared,
    taken,
)

RULES: dict[str, tuple[Mapping[str, str | int], str]] = {  # name -> (what changes, in words)
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
}
FIGURES = tuple(f for f in control.FIGURES if f.name in ("tvd_res", "mass"))
TABLES = {"scoring": control.ITEMS}
_METRICS = ("tvd_res", "mass", "mae_share")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """How many of the control suite's items are scored again."""

    n_items: int = at_least(0, 64)  # plain requests for two words
    control: "control.Config" = shared("control")


def rule(own: Scoring, name: str) -> Scoring:
    """The run's own scoring with what a rule changes."""
    return dataclasses.replace(own, **RULES[name][0])


def programs(cfg: Config, seed: int, scoring: Scoring) -> list[Program]:
    """The same words under every rule."""
    asks = tuple(control.asks_of(control.plain_pairs(cfg.control, seed, cfg.n_items)))
    rules = tuple(rule(scoring, name) for name in RULES)
    return [Program(name="scoring", kind="words", asks=asks, scorings=rules)] if asks else []


def measure(asker: Asker, cfg: Config) -> Tables:
    """The items' answers under every rule; the column `scoring` names the rule."""
    items = control.plain_pairs(cfg.control, asker.seed, cfg.n_items)
    parts = [
        control.item_columns(
            asker,
            "scoring",
            items,
            asker.words(
                control.asks_of(items), what=f"rule {name}", scoring=rule(asker.scoring, name)
            ),
            scoring=name,
        )
        for name in RULES
        if items
    ]
    return (
        {"scoring": {name: sum((p[name] for p in parts), []) for name in parts[0]}} if parts else {}
    )


def score(tables: Tables, cfg: Config, boot: Bootstrap) -> list[Row]:
    """TVD, mass and the error of shares under every rule: slices "scoring=NAME"."""
    rows, table = [], tables["scoring"]
    for stage in dict.fromkeys(table["stage"]):
        for name in RULES:
            part = taken(table, (table["stage"] == stage) & (table["scoring"] == name))
            if not len(part["item"]):
                continue
            results = control.results_of(part)
            made = control_rows(
                results,
                stage=stage,
                suite="scoring",
                split=part["split"][0],
                slices={f"scoring={name}": np.ones(len(results.k), bool)},
                boot=boot,
            )
            rows += [row for row in made if row["metric"] in _METRICS]
    return rows


def section(tables: Tables, rows: Rows) -> Section:
    """How TVD and mass move with what counts as saying a word."""
    title, split = "What counts as saying a word", rows.splits("scoring", control.SPLITS)
    if not split:
        return Section(title, absent=["No items were scored by other rules in this run."])
    slices = {f"scoring={name}": words for name, (_, words) in RULES.items()}
    stages = {stage: stage for stage in rows.stages("scoring")}
    return Section(
        title,
        ["The same items scored by other rules. A figure that hardly moves does not hang on it."],
        tables=[slice_table(rows, ("scoring", split[0]), f, slices, stages) for f in FIGURES],
        link="Scoring",
    )
