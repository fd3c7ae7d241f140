"""The page's sections on control itself: headline, calibration, tables, the gap, slices.

Each function takes a run's files and gives plain data for the template; what is absent comes back
as a sentence that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from antiimit_jax.metrics.control import MIN_MASS
from antiimit_jax.reporting import plots
from antiimit_jax.reporting.curves import calibration
from antiimit_jax.reporting.rows import (
    BASELINES,
    CONTROL_COLUMNS,
    EXPLAINED,
    LABELS,
    STAGES,
    Row,
    Rows,
    figure,
    number,
    signed,
    value_of,
)
from antiimit_jax.reporting.run_files import Run
from antiimit_jax.reporting.tables import table

SPLIT_MEANING = {
    "train": "words and percentages seen in training",
    "heldout_words": "words never trained on, percentages trained on",
    "heldout_percent": "words trained on, percentages never trained on",
    "heldout_both": "neither the words nor the percentages were trained on",
}
SLICES = {
    "k": "by number of words",
    "p": "by percentage asked",
    "tokens": "by tokens of the longest word",
    "template": "by prompt template",
    "shots": "by number of examples shown",
}


def subject(rows: Rows) -> str | None:
    """The stage that sentences are about: tuned where there is one, else the first."""
    stages = rows.stages("control")
    return "tuned" if "tuned" in stages else next(iter(stages), None)


def place(rows: Rows, split: str = "heldout_words") -> tuple[str, str] | None:
    """(split, slice) of the headline: held-out words, two words; the next best where absent."""
    for name in (split, *rows.splits("control")):
        for where in ("k=2", "all"):
            if any(rows.get(s, "control", name, where, "tvd_res") for s in rows.stages("control")):
                return name, where
    return None


def place_words(split: str, where: str) -> str:
    """The split and slice in words."""
    words = {"all": "all numbers of words", "k=2": "two words"}.get(where, where)
    return f"{split} ({SPLIT_MEANING.get(split, 'see the settings')}), {words}"


def headline(rows: Rows, steps: Mapping[str, int]) -> dict[str, Any]:
    """The sentence to take home and the readings of it; steps: training steps of each adapter."""
    here, stage = place(rows), subject(rows)
    if here is None or stage is None:
        return {"sentence": "This run holds no result of the control suite.", "readings": []}
    get = {
        name: rows.get(name, "control", *here, "tvd_res") for name in (*STAGES, *BASELINES, stage)
    }
    told = {"tuned": "the tuned model", "base": "the model before tuning"}.get(stage, stage)
    asked = "two words in stated percentages" if here[1] == "k=2" else "words in stated percentages"
    text = (
        f"Asked for {asked}, {told} puts {figure(get[stage])} of its probability in the wrong "
        "place (TVD)"
    )
    others = {"base": "before tuning it was", "placebo": "the placebo adapter's is"}
    more = [
        f"{words} {figure(get[name])}"
        for name, words in others.items()
        if name != stage and value_of(get[name]) is not None
    ]
    text += "; " + ", ".join(more) + "." if more else "."
    lazy = {
        "baseline:uniform": "a model that ignores the request would score",
        "baseline:two_level": "a step function (larger word always 75%)",
    }
    notes = [
        f"{words} {number(value_of(get[name]))}"
        for name, words in lazy.items()
        if value_of(get[name]) is not None
    ]
    if notes:
        text += " For comparison, " + ", ".join(notes) + "."
    readings = _readings(rows, here, stage, get)
    if stage == "tuned" and _has_interval(get["placebo"]) and _has_interval(get[stage]):
        readings.append(_against_placebo(get[stage], get["placebo"], steps))
    return {"sentence": text, "place": place_words(*here), "readings": readings}


def _against_placebo(tuned: Row, placebo: Row, steps: Mapping[str, int]) -> str:
    word = "do not overlap" if _apart(tuned, placebo) else "overlap"
    text = f"tuned and placebo intervals {word}: {figure(tuned)} against {figure(placebo)}"
    if {"tuned", "placebo"} <= steps.keys() and steps["tuned"] != steps["placebo"]:
        text += f" (placebo {steps['placebo']:,} steps, tuned {steps['tuned']:,})"
    return text


def _readings(
    rows: Rows, here: tuple[str, str], stage: str, get: dict[str, Row | None]
) -> list[str]:
    readings = []
    for name, words in (
        ("baseline:uniform", "ignoring the request"),
        ("baseline:two_level", "a step function"),
    ):
        if value_of(get[name]) is not None and _has_interval(get[stage]):
            value = get[name]["value"]
            side = _side(get[stage], value)
            verdict = {-1: "better than", 0: "not told apart from", 1: "worse than"}[side]
            readings.append(f"{verdict} {words}: TVD {figure(get[stage])} against {number(value)}")
    within = rows.get(stage, "control", *here, "corr_within")
    if _has_interval(within):
        verdict = {
            1: "graded control is there",
            0: "graded control is not shown",
            -1: "shares run against the request",
        }[_side(within, 0)]
        readings.append(
            f"{verdict}: correlation inside the two halves {figure(within)}, a step gives 0"
        )
    return readings


def calibration_panels(run: Run, rows: Rows, split: str = "heldout_words") -> dict[str, Any]:
    """One panel a stage: share given against share asked, two words, first-named word."""
    if run.items is None:
        absent = ["items.parquet is not in this run, so no curve can be drawn."]
        return {"panels": [], "absent": absent}
    panels, absent = [], []
    for stage in dict.fromkeys((*STAGES, *rows.stages("control"))):
        data = calibration(run.items, stage, "control", split)
        if data is None:
            absent.append(f"No two-word items of stage “{stage}” on {split} in this run.")
            continue
        counted, n = int(data.counted.sum()), data.counted.size
        note = f"{counted} of {n} items have mass ≥ {MIN_MASS} and count"
        slope = rows.get(stage, "control", split, "k=2", "slope")
        if value_of(slope) is not None:
            note += f"; slope {figure(slope)} (1 is ideal)"
        if data.grouped:
            note += "; percentages grouped in tenths"
        if counted < n / 2:
            note += "; open marks are the items below that mass, which do not count"
        drawing = plots.calibration_figure(data, stage, stage)
        svg = plots.svg(drawing, f"calibration-{stage}", f"calibration of stage {stage} on {split}")
        panels.append({"svg": Markup(svg), "note": note + "."})
    return {"panels": panels, "absent": absent, "split": split}


def control_tables(rows: Rows) -> list[dict[str, Any]]:
    """The headline table on heldout_words and the same on heldout_both."""
    stages = dict.fromkeys((*STAGES, *rows.stages("control")))
    lines = {stage: stage for stage in stages} | BASELINES
    tables = []
    for split in ("heldout_words", "heldout_both"):
        here = place(rows, split)
        if here is None or here[0] != split:
            tables.append(
                {
                    "missing": f"The split {split} ({SPLIT_MEANING[split]}) was not "
                    "evaluated in this run."
                }
            )
            continue
        tables.append(
            table(rows, "control", *here, CONTROL_COLUMNS, lines) | {"title": place_words(*here)}
        )
    return tables


def explained(metrics: tuple[str, ...]) -> list[tuple[str, str]]:
    """(label, one plain line) of each metric that has a line."""
    return [(LABELS.get(name, name), EXPLAINED[name]) for name in metrics if name in EXPLAINED]


def gap(rows: Rows) -> dict[str, Any]:
    """What new words and new percentages cost, split into lost mass and misplaced share."""
    stage, here = subject(rows), place(rows)
    if stage is None or here is None:
        return {"body": [], "sentences": []}
    where, body, parts = here[1], [], {}
    for split in SPLIT_MEANING:
        get = {
            metric: rows.get(stage, "control", split, where, metric)
            for metric in ("tvd_res", "residual", "skill")
        }
        if value_of(get["tvd_res"]) is None:
            continue
        tvd, residual = get["tvd_res"]["value"], value_of(get["residual"])
        lazy = value_of(rows.get("baseline:uniform", "control", split, where, "tvd_res"))
        parts[split] = (get["tvd_res"], residual, lazy, value_of(get["skill"]))
        body.append(
            {
                "split": split,
                "meaning": SPLIT_MEANING[split],
                "tvd": figure(get["tvd_res"]),
                "residual": number(residual),
                "lazy": number(lazy),
                "skill": figure(get["skill"]),
                "wrong": number(None if residual is None else tvd - residual),
                "n": get["tvd_res"]["n"],
                "clusters": get["tvd_res"]["clusters"],
            }
        )
    pairs = (
        ("heldout_words", "heldout_both", "Held-out percentages on top of held-out words"),
        ("train", "heldout_words", "New words alone"),
        ("train", "heldout_percent", "New percentages alone"),
    )
    sentences = [
        _gap_sentence(words, parts[a], parts[b])
        for a, b, words in pairs
        if a in parts and b in parts
    ]
    if stage == "base":
        sentences = ["Nothing was trained in this run: the splits differ by their items alone."]
    absent = [name for name in SPLIT_MEANING if name not in parts]
    return {"stage": stage, "slice": where, "body": body, "sentences": sentences, "absent": absent}


def _gap_sentence(words: str, start: tuple, end: tuple) -> str:
    first, last = start[0]["value"], end[0]["value"]
    delta = last - first
    verb = "cost" if delta >= 0 else "save"
    text = f"{words} {verb} {number(abs(delta))} of TVD ({number(first)} to {number(last)}"
    if _has_interval(start[0]) and _has_interval(end[0]):
        text += f", intervals {'do not overlap' if _apart(start[0], end[0]) else 'overlap'}"
    text += ")"
    if start[1] is not None and end[1] is not None:
        lost = end[1] - start[1]
        text += (
            f": {signed(lost)} from probability outside the words, {signed(delta - lost)} "
            "from share on the wrong word"
        )
    if None not in (*start[2:], *end[2:]):
        text += (
            f". Ignoring the request goes from {number(start[2])} to {number(end[2])} between "
            f"the same splits, skill from {number(start[3])} to {number(end[3])}"
        )
    return text + "."


def slice_panels(rows: Rows, split: str = "heldout_words") -> dict[str, Any]:
    """TVD by words, percentage, tokens, template and shots: small panels and the numbers below."""
    stages = [s for s in rows.stages("control")]
    dashes = [b for b in ("baseline:uniform", "baseline:two_level")]
    found, absent = [], []
    for key, title in SLICES.items():
        within = "" if rows.slice_values("control", split, key) else "k=2"
        values = rows.slice_values("control", split, key, within)
        if not values:
            absent.append(title)
            continue
        wheres = [f"{within},{key}={value}".lstrip(",") for value in values]
        data = {
            s: [rows.get(s, "control", split, w, "tvd_res") for w in wheres]
            for s in (*stages, *dashes)
        }
        found.append((key, title + (" (two words)" if within else ""), values, data))
    top, above = _top([data for *_, data in found], stages)
    panels, body = [], []
    for key, title, values, data in found:
        drawing = plots.slices_figure(
            title,
            values,
            {s: [_triple(row) for row in data[s]] for s in stages},
            {b: [value_of(row) for row in data[b]] for b in dashes},
            top,
        )
        panels.append(Markup(plots.svg(drawing, f"slices-{key}", f"TVD {title} on {split}")))
        for i, value in enumerate(values):
            row = next(data[s][i] for s in data if data[s][i])
            body.append(
                {
                    "slice": f"{title.removeprefix('by ')}: {value}",
                    "n": row["n"],
                    "clusters": row["clusters"],
                    "cells": [figure(data[s][i]) for s in (*stages, *dashes)],
                }
            )
    return {
        "panels": panels,
        "absent": absent,
        "above": above,
        "split": split,
        "body": body,
        "head": [*stages, *(BASELINES[b].partition(":")[0] for b in dashes)],
    }


UNLIKE_TRAINING = {
    "k=2": "two words, plain request",
    "k=3": "three words",
    "k=4": "four words",
    "k=5": "five words",
    "k=2,templates=heldout": "two words, phrasings never trained on",
    "k=2,few-shot": "two words, after examples in the prompt",
}
SCORING = {
    "scoring=standard": "as everywhere on this page",
    "scoring=terminators_narrow": "a word ends at white space or the end of the turn only",
    "scoring=terminators_wide": "a word ends at anything that does not continue it",
    "scoring=forms_lenient": "other cases and a newline before the word count too",
    "scoring=tokenisations_8": "up to eight tokenisations of each form count",
}


def compared(
    rows: Rows,
    named: Mapping[str, str],
    metric: str,
    extra: tuple[str, ...] = (),
    split: str = "heldout_words",
) -> dict[str, Any]:
    """One metric of every stage over named slices; `extra`: baselines beside the stages."""
    stages = (*rows.stages("control"), *extra)
    body = []
    for where, label in named.items():
        found = [rows.get(stage, "control", split, where, metric) for stage in stages]
        if any(found):
            first = next(row for row in found if row)
            body.append(
                {
                    "label": label,
                    "cells": [figure(row) for row in found],
                    "n": first["n"],
                    "clusters": first["clusters"],
                }
            )
    return {
        "head": [BASELINES.get(stage, stage).partition(":")[0] for stage in stages],
        "body": body,
        "metric": LABELS.get(metric, metric),
        "split": split,
    }


def scoring(rows: Rows) -> list[dict[str, Any]]:
    """How TVD and mass move with what counts as saying a word."""
    made = (compared(rows, SCORING, metric) for metric in ("tvd_res", "mass"))
    return [table for table in made if table["body"]]


def _top(groups: list[dict[str, list[Row | None]]], stages: list[str]) -> tuple[float, str]:
    """The upper end of the axis; the base is drawn off the axis where it would flatten the rest."""
    ends: dict[bool, list[float]] = {True: [], False: []}
    for data in groups:
        for name, found in data.items():
            for row in found:
                if value_of(row) is not None:
                    high = row["ci_high"] if row["ci_high"] is not None else row["value"]
                    ends[name == "base"].append(row["value"] if name == "base" else high)
    if len(stages) > 1 and ends[True] and ends[False] and max(ends[True]) > 1.4 * max(ends[False]):
        return 1.12 * max(ends[False]), f"{number(min(ends[True]))} to {number(max(ends[True]))}"
    return 1.08 * max(ends[True] + ends[False], default=1.0), ""


def _triple(row: Row | None) -> tuple[float | None, float | None, float | None]:
    return (None,) * 3 if row is None else (row["value"], row["ci_low"], row["ci_high"])


def _has_interval(row: Row | None) -> bool:
    return row is not None and None not in (row["value"], row["ci_low"], row["ci_high"])


def _apart(one: Row, other: Row) -> bool:
    return one["ci_high"] < other["ci_low"] or other["ci_high"] < one["ci_low"]


def _side(row: Row, value: float) -> int:
    """-1, 0, 1: the row's interval lies below, holds, lies above the value."""
    return -1 if row["ci_high"] < value else 1 if row["ci_low"] > value else 0
