"""`launch.export` as a user runs it: one line when it refuses, a folder that is whole or absent."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
import transformers

from antiimit_jax.models.lora import LoraConfig, init_adapter
from antiimit_jax.models.peft import save_adapter
from antiimit_jax.models.weights import find_model, load_config
from antiimit_jax.reporting import run_files
from tests.launch.processes import ROOT, command, environment, launch, refused
from tests.reporting.synthetic_run import write_synthetic_run
from tests.tiny_model import write_tiny_model

LORA = LoraConfig(rank=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, Path]:
    """A model, and a run's folder with an adapter of it."""
    folder = tmp_path_factory.mktemp("run")
    model = write_tiny_model(folder / "tiny")
    (model / "LICENSE").write_text("free")
    workdir = write_synthetic_run(
        folder / "run", items_per_split=24, drift=False, stages=("base", "tuned")
    )
    cfg = load_config(find_model(str(model)))
    tree = init_adapter(jax.random.key(0), cfg, LORA)
    sha256 = save_adapter(workdir / "adapter", tree, cfg, LORA, str(model))
    metrics = run_files.read_metrics(workdir)
    info = metrics["run"] | {"adapters": {"tuned": sha256}}
    run_files.write_metrics(workdir, info, metrics["rows"])
    return model, workdir


def test_the_merged_folder_has_all_that_others_need(run, tmp_path):
    model, workdir = run
    out = tmp_path / "merged"
    flags = (f"--model={model}", f"--adapter={workdir / 'adapter'}", f"--out={out}")
    result = launch("export", *flags, "--max_shard_size=1MB", "--dtype=bfloat16")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{out}\n" and "exporting: 100%" in result.stderr
    assert "note:" not in result.stderr
    shards = sorted(path.name for path in out.glob("*.safetensors"))
    assert len(shards) > 1 and shards[0].startswith("model-00001-of-0000")
    assert {path.name for path in out.iterdir()} - set(shards) == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "LICENSE",
        "antiimit_jax.json",
    }
    assert (out.stat().st_mode & 0o777) == 0o755
    ours, theirs = map(transformers.AutoTokenizer.from_pretrained, (model, out))
    assert ours.chat_template == theirs.chat_template
    text = "A naïve <|im_end|> 12"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    card = (out / "README.md").read_text()
    rows = run_files.read_metrics(workdir)["rows"]
    wanted = {
        "stage": "tuned",
        "suite": "control",
        "split": "heldout_words",
        "slice": "k=2",
        "metric": "tvd_res",
    }
    (row,) = [row for row in rows if wanted.items() <= row.items()]
    where = "heldout_words (words never trained on, percentages trained on), two words"
    (line,) = [x for x in card.splitlines() if x.startswith(f"| {where} | tuned |")]
    assert f" {row['value']:.3f} " in line and f" {row['n']} | {row['clusters']} |" in line
    assert "| train.learning_rate | 0.002 |" in card and "| base model | tiny |" in card
    assert str(tmp_path.parent.parent) not in card  # no path of this machine


def test_a_card_leaves_out_figures_of_another_adapter_and_says_what_the_base_was(run, tmp_path):
    model, workdir = run
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    cfg = load_config(find_model(str(model)))
    tree = init_adapter(jax.random.key(1), cfg, LORA)
    save_adapter(copy / "adapter", tree, cfg, LORA, "somebody/else")
    flags = (f"--model={model}", f"--adapter={copy / 'adapter'}", f"--out={tmp_path / 'a'}")
    result = launch("export", *flags, "--format=peft")
    assert result.returncode == 0, result.stderr
    (note,) = [line for line in result.stderr.splitlines() if line.startswith("note:")]
    assert "somebody/else" in note and str(model) in note
    card = (tmp_path / "a" / "README.md").read_text()
    assert "of another adapter" in card
    assert "| heldout_words" not in card and "## Measured" not in card
    assert "| train.learning_rate | 0.002 |" in card


@pytest.mark.parametrize(
    "flags, parts",
    [
        ((), ("--out",)),
        (("--out=OUT", "--format=gguf"), ("gguf", "peft")),
        (("--out=OUT", "--dtype=int8"), ("int8", "bfloat16")),
        (("--out=OUT", "--max_shard_size=2"), ("--max_shard_size=2", "5GB")),
    ],
)
def test_bad_input_ends_in_one_line_and_writes_nothing(run, tmp_path, flags, parts):
    given = [f"--model={run[0]}", *(flag.replace("OUT", str(tmp_path / "out")) for flag in flags)]
    result = launch("export", *given)
    refused(result, *parts)
    assert result.stdout == "" and not any(tmp_path.iterdir())


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(run, tmp_path):
    program = command("export", f"--model={run[0]}", f"--out={tmp_path / 'out'}")
    # Every write beyond 3 MiB of a file fails, as on a full disk: the tokenizer fits.
    limited = ["bash", "-c", 'ulimit -f 3000; exec "$@"', "bash", *program]
    result = subprocess.run(limited, cwd=ROOT, env=environment(), capture_output=True, text=True)
    refused(result, "too large")
    assert not any(tmp_path.iterdir())


def test_the_export_is_itself_a_model_that_the_programs_read(run, tmp_path):
    model, _ = run
    assert launch("export", f"--model={model}", f"--out={tmp_path / 'out'}").returncode == 0
    asked = ("--prompt=One two\n", "--words=apple,river", "--json")
    ours, theirs = (
        json.loads(launch("score", f"--model={path}", *asked).stdout)
        for path in (model, tmp_path / "out")
    )
    np.testing.assert_equal(ours["words"], theirs["words"])
