"""What is measured, as plain data: stages, rows and figures, and the sections that show them.

Nothing here knows a model, a file or a web page; every room above may use it.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

Row = Mapping[str, Any]  # of metrics.json, made by `make_row`
Columns = Mapping[str, Any]  # column -> values, all of equal length
Tables = Mapping[str, Columns]
ROW_KEYS = tuple("stage suite split slice metric value ci_low ci_high n clusters".split())
Kind = Literal["base", "tuned", "placebo", "other"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One model of a run: the base, or the base with an adapter."""

    name: str  # in all files: "base", "tuned", "placebo", "tuned@1", or a foreign adapter's name
    kind: Kind
    adapter_seed: int | None = None  # the index in train.seeds of an adapter that the run trains
    folder: str | None = None  # of the adapter

    @property
    def trained(self) -> bool:
        """Whether the run itself trains this stage's adapter."""
        return self.adapter_seed is not None


BASE = Stage(name="base", kind="base")
STAGE = {  # in JSON
    "name": str,
    "kind": frozenset(typing.get_args(Kind)),
    "adapter_seed": (int, None),
    "folder": (str, None),
}


def adapter_stage(kind: Kind, number: int) -> Stage:
    """A stage of the run's own training; `number` is the index in train.seeds."""
    after = f"@{number}" if number else ""
    folder = {"tuned": "adapter"}.get(kind, kind) + after
    return Stage(name=kind + after, kind=kind, adapter_seed=number, folder=folder)


def stage_named(name: str) -> Stage:
    """The stage that bears a name, where nothing but the name is known."""
    kind, _, number = name.partition("@")
    if kind in ("tuned", "placebo") and (number.isdecimal() or name == kind):
        return adapter_stage(kind, int(number or 0))
    return BASE if name == BASE.name else Stage(name=name, kind="other")


def placebo_beside(stage: str) -> str:
    """The placebo trained with the seed of a stage."""
    return adapter_stage("placebo", stage_named(stage).adapter_seed or 0).name


def stage_order(stages: Sequence[Stage]) -> dict[str, int]:
    """Stage name -> place: the base, adapters by seed (tuned, then placebo), then the others."""
    kinds = ("base", "tuned", "placebo", "other")
    key = lambda s: (s.kind == "other", s.adapter_seed or 0, kinds.index(s.kind))
    return {stage.name: place for place, stage in enumerate(sorted(stages, key=key))}


def make_row(
    *, stage, suite, split, slice, metric, value, ci_low=None, ci_high=None, n, clusters, note=""
) -> dict[str, Any]:
    """One row of metrics.json: plain values, an interval that cannot be had is None with a note."""
    row = dict(stage=stage, suite=suite, split=split, slice=slice, metric=metric, value=value)
    row |= dict(ci_low=ci_low, ci_high=ci_high, n=int(n), clusters=int(clusters))
    return row | {"note": note} if note else row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A metric's name in files and what people are told of it."""

    name: str
    label: str
    explanation: str = ""  # one plain line; "" for one that is in metrics.json alone
    decimals: int = 3
    best: Literal["low", "high", "zero"] = "low"
    needs: str = ""  # what a run must hold for it, in words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawing (matplotlib's `Figure`) with its name in files, and what it shows."""

    drawing: Any
    name: str
    label: str
    caption: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A value in a table, with what stands small beside it."""

    text: str
    small: str = ""
    mark: str = ""  # of a footnote


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a table."""

    label: str
    cells: Sequence[Cell | str]
    small: str = ""
    mark: str = ""
    kind: Literal["stage", "baseline", ""] = ""
    colour: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table to be read."""

    head: Sequence[str]  # the label's column first
    body: Sequence[Line]
    title: str = ""
    notes: Sequence[str] = ()
    fold: str = ""  # shown on demand, under this summary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What a reader wants to know of a run, and how far the run answers it."""

    asked: str
    by: str  # which figures answer it
    found: Sequence[str]  # what came out; empty where the run does not answer it
    beyond: str  # what that does not cover


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page. What is absent is a sentence that says so."""

    title: str
    sentences: Sequence[str] = ()
    figures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    _: dataclasses.KW_ONLY
    link: str = ""  # its name among the page's links; a part without one is not among them
    lead: Sequence[str] = ()  # for the head of the page: a sentence, its place, readings of it
    front: Sequence[Picture] = ()  # for the head of the page
    readings: Sequence[str] = ()  # sentences that compare figures, as a list
    explained: Sequence[Figure] = ()
    legend: Sequence[tuple[str, str, str]] = ()  # (sign, colour, words)
    notes: Sequence[str] = ()  # below the figures
    absent: Sequence[str] = ()
    quote: str = ""  # text of a model, as it is
    fold: str = ""  # the quote is long: shown on demand, under this summary
    beside: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()  # a name, texts with their figures
    parts: Sequence[Section] = ()


def taken(columns: Columns, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of a table at a boolean mask or at indices."""
    return {name: np.asarray(values)[chosen] for name, values in columns.items()}
