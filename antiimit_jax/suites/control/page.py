"""The page's part on control: calibration, figures, what is new to the model."""

import dataclasses

import numpy as np

from antiimit_jax.metrics.hypotheses import less
from antiimit_jax.metrics.intervals import Estimate
from antiimit_jax.metrics.resampling import FEW_CLUSTERS
from antiimit_jax.reporting.rows import Rows, figure, interval, number, signed, value_of
from antiimit_jax.reporting.tables import figure_table
from antiimit_jax.results import Line, Section, Table, Tables
from antiimit_jax.suites.control.curves import SPREAD
from antiimit_jax.suites.control.labels import (
    ALL_SPLITS,
    BASELINES,
    FURTHER,
    HEADLINE,
    LAZY,
    MAIN,
    OF_SETS,
    SUITE,
)
from antiimit_jax.suites.control.lead import (
    UNIFORM,
    few_sets,
    has_interval,
    lead,
    place,
    places,
    shown,
)
from antiimit_jax.suites.control.pictures import front, pictures
from antiimit_jax.suites.control.slices import slices

_PAIRS = (  # of splits whose difference has a meaning
    ("heldout_words", "heldout_both", "Held-out percentages on top of held-out words"),
    ("train", "heldout_words", "New words alone"),
    ("train", "heldout_percent", "New percentages alone"),
)
_UNPAIRED = (
    "Each split has word sets of its own, so differences between splits are not paired: their "
    "intervals add the half-widths of both splits' TVD as squares."
)


def section(tables: Tables, rows: Rows) -> Section:
    """All parts; `lead` is the sentence to take home, where it was measured, readings of it."""
    here, stage = place(rows), rows.subject(SUITE)
    if here is None or stage is None:
        gone = "This run holds no result of the control suite."
        return Section("Control", lead=[gone], absent=[gone])
    compared = rows.kind(stage) != "base" and here[0] in ALL_SPLITS
    gap = [_gap(rows, here[1], stage)] if compared else []
    split = here[0]
    parts = [_calibration(tables, rows, split), _figures(rows, split), *gap]
    parts.append(slices(tables, rows, split))
    where = places(rows)[here]
    measured = [f"measured on {where}", "without intervals"]
    if any(has_interval(rows.get(s, SUITE, *here, "tvd_res")) for s in rows.stages(SUITE)):
        measured[1] = "brackets hold 95% intervals over word sets"
        measured += [few_sets(rows, here)] if few_sets(rows, here) else []
    if "items" in tables:
        count = np.count_nonzero(tables["items"]["word_index"] == 0) // len(rows.stages(SUITE))
        measured.insert(1, f"{count:,} items a stage in all")
    sentence, *readings = lead(rows, here, stage)
    said = [sentence, "; ".join(measured), *readings]
    return Section("Control", lead=said, front=front(tables, rows, split), parts=parts)


def headline(rows: Rows) -> Table | None:
    """The stages and some lazy answers at the headline's place, for the console."""
    here = place(rows)
    if here is None:
        return None
    lines = {stage: stage for stage in rows.stages(SUITE)} | LAZY
    table = figure_table(rows, (SUITE, *here), HEADLINE, lines)
    body = [dataclasses.replace(line, cells=line.cells[:-2]) for line in table.body]
    tvd = next(filter(None, (rows.get(line, SUITE, *here, "tvd_res") for line in lines)))
    counted = f"{tvd['n']:,} items in {tvd['clusters']} word sets"  # the same of all lines
    title = [places(rows)[here], counted, few_sets(rows, here)]
    return Table(head=table.head[:-2], body=body, title="; ".join(filter(None, title)))


def _calibration(tables: Tables, rows: Rows, split: str) -> Section:
    drawn = pictures(tables, rows, split) if "items" in tables else []
    absent = [] if drawn else [f"No two-word items on {split} in this run's items.parquet."]
    plain = f"plain requests (usual phrasings, no examples) of {split}"
    asked = plain if split in ALL_SPLITS else "your own items"
    return Section(
        "Share given against share asked",
        [
            f"Two words in {asked}. A model in full control lies on the dashed diagonal; one that "
            "ignores the request is flat; one that only knows the larger word is a step at one "
            "half. The strip below each curve shows how much probability the two words get at all."
        ],
        figures=drawn,
        absent=absent,
        link="Calibration",
        notes=[
            "Share given is the first-named word's part of the probability that is on the two "
            "words. Large marks: mean at each percentage asked with a 95% interval over word sets "
            f"where there are enough of them, hollow where these are fewer than {FEW_CLUSTERS}; "
            f"band: {SPREAD:.0%} of the items; dots: single items, at most 400 drawn."
        ]
        if drawn
        else [],
    )


def _figures(rows: Rows, first: str) -> Section:
    """The headline's table, and the same where the percentages are new too."""
    lines = {stage: stage for stage in rows.stages(SUITE)} | BASELINES
    tables, found = [], places(rows)
    for split in dict.fromkeys((first, "heldout_both")):
        for where in [here for here in found if here[0] == split]:
            at = (SUITE, *where)
            tables.append(figure_table(rows, at, MAIN, lines, title=found[where]))
            tables.append(figure_table(rows, at, FURTHER, lines, fold="further figures"))
            owed = "what words and places do to the answers"
            tables.append(figure_table(rows, at, OF_SETS, lines, fold=owed))
    explained = [
        f for f in (*MAIN, *FURTHER, *OF_SETS) if any(f.label in table.head for table in tables)
    ]
    title = "Figures, with the lazy baselines"
    return Section(title, tables=tables, explained=explained, link="Figures")


def _gap(rows: Rows, where: str, stage: str) -> Section:
    """What new words and new percentages cost, split into lost mass and misplaced share."""
    body, parts = [], {}
    for split, meaning in ALL_SPLITS.items():
        tvd, outside, skill = (
            rows.get(stage, SUITE, split, where, metric)
            for metric in ("tvd_res", "residual", "skill")
        )
        if not shown(rows, tvd):
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
    head = ["split", "TVD", "= outside the words", "+ wrong word", "ignoring the request", "skill"]
    return Section(
        "What new words and new percentages cost",
        [
            f"Stage “{stage}”, slice {where}. TVD is exactly the sum of the probability outside "
            "the words and the share that sits on the wrong word.",
            *([_UNPAIRED] if found else []),
            *found,
        ],
        tables=[Table(head=[*head, "n", "clusters"], body=body)],
        link="New percentages",
    )


def _gap_sentence(words: str, start: tuple, end: tuple) -> str:
    """start, end: (row of TVD, residual, TVD of ignoring the request, skill) of two splits."""
    first, last = (
        Estimate(value=tvd["value"], low=tvd["ci_low"], high=tvd["ci_high"])
        for tvd, *_ in (start, end)
    )
    change = less(last, first)
    sure = interval({"ci_low": change.low, "ci_high": change.high})
    text = f"{words} change TVD by {signed(change.value)} {sure}".rstrip()
    text += f", from {number(first.value)} to {number(last.value)}"
    if None not in (start[1], end[1]):
        lost = end[1] - start[1]
        text += (
            f": {signed(lost)} from probability outside the words, {signed(change.value - lost)} "
            "from share on the wrong word"
        )
    if None not in (*start[2:], *end[2:]):
        text += (
            f". Ignoring the request goes from {number(start[2])} to {number(end[2])} between "
            f"the same splits, skill from {number(start[3])} to {number(end[3])}"
        )
    return text + "."
