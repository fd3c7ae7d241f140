"""A run knows whose it is: stopped, one thing changed, and started again."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.files import MARK, read_sealed, write_sealed
from antiimit_jax.language_model import load_language_model
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft import save_adapter
from antiimit_jax.results import Stage
from tests.launch.processes import launch, refused
from tests.launch.small_runs import (
    flipped,
    held,
    results,
    run_evaluate,
    run_finetune,
    run_study,
    small_config,
)
from tests.random_decoder import random_adapter
from tests.tiny_model import write_tiny_model

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def stopped(done, tmp_path) -> Path:
    """A study that was stopped when its first adapter was trained, as a copy elsewhere."""
    workdir = tmp_path / "w"
    shutil.copytree(done, workdir)
    for name in ("stages/tuned", "stages/placebo", "placebo", "checkpoints/placebo"):
        shutil.rmtree(workdir / name)
    return workdir


def other_weights(model: Path) -> None:
    write_tiny_model(model, scale=0.3, seed=9)


def other_template(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}!")


def other_shape(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"rope_theta": 500.0}))


def other_tokenizer(model: Path) -> None:
    file = model / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=1))


@pytest.mark.parametrize(
    "change, named",
    [
        (other_weights, "model.safetensors"),
        (other_template, "chat_template.jinja"),
        (other_shape, "config.json"),
        (other_tokenizer, "tokenizer.json"),
    ],
)
def test_another_model_under_the_same_name_is_refused(model, stopped, change, named):
    kept, before = model.parent / "kept", held(stopped)
    shutil.copytree(model, kept)
    try:
        change(model)
        with pytest.raises(UserError, match=f"not the one of this run.*{named}.*--overwrite=all"):
            run_study(small_config(model), stopped)
        (stopped / "config.json").unlink()
        with pytest.raises(UserError, match=named):
            run_study(small_config(model), stopped)
    finally:
        shutil.rmtree(model)
        kept.rename(model)
    assert held(stopped) | {stopped / "config.json": before[stopped / "config.json"]} == before


@pytest.mark.parametrize(
    "field, value",
    [
        ("model", "/elsewhere"),
        ("dtype", "bfloat16"),
        ("prompt_format", "chat"),
        ("forms", "lenient"),
        ("terminators", "wide"),
        ("suites", ("control", "scoring")),
        ("n_boot", 3),
        ("seed", 1),
        ("eval_seed", 1),
        ("control.n_items", 5),
        ("lora.rank", 1),
        ("lora.alpha", 3.0),
        ("train.steps", 3),
        ("train.placebo_steps", 2),
        ("train.learning_rate", 0.5),
        ("train.seeds", (1,)),
    ],
)
@pytest.mark.parametrize("lost", [False, True], ids=["", "config lost"])
def test_another_configuration_is_refused_by_its_field(model, stopped, field, value, lost):
    if lost:
        (stopped / "config.json").unlink()
    before = held(stopped)
    with pytest.raises(UserError, match=f"another config: {field}.*--overwrite"):
        run_study(small_config(model, **{field: value}), stopped)
    assert held(stopped) == before


def test_a_mark_without_a_group_of_fields_is_of_another_configuration(model, stopped):
    mark = read_sealed(stopped / MARK)
    del mark["config"]["control"]
    write_sealed(stopped / MARK, mark)
    with pytest.raises(UserError, match="another config: control.mixture.*--overwrite to measure"):
        run_finetune(small_config(model), stopped)


def test_other_code_is_refused_by_the_name_of_what_differs(model, stopped):
    mark = read_sealed(stopped / MARK)
    mark["identity"]["code"]["jax"] = "0.1"
    write_sealed(stopped / MARK, mark)
    with pytest.raises(UserError, match="begun with other code: jax .there 0.1, now"):
        run_study(small_config(model), stopped)


@pytest.mark.parametrize("damage", [Path.unlink, flipped], ids=["deleted", "flipped"])
@pytest.mark.parametrize(
    "name, said",
    [
        (MARK, "not of a run"),
        (f"adapter/{MARK}", f"{MARK} not as the run wrote it"),
        (f"adapter/{WEIGHTS}", f"{WEIGHTS} not as the run wrote it"),
        ("adapter/adapter_config.json", "adapter_config.json not as the run wrote it"),
    ],
)
def test_what_cannot_be_made_again_is_refused(model, stopped, damage, name, said):
    damage(stopped / name)
    before = held(stopped)
    with pytest.raises(UserError, match=said):
        run_study(small_config(model), stopped)
    assert held(stopped) == before


@pytest.mark.parametrize(
    "name",
    ["stages/base/items.parquet", f"stages/base/{MARK}", "items.parquet", "metrics.json"]
    + ["config.json", "report.html"],
)
@pytest.mark.parametrize("damage", [Path.unlink, flipped], ids=["deleted", "flipped"])
def test_what_can_be_made_again_is(model, done, tmp_path, name, damage):
    shutil.copytree(done, tmp_path / "w")
    damage(tmp_path / "w" / name)
    run_study(small_config(model), tmp_path / "w")
    assert results(tmp_path / "w") == results(done)


def test_a_copied_run_goes_on_to_the_same_bytes(model, done, stopped):
    run_study(small_config(model), stopped)
    assert results(stopped) == results(done)


def test_a_stage_of_another_run_is_measured_again(model, done, stopped, capsys):
    mark = read_sealed(stopped / "stages" / "base" / MARK)
    write_sealed(stopped / "stages" / "base" / MARK, mark | {"run": "another"})
    run_study(small_config(model), stopped, stop="base")
    assert "base: not as this run wrote it; the stage is measured again" in capsys.readouterr().err
    again = (stopped / "stages" / "base" / "items.parquet").read_bytes()
    assert again == (done / "stages" / "base" / "items.parquet").read_bytes()


def test_an_adapter_of_others_never_stands_for_that_of_the_run(model, done, tmp_path):
    workdir, lm, lora = tmp_path / "w", load_language_model(str(model)), LoraConfig(rank=2)
    shutil.copytree(done, workdir)
    for seed in (1, 2):
        tree = random_adapter(lm.cfg, lora, seed)
        save_adapter(tmp_path / f"other{seed}", tree, lm.cfg, lora, str(model))
    one, two = (Stage(name="mine", kind="other", folder=str(tmp_path / f"other{i}")) for i in "12")
    # Fields of training may differ: evaluation does not read them, and they stay.
    run_evaluate(small_config(model, **{"train.steps": 7}), workdir, one)
    rows = json.loads((workdir / "metrics.json").read_text())["rows"]
    assert {"base", "tuned", "placebo", "mine"} <= {row["stage"] for row in rows}
    theirs = json.loads((done / "metrics.json").read_text())["rows"]
    assert [row for row in rows if row["stage"] == "tuned"] == [
        row for row in theirs if row["stage"] == "tuned"
    ]
    assert (workdir / "config.json").read_bytes() == (done / "config.json").read_bytes()
    before = held(workdir)
    with pytest.raises(UserError, match="holds a stage mine of another adapter.*NAME=FOLDER"):
        run_evaluate(small_config(model), workdir, two)
    assert held(workdir) == before


def test_evaluation_accepts_what_finetune_wrote_and_overwrite_keeps_its_adapters(
    model, done, tmp_path
):
    workdir = tmp_path / "w"
    shutil.copytree(done, workdir)
    for name in ("stages", "tensorboard"):
        shutil.rmtree(workdir / name)
    for name in ("metrics.json", "items.parquet", "report.html", "training.parquet"):
        (workdir / name).unlink()  # as finetune leaves it
    run_finetune(small_config(model, seed=3), workdir)
    adapter = (workdir / "adapter" / WEIGHTS).read_bytes()
    run_evaluate(small_config(model, seed=4), workdir)
    with pytest.raises(UserError, match="seed.*--overwrite to measure anew"):
        run_evaluate(small_config(model), workdir)
    run_evaluate(small_config(model), workdir, overwrite="results")
    assert (workdir / "adapter" / WEIGHTS).read_bytes() == adapter
    assert not (workdir / ".replaced").exists()
    base = lambda folder: (folder / "stages" / "base" / "items.parquet").read_bytes()
    assert base(workdir) == base(done)


def test_overwrite_checks_everything_before_it_moves_anything(model, done, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(done, workdir)
    (workdir / "thesis.txt").write_text("years of work")
    before = held(workdir)
    gone = Stage(name="gone", kind="other", folder=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="nowhere"):
        run_evaluate(small_config(model, seed=1), workdir, gone, overwrite="all")
    with pytest.raises(UserError, match="elsewhere"):
        run_study(small_config(Path("/elsewhere")), workdir, overwrite="all")
    with pytest.raises(UserError, match="layers"):
        run_study(small_config(model, **{"lora.first_layer": 9}), workdir, overwrite="all")
    with pytest.raises(UserError, match="train.steps.*--overwrite=all"):
        run_study(small_config(model, **{"train.steps": 3}), workdir, overwrite="results")
    assert held(workdir) == before


def test_an_adapter_is_not_measured_in_the_run_whose_overwriting_deletes_it(done, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(done, workdir)
    before = held(workdir)
    flags = (f"--config={workdir}/config.json", f"--workdir={workdir}")
    result = launch("evaluate", *flags, f"--adapter={workdir}/adapter", "--overwrite=all")
    refused(result, f"--adapter={workdir}/adapter", "--overwrite=results keeps it")
    assert held(workdir) == before


@pytest.mark.parametrize(
    "name", ["stages", "stages/base", "metrics.json", "adapter", "tensorboard"]
)
def test_links_in_a_run_are_not_followed(model, done, tmp_path, name):
    workdir, away = tmp_path / "w", tmp_path / "away"
    shutil.copytree(done, workdir)
    (workdir / name).rename(away)
    (workdir / name).symlink_to(away)
    before = held(tmp_path)
    for overwrite in (None, "all"):
        with pytest.raises(UserError, match="is a link"):
            run_study(small_config(model, seed=1), workdir, overwrite)
    assert held(tmp_path) == before


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("away")])
def test_a_lock_that_is_no_file_is_refused_at_once(model, done, tmp_path, make):
    workdir = tmp_path / "w"
    shutil.copytree(done, workdir)
    (workdir / ".lock").unlink()
    make(workdir / ".lock")
    with pytest.raises(UserError, match=".lock: is no file"):
        run_study(small_config(model), workdir)


def test_a_clock_that_jumps_back_changes_nothing(model, done, stopped, monkeypatch):

    now = [2e9]

    def back() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", back)
    run_study(small_config(model), stopped, stop="train")
    adapter = (stopped / "adapter" / WEIGHTS).read_bytes()
    assert adapter == (done / "adapter" / WEIGHTS).read_bytes()
