"""Files of a run whose shape is not that of a run: one line that names the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.files import MARK, write_sealed
from antiimit_jax.models.peft_write import WEIGHTS_FILE
from antiimit_jax.reporting import run_files, stages
from antiimit_jax.reporting.marks import read_log, read_mark
from antiimit_jax.reporting.report import schemas
from antiimit_jax.results import BASE
from antiimit_jax.suites import SUITES
from launch.workdir import computed_again, locked
from tests.models.refusals import refused

KNOWN = schemas(SUITES)


@pytest.fixture
def run(full_run, tmp_path) -> Path:
    files = [file for file in full_run.iterdir() if file.suffix in (".json", ".parquet")]
    (tmp_path / "run").mkdir()
    for file in files:
        shutil.copy(file, tmp_path / "run")
    return tmp_path / "run"


def replaced(values: Any, path: tuple, value: Any) -> Any:
    """Nested JSON with one value replaced."""
    if not path:
        return value
    copy = values.copy()
    copy[path[0]] = replaced(values[path[0]], path[1:], value) if path[1:] else value
    return copy


@pytest.mark.parametrize(
    "name, path, value",
    [
        ("metrics.json", (), [1]),
        ("metrics.json", ("schema",), "1"),
        ("metrics.json", ("run",), []),
        ("metrics.json", ("rows",), {}),
        ("metrics.json", ("rows", 0), "row"),
        ("metrics.json", ("rows", 0, "stage"), None),
        ("metrics.json", ("rows", 0, "slice"), 5),
        ("metrics.json", ("rows", 0, "value"), "0.5"),
        ("metrics.json", ("rows", 0, "ci_low"), [0.5]),
        ("metrics.json", ("rows", 0, "n"), None),
        ("metrics.json", ("rows", 0, "note"), 3),
        ("metrics.json", ("run", "stages"), "base"),
        ("metrics.json", ("run", "stages"), [{"name": "base"}]),
        ("metrics.json", ("run", "stages"), [{"kind": "blue", "name": "base"}]),
        ("config.json", (), "text"),
        ("config.json", ("config",), [1]),
        ("config.json", ("config", "suites"), 5),
        ("config.json", ("config_sha256",), None),
    ],
    ids=str,
)
def test_json_of_another_shape_is_refused(run, name, path, value):
    file = run / name
    file.write_text(json.dumps(replaced(json.loads(file.read_text()), path, value)))
    with pytest.raises(UserError, match=name):
        run_files.read_run(run, KNOWN)


RUN = {"id": "8a", "config": {}, "identity": {"model": {}, "code": {}}, "replaces": ""}
ADAPTER = {"files": {WEIGHTS_FILE: "1f"}, "run": "8a"}
STAGE = {"files": {}, "stage": vars(BASE), "run": "8a", "adapter": None, "adapter_sha256": None}
STAGE |= {"versions": {}, "device": "cpu x1"}
MARKS = {"run": RUN, "adapter": ADAPTER, "export": {"files": {}}}
STEP = {"adapter": "tuned", "step": 1, "skipped": False}
STEP |= dict.fromkeys(("loss", "grad_norm", "lr", "tokens_per_s", "kl_fwd"), 0.5)


@pytest.mark.parametrize(
    "path, value, said",
    [
        ((), {}, "lacks keys files, stage, run, versions, device, adapter, adapter_sha256"),
        (("files",), 5, "files: an object expected, 5 found"),
        (("stage",), {"name": "base"}, "stage: lacks keys kind, adapter_seed, folder"),
        (("stage", "name"), 3, "stage.name: a text expected, 3 found"),
        (("stage", "kind"), "none", "stage.kind: base or other or placebo or tuned expected"),
        (("stage", "adapter_seed"), "0", "stage.adapter_seed: a whole number or null expected"),
        (("stage", "colour"), "red", "stage: has unknown keys 'colour'"),
        (("adapter_sha256",), 5, "adapter_sha256: a text or null expected, 5 found"),
    ],
    ids=str,
)
def test_a_stages_mark_of_another_shape_is_refused(tmp_path, path, value, said):
    folder = stages.stage_folder(tmp_path, "base")
    folder.mkdir(parents=True)
    write_sealed(folder / MARK, {**STAGE, "kind": "stage"})
    assert stages.stages_there(tmp_path) == [BASE]
    write_sealed(folder / MARK, {**replaced(STAGE, path, value), "kind": "stage"})
    with refused(f"{folder / MARK}: {said}", "another version wrote it"):
        stages.stages_there(tmp_path)


@pytest.mark.parametrize(
    "kind, path, value, said",
    [
        ("run", (), {"id": "x"}, "lacks keys config, identity, replaces"),
        ("run", ("id",), 3, "id: a text expected"),
        ("run", ("config",), [], "config: an object expected"),
        ("run", ("identity",), {"model": {}}, "identity: lacks keys code"),
        ("run", ("identity", "files"), {"a": 1}, "identity.files.a: a text expected"),
        ("run", ("replaces",), "some", "replaces: '' or all or results expected"),
        ("run", ("checkpoints",), 5, "checkpoints: a text or null expected"),
        ("adapter", (), {}, "lacks keys files, run"),
        ("adapter", ("files",), {}, f"files: lacks keys {WEIGHTS_FILE}"),
        ("adapter", ("run",), None, "run: a text expected, None found"),
        ("export", ("files",), [], "files: an object expected, [] found"),
        ("export", ("files",), {"a": 3}, "files.a: a text expected, 3 found"),
    ],
    ids=str,
)
def test_marks_of_another_shape_are_refused(tmp_path, kind, path, value, said):
    sound = MARKS[kind]
    write_sealed(tmp_path / MARK, {**sound, "kind": kind})
    assert read_mark(tmp_path, kind) == {**sound, "kind": kind}
    assert read_mark(tmp_path, "other") is None
    write_sealed(tmp_path / MARK, {**replaced(sound, path, value), "kind": kind})
    with refused(f"{tmp_path / MARK}: {said}", "go on with that one, or move this folder away"):
        read_mark(tmp_path, kind)


def test_the_programs_refuse_a_run_that_another_version_marked(tmp_path):
    write_sealed(tmp_path / MARK, {"kind": "run", "id": "x"})
    with refused(f"{tmp_path / MARK}: lacks keys config"), locked(str(tmp_path)):
        pass


@pytest.mark.parametrize(
    "record, said",
    [
        ({}, "lacks keys log"),
        ({"log": 3}, "log: a list expected"),
        ({"log": [{"step": 1}]}, "log[0]: lacks keys adapter, skipped, loss"),
        ({"log": [{**STEP, "step": 1.5}]}, "log[0].step: a whole number expected"),
        ({"log": [{**STEP, "kl_fwd": "much"}]}, "log[0].kl_fwd: a number or null expected"),
    ],
)
def test_logs_of_another_shape_are_refused(tmp_path, record, said):
    file = tmp_path / "tuned.json"
    write_sealed(file, {"log": [STEP]})
    assert read_log(file) == [STEP]
    write_sealed(file, record)
    with refused(f"{file}: {said}", "move this file away"):
        read_log(file)


def as_texts(table: pa.Table, name: str) -> pa.Table:
    values = [str(value) for value in table[name].to_pylist()]
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def without_one(table: pa.Table, name: str) -> pa.Table:
    values = [None, *table[name].to_pylist()[1:]]
    column = pa.array(values, table[name].type)
    return table.set_column(table.column_names.index(name), name, column)


@pytest.mark.parametrize(
    "name, column, change",
    [
        ("items", "q", as_texts),
        ("items", "k", as_texts),
        ("items", "prompt_ids", as_texts),
        ("items", "stage", without_one),
        ("items", "template_heldout", without_one),
        ("items", "n_shots", without_one),
        ("drift", "logp_base", as_texts),
        ("residual_samples", "words", without_one),
        ("training", "step", without_one),
        ("training", "skipped", as_texts),
        ("training", "kl_fwd", as_texts),  # beyond the schema: of a term of the loss
        ("items", "word", lambda table, name: table.append_column(name, table[name])),
        ("items", "word", lambda table, name: table.drop_columns([name])),
        ("drift", "", lambda table, name: table.slice(0, 0)),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_tables_with_other_columns_or_types_are_refused(run, name, column, change):
    file = run / f"{name}.parquet"
    pq.write_table(change(pq.ParquetFile(file).read(), column), file)
    with pytest.raises(UserError, match=rf"{name}\.parquet.*{column}"):
        run_files.read_run(run, KNOWN)


def test_floats_that_are_null_are_not_a_number(run):
    table = pq.ParquetFile(run / "training.parquet").read()
    pq.write_table(without_one(table, "kl_fwd"), run / "training.parquet")
    column = run_files.read_run(run, KNOWN).training["kl_fwd"]
    assert column[0] != column[0] and column[1] == column[1]


@pytest.mark.parametrize("value", [-9, 7, 2**31 - 1])
def test_values_that_contradict_each_other_are_one_line(run, value):
    """A word's place in its item that the item does not have."""
    file, name = run / "items.parquet", "word_index"
    sound = pq.read_table(file)
    other = sound[name].to_pylist()
    other[other.index(1)] = value
    changed = pa.array(other, sound.schema.field(name).type)
    place = sound.column_names.index(name)
    pq.write_table(sound.set_column(place, sound.schema.field(name), changed), file)
    metrics = run_files.read_metrics(run)
    info = {key: value for key, value in metrics["run"].items() if key != "tables"}  # its hashes
    run_files.write_metrics(run, info, metrics["rows"])
    with refused(str(run), "contradict"):
        computed_again(run)
