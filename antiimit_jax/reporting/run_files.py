"""The files of a run: writing them whole or not at all, and reading them back with clear errors.

A run is a folder. `metrics.json` holds every figure with its interval; the Parquet tables hold what
the figures were made from, so that each can be recomputed without a model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from antiimit_jax.errors import UserError
from antiimit_jax.files import replace_file

SCHEMA = 1
METRICS, CONFIG, SAMPLES = "metrics.json", "config.json", "samples.json"
ROW_KEYS = (
    "stage",
    "suite",
    "split",
    "slice",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "clusters",
)

_ITEMS = pa.schema(
    [
        ("stage", pa.string()),
        ("suite", pa.string()),
        ("split", pa.string()),
        ("item", pa.string()),
        ("cluster", pa.string()),
        ("k", pa.int32()),
        ("template", pa.int32()),
        ("n_shots", pa.int32()),
        ("shot_set", pa.int32()),
        ("order", pa.int32()),
        ("prompt", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("word", pa.string()),
        ("word_index", pa.int32()),
        ("form_count", pa.int32()),
        ("token_count", pa.int32()),
        ("target", pa.float64()),
        ("q", pa.float64()),
        ("residual", pa.float64()),
        ("prior", pa.float64()),
        ("last_shot", pa.float64()),
    ]
)
_DRIFT = pa.schema(
    [
        ("stage", pa.string()),
        ("prompt_id", pa.string()),
        ("category", pa.string()),
        ("position", pa.int32()),
        ("token", pa.int32()),
        ("kl_base_tuned", pa.float64()),
        ("kl_tuned_base", pa.float64()),
        ("top1_base", pa.int32()),
        ("top1_tuned", pa.int32()),
        ("top5_overlap", pa.float64()),
        ("entropy_base", pa.float64()),
        ("entropy_tuned", pa.float64()),
        ("logp_base", pa.float64()),
        ("logp_tuned", pa.float64()),
    ]
)
_TRAINING = pa.schema(
    [
        ("adapter", pa.string()),
        ("step", pa.int32()),
        ("loss", pa.float64()),
        ("kl_fwd", pa.float64()),
        ("residual", pa.float64()),
        ("anchor_kl", pa.float64()),
        ("grad_norm", pa.float64()),
        ("lr", pa.float64()),
        ("tokens_per_s", pa.float64()),
        ("skipped", pa.bool_()),
    ]
)
_RESIDUAL = pa.schema(
    [
        ("stage", pa.string()),
        ("split", pa.string()),
        ("forms", pa.string()),
        ("category", pa.string()),
        ("share", pa.float64()),
        ("n", pa.int32()),
    ]
)
TABLES: dict[str, pa.Schema] = {
    "items": _ITEMS,
    "drift": _DRIFT,
    "training": _TRAINING,
    "residual": _RESIDUAL,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a run's folder holds. What is absent is None, so that a reader must say so."""

    path: Path
    info: dict[str, Any]  # the run block: model, revision, seed, versions, ...
    rows: list[dict[str, Any]]
    config: dict[str, Any] | None  # {"config": nested, "config_sha256": hex}
    items: pa.Table | None
    drift: pa.Table | None
    training: pa.Table | None
    residual: pa.Table | None
    samples: list[dict[str, Any]] | None


def read_run(workdir: str | Path) -> Run:
    """Reads a run's folder. `metrics.json` must be there; any other file may be absent.

    Raises UserError when the folder or metrics.json is missing, or a file that is there is corrupt.
    """
    path = Path(workdir)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give --workdir the folder of a run")
    metrics = read_metrics(path)
    tables = {
        name: read_table(path, name) if (path / f"{name}.parquet").exists() else None
        for name in TABLES
    }
    return Run(
        path=path,
        info=metrics["run"],
        rows=metrics["rows"],
        config=read_config(path) if (path / CONFIG).exists() else None,
        samples=read_samples(path) if (path / SAMPLES).exists() else None,
        **tables,
    )


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
    data = _read_json(path, "run launch.evaluate or launch.study with this --workdir first")
    if not isinstance(data, dict):
        raise UserError(f"{path}: {type(data).__name__} found, an object expected; evaluate again")
    if data.get("schema") != SCHEMA:
        found = data.get("schema")
        raise UserError(f"{path}: schema {found!r} found, {SCHEMA} expected; evaluate again")
    if not isinstance(data.get("run"), dict) or not isinstance(data.get("rows"), list):
        raise UserError(f"{path}: 'run' or 'rows' is missing; evaluate this run again")
    for row in data["rows"]:
        try:
            _check_row(row, str(path))
        except ValueError as error:
            raise UserError(str(error)) from error
    return data


def config_sha256(config: Mapping[str, Any]) -> str:
    """SHA-256 of the config's canonical JSON (sorted keys, no blanks), as hex."""
    text = json.dumps(
        config, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain
    )
    return hashlib.sha256(text.encode()).hexdigest()


def write_config(workdir: str | Path, config: Mapping[str, Any]) -> str:
    """Writes config.json with the resolved config and its hash; returns the hash."""
    digest = config_sha256(config)
    data = {"config": dict(config), "config_sha256": digest}
    write_text(Path(workdir) / CONFIG, _json(data, indent=1) + "\n")
    return digest


def read_config(workdir: str | Path) -> dict[str, Any]:
    """Reads config.json: {"config": {...}, "config_sha256": hex}. Raises UserError."""
    path = Path(workdir) / CONFIG
    data = _read_json(path, "it is written at the start of a run")
    if not isinstance(data, dict) or not {"config", "config_sha256"} <= data.keys():
        raise UserError(f"{path}: 'config' or 'config_sha256' is missing; start the run again")
    return data


def write_samples(workdir: str | Path, samples: Sequence[Mapping[str, Any]]) -> Path:
    """Writes samples.json: [{stage, item, prompt, words, targets, q, top: [{text, p}]}]."""
    data = [dict(sample) for sample in samples]
    return write_text(Path(workdir) / SAMPLES, _json(data, indent=1) + "\n")


def read_samples(workdir: str | Path) -> list[dict[str, Any]]:
    """Reads samples.json. Raises UserError when it is missing, corrupt or lacks a key."""
    path = Path(workdir) / SAMPLES
    data = _read_json(path, "it is written by launch.evaluate")
    keys = {"stage", "item", "prompt", "words", "targets", "q", "top"}
    if not isinstance(data, list):
        raise UserError(f"{path}: a list expected, {type(data).__name__} found; evaluate again")
    for sample in data:
        if not isinstance(sample, dict) or not keys <= sample.keys():
            raise UserError(f"{path}: a sample lacks one of {sorted(keys)}; evaluate again")
    return data


def write_table(workdir: str | Path, name: str, columns: Mapping[str, Sequence] | pa.Table) -> Path:
    """Writes `{name}.parquet`; `name` and its columns and types are those of TABLES.

    Further columns are kept as they come. Raises ValueError when a column is missing.
    """
    schema = TABLES[name]
    missing = [field for field in schema.names if field not in _names(columns)]
    if missing:
        raise ValueError(f"{name}.parquet: columns {missing} are missing")
    arrays = {field.name: _array(columns[field.name], field.type) for field in schema}
    for extra in _names(columns):
        if extra not in arrays:
            arrays[extra] = columns[extra]
    table = pa.table(arrays)

    def write(file: Path) -> None:
        pq.write_table(table, file, compression="zstd")

    return replace_file(Path(workdir) / f"{name}.parquet", write)


def read_table(workdir: str | Path, name: str) -> pa.Table:
    """Reads `{name}.parquet`. Raises UserError when missing, corrupt or lacking a column."""
    path = Path(workdir) / f"{name}.parquet"
    if not path.exists():
        raise UserError(f"{path}: not found; evaluate this run again")
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({_first_line(error)})") from error
    missing = [field for field in TABLES[name].names if field not in table.column_names]
    if missing:
        raise UserError(f"{path}: columns {missing} are missing; evaluate this run again")
    return table


def write_text(path: str | Path, text: str) -> Path:
    """Writes a text file whole or not at all, UTF-8; what UTF-8 cannot hold becomes '?'."""
    data = text.encode("utf-8", errors="replace")
    return replace_file(Path(path), lambda file: file.write_bytes(data))


def _names(columns: Mapping[str, Sequence] | pa.Table) -> list[str]:
    return columns.column_names if isinstance(columns, pa.Table) else list(columns)


def _array(values: Any, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values.cast(kind)
    if pa.types.is_string(kind):
        values = [None if value is None else str(value) for value in values]
    return pa.array(values, type=kind)


def _check_row(row: Any, where: str) -> None:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a row is {type(row).__name__}, an object is expected")
    missing = [key for key in ROW_KEYS if key not in row]
    unknown = sorted(set(row) - set(ROW_KEYS) - {"note"})
    if missing or unknown:
        raise ValueError(f"{where}: row {row} lacks keys {missing} or has unknown keys {unknown}")
    for key in ("value", "ci_low", "ci_high"):
        value = row[key]
        if value is not None and not abs(float(value)) < float("inf"):
            raise ValueError(f"{where}: {key} is {value} in row {row}; use null and a note")


def _read_json(path: Path, hint: str) -> Any:
    if not path.exists():
        raise UserError(f"{path}: not found; {hint}")
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not strict JSON ({_first_line(error)}); {hint}") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _json(data: Any, indent: int | None = None) -> str:
    return json.dumps(data, allow_nan=False, indent=indent, default=_plain)


def _plain(value: Any) -> Any:
    """numpy scalars and arrays, tuples' cousins and paths as plain JSON values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
