"""A run's files: strict JSON, whole or not at all, and errors that say what to do."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.files import replace_file
from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.report import schemas
from antiimit_jax.suites import SUITES

KNOWN = schemas(SUITES)


def _row(**changes):
    row = {
        "stage": "base",
        "suite": "control",
        "split": "train",
        "slice": "all",
        "metric": "tvd_res",
        "value": 0.5,
        "ci_low": None,
        "ci_high": None,
        "n": 3,
        "clusters": 2,
    }
    return row | changes


def test_metrics_are_strict_json_of_schema_1(tmp_path):
    run_files.write_metrics(
        tmp_path,
        {"model": "m", "seed": np.int64(3)},
        [
            _row(value=np.float32(0.25), n=np.int32(7)),
            _row(metric="corr", value=None, note="no item"),
        ],
    )
    text = (tmp_path / "metrics.json").read_text()

    def refuse(constant):
        raise AssertionError(f"{constant} in strict JSON")

    data = json.loads(text, parse_constant=refuse)
    assert data["schema"] == 1 and data["run"] == {"model": "m", "seed": 3}
    assert [row["value"] for row in data["rows"]] == [0.25, None]
    assert data["rows"][0]["n"] == 7
    assert run_files.read_metrics(tmp_path) == data


@pytest.mark.parametrize(
    "bad",
    [
        {"value": float("nan")},
        {"ci_high": float("inf")},
        {"value": np.float32("nan")},
        {"colour": "red"},
    ],
)
def test_rows_that_are_no_rows_are_refused(tmp_path, bad):
    with pytest.raises(ValueError):
        run_files.write_metrics(tmp_path, {}, [_row(**bad)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text, word",
    [
        (None, "no such file"),
        ("{", "not valid JSON"),
        ('{"schema": 1, "run": {}, "rows": [NaN]}', "NaN"),
        ('{"schema": 2, "run": {}, "rows": []}', "schema 2"),
        ('{"schema": 1, "rows": []}', "lacks keys run"),
        ("[1]", "an object expected"),
        ('{"schema": 1, "run": {}, "rows": [{"stage": "base"}]}', "lacks keys"),
    ],
)
def test_unreadable_metrics_are_one_clear_line(tmp_path, text, word):
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError) as error:
        run_files.read_metrics(tmp_path)
    message = str(error.value)
    assert "metrics.json" in message and word in message and "\n" not in message


def test_missing_folder_and_corrupt_table(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        run_files.read_run(tmp_path / "nowhere", KNOWN)
    run_files.write_metrics(tmp_path, {}, [_row()])
    assert run_files.read_run(tmp_path, KNOWN).tables == {}
    (tmp_path / "drift.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UserError, match="drift.parquet: not a readable Parquet file"):
        run_files.read_run(tmp_path, KNOWN)


def test_table_round_trip_types_and_columns(tmp_path, full_run):
    schema = KNOWN["drift"]
    table = run_files.read_table(full_run, "drift", schema)
    columns = table.to_pydict()
    path = run_files.write_table(tmp_path, "drift", run_files.to_table("drift", columns, schema))
    again = pq.ParquetFile(path).read()
    assert again.equals(table) and again.schema.field("logp_base").type == "double"
    with pytest.raises(ValueError, match="logp_base"):
        run_files.to_table("drift", {k: columns[k] for k in columns if k != "logp_base"}, schema)
    pq.write_table(table.drop_columns(["logp_base"]), path)
    with pytest.raises(UserError, match=r"columns \['logp_base'\] are missing"):
        run_files.read_table(tmp_path, "drift", schema)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    run_files.write_metrics(tmp_path, {}, [])
    with pytest.raises(TypeError):
        run_files.write_metrics(tmp_path, {"model": object()}, [])

    def fail(file):
        file.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError):
        replace_file(tmp_path / "metrics.json", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    assert run_files.read_metrics(tmp_path)["run"] == {}


def test_config_hash_ignores_order_and_sees_values(tmp_path):
    one = run_files.write_config(tmp_path, {"a": 1, "b": {"c": [1, 2]}})
    assert one == run_files.config_sha256({"b": {"c": [1, 2]}, "a": 1})
    assert one != run_files.config_sha256({"b": {"c": [1, 3]}, "a": 1})
    assert run_files.read_config(tmp_path)["config_sha256"] == one
