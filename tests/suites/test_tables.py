"""Every figure of a run is a function of its Parquet tables: no model is asked."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antiimit_jax import language_model
from antiimit_jax.metrics.resampling import Bootstrap
from antiimit_jax.reporting import run_files
from antiimit_jax.reporting.report import schemas
from antiimit_jax.reporting.rows import Rows
from antiimit_jax.results import Stage
from antiimit_jax.run_config import from_dict
from antiimit_jax.study import score, write_results
from antiimit_jax.suites import SUITES, drift, ladder
from antiimit_jax.suites.ladder import page
from antiimit_jax.tasks.neutral import load_neutral
from antiimit_jax.tasks.rungs import RUNGS
from antiimit_jax.text.formats import Message
from tests.suites.small import small_config, values_of


def written(folder) -> list[str]:
    """The rows of metrics.json as they stand in it, one a line."""
    lines = (folder / "metrics.json").read_text().splitlines()
    return [line.rstrip(",") for line in lines if line.startswith('{"stage"')]


def as_json(rows) -> list[str]:
    return [json.dumps(dict(row), allow_nan=False) for row in rows]


@pytest.fixture
def no_model(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(language_model, "find_model", refuse)


def test_all_rows_come_again_byte_for_byte(run, no_model):
    config = from_dict(run_files.read_config(run)["config"])
    stages = [Stage(**s) for s in run_files.read_metrics(run)["run"]["stages"]]
    assert [stage.name for stage in stages] == ["base", "mine"]
    tables = run_files.read_tables(run, schemas(SUITES))
    rows = written(run)
    assert as_json(score(tables, config, stages)) == rows
    assert {json.loads(row)["suite"] for row in rows} == set(SUITES)


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_needs_its_own_tables_alone(run, name):
    config, suite = from_dict(run_files.read_config(run)["config"]), SUITES[name]
    assert suite.TABLES and all("stage" in schema.names for schema in suite.TABLES.values())
    tables = run_files.read_tables(run, suite.TABLES)
    assert set(tables) == set(suite.TABLES)
    boot = Bootstrap(n_boot=config.n_boot, seed=config.seed)
    made = as_json(suite.score(tables, config.of(name), boot))
    assert made and sorted(made) == sorted(
        r for r in written(run) if json.loads(r)["suite"] == name
    )


@pytest.mark.parametrize("name", SUITES)
def test_parquet_files_have_the_schema_that_the_suite_declares(run, name):
    for table, schema in SUITES[name].TABLES.items():
        assert pq.read_schema(run / f"{table}.parquet").remove_metadata() == schema
        stages = set(pq.read_table(run / f"{table}.parquet")["stage"].to_pylist())
        assert stages & {"base", "ruler:bf16"}


def test_what_is_in_a_table_decides(run, tmp_path, no_model):
    """One answer is changed in the file: rows of its stage and suite move, no other."""
    changed = shutil.copytree(run, tmp_path / "run")
    table = pq.read_table(changed / "items.parquet")
    stage, q = table["stage"].to_pylist(), np.array(table["q"].to_pylist())
    q[stage.index("mine")] *= 0.5
    table = table.set_column(table.schema.get_field_index("q"), "q", pa.array(q))
    pq.write_table(table, changed / "items.parquet")
    config = from_dict(run_files.read_config(run)["config"])
    write_results(changed, config, run_files.read_metrics(run)["run"])
    moved = [json.loads(a) for a, b in zip(written(run), written(changed), strict=True) if a != b]
    stages = {row["stage"] for row in moved}
    assert "mine" in stages and all(s == "mine" or s.startswith("diff:mine-") for s in stages)
    assert {row["suite"] for row in moved} == {"control"}
    assert "tvd_res" in {row["metric"] for row in moved}


def test_the_ladder_holds_and_shows_the_rungs_with_figures_of_their_own(run):
    tables = run_files.read_tables(run, ladder.TABLES)
    assert set(tables) == set(ladder.TABLES)
    for table in tables.values():
        for name in {"q", "q_word", "q_other", "q_1", "q_2", "q_3"} & set(table):
            assert (table[name] > 0).all() and (table[name] < 1).all()
    rows = [row for row in run_files.read_metrics(run)["rows"] if row["suite"] == "ladder"]
    found = {(row["split"], row["metric"]) for row in rows}
    assert found >= {(rung, name) for rung in ("L0", "L9", "L13") for name in ("tvd_res", "stated")}
    assert found >= {(rung, name) for rung, names in page.OWN.items() for name in names}
    section = ladder.section(tables, Rows(rows))
    titles = {table.title for table in section.tables}
    assert titles >= {f"{rung}: {RUNGS[rung]}" for rung in page.OWN}
    assert all(table.body for table in section.tables)


def test_the_base_answers_greedily_once_and_every_stage_reads_its_answers(asker, run, lm):
    tables, cfg = run_files.read_tables(run, schemas(SUITES)), small_config().drift
    said, tokens = tables["drift_said"], tables["drift_continued"]
    assert set(said["stage"]) == {"base"} and len(said["text"]) == cfg.n_continued == 2
    assert set(tokens["stage"]) == {"ruler:int8_channel", "ruler:bf16", "mine"}
    prompts = {prompt.id: prompt for prompt in load_neutral("drift")}
    for i, text in zip(said["prompt_id"], said["text"]):
        chat = (prompts[i].messages[0], Message("assistant", ""))
        (answer,) = asker().generate([chat], what="", max_tokens=6, temperature=0)[0]
        assert text == answer.text.rstrip("\ufffd")
        ids = list(lm.tokenizer.encode_continued(text))
        for stage in set(tokens["stage"]):
            mine = (tokens["stage"] == stage) & (tokens["prompt_id"] == i)
            assert tokens["token"][mine].tolist() == ids
    rows = drift.score(tables, cfg, Bootstrap(n_boot=0))
    found = values_of(rows, stage="mine", split="continued", slice="all")
    at = tokens["stage"] == "mine"
    assert found["kl_base_tuned"] == pytest.approx(tokens["kl_base_tuned"][at].mean())
    assert values_of(rows, stage="diff:mine-ruler:int8_channel", split="continued", slice="all")
