"""A run is written stage by stage: each stage's tables lie in `stages/NAME` until all are joined
into the tables of the run. A stage that is there is whole, so a stopped run goes on after the
last one.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from antiimit_jax.errors import UserError
from antiimit_jax.files import MARK, hashes, whole_folder, write_mark
from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.marks import read_mark
from antiimit_jax.reporting.run_files import Schemas
from antiimit_jax.results import Stage, Tables, stage_order


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
        write_mark(made, "stage", stage=dataclasses.asdict(stage), **facts)


def read_facts(workdir: Path, name: str) -> dict[str, Any] | None:
    """What the caller left with a stage; None where it is not there, or not as it was written.

    Raises:
      UserError: another version wrote it.
    """
    folder = stage_folder(workdir, name)
    facts = read_mark(folder, "stage")
    return facts if facts is not None and facts["files"] == hashes(folder) else None


def stages_there(workdir: Path) -> list[Stage]:
    """The stages that a run's folder holds, in their order.

    Raises:
      UserError: one is not as it was written.
    """
    names = [folder.name for folder in (workdir / "stages").glob("[!.]*") if folder.is_dir()]
    stages = []
    for name in sorted(names):
        facts = read_facts(workdir, name)
        if facts is None:
            folder = stage_folder(workdir, name)
            raise UserError(f"{folder}: not as it was written; measure this stage again")
        stages.append(Stage(**facts["stage"]))
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


def adapter_mark(folder: Path) -> dict[str, Any]:
    """The mark of an adapter that the run trained. Raises UserError where it is not as it was."""
    mark, found = read_mark(folder, "adapter"), hashes(folder)
    if mark is None or mark["files"] != found:
        there = mark["files"] if mark else found | {MARK: ""}
        names = sorted(name for name in {*there, *found} if there.get(name) != found.get(name))
        raise UserError(
            f"{folder}: {', '.join(names)} not as the run wrote it; put it back, or move the "
            "folder away: it is trained again from its checkpoint"
        )
    return mark
