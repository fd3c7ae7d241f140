"""What a run says that it was made with is what it was made with, and what is shown is all that."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from antiimit_jax import study
from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.second import with_second
from antiimit_jax.files import MARK, read_sealed, write_sealed
from antiimit_jax.language_model import load_language_model
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft import save_adapter
from antiimit_jax.reporting.run_files import read_metrics
from tests.launch.small_runs import flipped, held, run_evaluate, run_study, small_config
from tests.random_decoder import random_adapter

pytestmark = pytest.mark.usefixtures("shared")
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def finished(done, tmp_path) -> Path:
    """A finished study, as a copy."""
    shutil.copytree(done, tmp_path / "w")
    return tmp_path / "w"


def change_mark(folder: Path, value: object, *names: str) -> None:
    mark = inside = read_sealed(folder / MARK)
    for name in names[:-1]:
        inside = inside[name]
    inside[names[-1]] = value
    write_sealed(folder / MARK, mark)


def add_template(model: Path) -> None:
    (model / "another.jinja").write_text("{{ messages[0].content }}!")


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda model: flipped(model / "model.safetensors"), "model.safetensors: was replaced"),
        (lambda model: flipped(model / "tokenizer.json"), "tokenizer.json: was replaced"),
        (add_template, "another.jinja: was added"),
    ],
    ids=["weights", "tokenizer", "added"],
)
def test_a_model_changed_between_its_reading_and_its_hash_is_refused(
    model, tmp_path, change, said, monkeypatch
):
    copy, load = tmp_path / "model", study.load_model
    shutil.copytree(model, copy)

    def changed_after(config):
        lm = load(config)
        change(copy)
        return lm

    monkeypatch.setattr(study, "load_model", changed_after)
    with pytest.raises(UserError, match=f"{said}.*while"):
        run_study(small_config(copy), tmp_path / "w", stop="base")
    assert [path.name for path in (tmp_path / "w").iterdir()] == [".lock"]


def test_a_second_model_is_that_of_the_run(model, tmp_path, monkeypatch):
    lm, lora, other = load_language_model(str(model)), LoraConfig(rank=2), tmp_path / "other"

    def save(seed: int) -> None:
        save_adapter(other, random_adapter(lm.cfg, lora, seed), lm.cfg, lora, str(model))

    save(1)
    few = {"tasks": ("next_word",), "n_texts": 1, "near": "none"}
    few = {f"introspection.{name}": value for name, value in few.items()}
    config = small_config(model, suites=("introspection",), against=str(other), **few)
    run_evaluate(config, tmp_path / "w")
    save(2)
    with monkeypatch.context() as patch:
        patch.setattr(study, "with_second", lambda *given: save(3) or with_second(*given))
        with pytest.raises(UserError, match="other/adapter_config.json: was replaced.*while"):
            run_evaluate(config, tmp_path / "new")
    shutil.rmtree(tmp_path / "w" / "stages" / "base")
    (tmp_path / "w" / "stages" / "base").mkdir()
    before = held(tmp_path / "w")
    with pytest.raises(UserError, match=f"--against is not the one of this run .{WEIGHTS} differ"):
        run_evaluate(config, tmp_path / "w")
    assert held(tmp_path / "w") == before


@pytest.mark.parametrize(
    "names, said",
    [
        (("code", "jax"), "begun with other code: jax (there 0.1, now "),
        (("model", "config.json"), "the model is not the one of this run (config.json differ)"),
        (("files", "words_file"), "made with other files of yours: words_file (there 0.1, now "),
    ],
    ids=["code", "model", "files"],
)
def test_a_finished_run_is_not_mixed_with_what_it_was_not_made_with(
    model, finished, capsys, names, said, tmp_path
):
    config = small_config(model)
    if "files" in names:
        (tmp_path / "words.txt").write_text("river\n")
        config = small_config(model, words_file=str(tmp_path / "words.txt"))
        change_mark(finished, config.words_file, "config", "words_file")
    change_mark(finished, "0.1", "identity", *names)
    before = held(finished)
    run_study(config, finished)
    assert f"note: {finished}: {said}" in (shown := capsys.readouterr().err)
    assert "its results are shown as they lie there\n" in shown and held(finished) == before
    for name in ("report.html", "items.parquet", "metrics.json"):
        (finished / name).unlink()
        before = held(finished)
        with pytest.raises(UserError) as refused:
            run_study(config, finished)
        assert f"--workdir={finished}: {said}" in str(refused.value)
        assert held(finished) == before


def test_a_finished_run_tells_what_made_it_where_its_model_is_gone(finished, capsys):
    change_mark(finished, "/nowhere", "config", "model")
    for name, device in (("base", "abacus x1"), ("tuned", "abacus x2"), ("placebo", "abacus x1")):
        change_mark(finished / "stages" / name, device, "device")
        change_mark(finished / "stages" / name, {"jax": "0.1"}, "versions")
    run_study(small_config(Path("/nowhere")), finished)
    info = read_metrics(finished)["run"]
    assert (info["versions"], info["device"]) == ({"jax": "0.1"}, "abacus x1, abacus x2")
    assert "note" not in capsys.readouterr().err
