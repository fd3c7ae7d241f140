"""The page's part on control: calibration, figures, what is new to the model, slices."""

import numpy as np

from antiimit_jax.metrics.control import MIN_MASS
from antiimit_jax.metrics.resampling import FEW_CLUSTERS
from antiimit_jax.reporting.rows import Rows, figure, number, signed, value_of
from antiimit_jax.reporting.tables import figure_table, slice_table
from antiimit_jax.results import Line, Picture, Row, Section, Table, Tables
from antiimit_jax.suites.control.curves import calibration
from antiimit_jax.suites.control.labels import (
    ALL_SPLITS,
    BASELINES,
    HEADLINE,
    LAZY,
    SHOWN,
    SPLITS,
    SUITE,
)
from antiimit_jax.suites.control.lead import (
    DRAWN,
    UNIFORM,
    UNLIKE_TRAINING,
    lead,
    place,
    place_words,
    shown,
)

_TVD = SHOWN[0]
_SLICES = {
    "k": "by number of words",
    "distance": "by distance of the percentage asked from 50",
    "tokens": "by tokens of the longest word",
    "template": "by prompt template",
    "shots": "by number of examples shown",
}
_PAIRS = (  # of splits whose difference has a meaning
    ("heldout_words", "heldout_both", "Held-out percentages on top of held-out words"),
    ("train", "heldout_words", "New words alone"),
    ("train", "heldout_percent", "New percentages alone"),
)


def section(tables: Tables, rows: Rows) -> Section:
    """All parts; `lead` is the sentence to take home, where it was measured, readings of it."""
    here, stage = place(rows), rows.subject(SUITE)
    if here is None or stage is None:
        gone = "This run holds no result of the control suite."
        return Section("Control", lead=[gone], absent=[gone])
    parts = [_calibration(tables, rows), _figures(rows), _gap(rows, here[1], stage), _slices(rows)]
    measured = [f"measured on {place_words(*here)}", "brackets hold 95% intervals over word sets"]
    if "items" in tables:
        count = np.count_nonzero(tables["items"]["word_index"] == 0) // len(rows.stages(SUITE))
        measured.insert(1, f"{count:,} items a stage in all")
    sentence, *readings = lead(rows, here, stage)
    return Section("Control", lead=[sentence, "; ".join(measured), *readings], parts=parts)


def pictures(tables: Tables, rows: Rows, split: str = "heldout_words") -> list[Picture]:
    """A calibration panel a stage: share given against share asked, two words, the first named."""
    from antiimit_jax.reporting import plots  # matplotlib, when it is drawn

    found = []
    for stage in rows.stages(SUITE):
        data = calibration(tables["items"], stage, split)
        if data is None:
            continue
        counted, n = int(data.counted.sum()), data.counted.size
        note = f"{counted} of {n} items have mass ≥ {MIN_MASS} and count"
        slope = rows.get(stage, SUITE, split, "k=2", "slope")
        if value_of(slope) is not None:
            note += f"; slope {figure(slope)} (1 is ideal)"
        if data.grouped:
            note += "; percentages grouped in tenths"
        if counted < n / 2:
            note += "; open marks are the items below that mass, which do not count"
        drawing = plots.calibration_figure({stage: data})
        name, label = f"calibration-{stage}", f"calibration of stage {stage} on {split}"
        found.append(Picture(drawing=drawing, name=name, label=label, caption=note + "."))
    return found


def before_after(tables: Tables, rows: Rows, split: str = "heldout_words") -> Picture | None:
    """The base's calibration curve beside the headline's stage; None where one is missing."""
    from antiimit_jax.reporting import plots

    stages = [rows.first(SUITE, "base"), rows.subject(SUITE)]
    found = {s: calibration(tables["items"], s, split) for s in stages if s and "items" in tables}
    if len(found) < 2 or None in found.values():
        return None
    label = "share given against share asked, before and after fine-tuning"
    return Picture(drawing=plots.calibration_figure(found), name="calibration", label=label)


def images(tables: Tables, rows: Rows) -> dict[tuple[str, ...], Picture]:
    """TensorBoard tag -> calibration curve."""
    return {
        (picture.name.removeprefix("calibration-"), SUITE, split, "calibration"): picture
        for split in rows.splits(SUITE)
        if "items" in tables
        for picture in pictures(tables, rows, split)
    }


def headline(rows: Rows) -> Table | None:
    """The stages and some lazy answers at the headline's place, for the console."""
    here = place(rows)
    if here is None:
        return None
    lines = {stage: stage for stage in rows.stages(SUITE)} | LAZY
    return figure_table(rows, (SUITE, *here), HEADLINE, lines, f"{here[0]}, {here[1]}")


def _calibration(tables: Tables, rows: Rows) -> Section:
    split = "heldout_words"
    drawn = pictures(tables, rows, split) if "items" in tables else []
    absent = [] if drawn else [f"No two-word items on {split} in this run's items.parquet."]
    return Section(
        "Share given against share asked",
        [
            "Two words in plain requests (phrasings that training used, no examples), held-out "
            f"words ({split}). A model in full control lies on the dashed diagonal; one that "
            "ignores the request is flat; one that only knows the larger word is a step at one "
            "half. The strip below each curve shows how much probability the two words get at all."
        ],
        figures=drawn,
        absent=absent,
        link="Calibration",
        notes=[
            "Share given is the first-named word's part of the probability that is on the two "
            "words. Large marks: mean at each percentage asked with a 95% interval over word sets "
            "where there are enough of them; dots: single items, at most 400 drawn."
        ]
        if drawn
        else [],
    )


def _figures(rows: Rows) -> Section:
    """The headline table on held-out words, and the same where the percentages are new too."""
    lines = {stage: stage for stage in rows.stages(SUITE)} | BASELINES
    tables, absent = [], []
    for split in ("heldout_words", "heldout_both"):
        here = place(rows, split)
        if here is None or here[0] != split:
            absent.append(f"The split {split} ({SPLITS[split]}) was not evaluated in this run.")
        else:
            tables.append(figure_table(rows, (SUITE, *here), SHOWN, lines, place_words(*here)))
    title = "Figures, with the lazy baselines"
    return Section(title, tables=tables, explained=SHOWN, absent=absent, link="Figures")


def _gap(rows: Rows, where: str, stage: str) -> Section:
    """What new words and new percentages cost, split into lost mass and misplaced share."""
    body, parts = [], {}
    for split, meaning in ALL_SPLITS.items():
        tvd, outside, skill = (
            rows.get(stage, SUITE, split, where, metric)
            for metric in ("tvd_res", "residual", "skill")
        )
        if value_of(tvd) is None:
            continue
        lost, lazy = value_of(outside), value_of(rows.get(UNIFORM, SUITE, split, where, "tvd_res"))
        parts[split] = (tvd, lost, lazy, value_of(skill))
        wrong = None if lost is None else tvd["value"] - lost
        cells = [figure(tvd), number(lost), number(wrong), number(lazy), figure(skill)]
        cells += [str(tvd["n"]), str(tvd["clusters"])]
        body.append(Line(label=split, small=meaning, cells=cells, kind="stage"))
    found = [
        _gap_sentence(words, parts[a], parts[b]) for a, b, words in _PAIRS if {a, b} <= {*parts}
    ]
    if rows.kind(stage) == "base":
        found = ["Nothing was trained in this run: the splits differ by their items alone."]
    missing = [name for name in SPLITS if name not in parts]
    head = ["split", "TVD", "= outside the words", "+ wrong word", "ignoring the request", "skill"]
    return Section(
        "What new words and new percentages cost",
        [
            f"Stage “{stage}”, slice {where}. TVD is exactly the sum of the probability outside "
            "the words and the share that sits on the wrong word.",
            *found,
        ],
        tables=[Table(head=[*head, "n", "clusters"], body=body)],
        absent=[f"Not evaluated in this run: {', '.join(missing)}."] if missing else [],
        link="New percentages",
    )


def _gap_sentence(words: str, start: tuple, end: tuple) -> str:
    """start, end: (row of TVD, residual, TVD of ignoring the request, skill) of two splits."""
    first, last = start[0]["value"], end[0]["value"]
    delta = last - first
    text = f"{words} {'cost' if delta >= 0 else 'save'} {number(abs(delta))} of TVD "
    text += f"({number(first)} to {number(last)}"
    text += ")"
    if None not in (start[1], end[1]):
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


def _slices(rows: Rows, split: str = "heldout_words") -> Section:
    """TVD by words, percentage, tokens, template and shots: small panels and the numbers below."""
    from antiimit_jax.reporting import plots

    stages = rows.stages(SUITE)
    tvd = lambda stage, where: rows.get(stage, SUITE, split, where, "tvd_res")
    enough = lambda where: any(shown(rows, tvd(stage, where)) for stage in stages)
    lines = {s: s for s in stages} | {b: BASELINES[b].partition(":")[0] for b in DRAWN}
    found, absent, named = [], [], {}
    for key, title in _SLICES.items():
        within = "" if rows.slice_values(SUITE, split, key) else "k=2"
        values = [
            value
            for value in rows.slice_values(SUITE, split, key, within)
            if enough(f"{within},{key}={value}".lstrip(","))
        ]
        if not values:
            absent.append(title)
            continue
        wheres = [f"{within},{key}={value}".lstrip(",") for value in values]
        named |= {w: f"{title.removeprefix('by ')}: {v}" for w, v in zip(wheres, values)}
        data = {s: [_point(rows.get(s, SUITE, split, w, "tvd_res")) for w in wheres] for s in lines}
        found.append((key, title + (" (two words)" if within else ""), values, data))
    top, above = _top(rows, [data for *_, data in found])
    drawn = []
    for key, title, values, data in found:
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
    return Section(
        "TVD by kind of request",
        [
            f"Split {split}; bars are 95% intervals. A stage is better where its mark lies further "
            f"below the lines. Slices of fewer than {FEW_CLUSTERS} word sets are in metrics.json "
            "alone."
        ],
        drawn,
        [table for table in tables if table.body],
        legend=[*plots.legend(stages), *signs],
        notes=[edge] if above else [],
        absent=[f"Too few word sets in this run to show TVD {', '.join(absent)}."]
        if absent
        else [],
        link="Slices",
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
