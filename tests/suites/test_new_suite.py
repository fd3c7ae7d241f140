"""Adding a suite is one file and one entry: programs, files, page and flags then know it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.launch.processes import ROOT, environment, refused

TOY = '''
"""A toy: how much one word is liked."""

import dataclasses

import numpy as np
import pyarrow as pa

from antiimit_jax.suites.suite import (
    Ask,
    Asker,
    Bootstrap,
    Figure,
    Line,
    Message,
    Row,
    Rows,
    Section,
    Table,
    Tables,
    count,
    make_row,
)

TABLES = {
    "toy": pa.schema({"stage": pa.string(), "prompt": pa.string(), "liking": pa.float64()})
}
FIGURES = (Figure(name="liking", label="liking", explanation="probability of apple.", best="high"),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """How often."""

    n_prompts: int = count(1, 3)


def measure(asker: Asker, cfg: Config) -> Tables:
    asks = [
        Ask(messages=(Message("user", f"Fruit {i}?"), Message("assistant", "")), words=("apple",))
        for i in range(cfg.n_prompts)
    ]
    answers = asker.words(asks, what="fruit")
    return {
        "toy": {
            "stage": [asker.stage.name] * len(answers),
            "prompt": [answer.prompt for answer in answers],
            "liking": [float(answer.q[0]) for answer in answers],
        }
    }


def score(tables: Tables, cfg: Config, boot: Bootstrap) -> list[Row]:
    table, rows = tables["toy"], []
    for stage in dict.fromkeys(table["stage"]):
        liking = table["liking"][table["stage"] == stage]
        common = dict(stage=stage, suite="toy", split="fruit", slice="all", metric="liking")
        n = len(liking)
        rows.append(make_row(**common, value=float(np.mean(liking)), n=n, clusters=n, note="toy"))
    return rows


def section(tables: Tables, rows: Rows) -> Section:
    body = [Line(label=stage, cells=[""]) for stage in rows.stages("toy")]
    table = Table(head=["", "x"], body=body)
    return Section("How the toy likes its fruit", ["A toy."], tables=[table])
'''


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the package and its programs with one more file and one more entry."""
    root = tmp_path_factory.mktemp("checkout")
    skip = shutil.ignore_patterns("__pycache__")
    for folder in ("antiimit_jax", "launch", "configs"):
        shutil.copytree(ROOT / folder, root / folder, ignore=skip)
    suites = root / "antiimit_jax" / "suites"
    (suites / "toy.py").write_text(TOY)
    names = suites / "__init__.py"
    text = names.read_text()
    entry = '    "drift": drift,\n'
    assert text.count(entry) == 1
    text = text.replace(entry, entry + '    "toy": toy,\n')
    names.write_text(text.replace("    scoring,\n", "    scoring,\n    toy,\n"))
    return root


def evaluate(checkout: Path, *flags: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "launch.evaluate", *flags]
    return subprocess.run(
        command, cwd=checkout, env=environment(), capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def toy_run(checkout, model) -> Path:
    workdir = checkout / "run"
    flags = (f"--model={model}", f"--workdir={workdir}", "--suites=toy,drift")
    small = ("--config.toy.n_prompts=5", "--config.drift.n_prompts=7", "--config.drift.rulers=()")
    small += ("--config.drift.n_continued=0",)
    result = evaluate(checkout, *flags, *small)
    assert result.returncode == 0, result.stderr
    return workdir


def test_a_new_suite_is_measured_scored_and_shown(toy_run):
    metrics = json.loads((toy_run / "metrics.json").read_text())
    (row,) = [row for row in metrics["rows"] if row["suite"] == "toy"]
    assert (row["stage"], row["metric"], row["n"]) == ("base", "liking", 5)
    table = pq.read_table(toy_run / "toy.parquet")
    assert table.num_rows == 5 and set(table["stage"].to_pylist()) == {"base"}
    assert row["value"] == pytest.approx(sum(table["liking"].to_pylist()) / 5)
    assert "How the toy likes its fruit" in (toy_run / "report.html").read_text()
    config = json.loads((toy_run / "config.json").read_text())["config"]
    assert config["toy"] == {"n_prompts": 5}


def test_its_fields_are_checked_and_its_name_has_near_misses(checkout, model):
    flags = (f"--model={model}", f"--workdir={checkout / 'other'}")
    refused(evaluate(checkout, *flags, "--suites=toyy"), "toyy", "did you mean toy")
    refused(evaluate(checkout, *flags, "--config.toy.n_prompts=0"), "toy.n_prompts", "from 1 to")
    refused(evaluate(checkout, *flags, "--config.toy.n_prompt=2"), "config.toy.n_prompts")
    assert not (checkout / "other").exists()
