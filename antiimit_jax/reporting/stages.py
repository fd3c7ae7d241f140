"""A run is written stage by stage: each stage's tables lie in `stages/NAME` until all are joined
into the tables of the run. A stage that is there is whole, so a stopped run goes on after the
last one.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from antiimit_jax.errors import UserError
from antiimit_jax.files import json_text, whole_folder
from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.run_files import Schemas
from antiimit_jax.results import Stage, Tables, stage_order

_FACTS = "stage.json"


def stage_folder(workdir: Path, name: str) -> Path:
    """Where a stage lies."""
    return workdir / "stages" / name


def write_stage(
    workdir: Path, stage: Stage, tables: Tables, schemas: Schemas, facts: Mapping[str, Any]
) -> None:
    """Writes a stage whole or not at all, in place of an earlier one.

    Args:
      facts: what the caller needs to know when it comes back (adapter hash, commit).
    """
    with whole_folder(stage_folder(workdir, stage.name)) as made:
        for name, columns in tables.items():
            table = run_files.to_table(name, columns, schemas[name])
            run_files.write_table(made, name, table)
        text = json_text({"stage": dataclasses.asdict(stage)} | dict(facts))
        run_files.write_text(made / _FACTS, text)


def read_facts(workdir: Path, name: str) -> dict[str, Any] | None:
    """What the caller left with a stage, or None where the stage is not there.

    Raises:
      UserError: the stage's file is corrupt.
    """
    path = stage_folder(workdir, name) / _FACTS
    if not path.parent.is_dir():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not readable ({error}); start anew with --overwrite") from error


def stages_there(workdir: Path) -> list[Stage]:
    """The stages that a run's folder holds, in their order."""
    names = [folder.name for folder in (workdir / "stages").glob("[!.]*") if folder.is_dir()]
    stages = [Stage(**read_facts(workdir, name)["stage"]) for name in sorted(names)]
    order = stage_order(stages)
    return sorted(stages, key=lambda stage: order[stage.name])


def join_stages(workdir: Path, schemas: Schemas) -> None:
    """Joins the tables of all stages that are there into those of the run.

    Raises:
      UserError: a stage's file is corrupt.
    """
    folders = [stage_folder(workdir, stage.name) for stage in stages_there(workdir)]
    for name, schema in schemas.items():
        found = [run_files.read_table(folder, name, schema) for folder in folders]
        if parts := [table for table in found if table is not None]:
            run_files.write_table(workdir, name, pa.concat_tables(parts))
