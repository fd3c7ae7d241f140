"""The page's part on drift: beside the rulers, by kind of text, and the decision rule."""

import numpy as np

from antiimit_jax.evaluation.rulers import OWN
from antiimit_jax.metrics.intervals import clustered_mean
from antiimit_jax.reporting.judging import (
    KL_PLACE,
    LEAST_SEEDS,
    NOT_SUPPORTED,
    RULER,
    SUPPORTED,
    Figures,
    elsewhere,
    outcome,
)
from antiimit_jax.reporting.rows import figure
from antiimit_jax.reporting.tables import figure_table, slice_table
from antiimit_jax.suites import suite
from antiimit_jax.suites.drift.labels import (
    BY_ANCHOR,
    CONTINUED,
    FIGURES,
    LABELS,
    SPLIT,
    SUITE,
    TASK,
)
from antiimit_jax.tasks.neutral import anchor_categories, load_neutral


def section(tables: suite.Tables, rows: suite.Rows) -> suite.Section:
    """Tables beside the rulers, and dot plots by category of text."""
    title = "Does the model still behave normally elsewhere?"
    if not any(row["suite"] == SUITE for row in rows.all):
        return suite.Section(title, absent=["No drift figures in this run."])
    stages = rows.stages(SUITE)
    lines = {s: s for s in stages} | {f"ruler:{name}": LABELS[name] for name in LABELS}
    found = figure_table(rows, (SUITE, SPLIT, "all"), FIGURES, lines, "Tokens of unrelated text")
    own = figure_table(rows, (SUITE, CONTINUED, "all"), FIGURES, lines, "The base's own answers")
    asked = figure_table(rows, (SUITE, TASK, "all"), FIGURES, lines, "First token of the answer")
    beside = {s: s for s in stages} | {RULER: LABELS["int8_channel"]}
    kinds = slice_table(rows, (SUITE, SPLIT), FIGURES[0], BY_ANCHOR, beside)
    held_out = {prompt.category for prompt in load_neutral("drift")} - anchor_categories()
    drawn, legend = _pictures(tables["drift"], rows) if "drift" in tables else ([], [])
    return suite.Section(
        title,
        [
            "Next-token predictions on unrelated text, compared with the base model. The ruler "
            "puts the size in proportion: the base model against itself with coarser weights."
        ],
        drawn,
        [table for table in (found, kinds, own, asked) if table.body],
        readings=[*_readings(rows), *_cost(rows)],
        explained=FIGURES,
        legend=legend,
        notes=[
            "By category of text, from drift.parquet; bars are 95% intervals over prompts, where "
            "there are enough of them. The anchor of training has no text of the categories "
            f"{', '.join(sorted(held_out))}."
        ],
        absent=[] if stages else ["No stage but the base was compared in this run."],
        link="Drift",
    )


def _cost(rows: suite.Rows) -> list[str]:
    """What quantising this run's weights costs, where they are quantised."""
    found = {name: rows.get(f"ruler:{name}", SUITE, SPLIT, "all", "kl_base_tuned") for name in OWN}
    return [
        f"all stages of this run have their layers in {name.removeprefix('own_')}: that moves the "
        f"base by {figure(row, 4)} nats a token from its weights as stored"
        for name, row in found.items()
        if row
    ]


def questions(rows: suite.Rows) -> list[suite.Question]:
    """What else changed, where a stage was compared with the base."""
    return suite.question(
        asked="What else changed?",
        by="KL(base‖stage) of next-token predictions on unrelated text, beside the ruler",
        found=_readings(rows),
        beyond="answers of more than a token, and what tests of knowledge or skill would show",
    )


def _readings(rows: suite.Rows) -> list[str]:
    stage = rows.first(SUITE, "tuned", "other", "placebo")
    get = lambda name: stage and rows.get(name, *KL_PLACE)
    kl, ruler, less = get(stage), get(RULER), get(f"diff:{stage}-{RULER}")
    if not kl or not ruler:
        return []
    parts, needed = elsewhere(Figures(rows), [stage])
    word = "beside"
    if less and less["ci_low"] is not None:
        words = {SUPPORTED: "below", NOT_SUPPORTED: "above"}
        word = words.get(parts[0].verdict, "not told apart from")
    said = (
        f"drift {word} the ruler: on kinds of text that training's anchor lacks {stage} has "
        f"{figure(kl, 4)} nats a token, int8 weights per channel {figure(ruler, 4)}"
    )
    said += f"; text by text the difference is {figure(less, 4)}" if less else ""
    if "leak" not in {row["suite"] for row in rows.all}:
        return [said]
    rules = {SUPPORTED: "holds", NOT_SUPPORTED: "fails"}
    rule = rules.get(outcome(parts, needed), "is open")
    seeds = rows.n_seeds
    few = f"; {seeds or 'no'} training seed{'s' * (seeds != 1)} of the {LEAST_SEEDS} for a verdict"
    return [
        said,
        f"decision rule {rule}: drift below the ruler, leak within its limits"
        + few * (seeds < LEAST_SEEDS),
    ]


def _pictures(
    table: suite.Columns, rows: suite.Rows
) -> tuple[list[suite.Picture], list[tuple[str, str, str]]]:
    from antiimit_jax.reporting import plots  # matplotlib, when it is drawn

    kinds = list(dict.fromkeys(table["category"]))
    found = list(dict.fromkeys(table["stage"]))
    stages = [s for s in rows.stages(SUITE) if s in found]
    rulers = [f"ruler:{name}" for name in LABELS if f"ruler:{name}" in found]
    agree = (table["top1_base"] == table["top1_tuned"]).astype(float)
    drawn = []
    for figure_of, values, log, unit in (
        (FIGURES[0], table["kl_base_tuned"], True, "nats a token (log axis)"),
        (FIGURES[2], agree, False, "share of tokens"),
    ):
        series = {
            name: [_point(table, values, name, kind, not log) for kind in kinds]
            for name in (*stages, *rulers)
        }
        title = f"{figure_of.label} by category"
        drawing = plots.drift_figure(title, kinds, series, log, unit)
        drawn.append(suite.Picture(drawing=drawing, name=f"drift-{figure_of.name}", label=title))
    signs = [(plots.RULER_SIGNS[i % 4], plots.INK, LABELS[r[6:]]) for i, r in enumerate(rulers)]
    return drawn, [*plots.legend(stages), *signs]


def _point(
    table: suite.Columns, values: np.ndarray, stage: str, kind: str, proportion: bool
) -> tuple[float, float, float] | None:
    """Mean and 95% interval over prompts of one stage on one category."""
    chosen = (table["stage"] == stage) & (table["category"] == kind)
    if not chosen.any():
        return None
    spread = "proportion" if proportion else "smooth"
    return clustered_mean(values[chosen], table["prompt_id"][chosen], spread)
