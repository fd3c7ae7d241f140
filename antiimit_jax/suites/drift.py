"""Drift: does the model still behave normally elsewhere? Next-token predictions on unrelated text.

    python -m launch.evaluate --adapter=DIR --suites=drift --workdir=runs/drift

Every stage is compared with the base, token by token, over the full vocabulary; of 302 texts as
many are asked as `n_prompts` says. Rows by category, and by whether training's anchor has texts of
the category (slices "anchor=has" and "anchor=lacks"). At the base stage the rulers are measured
instead: known small changes of the base's own weights, so that a drift has something to stand
beside (`evaluation.rulers`).
"""

import dataclasses
import itertools

import numpy as np
import pyarrow as pa

from antiimit_jax.evaluation.rulers import RULERS, apply_ruler
from antiimit_jax.metrics.drift import DriftTokens, drift_rows
from antiimit_jax.metrics.intervals import clustered_mean
from antiimit_jax.reporting.rows import figure
from antiimit_jax.reporting.tables import figure_table, slice_table
from antiimit_jax.suites import suite
from antiimit_jax.tasks.neutral import NeutralPrompt, anchor_categories, load_neutral

NEEDS = ("texts", "changed")
SUITE, SPLIT, RULER = "drift", "neutral", "ruler:int8_channel"
SPLITS = {SPLIT: "text that asks for no distribution"}
_LABELS = {
    "int8_channel": "base, int8 weights per channel (the ruler)",
    "int8_block": "base, int8 weights in blocks",
    "bf16": "base, bf16",
    "noise": "base, weights with noise",
}
_BY_ANCHOR = {
    "anchor=has": "kinds of text that the anchor of training has too",
    "anchor=lacks": "kinds that it has no text of",
}
FIGURES = suite.figures(SUITE)
HEADLINE = (FIGURES[0], FIGURES[2])
_PER_TOKEN = (
    "kl_base_tuned kl_tuned_base top5_overlap entropy_base entropy_tuned logp_base logp_tuned"
).split()
TABLES = {
    "drift": pa.schema(
        {name: pa.string() for name in ("stage", "prompt_id", "category")}
        | {name: pa.int32() for name in ("position", "token")}
        | {name: pa.float64() for name in ("kl_base_tuned", "kl_tuned_base")}
        | {name: pa.int32() for name in ("top1_base", "top1_tuned")}
        | {name: pa.float64() for name in _PER_TOKEN[2:]}
        | {"dtype": pa.string()}  # of the weights on both sides
    )
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What changed on unrelated text."""

    n_prompts: int = suite.at_least(1, 102, "unrelated texts, taken from all categories in turn")
    rulers: tuple[str, ...] = suite.one_of(
        RULERS, ("int8_channel", "int8_block", "bf16"), "known changes of the base's weights"
    )


def choose_prompts(count: int) -> list[NeutralPrompt]:
    """The first `count` drift prompts, taken from the categories in turn."""
    by_category: dict[str, list[NeutralPrompt]] = {}
    for prompt in load_neutral("drift"):
        by_category.setdefault(prompt.category, []).append(prompt)
    turns = itertools.zip_longest(*by_category.values())
    return [prompt for turn in turns for prompt in turn if prompt is not None][:count]


def programs(cfg: Config, seed: int, scoring: suite.Scoring) -> list[suite.Program]:
    """The texts under the stage's weights, and under a ruler's."""
    texts = tuple(choose_prompts(cfg.n_prompts))
    found = [suite.Program(name="drift", kind="texts", asks=texts)]
    if count := len(cfg.rulers):
        how = dict(weights="changed", of_base=count)
        found.append(suite.Program(name="rulers", kind="texts", asks=texts, **how))
    return found


def measure(asker: suite.Asker, cfg: Config) -> suite.Tables:
    """Every scored token of the texts; at the base stage, of each ruler."""
    texts = choose_prompts(cfg.n_prompts)
    if asker.stage.kind != "base":
        return {"drift": _asked(asker, asker.stage.name, texts)}
    if not cfg.rulers:
        return {}
    pieces, stored = [], asker.stored
    for ruler in cfg.rulers:
        changed = stored.changed(lambda params, ruler=ruler: apply_ruler(ruler, params))
        pieces.append(_asked(changed, f"ruler:{ruler}", texts))
        del changed  # a whole model; the next ruler must not be made beside it
    return {"drift": suite.joined(pieces)}


def _asked(asker: suite.Asker, name: str, texts: list[NeutralPrompt]) -> suite.Columns:
    pieces = []
    for answer in asker.texts(texts, what=f"unrelated text, {name}"):
        of_text = {"stage": name, "prompt_id": answer.text.id, "category": answer.text.category}
        same = of_text | {"dtype": asker.dtype}
        tokens = {"position": answer.position, "token": answer.token} | answer.differences
        pieces.append({key: [value] * len(answer.token) for key, value in same.items()} | tokens)
    return suite.joined(pieces)


def score(tables: suite.Tables, cfg: Config, boot: suite.Bootstrap) -> list[suite.Row]:
    """KL both ways, agreement, entropy and perplexity of every stage and ruler.

    Over all texts, by category, and by whether the anchor of training has texts of the category.
    """
    rows = []
    for stage, part in suite.parts(tables["drift"], "stage"):
        tokens = DriftTokens(
            **{name: part[name] for name in ("prompt_id", "category", *_PER_TOKEN)},
            top1_agree=part["top1_base"] == part["top1_tuned"],
        )
        rows += drift_rows(
            tokens, stage=stage, split=SPLIT, anchored=anchor_categories(), boot=boot
        )
    return rows


def section(tables: suite.Tables, rows: suite.Rows) -> suite.Section:
    """Tables beside the rulers, and dot plots by category of text."""
    title = "Does the model still behave normally elsewhere?"
    if not any(row["suite"] == SUITE for row in rows.all):
        return suite.Section(title, absent=["No drift figures in this run."])
    stages = rows.stages(SUITE)
    lines = {s: s for s in stages} | {f"ruler:{name}": _LABELS[name] for name in RULERS}
    found = figure_table(rows, (SUITE, SPLIT, "all"), FIGURES, lines, "Tokens of unrelated text")
    beside = {s: s for s in stages} | {RULER: _LABELS["int8_channel"]}
    kinds = slice_table(rows, (SUITE, SPLIT), FIGURES[0], _BY_ANCHOR, beside)
    held_out = {prompt.category for prompt in load_neutral("drift")} - anchor_categories()
    drawn, legend = _pictures(tables["drift"], rows) if "drift" in tables else ([], [])
    return suite.Section(
        title,
        [
            "Next-token predictions on unrelated text, compared with the base model. The ruler "
            "puts the size in proportion: the base model against itself with coarser weights."
        ],
        drawn,
        [found, kinds],
        readings=_readings(rows),
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
    kl = stage and rows.get(stage, SUITE, SPLIT, "all", "kl_base_tuned")
    ruler = rows.get(RULER, SUITE, SPLIT, "all", "kl_base_tuned")
    if not kl or not ruler:
        return []
    word = "below" if kl["value"] < ruler["value"] else "not below"
    return [
        f"drift {word} the ruler: {stage} {figure(kl, 4)} nats a token, int8 weights per channel "
        f"{figure(ruler, 4)}"
    ]


def _pictures(
    table: suite.Columns, rows: suite.Rows
) -> tuple[list[suite.Picture], list[tuple[str, str, str]]]:
    from antiimit_jax.reporting import plots  # matplotlib, when it is drawn

    kinds = list(dict.fromkeys(table["category"]))
    found = list(dict.fromkeys(table["stage"]))
    stages = [s for s in rows.stages(SUITE) if s in found]
    rulers = [f"ruler:{name}" for name in RULERS if f"ruler:{name}" in found]
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
    signs = [(plots.RULER_SIGNS[i % 4], plots.INK, _LABELS[r[6:]]) for i, r in enumerate(rulers)]
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
