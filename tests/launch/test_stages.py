"""Which stages a run has: adapters given by name, and one tuned and placebo for each seed."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.language_model import load_language_model
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft import save_adapter
from launch import evaluate as program
from tests.launch.processes import launch, refused
from tests.random_decoder import random_adapter
from tests.tiny_model import write_tiny_model

FEW = (
    "--suites=control",
    "--config.control.n_items=8",
    "--config.control.splits=('heldout_words',)",
    "--config.control.mixture.shots=(0,)",
    "--config.control.mixture.shot_weights=(1.0,)",
    "--config.n_boot=0",
)
SHORT = (
    "--config.train.steps=2",
    "--config.train.placebo_steps=2",
    "--config.train.rows=2",
    "--config.train.anchor_tokens=0",
    "--config.train.warmup_steps=0",
    "--config.lora.rank=2",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny", scale=0.3)


@pytest.fixture(scope="module")
def adapters(model) -> list[Path]:
    lm, lora, made = load_language_model(str(model)), LoraConfig(rank=2), []
    for seed in (1, 2):
        made.append(model.parent / f"lora={seed}")
        save_adapter(made[-1], random_adapter(lm.cfg, lora, seed), lm.cfg, lora, str(model))
    return made


def run_block(workdir: Path) -> dict:
    return json.loads((workdir / "metrics.json").read_text())["run"]


def q_of(workdir: Path, stage: str) -> list[float]:
    table = pq.read_table(workdir / "items.parquet").to_pylist()
    return [row["q"] for row in table if row["stage"] == stage]


def test_a_folder_alone_is_the_stage_adapter(model, adapters, tmp_path):
    flags = (f"--model={model}", f"--workdir={tmp_path / 'w'}", f"--adapter={adapters[0]}", *FEW)
    result = launch("evaluate", *flags)
    assert result.returncode == 0, result.stderr
    run = run_block(tmp_path / "w")
    assert [(s["name"], s["kind"]) for s in run["stages"]] == [
        ("base", "base"),
        ("adapter", "other"),
    ]
    assert run["adapter_seeds"] == [] and set(run["adapters"]) == {"adapter"}
    assert q_of(tmp_path / "w", "adapter") != q_of(tmp_path / "w", "base")
    assert "adapter" in result.stdout


def test_named_adapters_are_stages_of_their_names(model, adapters, tmp_path):
    given = [f"--adapter={name}={folder}" for name, folder in zip(("mine", "other"), adapters)]
    result = launch("evaluate", f"--model={model}", f"--workdir={tmp_path / 'w'}", *given, *FEW)
    assert result.returncode == 0, result.stderr
    run = run_block(tmp_path / "w")
    assert {s["name"]: s["kind"] for s in run["stages"]} == {
        "base": "base",
        "mine": "other",
        "other": "other",
    }
    assert run["adapters"]["mine"] != run["adapters"]["other"]
    answers = [q_of(tmp_path / "w", stage) for stage in ("base", "mine", "other")]
    assert len({tuple(q) for q in answers}) == 3 and len({len(q) for q in answers}) == 1
    rows = json.loads((tmp_path / "w" / "metrics.json").read_text())["rows"]
    assert {"mine", "other"} <= {row["stage"] for row in rows}


@pytest.mark.parametrize(
    "given, names, folders",
    [
        (["runs/a/adapter"], ["adapter"], ["runs/a/adapter"]),
        (
            ["mine=a", "x/y=z", "my-lora=../b"],
            ["mine", "adapter", "my-lora"],
            ["a", "x/y=z", "../b"],
        ),
    ],
)
def test_names_are_read_before_the_first_sign(given, names, folders):
    stages = program.foreign_stages(given)
    assert [stage.name for stage in stages] == names
    assert [stage.folder for stage in stages] == folders
    assert {stage.kind for stage in stages} == {"other"}


@pytest.mark.parametrize(
    "given, parts",
    [
        (["a", "b"], "--adapter=b.*two.*called adapter.*NAME=FOLDER"),
        (["mine=a", "mine=b"], "--adapter=mine=b.*two.*called mine"),
        (["base=a"], "--adapter=base=a.*base is a stage"),
        (["tuned=a"], "tuned is a stage"),
        (["placebo@1=a"], "letters, digits"),
        (["my lora=a"], "--adapter=my lora=a.*letters, digits"),
        (["baseline:uniform=a"], "letters, digits"),
        (["=a"], "letters, digits"),
    ],
)
def test_bad_and_repeated_names_are_refused(given, parts):
    with pytest.raises(UserError, match=parts):
        program.foreign_stages(given)


def test_a_refused_name_is_one_line(model, tmp_path):
    flags = (f"--model={model}", f"--workdir={tmp_path / 'w'}")
    refused(launch("evaluate", *flags, "--adapter=base=x", *FEW), "--adapter=base=x", "stage")


def test_a_second_model_is_named_by_against(model, adapters, tmp_path):
    workdir, few = tmp_path / "w", [flag for flag in FEW if "suites" not in flag]
    flags = (f"--model={model}", f"--workdir={workdir}", f"--against={adapters[0]}", *few)
    refused(launch("evaluate", *flags, "--suites=control"), "--against=", "introspection to --suit")
    small = ("--config.introspection.tasks=('next_word',)", "--config.introspection.n_texts=5")
    none = ("--suites=introspection", "--config.introspection.near=none")
    result = launch("evaluate", *flags, *small, *none)
    assert result.returncode == 0, result.stderr
    table = pq.read_table(workdir / "introspection.parquet").to_pylist()
    shares = {who: [r["shares"] for r in table if r["model"] == who] for who in ("own", "against")}
    assert len(shares["own"]) == 5 and shares["own"] != shares["against"]
    assert run_block(workdir)["against"] == str(adapters[0])
    rows = json.loads((workdir / "metrics.json").read_text())["rows"]
    assert "over_other_direct" in {row["metric"] for row in rows if row["stage"] == "base"}


def test_two_seeds_give_two_adapters_and_two_placebos(model, tmp_path):
    workdir = tmp_path / "w"
    flags = (f"--model={model}", f"--workdir={workdir}", "--config.train.seeds=(0,1)")
    result = launch("study", *flags, *FEW, *SHORT)
    assert result.returncode == 0, result.stderr
    run, names = run_block(workdir), ["base", "tuned", "placebo", "tuned@1", "placebo@1"]
    assert [stage["name"] for stage in run["stages"]] == names
    assert run["adapter_seeds"] == [0, 1]
    table = set(pq.read_table(workdir / "items.parquet")["stage"].to_pylist())
    assert table == set(names)
    rows = json.loads((workdir / "metrics.json").read_text())["rows"]
    assert {row["stage"] for row in rows if ":" not in row["stage"]} == set(names)
    weights = {
        (workdir / folder / "adapter_model.safetensors").read_bytes()
        for folder in ("adapter", "placebo", "adapter@1", "placebo@1")
    }
    assert len(weights) == 4 == len(set(run["adapters"].values()))
    assert set(pq.read_table(workdir / "training.parquet")["adapter"].to_pylist()) == set(names[1:])
