"""The page's part on control by kind of request: TVD of slices."""

import os

import numpy as np

from antiimit_jax.metrics.resampling import FEW_CLUSTERS
from antiimit_jax.reporting.rows import Rows, conditions, number, plain_text, value_of
from antiimit_jax.reporting.tables import slice_table
from antiimit_jax.results import Picture, Row, Section, Tables, taken
from antiimit_jax.suites.control.labels import ALL_SPLITS, BASELINES, MAIN, SUITE
from antiimit_jax.suites.control.lead import (
    DRAWN,
    UNIFORM,
    UNLIKE_TRAINING,
    few_sets,
    least_sets,
    place,
    shown,
)

_TVD = MAIN[0]
_SLICES = {
    "k": "by number of words",
    "distance": "by distance asked from 50%",
    "tokens": "by tokens of the longest word",
    "template": "by phrasing",
    "shots": "by number of examples shown",
}


def slices(tables: Tables, rows: Rows, split: str) -> Section:
    """TVD by words, percentage, tokens, phrasing and shots: small panels and the numbers below."""
    from antiimit_jax.reporting import plots

    stages = rows.stages(SUITE)
    tvd = lambda stage, where: rows.get(stage, SUITE, split, where, "tvd_res")
    enough = lambda where: any(shown(rows, tvd(stage, where)) for stage in stages)
    lines = {s: s for s in stages} | {b: BASELINES[b].partition(":")[0] for b in DRAWN}
    found, named, phrasings = [], {}, _texts(tables)
    for key, title in _kinds(rows, split).items():
        within = "" if rows.slice_values(SUITE, split, key) else "k=2"
        values = [
            value
            for value in rows.slice_values(SUITE, split, key, within)
            if enough(f"{within},{key}={value}".lstrip(","))
        ]
        if not values:
            continue
        wheres = [f"{within},{key}={value}".lstrip(",") for value in values]
        values = [phrasings.get(v, v) for v in values] if key == "template" else values
        named |= {w: f"{title.removeprefix('by ')}: {v}" for w, v in zip(wheres, values)}
        data = {s: [_point(rows.get(s, SUITE, split, w, "tvd_res")) for w in wheres] for s in lines}
        found.append((key, title + (" (two words)" if within else ""), values, data))
    top, above = _top(rows, [data for *_, data in found])
    drawn = []
    for key, title, values, data in found:
        if key == "template":
            continue
        dashes = {b: [point and point[0] for point in data[b]] for b in DRAWN}
        drawing = plots.slices_figure(title, values, {s: data[s] for s in stages}, dashes, top)
        label = f"TVD {title} on {split}"
        drawn.append(Picture(drawing=drawing, name=f"slices-{key}", label=label))
    place_of, fewer = (SUITE, split), {s: lines[s] for s in (*stages, UNIFORM)}
    unlike = {where: label for where, label in UNLIKE_TRAINING.items() if enough(where)}
    title = "Requests unlike a plain pair of words"
    tables = [
        slice_table(rows, place_of, _TVD, named, lines, fold="the numbers"),
        slice_table(rows, place_of, _TVD, unlike, fewer, title=title),
    ]
    signs = [
        ("——", plots.INK, "ignoring the request (uniform)"),
        ("·····", plots.INK, "step function (larger of two words always 75%)"),
    ]
    edge = f"Open carets at the upper edge: the base model, above the axis ({above})."
    few = f"Slices of fewer than {FEW_CLUSTERS} word sets are in metrics.json alone"
    few = few if least_sets(rows, place(rows)) else few_sets(rows, place(rows)).capitalize()
    return Section(
        "TVD by kind of request",
        [
            f"Split {split}; bars are 95% intervals. A stage is better where its mark lies further "
            f"below the lines.{f' {few}.' if few else ''}"
        ],
        drawn,
        [table for table in tables if table.body],
        legend=[*plots.legend(stages), *signs],
        notes=[edge] if above else [],
        parts=[_phrasings(*rest, stages) for key, *rest in found if key == "template"],
        link="Slices",
    )


def _kinds(rows: Rows, split: str) -> dict[str, str]:
    """Key of a slice -> its title; of a user's items also their own facets."""
    if split in ALL_SPLITS:
        return _SLICES
    of_split = [row["slice"] for row in rows.all if (row["suite"], row["split"]) == (SUITE, split)]
    keys = dict.fromkeys(key for where in of_split for key in conditions(where))
    return _SLICES | {key: f"by {key}" for key in keys if key not in _SLICES}


def _texts(tables: Tables) -> dict[str, str]:
    """Number of a template -> how its requests begin, marked where training never uses it.

    That is what its prompts have in common, after the lines that all prompts have.
    """
    items = tables.get("items")
    if items is None:
        return {}
    bare = taken(items, (items["word_index"] == 0) & (items["n_shots"] == 0))
    begins = {
        number: os.path.commonprefix(bare["prompt"][bare["template"] == number].tolist())
        for number in np.unique(bare["template"])
    }
    shared = os.path.commonprefix(list(begins.values())).rfind("\n") + 1
    heldout = set(bare["template"][bare["template_heldout"]])
    return {
        str(number): _short(text[shared:]) + " (never trained on)" * (number in heldout)
        for number, text in begins.items()
    }


def _short(text: str) -> str:
    line = " ".join(plain_text(text).replace("⏎", " ").split())
    return f"“{line if len(line) <= 44 else line[:43].rstrip() + '…'}”"


def _phrasings(title: str, names: list[str], data: dict, stages: list[str]) -> Section:
    """TVD of each phrasing, a line of text each."""
    from antiimit_jax.reporting import plots

    drawing = plots.drift_figure(f"TVD {title}", names, data, False, "TVD")
    signs = zip(plots.RULER_SIGNS, DRAWN.values())
    return Section(
        "Phrasings",
        figures=[Picture(drawing=drawing, name="phrasings", label=f"TVD {title}")],
        legend=[*plots.legend(stages), *((sign, plots.INK, words) for sign, (_, words) in signs)],
    )


def _top(rows: Rows, groups: list[dict[str, list[tuple | None]]]) -> tuple[float, str]:
    """The upper end of the axis; the base is drawn off the axis where it would flatten the rest."""
    points = [(name, p) for data in groups for name, found in data.items() for p in found if p]
    base = [p[0] for name, p in points if rows.kind(name) == "base"]
    rest = [p[0] if p[2] is None else p[2] for name, p in points if rows.kind(name) != "base"]
    if len(rows.stages(SUITE)) > 1 and base and rest and max(base) > 1.4 * max(rest):
        return 1.12 * max(rest), f"{number(min(base))} to {number(max(base))}"
    return 1.08 * max(base + rest, default=1.0), ""


def _point(row: Row | None) -> tuple[float, float | None, float | None] | None:
    """The value and the ends of its interval."""
    return None if value_of(row) is None else (row["value"], row["ci_low"], row["ci_high"])
