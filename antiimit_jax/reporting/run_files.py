"""The files of a run: writing them whole or not at all, and reading them back with clear errors.

A run is a folder. `metrics.json` holds every figure with its interval; the Parquet tables hold what
the figures were made from, so that each can be recomputed without a model.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from antiimit_jax.errors import UserError, first_line
from antiimit_jax.files import json_text, replace_file, sha256
from antiimit_jax.json_files import read_json
from antiimit_jax.reporting.rows import Rows
from antiimit_jax.results import ROW_KEYS, STAGE, Stage, Tables

SCHEMA = 1
METRICS, CONFIG, TRAINING = "metrics.json", "config.json", "training"
_TRAINING = pa.schema(  # beside these columns, the metrics of each term of the loss
    {"adapter": pa.string(), "step": pa.int32()}
    | {name: pa.float64() for name in ("loss", "grad_norm", "lr", "tokens_per_s")}
    | {"skipped": pa.bool_()}
)
_ROW = (
    dict.fromkeys(("stage", "suite", "split", "slice", "metric", "note?"), str)
    | dict.fromkeys(("value", "ci_low", "ci_high"), (float, None))
    | {"n": int, "clusters": int}
)
_METRICS = {"schema": int, "run": {"stages?": [STAGE], str: object}, "rows": [_ROW]}
Schemas = Mapping[str, pa.Schema]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a run's folder holds. What is absent is None, so that a reader must say so."""

    path: Path
    info: dict[str, Any]  # the run block: model, revision, seed, versions, ...
    rows: Rows
    config: dict[str, Any] | None  # {"config": nested, "config_sha256": hex}
    tables: Tables  # those of the suites
    training: Mapping[str, np.ndarray] | None


def read_run(workdir: str | Path, schemas: Schemas) -> Run:
    """Reads a run's folder. `metrics.json` must be there; any other file may be absent.

    Args:
      schemas: of the suites' tables.

    Raises:
      UserError: the folder or metrics.json is missing, or a file that is there is corrupt.
    """
    path = Path(workdir)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give --workdir the folder of a run")
    metrics = read_metrics(path)
    return Run(
        path=path,
        info=metrics["run"],
        rows=rows_of(metrics),
        config=read_config(path) if (path / CONFIG).exists() else None,
        tables=read_tables(path, schemas),
        training=read_tables(path, {TRAINING: _TRAINING}).get(TRAINING),
    )


def rows_of(metrics: Mapping[str, Any]) -> Rows:
    """The rows of a metrics.json that was read, with the run's stages."""
    stages = [Stage(**stage) for stage in metrics["run"].get("stages", ())]
    return Rows(metrics["rows"], stages)


def read_tables(folder: Path, schemas: Schemas) -> dict[str, dict[str, np.ndarray]]:
    """Columns of those tables that are there."""
    found = ((name, read_table(folder, name, schema)) for name, schema in schemas.items())
    return {name: columns_of(table) for name, table in found if table is not None}


def columns_of(table: pa.Table) -> dict[str, np.ndarray]:
    """A table's columns: numbers as such, nulls among them NaN, texts and lists as objects."""
    return {name: _column(table[name]) for name in table.column_names}


def _column(values: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_primitive(values.type):
        return values.to_numpy()
    return np.fromiter(values.to_pylist(), object, len(values))


def write_metrics(workdir: str | Path, run: Mapping[str, Any], rows: Sequence[Mapping]) -> Path:
    """Writes metrics.json (schema 1). Raises ValueError at a row with wrong keys, NaN or inf."""
    rows = [dict(row) for row in rows]
    for row in rows:
        _check_row(row, "write_metrics")
    lines = ",\n".join(_json(row) for row in rows)  # one row a line, to be read and compared
    text = f'{{"schema": {SCHEMA},\n"run": {_json(dict(run))},\n"rows": [\n{lines}\n]}}\n'
    return write_text(Path(workdir) / METRICS, text)


def read_metrics(workdir: str | Path) -> dict[str, Any]:
    """Reads metrics.json: {"schema": 1, "run": {...}, "rows": [...]}. Raises UserError."""
    path = Path(workdir) / METRICS
    hint = "run launch.evaluate or launch.study with this --workdir"
    data = read_json(path, _METRICS, hint=hint)
    if data["schema"] != SCHEMA:
        raise UserError(f"{path}: schema {data['schema']} found, {SCHEMA} expected; {hint}")
    return data


def config_sha256(config: Mapping[str, Any]) -> str:
    """SHA-256 of the config's canonical JSON (sorted keys, no blanks), as hex."""
    text = _json(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_config(workdir: str | Path, config: Mapping[str, Any]) -> str:
    """Writes config.json with the resolved config and its hash; returns the hash."""
    digest = config_sha256(config)
    text = _json({"config": config, "config_sha256": digest}, indent=1)
    write_text(Path(workdir) / CONFIG, text + "\n")
    return digest


def read_config(workdir: str | Path) -> dict[str, Any]:
    """Reads config.json: {"config": {...}, "config_sha256": hex}. Raises UserError."""
    path = Path(workdir) / CONFIG
    shape = {"config": {"suites?": [str], str: object}, "config_sha256": str}
    data = read_json(path, shape, hint="it is written at the start of a run")
    if config_sha256(data["config"]) != data["config_sha256"]:
        raise UserError(f"{path}: not as the run wrote it; the run's own command writes it again")
    return data


def check_tables(workdir: Path, info: Mapping[str, Any]) -> None:
    """Raises UserError where a table is not the one that the run block of metrics.json is of."""
    for name, written in info.get("tables", {}).items():
        if (workdir / name).exists() and sha256(workdir / name) != written:
            file, how = workdir / name, "the run's own command writes it again"
            raise UserError(f"{file}: not as the run wrote it; {how}")


def is_whole(workdir: Path) -> bool:
    """Whether a run's configuration and metrics.json are there, with the tables that it is of."""
    try:
        read_config(workdir)
        info = read_metrics(workdir)["run"]
        check_tables(workdir, info)
    except UserError:
        return False
    return all((workdir / name).is_file() for name in info.get("tables", {}))


def to_table(name: str, columns: Mapping[str, Sequence], schema: pa.Schema) -> pa.Table:
    """A table with the schema's columns and types; further columns are kept as they come.

    Raises:
      ValueError: a column is missing.
    """
    missing = [field for field in schema.names if field not in columns]
    if missing:
        raise ValueError(f"{name}: columns {missing} are missing")
    arrays = {field.name: _array(columns[field.name], field.type) for field in schema}
    return pa.table(arrays | {extra: columns[extra] for extra in columns if extra not in arrays})


def write_table(folder: str | Path, name: str, table: pa.Table) -> Path:
    """Writes `{name}.parquet`."""
    path = Path(folder) / f"{name}.parquet"
    return replace_file(path, lambda file: pq.write_table(table, file, compression="zstd"))


def write_training(workdir: Path, log: Sequence[Mapping[str, Any]]) -> None:
    """Writes the training log, one row a step, as `training.parquet`."""
    names = dict.fromkeys(name for row in log for name in row)
    columns = {name: [row.get(name) for row in log] for name in names}
    write_table(workdir, TRAINING, to_table(TRAINING, columns, _TRAINING))


def read_table(folder: Path, name: str, schema: pa.Schema) -> pa.Table | None:
    """Reads `{name}.parquet`, None where absent.

    Raises:
      UserError: corrupt, or a column is missing, of another type, or lacks values that are no
        floats. Columns beyond the schema must be floats.
    """
    path = folder / f"{name}.parquet"
    if not path.exists():
        return None
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({first_line(error)})") from error
    missing = [field for field in schema.names if field not in table.column_names]
    if missing:
        raise UserError(f"{path}: columns {missing} are missing; evaluate this run again")
    if not table.num_rows:
        raise UserError(f"{path}: holds no rows; evaluate this run again")
    if wrong := [field.name for field in table.schema if not _as_in(schema, field, table)]:
        raise UserError(
            f"{path}: columns {wrong} have another type or lack values; evaluate this run again"
        )
    return table


def _as_in(schema: pa.Schema, field: pa.Field, table: pa.Table) -> bool:
    """Whether a column is one that a table of this schema may have."""
    if table.column_names.count(field.name) > 1:
        return False
    wanted = schema.field(field.name).type if field.name in schema.names else pa.float64()
    has_all = pa.types.is_floating(wanted) or not table[field.name].null_count
    return field.type.equals(wanted) and has_all


def write_text(path: str | Path, text: str) -> Path:
    """Writes a text file whole or not at all, UTF-8; what UTF-8 cannot hold becomes '?'."""
    data = text.encode("utf-8", errors="replace")
    return replace_file(Path(path), lambda file: file.write_bytes(data))


def _array(values: Sequence, kind: pa.DataType) -> pa.Array:
    if pa.types.is_string(kind):
        values = [None if value is None else str(value) for value in values]
    return pa.array(values, type=kind)


def _check_row(row: Any, where: str) -> None:
    missing = [key for key in ROW_KEYS if key not in row]
    unknown = sorted(set(row) - set(ROW_KEYS) - {"note"})
    if missing or unknown:
        raise ValueError(f"{where}: row {row} lacks keys {missing} or has unknown keys {unknown}")
    for key in ("value", "ci_low", "ci_high"):
        value = row[key]
        if value is not None and not abs(float(value)) < float("inf"):
            raise ValueError(f"{where}: {key} is {value} in row {row}; use null and a note")


def _json(data: Any, **how: Any) -> str:
    return json_text(data, default=_plain, **how)


def _plain(value: Any) -> Any:
    """numpy scalars and arrays, tuples' cousins and paths as plain JSON values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
