"""The model card of an export: what it is, how it was made, and how it measured."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from antiimit_jax.errors import UserError
from antiimit_jax.models.peft import Adapter
from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.rows import Rows, figure, plain_text
from antiimit_jax.trees import flat


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
    peft = subject.form == "peft"
    model = Path(subject.model).name if is_path(subject.model) else subject.model
    name = f"{model} with an adapter" if subject.adapter else model
    front = {} if is_path(subject.base) else {"base_model": subject.base}
    front |= {
        "library_name": "peft" if peft else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["antiimit_jax", "lora"] if subject.adapter else ["antiimit_jax"],
    }
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    lines += [f"# {_plain(name)}", "", _what(subject), "", "```python", *_use(subject), "```", ""]
    lines += _facts(
        "What it was made from",
        {
            "base model": model,
            "revision": subject.revision or "not stated",
            "weights": "LoRA alone, float32" if peft else f"all, stored in {subject.dtype}",
            "adapter sha256": subject.adapter.sha256 if subject.adapter else "no adapter",
        },
    )
    if subject.run is not None:
        lines += _run(subject.run, subject.adapter, suites)
    lines += ["The licence is that of the base model.", ""]
    run_files.write_text(folder / "README.md", "\n".join(lines))


def _what(subject: Subject) -> str:
    if subject.adapter is None:
        return "The base model as it is, written by antiimit_jax."
    return (
        "Fine-tuned by antiimit_jax to answer with the words and percentages that a prompt asks "
        "for: the probabilities of its next words are the answer."
        if subject.run
        else "The base model with a LoRA adapter, written by antiimit_jax."
    )


def _use(subject: Subject) -> list[str]:
    if subject.form == "peft":
        return [
            "from peft import AutoPeftModelForCausalLM",
            "",
            'model = AutoPeftModelForCausalLM.from_pretrained("this folder")',
        ]
    return [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model = AutoModelForCausalLM.from_pretrained("this folder")',
        'tokenizer = AutoTokenizer.from_pretrained("this folder")',
    ]


def _run(run: Path, adapter: Adapter | None, suites: Mapping[str, ModuleType]) -> list[str]:
    """The run's figures, if they are of this adapter, and its settings."""
    lines = []
    if (run / run_files.METRICS).exists():
        metrics = run_files.read_metrics(run)
        made = {sha256: name for name, sha256 in metrics["run"].get("adapters", {}).items()}
        stage = made.get(adapter.sha256) if adapter else None
        lines += (
            _figures(Rows(metrics["rows"]), stage, suites)
            if stage
            else ["The figures in the run's folder are of another adapter and are left out.", ""]
        )
    config = run_files.read_config(run)["config"]
    text = lambda value: value if isinstance(value, str) else json.dumps(value)
    settings = {key: text(value) for key, value in flat(config).items() if key != "model"}
    return lines + _facts("Settings of the run", settings)


def _figures(rows: Rows, stage: str, suites: Mapping[str, ModuleType]) -> list[str]:
    """A table for each suite: a line a split and stage, 95% intervals in brackets."""
    lines = []
    for suite, module in suites.items():
        shown = getattr(module, "HEADLINE", ())
        stages = [name for name in ("base", stage) if name in rows.stages(suite)]
        body = []
        for split in rows.splits(suite):
            for name in stages:
                found = [rows.get(name, suite, split, "all", f.name) for f in shown]
                if any(found):
                    first = next(row for row in found if row)
                    values = [figure(row, f.decimals) for row, f in zip(found, shown)]
                    cells = [split, name, *values, first["n"], first["clusters"]]
                    body.append(_line(cells))
        if body:
            head = ["split", "stage", *(f.label for f in shown), "n", "clusters"]
            lines += [f"## Measured: {suite}", "", _line(head), _line(["---"] * len(head)), *body]
            lines += ["", "Values with 95% intervals; one training seed.", ""]
    return lines


def _facts(title: str, facts: Mapping[str, Any]) -> list[str]:
    rows = [_line([name, value]) for name, value in facts.items()]
    return [f"## {title}", "", _line(["what", "value"]), _line(["---", "---"]), *rows, ""]


def _line(cells: list[Any]) -> str:
    return f"| {' | '.join(_plain(str(cell)) for cell in cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown and HTML leave as it is."""
    shown = plain_text(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join("\\" + char if char in "|`*[]#" else char for char in " ".join(shown.split()))
