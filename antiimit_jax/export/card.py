"""The model card of an export: what it is, how it was made, and how it measured."""

import importlib.resources
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2

from antiimit_jax.errors import UserError
from antiimit_jax.models.peft import Adapter, base_name
from antiimit_jax.models.weights import Source
from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.report import headline_places
from antiimit_jax.reporting.rows import Rows, figure, plain_text
from antiimit_jax.trees import flat

_TEMPLATE = importlib.resources.files("antiimit_jax.export") / "templates" / "card.md.j2"
_WHITE_SPACE = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}


def run_of(adapter_folder: Path) -> Path | None:
    """The run in whose folder an adapter lies, or None."""
    above = adapter_folder.resolve().parent
    try:
        run_files.read_config(above)
    except UserError:
        return None
    return above


def is_path(model: str) -> bool:
    """Whether a model's name says only where it lies on this machine."""
    return model.startswith(("/", ".", "~")) or Path(model).exists()


def write_card(
    folder: Path,
    source: Source,
    adapter: Adapter | None,
    run: Path | None,
    dtype: str | None,
    suites: Mapping[str, ModuleType],
) -> None:
    """Writes README.md, with the figures that each suite calls its headline.

    Args:
      run: the folder of the run that made the adapter.
      dtype: of the weights written, None for an adapter alone.

    Raises:
      UserError: a file of the run is corrupt.
    """
    base = base_name(source.name)
    settings, figures, foreign, seeds = {}, [], False, 0
    if run is not None:
        config = flat(run_files.read_config(run)["config"])
        text = lambda value: value if isinstance(value, str) else json.dumps(value)
        settings = {key: text(value) for key, value in config.items() if key != "model"}
        if (run / run_files.METRICS).exists():
            metrics = run_files.read_metrics(run)
            made = {sha256: name for name, sha256 in metrics["run"].get("adapters", {}).items()}
            stage = made.get(adapter.sha256) if adapter else None
            rows = run_files.rows_of(metrics)
            seeds, foreign = rows.n_seeds, stage is None
            figures = _figures(rows, stage, suites)
    environment = jinja2.Environment(**_WHITE_SPACE, undefined=jinja2.StrictUndefined)
    environment.filters |= {"plain": _plain, "cells": _cells, "json": json.dumps}
    card = environment.from_string(_TEMPLATE.read_text("utf-8")).render(
        base="" if is_path(base) else base,
        model=Path(source.name).name if is_path(source.name) else source.name,
        revision=source.revision,
        adapter=adapter,
        dtype=dtype,
        from_run=run is not None,
        settings=settings,
        figures=figures,
        seeds=seeds,
        foreign_figures=foreign,
    )
    run_files.write_text(folder / "README.md", card)


def _figures(rows: Rows, stage: str | None, suites: Mapping[str, ModuleType]) -> list[tuple]:
    """Each suite's name, head and lines: one a split's headline and stage, 95% intervals."""
    tables = []
    for suite, module in suites.items() if stage else ():
        shown = getattr(module, "HEADLINE", ())
        stages = [name for name in ("base", stage) if name in rows.stages(suite)]
        body = []
        places = headline_places(suite, module, rows)
        for here, name in itertools.product(places, stages):
            found = [rows.get(name, suite, *here, f.name) for f in shown]
            if first := next(filter(None, found), None):
                values = [figure(row, f.decimals) for row, f in zip(found, shown)]
                body.append([places[here], name, *values, first["n"], first["clusters"]])
        if body:
            head = ["measured on", "stage", *(f.label for f in shown), "n", "clusters"]
            tables.append((suite, head, body))
    return tables


def _cells(values: Iterable[Any]) -> str:
    """A line of a table."""
    return f"| {' | '.join(_plain(str(value)) for value in values)} |"


def _plain(text: str) -> str:
    """Text that Markdown and HTML leave as it is."""
    shown = plain_text(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join("\\" + char if char in "|`*[]#" else char for char in " ".join(shown.split()))
