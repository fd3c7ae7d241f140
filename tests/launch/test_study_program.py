"""The main job on a tiny model, in real processes: files, resuming, locking, refusing."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from antiimit_jax.reporting.run_files import config_sha256
from tests.launch.processes import SMALL, launch, refused
from tests.tiny_model import write_tiny_model

BASELINES = (
    "perfect",
    "uniform",
    "argmax",
    "flip",
    "constant_60_40",
    "prior",
    "few_shot_copy",
    "two_level",
    "rank_only",
)
FORECAST = r"about (\d+) (seconds|minutes) in all from here\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def study(model, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    workdir = tmp_path_factory.mktemp("runs") / "study"
    result = launch("study", f"--model={model}", f"--workdir={workdir}", *SMALL)
    assert result.returncode == 0, result.stderr
    return workdir, result


def test_a_study_writes_the_files_of_the_contract(study):
    workdir, result = study
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["schema"] == 1
    assert {
        "model",
        "revision",
        "adapter_sha256",
        "dtype",
        "seed",
        "config_sha256",
        "versions",
        "device",
    } <= metrics["run"].keys()
    stages = {row["stage"] for row in metrics["rows"]}
    assert {"base", "tuned", "placebo", "ruler:int8_channel"} <= stages
    assert {f"baseline:{name}" for name in BASELINES} <= stages
    splits = {row["split"] for row in metrics["rows"] if row["suite"] == "control"}
    assert splits == {"train", "heldout_words", "heldout_percent", "heldout_both"}
    slices = {row["slice"] for row in metrics["rows"]}
    assert {"all", "k=2", "tokens=1", "scoring=terminators_narrow", "templates=heldout"} <= slices
    tables = "items drift drift_said drift_continued drift_task training residual residual_samples"
    for name in (*tables.split(), "scoring", "precision", "leak"):
        assert pq.read_table(workdir / f"{name}.parquet").num_rows > 0
    for folder in ("adapter", "placebo"):
        assert (workdir / folder / "adapter_model.safetensors").exists()
    assert list((workdir / "tensorboard").glob("events.*"))
    page = (workdir / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script src" not in page
    assert "tuned" in result.stdout and "ignores request" in result.stdout
    assert f"report: {workdir / 'report.html'}" in result.stdout


def test_every_item_can_be_scored_again_from_items_parquet(study):
    import jax.numpy as jnp
    import numpy as np

    from antiimit_jax.language_model import load_language_model
    from antiimit_jax.models.decoder import Decoder, sequences

    workdir, _ = study
    config = json.loads((workdir / "config.json").read_text())["config"]
    lm = load_language_model(config["model"])
    table = pq.read_table(workdir / "items.parquet").to_pylist()
    rows = [row for row in table if row["stage"] == "base"][:3]
    decoder = Decoder(lm.cfg)
    stops = lm.terminators.standard
    for row in rows:
        q = 0.0
        tail = row["prompt"].rsplit("\n", 1)[1]
        for form in (row["word"], " " + row["word"]):
            before = len(lm.tokenizer.encode_plain(tail))
            path = lm.tokenizer.encode_plain(tail + form)[before:]
            ids = np.array([[*row["prompt_ids"], *path]], np.int32)
            length = ids.shape[1]
            forest = sequences(ids, np.arange(length)[None], np.full((1, length), length))
            variables = {"params": lm.params}
            hidden = decoder.apply(variables, forest)
            logits = np.asarray(decoder.apply(variables, hidden, method="logits"), np.float64)[0]
            logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            start = len(row["prompt_ids"]) - 1
            p = np.exp(sum(logs[start + i, token] for i, token in enumerate(path)))
            q += p * np.exp(logs[-1])[stops].sum()
        assert q == pytest.approx(row["q"], rel=1e-3)
    assert jnp.isfinite(rows[0]["residual"])


def test_run_again_it_says_that_it_is_done_and_changes_nothing(study, model):
    workdir, first = study
    before = (workdir / "metrics.json").read_bytes()
    began = time.monotonic()
    again = launch("study", f"--model={model}", f"--workdir={workdir}", *SMALL)
    assert again.returncode == 0, again.stderr
    assert "done" in again.stderr
    assert again.stdout == first.stdout
    assert (workdir / "metrics.json").read_bytes() == before
    assert time.monotonic() - began < 120


def test_another_config_is_refused_with_the_fields_that_differ(study, model):
    workdir, _ = study
    before = (workdir / "metrics.json").read_bytes()
    other = (*SMALL, "--config.train.learning_rate=0.5")
    result = launch("study", f"--model={model}", f"--workdir={workdir}", *other)
    refused(result, "train.learning_rate", "0.5", "--overwrite")
    assert (workdir / "metrics.json").read_bytes() == before


def test_a_workdir_in_use_is_refused(study, model):
    workdir, _ = study
    with open(workdir / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = launch("study", f"--model={model}", f"--workdir={workdir}", *SMALL)
    refused(result, "in use by another run")


def test_a_folder_of_other_files_is_refused_even_with_overwrite(tmp_path, model):
    (tmp_path / "thesis.txt").write_text("years of work")
    result = launch("study", f"--model={model}", f"--workdir={tmp_path}", "--overwrite", *SMALL)
    refused(result, "not of a run")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_evaluate_measures_a_saved_adapter_as_the_study_did(study, model, tmp_path):
    workdir, _ = study
    flags = (f"--model={model}", f"--adapter={workdir / 'adapter'}", f"--workdir={tmp_path / 'w'}")
    result = launch("evaluate", *flags, "--suites=control", *SMALL)
    assert result.returncode == 0, result.stderr
    forecast, unit = re.search(FORECAST, result.stderr).groups()
    assert f" of about {forecast} {unit[:3]}]" in result.stderr  # on the bars
    named = {"adapter": "tuned"}  # a foreign adapter is not called by the name of the run's own
    theirs, ours = (
        {
            (named.get(row["stage"], row["stage"]), row["item"], row["word"]): row["q"]
            for row in pq.read_table(path).to_pylist()
        }
        for path in (workdir / "items.parquet", tmp_path / "w" / "items.parquet")
    )
    assert {k: theirs[k] for k in ours} == ours
    assert {stage for stage, _, _ in ours} == {"base", "tuned"}
    info = json.loads((tmp_path / "w" / "metrics.json").read_text())["run"]
    assert list(info["adapters"]) == ["adapter"]


def test_weights_that_devices_share_are_trained_as_copies_are(study, model, tmp_path):
    """Two devices share them; a run that is stopped after six of its steps goes on alike."""
    folder = tmp_path / "w"
    flags = (f"--model={model}", f"--workdir={folder}", *SMALL, "--mesh=data:1,model:2")
    flags += ("--config.train.eval_every=8",)

    def run() -> bytes:
        result = launch("finetune", *flags, "--adapters=tuned")
        assert result.returncode == 0, result.stderr
        assert "tuned at step 8: TVD on dev_words " in result.stderr
        forecast, unit = re.search(FORECAST, result.stderr).groups()
        assert f" of about {forecast} {unit[:3]}]" in result.stderr  # on the bars
        told, _, following = result.stdout.splitlines()
        look = r"TVD on dev_words [01]\.\d+, mass on dev_words [01]\.\d+ at step 8"
        assert re.fullmatch(rf"tuned: loss \S+, KL \S+ at step 8; {look}", told)
        assert following.endswith(f"--config={folder}/config.json --workdir={folder}")
        return (folder / "adapter" / "adapter_model.safetensors").read_bytes()

    whole = run()
    copied, shared = (
        json.loads((workdir / "checkpoints" / "tuned.json").read_text())["log"]
        for workdir in (study[0], folder)
    )
    assert len(copied) == len(shared) == 8
    for one, other in zip(copied, shared):
        for name in ("loss", "kl_fwd", "residual", "anchor_kl", "grad_norm", "lr"):
            assert other[name] == pytest.approx(one[name], rel=1e-3, abs=1e-6)
    shutil.rmtree(folder / "adapter")
    shutil.rmtree(folder / "checkpoints" / "tuned" / "8")
    assert (folder / "checkpoints" / "tuned" / "6").is_dir()
    assert run() == whole


def test_report_computes_all_rows_again_from_the_tables_without_the_model(study, model, tmp_path):
    workdir, first = study
    wanted = {name: (workdir / name).read_bytes() for name in ("metrics.json", "report.html")}
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    (copy / "report.html").unlink()
    shutil.rmtree(copy / "stages")
    metrics = json.loads(wanted["metrics.json"])
    (copy / "metrics.json").write_text(json.dumps(metrics | {"rows": []}))
    away = model.rename(model.parent / "away")
    try:
        result = launch("report", f"--workdir={copy}")
    finally:
        away.rename(model)
    assert result.returncode == 0, result.stderr
    assert metrics["rows"] and {name: (copy / name).read_bytes() for name in wanted} == wanted
    assert first.stdout.startswith(result.stdout.partition("report:")[0])


def _without(name):
    return lambda folder: (folder / name).unlink()


def _cut(folder):
    table = folder / "drift.parquet"
    table.write_bytes(table.read_bytes()[:2000])


def _of_another_run(folder):
    table = pq.read_table(folder / "items.parquet")
    pq.write_table(table.slice(1), folder / "items.parquet")


def _no_tables(folder):
    for table in folder.glob("*.parquet"):
        table.unlink()


def _of_an_old_version(folder):
    _without("residual_samples.parquet")(folder)
    (folder / "samples.json").write_text("[]")
    data = json.loads((folder / "config.json").read_text())
    data["config"]["control"]["n_explored"] = 24
    data["config_sha256"] = config_sha256(data["config"])
    (folder / "config.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    "change, parts",
    [
        (_without("metrics.json"), ("metrics.json", "no such file")),
        (_without("config.json"), ("config.json", "no such file")),
        (_no_tables, ("no table", "items.parquet", "evaluate")),
        (_of_another_run, ("items.parquet", "not as the run wrote it")),
        (_cut, ("drift.parquet", "not as the run wrote it")),
        (_of_an_old_version, ("config.json", "another version", "control.n_explored")),
    ],
    ids=["no metrics", "no config", "no tables", "other table", "cut table", "old"],
)
def test_report_refuses_what_it_cannot_compute_from_and_changes_nothing(
    study, tmp_path, change, parts
):
    copy = tmp_path / "copy"
    shutil.copytree(study[0], copy)
    change(copy)
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    refused(launch("report", f"--workdir={copy}"), *parts)
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


def test_report_makes_a_page_that_names_a_table_that_is_missing(study, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(study[0], copy)
    for name in ("drift", "drift_said", "drift_continued", "drift_task", "training"):
        (copy / f"{name}.parquet").unlink()
    result = launch("report", f"--workdir={copy}")
    assert result.returncode == 0, result.stderr
    page = (copy / "report.html").read_text()
    above = page.partition("The sections below")[0]
    assert "drift.parquet" in above and "training.parquet" in above
    assert "No drift figures" not in page  # nothing is said of suites besides
    suites = {row["suite"] for row in json.loads((copy / "metrics.json").read_text())["rows"]}
    assert suites == {"control", "scoring", "precision", "residual", "leak", "sad_like", "ladder"}
