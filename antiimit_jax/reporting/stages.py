"""A run is written stage by stage: each stage's figures and tables lie in `stages/NAME` until all
are joined into the files of the run. A stage that is there is whole, so a run that was stopped goes
on behind the last one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from antiimit_jax.errors import UserError
from antiimit_jax.files import whole_folder
from antiimit_jax.reporting import run_files

_ROWS, _EXTRA = "rows.json", "extra.json"


def stage_folder(workdir: Path, stage: str) -> Path:
    """Where a stage lies."""
    return workdir / "stages" / stage


def write_stage(
    workdir: Path,
    stage: str,
    *,
    rows: Sequence[Mapping[str, Any]],
    tables: Mapping[str, Mapping[str, Sequence]],
    samples: Sequence[Mapping[str, Any]],
    extra: Mapping[str, Any],
) -> None:
    """Writes a stage whole or not at all, in place of an earlier one.

    Args:
      rows: of metrics.json.
      tables: columns of the run's Parquet tables.
      extra: whatever the caller needs to know when it comes back (adapter hash, prior).
    """
    with whole_folder(stage_folder(workdir, stage)) as made:
        for name, columns in tables.items():
            run_files.write_table(made, name, columns)
        run_files.write_samples(made, samples)
        run_files.write_text(made / _ROWS, json.dumps(list(rows), allow_nan=False))
        run_files.write_text(made / _EXTRA, json.dumps(dict(extra), allow_nan=False))


def read_extra(workdir: Path, stage: str) -> dict[str, Any] | None:
    """What the caller left with a stage, or None where the stage is not there.

    Raises:
      UserError: the stage's file is corrupt.
    """
    folder = stage_folder(workdir, stage)
    return _read(folder / _EXTRA) if folder.is_dir() else None


def join_stages(workdir: Path, stages: Sequence[str], info: Mapping[str, Any]) -> None:
    """Joins the stages that are there, in the order given, into the files of the run.

    Args:
      info: the run block of metrics.json.

    Raises:
      UserError: a stage's file is corrupt.
    """
    rows: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    tables: dict[str, list[pa.Table]] = {}
    for stage in stages:
        folder = stage_folder(workdir, stage)
        if not folder.is_dir():
            continue
        rows += _read(folder / _ROWS)
        samples += run_files.read_samples(folder)
        for name in run_files.TABLES:
            if (folder / f"{name}.parquet").exists():
                tables.setdefault(name, []).append(run_files.read_table(folder, name))
    for name, parts in tables.items():
        run_files.write_table(workdir, name, pa.concat_tables(parts))
    run_files.write_samples(workdir, samples)
    run_files.write_metrics(workdir, info, rows)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not readable ({error}); start anew with --overwrite") from error
