"""Tables of figures for a page: a line a stage or baseline, a column a metric, notes said once."""

from __future__ import annotations

from typing import Any

from antiimit_jax.metrics.intervals import NOT_COMPUTED
from antiimit_jax.reporting.rows import LABELS, Row, Rows, decimals, interval, number, value_of


def table(
    rows: Rows, suite: str, split: str, where: str, metrics: tuple[str, ...], lines: dict[str, str]
) -> dict[str, Any]:
    """A table of figures: a line a stage or baseline that has rows, a column a metric.

    lines: stage -> label. Gives head, body, notes (why a cell is empty) and absent lines' labels.
    """
    found = {
        stage: [rows.get(stage, suite, split, where, metric) for metric in metrics]
        for stage in lines
    }
    present = [row for line in found.values() for row in line if row]
    general = _shared(present)
    marks: dict[str, str] = {}
    body = []
    for stage, line in found.items():
        if not any(line):
            continue
        first = next(row for row in line if row)
        own = [note for note in _shared([row for row in line if row]) if note not in general]
        cells = [
            _cell(row, metric, first["n"], marks, {*general, *own})
            for metric, row in zip(metrics, line)
        ]
        body.append(
            {
                "stage": stage,
                "label": lines[stage],
                "cells": cells,
                "n": first["n"],
                "clusters": first["clusters"],
                "mark": _marks(own, marks),
            }
        )
    return {
        "head": [LABELS.get(metric, metric) for metric in metrics],
        "body": body,
        "absent": [lines[stage] for stage, line in found.items() if not any(line)],
        "split": split,
        "slice": where,
        "general": general,
        "notes": [(mark, note) for note, mark in marks.items()],
    }


def _cell(row: Row | None, metric: str, n: int, marks: dict[str, str], known: set[str]) -> dict:
    digits = decimals(metric)
    small = [interval(row, digits)] if interval(row, digits) else []
    if row and row["n"] != n:
        small.append(f"n {row['n']}")
    own = [note for note in _notes(row) if note not in known]
    return {
        "value": number(value_of(row), digits),
        "ci": ", ".join(small),
        "mark": _marks(own, marks),
    }


def _notes(row: Row | None) -> list[str]:
    """A row's notes, less the one that the absence of an interval already tells."""
    parts = ((row or {}).get("note") or "").split("; ")
    return [part for part in parts if part and part != NOT_COMPUTED]


def _shared(found: list[Row]) -> list[str]:
    """Notes that all these rows have, to be said once."""
    first = _notes(found[0]) if found else []
    return [note for note in first if all(note in _notes(row) for row in found)]


def _marks(notes: list[str], marks: dict[str, str]) -> str:
    """Footnote letters of these notes, new ones added to `marks`."""
    return ",".join(marks.setdefault(note, chr(ord("a") + len(marks) % 26)) for note in notes)
