"""A user's own items through evaluate, finetune and report: measured, trained on, never mixed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from antiimit_jax.errors import UserError
from antiimit_jax.files import sha256
from antiimit_jax.language_model import load_language_model
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft import save_adapter
from antiimit_jax.reporting import run_files
from antiimit_jax.results import Stage
from antiimit_jax.study import write_results
from antiimit_jax.text.lexicon import words_of
from tests.launch.processes import launch
from tests.launch.small_runs import run_evaluate, run_finetune, small_config
from tests.random_decoder import random_adapter
from tests.tasks.test_user_items import PHRASINGS, WORDS, words_file
from tests.tiny_model import write_tiny_model

LORA = LoraConfig(rank=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny", scale=0.3)


def write_items(file: Path, *percents: int) -> str:
    asked = lambda p: {"prompt": f"Sun {p}%, rain {100 - p}%.", "targets": [p, 100 - p]}
    lines = [json.dumps(asked(p) | {"words": ["sun", "rain"]}) for p in percents]
    file.write_text("\n".join(lines) + "\n")
    return str(file)


@pytest.fixture(scope="module")
def items(model) -> str:
    return write_items(model.parent / "items.jsonl", 70, 30, 55, 45)


@pytest.fixture(scope="module")
def evaluated(model, items) -> Path:
    run_evaluate(small_config(model, **{"control.items_file": items}), model.parent / "run")
    return model.parent / "run"


def copied(run: Path, folder: Path) -> Path:
    return shutil.copytree(run, folder / "run")


def test_a_run_tells_of_its_file_and_its_figures_need_it_no_more(evaluated, items, tmp_path):
    run = copied(evaluated, tmp_path)
    metrics = run_files.read_metrics(run)
    assert metrics["run"]["own_files"] == {"control.items_file": sha256(Path(items))}
    assert {row["split"] for row in metrics["rows"]} == {"items"}
    config = small_config("tiny", **{"control.items_file": str(tmp_path / "gone.jsonl")})
    page = write_results(run, config, metrics["run"])
    assert run_files.read_metrics(run) == metrics and page.exists()


def test_another_file_is_refused_by_name_and_the_same_elsewhere_is_not(
    model, evaluated, items, tmp_path
):
    run = copied(evaluated, tmp_path)
    moved = small_config(model, **{"control.items_file": str(shutil.copy(items, tmp_path / "a"))})
    before = (run / "items.parquet").read_bytes()
    run_evaluate(moved, run)
    assert (run / "items.parquet").read_bytes() == before
    for other in (write_items(tmp_path / "b.jsonl", 70, 30), ""):
        with pytest.raises(UserError, match="other files of yours: control.items_file"):
            run_evaluate(small_config(model, **{"control.items_file": other}), run)
    run_evaluate(small_config(model), run, overwrite="results")
    splits = {row["split"] for row in run_files.read_metrics(run)["rows"]}
    assert splits == {"heldout_words"}


def test_adapters_trained_on_own_items_are_measured_in_the_same_folder(model, items, tmp_path):
    run, fields = tmp_path / "run", {"train.items_file": items, "train.row_tokens": 64}
    run_finetune(small_config(model, **fields), run)
    other = small_config(model, **fields | {"train.items_file": write_items(tmp_path / "b", 9)})
    with pytest.raises(UserError, match="other files of yours: train.items_file"):
        run_finetune(other, run)
    adapters = [
        Stage(name=name, kind="other", folder=str(run / name)) for name in ("adapter", "placebo")
    ]
    asked = small_config(model, **{"control.items_file": items})  # nothing said of training
    run_evaluate(asked, run, adapters[0])
    tables = pq.read_table(run / "items.parquet").to_pylist()
    run_evaluate(asked, run, adapters[1])  # adds a stage, keeps the others
    after = pq.read_table(run / "items.parquet").to_pylist()
    assert [row for row in after if row["stage"] != "placebo"] == tables
    rows = run_files.read_metrics(run)["rows"]
    names = ("base", "adapter", "placebo")
    for name in names:
        assert [r for r in rows if r["stage"] == name and r["metric"] == "tvd_res"]
    config = run_files.read_config(run)["config"]
    assert config["train"]["items_file"] == items


def test_an_item_that_the_model_cannot_be_asked_is_named_by_its_line(model, tmp_path):
    file = Path(write_items(tmp_path / "items.jsonl", 70))
    long = {"prompt": "sun " * 3000, "words": ["sun", "rain"], "targets": [0.5, 0.5]}
    file.write_text(file.read_text() + json.dumps(long) + "\n")
    for field, program in (("control", run_evaluate), ("train", run_finetune)):
        with pytest.raises(UserError, match=r"items.jsonl: line 2: prompt and words take 3\d+"):
            program(small_config(model, **{f"{field}.items_file": str(file)}), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_own_words_and_phrasings_are_trained_on_and_asked(model, tmp_path):
    run, phrasings = tmp_path / "run", tmp_path / "phrasings.jsonl"
    phrasings.write_text("".join(json.dumps(phrasing) + "\n" for phrasing in PHRASINGS))
    own = {"words_file": words_file(tmp_path, *WORDS), "templates_file": str(phrasings)}
    run_finetune(small_config(model, **own), run)
    with pytest.raises(UserError, match="of yours: templates_file .there .{12}, now None., words"):
        run_evaluate(small_config(model), run)
    run_evaluate(small_config(model, **own), run)
    table = pq.read_table(run / "items.parquet").to_pylist()
    assert {row["word"] for row in table} <= set(words_of("test", own["words_file"]))
    assert all("Say one, number " in row["prompt"] for row in table)
    assert set(run_files.read_metrics(run)["run"]["own_files"]) == set(own)


def test_a_word_that_is_a_form_of_another_is_named_by_its_line(model, tmp_path):
    own = {"words_file": words_file(tmp_path, "may", *WORDS, "May"), "forms": "lenient"}
    with pytest.raises(UserError, match="words.txt: line 242: words 'may' and 'May' share"):
        run_evaluate(small_config(model, **own), tmp_path / "run")


def test_adapters_stand_side_by_side_in_all_that_is_shown(model, items, tmp_path):
    lm = load_language_model(str(model))
    for seed, name in enumerate(("one", "two"), 1):
        adapter = random_adapter(lm.cfg, LORA, seed)
        save_adapter(tmp_path / name, adapter, lm.cfg, LORA, str(model))
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("no item\n" + Path(items).read_text())
    flags = ["--suites=control", "--config.n_boot=0", f"--items={mixed}", "--limit=2"]
    flags += ["--skip_bad_items"]
    flags += [f"--model={model}", f"--workdir={tmp_path / 'run'}"]
    flags += [f"--adapter={name}={tmp_path / name}" for name in ("one", "two")]
    result = launch("evaluate", *flags)
    assert result.returncode == 0, result.stderr
    assert f"note: 1 of 5 lines left out, as {mixed}: line 1: not valid JSON" in result.stderr
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Tags()["scalars"]
    page = (tmp_path / "run" / "report.html").read_text()
    rows = run_files.read_metrics(tmp_path / "run")["rows"]
    for name in ("base", "one", "two"):
        assert name in result.stdout and f"</span> {name}</li>" in page
        (tvd,) = [
            r for r in rows if (r["stage"], r["slice"], r["metric"]) == (name, "all", "tvd_res")
        ]
        assert tvd["n"] == 2 and f"{name}/control/items/tvd_res" in events


def test_a_malformed_file_is_refused_before_a_model_is_sought(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "x", "words": ["a"], "targets": [1]}\n')
    for field, program in (("control", run_evaluate), ("train", run_finetune)):
        config = small_config("nowhere", **{f"{field}.items_file": str(tmp_path / "bad.jsonl")})
        with pytest.raises(UserError, match="bad.jsonl: line 1: 1 words; give 2 to 20"):
            program(config, tmp_path / "run")
