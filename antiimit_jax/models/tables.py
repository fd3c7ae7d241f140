"""The tables of this room that are data: JSON lines in the folder `data`."""

import importlib.resources
import json
from typing import Any


def read_table(name: str) -> list[dict[str, Any]]:
    """The rows of `data/{name}.jsonl`, as they stand."""
    file = importlib.resources.files("antiimit_jax.models") / "data" / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]
