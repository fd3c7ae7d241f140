"""What one stage of a run (base, tuned, placebo, a ruler) gave, ready to be written."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(kw_only=True)
class StageResult:
    """Rows of metrics.json, columns of the Parquet tables, and sampled prompts."""

    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    tables: dict[str, dict[str, list]] = dataclasses.field(default_factory=dict)
    samples: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def add(self, other: StageResult) -> None:
        """Appends another result's rows, tables and samples."""
        self.rows += other.rows
        self.samples += other.samples
        for name, columns in other.tables.items():
            mine = self.tables.setdefault(name, {column: [] for column in columns})
            for column, values in columns.items():
                mine[column] += values
