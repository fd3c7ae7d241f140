"""The model card of an export: what it is, how it was made, and how it measured."""

import dataclasses
import importlib.resources
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2

from antiimit_jax.errors import UserError
from antiimit_jax.models.peft import Adapter
from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.rows import Rows, figure, plain_text
from antiimit_jax.trees import flat

_TEMPLATE = importlib.resources.files("antiimit_jax.export") / "templates" / "card.md.j2"
_WHITE_SPACE = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """What is exported."""

    model: str  # as asked for
    base: str  # its hub id, where it has one
    revision: str | None
    adapter: Adapter | None
    run: Path | None  # the folder of the run that made the adapter
    form: str  # "hf" or "peft"
    dtype: str  # of the weights written


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


def write_card(folder: Path, subject: Subject, suites: Mapping[str, ModuleType]) -> None:
    """Writes README.md, with the figures that each suite calls its headline.

    Raises:
      UserError: a file of the run is corrupt.
    """
    peft, adapter = subject.form == "peft", subject.adapter
    model = Path(subject.model).name if is_path(subject.model) else subject.model
    front = {} if is_path(subject.base) else {"base_model": subject.base}
    front |= {
        "library_name": "peft" if peft else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["antiimit_jax", "lora"] if adapter else ["antiimit_jax"],
    }
    facts = {
        "base model": model,
        "revision": subject.revision or "not stated",
        "weights": "LoRA alone, float32" if peft else f"all, stored in {subject.dtype}",
        "adapter sha256": adapter.sha256 if adapter else "no adapter",
    }
    settings, figures, foreign = {}, [], False
    if subject.run is not None:
        config = flat(run_files.read_config(subject.run)["config"])
        text = lambda value: value if isinstance(value, str) else json.dumps(value)
        settings = {key: text(value) for key, value in config.items() if key != "model"}
        if (subject.run / run_files.METRICS).exists():
            metrics = run_files.read_metrics(subject.run)
            made = {sha256: name for name, sha256 in metrics["run"].get("adapters", {}).items()}
            stage = made.get(adapter.sha256) if adapter else None
            figures, foreign = _figures(Rows(metrics["rows"]), stage, suites), stage is None
    environment = jinja2.Environment(**_WHITE_SPACE, undefined=jinja2.StrictUndefined)
    environment.filters |= {"plain": _plain, "cells": _cells}
    card = environment.from_string(_TEMPLATE.read_text("utf-8")).render(
        front={key: json.dumps(value) for key, value in front.items()},
        name=f"{model} with an adapter" if adapter else model,
        subject=subject,
        facts=facts,
        settings=settings,
        figures=figures,
        foreign_figures=foreign,
    )
    run_files.write_text(folder / "README.md", card)


def _figures(rows: Rows, stage: str | None, suites: Mapping[str, ModuleType]) -> list[tuple]:
    """Each suite's name, head and lines: one a split and stage, 95% intervals in brackets."""
    tables = []
    for suite, module in suites.items() if stage else ():
        shown = getattr(module, "HEADLINE", ())
        stages = [name for name in ("base", stage) if name in rows.stages(suite)]
        body = []
        for split, name in itertools.product(rows.splits(suite), stages):
            found = [rows.get(name, suite, split, "all", f.name) for f in shown]
            if any(found):
                first = next(row for row in found if row)
                values = [figure(row, f.decimals) for row, f in zip(found, shown)]
                body.append([split, name, *values, first["n"], first["clusters"]])
        if body:
            head = ["split", "stage", *(f.label for f in shown), "n", "clusters"]
            tables.append((suite, head, body))
    return tables


def _cells(values: Iterable[Any]) -> str:
    """A line of a table."""
    return f"| {' | '.join(_plain(str(value)) for value in values)} |"


def _plain(text: str) -> str:
    """Text that Markdown and HTML leave as it is."""
    shown = plain_text(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join("\\" + char if char in "|`*[]#" else char for char in " ".join(shown.split()))
