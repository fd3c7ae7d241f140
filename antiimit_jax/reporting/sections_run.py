"""The page's sections on the rest of a run: residual, drift, training, examples, settings."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from antiimit_jax.reporting import plots
from antiimit_jax.reporting.curves import drift_points
from antiimit_jax.reporting.rows import (
    EXPLAINED,
    RULERS,
    STAGES,
    Row,
    Rows,
    figure,
    number,
    ordered,
    page_text,
    plain_text,
    value_of,
)
from antiimit_jax.reporting.run_files import TABLES, Run
from antiimit_jax.reporting.sections_control import explained
from antiimit_jax.reporting.tables import table
from antiimit_jax.trees import flat

CATEGORIES = {
    "target_words": "the asked words",
    "other_case": "asked words, other case",
    "quotes_markup": "quotes and markup",
    "refusal": "refusal",
    "digits": "digits",
    "other_words": "other words",
    "end_of_turn": "end of turn",
    "unexplored": "not explored",
}
CURVES = {  # column -> (title, log axis)
    "loss": ("loss (log axis)", True),
    "kl_fwd": ("KL(asked‖given), nats (log axis)", True),
    "residual": ("residual (log axis)", True),
    "anchor_kl": ("anchor KL to the base model", False),
    "grad_norm": ("gradient norm", False),
    "lr": ("learning rate", False),
}
TOKEN_METRICS = (
    "kl_base_tuned",
    "kl_tuned_base",
    "top1_agree",
    "top5_overlap",
    "delta_entropy",
    "delta_ppl",
)
LEAK_METRICS = ("leak_neutral", "leak_slope", "leak_rate", "flattening")
LEAK_SLOPE_BOUND, LEAK_RATE_BOUND = 0.02, 0.01  # the decision rule for F2
FOLD_CHARS, FOLD_LINES, MAX_EXAMPLES, MAX_TOP = 700, 12, 8, 8


def one_seed(run: Run, rows: Rows) -> bool:
    """True when adapters were trained with a single seed (run block: adapter_seeds)."""
    seeds = run.info.get("adapter_seeds")
    adapters = set(rows.stages("control")) - {"base"}
    return bool(adapters) and (not isinstance(seeds, list) or len(seeds) < 2)


def residual(run: Run) -> dict[str, Any]:
    """Where the probability goes: stacked bars a forms policy, and the numbers."""
    if run.residual is None:
        return {"absent": ["residual.parquet is not in this run."], "panels": []}
    records = run.residual.to_pylist()
    split = ordered((r["split"] for r in records), ("heldout_words",))[0]
    records = [r for r in records if r["split"] == split]
    share = {(r["stage"], r["forms"], r["category"]): r["share"] for r in records}
    stages = ordered((r["stage"] for r in records), STAGES)
    policies = ordered((r["forms"] for r in records), ("strict", "lenient"))
    kinds = ordered((r["category"] for r in records), CATEGORIES)
    panels = []
    for forms in policies:
        here = [s for s in stages if any((s, forms, kind) in share for kind in kinds)]
        values = {kind: [share.get((s, forms, kind), 0.0) for s in here] for kind in kinds}
        drawing = plots.stacked_figure(f"{forms} forms", here, values)
        panels.append(Markup(plots.svg(drawing, f"residual-{forms}", f"residual, {forms} forms")))
    body = [
        {
            "label": CATEGORIES.get(kind, kind),
            "colour": plots.CATEGORY_COLOURS.get(kind),
            "cells": [number(share.get((s, f, kind))) for f in policies for s in stages],
        }
        for kind in kinds
    ]
    absent = [f"stage “{s}”" for s in STAGES if s not in stages]
    return {
        "panels": panels,
        "split": split,
        "absent": [],
        "head": [f"{s}, {f}" for f in policies for s in stages],
        "body": body,
        "n": max(r["n"] for r in records),
        "without": absent,
        "reading": _refusals(share),
    }


def _refusals(share: Mapping[tuple[str, str, str], float]) -> str:
    found = [(f, share.get(("base", f, "refusal"))) for f in ("strict", "lenient")]
    parts = [f"{number(value)} under {forms} forms" for forms, value in found if value is not None]
    return f"Of the base model's probability, refusals hold {' and '.join(parts)}." if parts else ""


def drift(run: Run, rows: Rows) -> dict[str, Any]:
    """Does the model still behave normally elsewhere: a table beside the ruler, and by category."""
    stages = dict.fromkeys(("tuned", "placebo", *rows.stages("drift")))
    lines = {stage: stage for stage in stages if stage != "base"}
    tables, seen = [], set()
    groups = (
        (TOKEN_METRICS, lines | RULERS, "Tokens of unrelated text"),
        (LEAK_METRICS, lines, "Leak: prompts that do not ask for shares"),
    )
    for split in rows.splits("drift"):
        for names, group, title in groups:
            metrics = tuple(
                m for m in names if any(rows.get(s, "drift", split, "all", m) for s in group)
            )
            if metrics:
                tables.append(
                    table(rows, "drift", split, "all", metrics, group)
                    | {"title": f"{title} ({split})"}
                )
                seen |= set(metrics)
    absent = [] if tables else ["No drift figures in this run (suite drift was not evaluated)."]
    panels, legend = [], []
    if run.drift is None:
        absent.append("drift.parquet is not in this run, so there is no figure by category.")
    else:
        panels, legend = _drift_panels(run)
    return {
        "tables": tables,
        "panels": panels,
        "legend": legend,
        "absent": absent,
        "readings": _drift_readings(rows) if tables else [],
        "explained": explained(tuple(m for m in TOKEN_METRICS + LEAK_METRICS if m in seen)),
    }


def _drift_panels(run: Run) -> tuple[list[Markup], list[tuple[str, str]]]:
    points = drift_points(run.drift)
    kinds = list(dict.fromkeys(p.category for p in points))
    names = ordered((p.stage for p in points), (*STAGES[1:], *RULERS))
    panels = []
    for metric, title, log in (
        ("kl_base_tuned", "KL to the base model", True),
        ("top1_agree", "top-1 agreement with the base model", False),
    ):
        found = {
            (p.stage, p.category): (p.value, p.low, p.high) for p in points if p.metric == metric
        }
        series = {name: [found.get((name, kind)) for kind in kinds] for name in names}
        drawing = plots.drift_figure(
            title, kinds, series, log, "nats a token (log axis)" if log else "share of tokens"
        )
        panels.append(Markup(plots.svg(drawing, f"drift-{metric}", title)))
    rulers = [name for name in names if ":" in name]
    legend = [(plots.RULER_SIGNS[i % 4], RULERS.get(name, name)) for i, name in enumerate(rulers)]
    return panels, legend


def _drift_readings(rows: Rows) -> list[str]:
    """The three parts of the decision rule for F2, each with its numbers or "not measured"."""

    def find(stage: str, metric: str) -> Row | None:
        found = (rows.get(stage, "drift", split, "all", metric) for split in rows.splits("drift"))
        return next((row for row in found if row and row["value"] is not None), None)

    stage = next((s for s in ("tuned", *rows.stages("drift")) if find(s, "kl_base_tuned")), "tuned")
    kl, ruler = find(stage, "kl_base_tuned"), find("ruler:int8_channel", "kl_base_tuned")
    slope, rate = find(stage, "leak_slope"), find(stage, "leak_rate")
    readings = []
    if kl and ruler:
        word = "below" if kl["value"] < ruler["value"] else "not below"
        readings.append(
            f"drift {word} the ruler: {stage} {figure(kl, 4)} nats a token, int8 "
            f"weights per channel {figure(ruler, 4)}"
        )
    else:
        readings.append("drift against the ruler: not measured in this run")
    if slope and None not in (slope["ci_low"], slope["ci_high"]):
        inside = -LEAK_SLOPE_BOUND <= slope["ci_low"] and slope["ci_high"] <= LEAK_SLOPE_BOUND
        readings.append(
            f"leak slope {'inside' if inside else 'not inside'} ±{LEAK_SLOPE_BOUND}: "
            f"{figure(slope)}"
        )
    else:
        readings.append("leak slope: not measured in this run")
    if rate:
        word = "below" if rate["value"] < LEAK_RATE_BOUND else "not below"
        readings.append(f"leak rate {word} {LEAK_RATE_BOUND}: {figure(rate)}")
    else:
        readings.append("leak rate: not measured in this run")
    return readings


def step_counts(run: Run) -> dict[str, int]:
    """Training steps of each adapter; {} without training.parquet."""
    if run.training is None:
        return {}
    pairs = set(zip(run.training["adapter"].to_pylist(), run.training["step"].to_pylist()))
    return dict(collections.Counter(name for name, _ in pairs))


def training(run: Run) -> dict[str, Any]:
    """Training curves of the adapters, how far each ran, and how many steps were skipped."""
    if run.training is None:
        return {"panels": [], "sentences": [], "absent": ["training.parquet is not in this run."]}
    steps = step_counts(run)
    adapter = np.asarray(run.training["adapter"].to_pylist())
    step = run.training["step"].to_numpy()
    skipped = np.asarray(run.training["skipped"].to_pylist(), dtype=float)
    names = ordered(steps, STAGES)
    sentences = []
    for name in names:
        skips = int(np.nansum(skipped[adapter == name]))
        ending = f", {skips} of them skipped." if skips else "."
        sentences.append(f"The {name} adapter ran {steps[name]:,} steps{ending}")
    if {"tuned", "placebo"} <= steps.keys() and steps["tuned"] != steps["placebo"]:
        word = "fewer" if steps["placebo"] < steps["tuned"] else "more"
        sentences.append(
            f"The placebo ran {word} steps than the tuned adapter: differences "
            "between the two are also differences in training length."
        )
    absent = [f"No training of the {n} adapter in this run." for n in STAGES[1:] if n not in steps]
    panels = []
    for column, (title, log) in CURVES.items():
        values = run.training[column].to_numpy().astype(float)
        good = np.isfinite(values)
        if not good.any() or not np.nanmax(np.abs(values)) > 0:
            absent.append(f"{title}: not recorded.")
            continue
        series = {}
        for name in names:
            here = (adapter == name) & good
            if here.any():
                series[name] = (step[here], values[here])
        drawing = plots.training_figure(title, series, log)
        panels.append(Markup(plots.svg(drawing, f"training-{column}", f"{title} over steps")))
    return {"panels": panels, "sentences": sentences, "absent": absent}


def examples(run: Run) -> dict[str, Any]:
    """Prompts with the words' probabilities and each stage's most probable words, by item."""
    if not run.samples:
        return {"items": [], "absent": ["samples.json is not in this run or holds no prompt."]}
    grouped: dict[str, dict[str, dict]] = {}
    for sample in run.samples:
        grouped.setdefault(sample["item"], {})[sample["stage"]] = sample
    shown = [_example(item, by_stage) for item, by_stage in list(grouped.items())[:MAX_EXAMPLES]]
    return {"items": shown, "absent": [], "count": len(shown), "total": len(grouped)}


def _example(item: str, by_stage: dict[str, dict]) -> dict[str, Any]:
    stages = ordered(by_stage, STAGES)
    first = by_stage[stages[0]]
    prompt = page_text(first["prompt"])
    body = [
        {
            "word": plain_text(word),
            "asked": number(target),
            "cells": [number(by_stage[s]["q"][i]) for s in stages],
        }
        for i, (word, target) in enumerate(zip(first["words"], first["targets"]))
    ]
    rest = [number(max(0.0, 1 - sum(by_stage[s]["q"]))) for s in stages]
    top = [
        (s, [(visible(word["text"]), number(word["p"])) for word in by_stage[s]["top"][:MAX_TOP]])
        for s in stages
    ]
    fold = len(prompt) > FOLD_CHARS or prompt.count("\n") >= FOLD_LINES
    return {
        "item": item,
        "prompt": prompt,
        "fold": fold,
        "tail": prompt[-240:].strip(),
        "chars": f"{len(prompt):,}",
        "stages": stages,
        "body": body,
        "rest": rest,
        "top": top,
    }


def visible(text: str) -> str:
    """A short model text with its blanks made visible, cut at 24 characters."""
    shown = plain_text(text).replace(" ", "·") or "(empty)"
    return shown if len(shown) <= 24 else shown[:23] + "…"


def settings(run: Run) -> dict[str, Any]:
    """The run block, the resolved config, the files found, and a warning where hashes differ."""
    info = _shown(run.info)
    config = _shown(run.config["config"]) if run.config else []
    digest = run.config["config_sha256"] if run.config else None
    warning = ""
    if digest and run.info.get("config_sha256") not in (None, digest):
        warning = (
            "config.json and metrics.json name different config hashes: the settings below "
            "may not be those of the figures."
        )
    names = ("metrics.json", "config.json", "samples.json", *(f"{t}.parquet" for t in TABLES))
    files = [(name, "yes" if (run.path / name).exists() else "absent") for name in names]
    return {"info": info, "config": config, "digest": digest, "warning": warning, "files": files}


def _shown(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested settings as (dotted key, text); what is null reads "not set"."""
    pairs = []
    for key, value in flat(tree).items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        empty = value is None or value in ("", [], {})
        pairs.append((key, page_text("not set" if empty else text)))
    return pairs


def other_suites(rows: Rows) -> list[dict[str, Any]]:
    """Rows of suites that have no section of their own, as they are."""
    rest = [row for row in rows.all if row["suite"] not in ("control", "drift")]
    return [
        {
            "suite": suite,
            "known": [
                (m, EXPLAINED[m])
                for m in EXPLAINED
                if any(r["metric"] == m for r in rest if r["suite"] == suite)
            ],
            "body": [
                (r["stage"], r["split"], r["slice"], r["metric"], figure(r), r["n"], r["clusters"])
                for r in rest
                if r["suite"] == suite
            ],
        }
        for suite in dict.fromkeys(row["suite"] for row in rest)
    ]


def steps_sentence(run: Run) -> str:
    """'tuned: 900 steps, placebo: 900 steps', or '' without training.parquet."""
    steps = step_counts(run)
    return ", ".join(f"{name}: {steps[name]:,} steps" for name in ordered(steps, STAGES))


def count_items(rows: Rows) -> int:
    """Control items a stage over all splits, from the rows' n."""
    stage = next(iter(rows.stages("control")), "")
    found = (
        rows.get(stage, "control", split, "all", "tvd_res") for split in rows.splits("control")
    )
    return sum(row["n"] for row in found if value_of(row) is not None)
