"""`launch.plan`: the list of models, a plan as JSON and text, refusals in one line."""

from __future__ import annotations

import json

import pytest

from antiimit_jax.models.catalog import CATALOG
from tests.launch.processes import launch, refused
from tests.tiny_model import write_tiny_model


def test_the_list_names_every_model_with_size_family_and_gate():
    result = launch("plan", "--list")
    assert result.returncode == 0, result.stderr
    table, _, notes = result.stdout.partition("\n\n")
    lines = {line.split()[0]: line for line in table.splitlines()}
    for alias, entry in CATALOG.items():
        for part in (entry.hub_id, entry.family, entry.licence, entry.gate, entry.prompt_format):
            assert part in lines[alias]
    assert "8.030 B" in lines["llama-3-8b"] and "accept the licence" in lines["llama-3-8b"]
    assert "mistral-7b means mistral-7b-v0.3" in notes


def test_a_folder_with_a_config_alone_is_planned_and_the_flags_named_are_understood(tmp_path):
    folder = write_tiny_model(tmp_path / "tiny", vocab_size=320000, hidden_size=512, scale=0.0)
    (folder / "model.safetensors").unlink()
    given = (
        f"--model={folder}",
        "--suites=drift",
        "--config.train.rows=1",
        "--config.train.groups=1",
        "--config.train.anchor_weight=0.0",
        "--json",
    )
    result = launch("plan", *given, "--hardware=cpu-5g")
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["config"]["hidden_size"] == 512 and plan["own_tokenizer"]
    programs = {program["program"]: program for program in plan["programs"]}
    assert set(programs) == {"evaluate", "finetune", "study"}
    tight = programs["evaluate"]
    assert not tight["fits"] and tight["rescued"] and tight["flags"]
    again = launch("plan", *given, *tight["flags"], "--hardware=cpu-5g")
    assert again.returncode == 0, again.stderr
    repeated = json.loads(again.stdout)["programs"][0]
    assert repeated["fits"] and repeated["peak"] == tight["peak_with_flags"]
    assert programs["study"]["rescued"] and set(programs["study"]["flags"]) <= set(plan["flags"])
    assert set(tight["flags"]) <= set(plan["flags"]) and tight["phase_with_flags"] == "drift"
    assert plan["study_seconds"] > 60 and any("rate of matmuls" in n for n in plan["notes"])
    told = launch("plan", *given[:-1], "--hardware=cpu-5g")
    assert "\ncpu-5g runs evaluate, finetune, study, with --config." in told.stdout
    nothing = launch("plan", *given[:-1], "--hardware=cpu-1g")
    assert nothing.returncode == 1 and "\nnothing fits cpu-1g\n" in nothing.stdout
    assert "rate of matmuls" in nothing.stdout
    assert "error" not in nothing.stderr


@pytest.mark.parametrize(
    "flags, parts",
    [
        (("--model=qwen2-7b", "--hardware=v4-9"), ("v4-9", "did you mean", "v4-8")),
        (("--model=quen2-7b", "--hardware=v4-8"), ("quen2-7b", "did you mean", "qwen2-7b")),
        (("--model=qwen2-7b",), ("--hardware",)),
        (("--hardware=v4-8", "--mesh=data:3,model:1"), ("data:3,model:1", "data:4,model:1")),
        (("--hardware=v4-8", "--suites=drift", "--against=M"), ("--against=M", "introspection")),
        (("--hardware=v4-8", "--mesh=rows:2"), ("mesh = 'rows:2'", "as data:2,model:4")),
    ],
)
def test_what_is_not_known_ends_in_one_line(flags, parts):
    refused(launch("plan", *flags), *parts)
