"""A file of items that a program writes for another's `--items`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from antiimit_jax.files import json_text, replace_file
from launch import cli

_TRAIN = "train with python -m launch.finetune"


def write_items(out: Path, items: Iterable[Mapping[str, Any]], then: str = _TRAIN) -> None:
    """Writes items, one a line, and says what to do with them."""
    lines = [json_text(item) for item in items]
    replace_file(out, lambda made: made.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    cli.show(f"{out}: {len(lines)} items; {then} --items={out}")
