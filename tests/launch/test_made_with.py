"""What a run says that it was made with is what it was made with, and what is shown is all that."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from antiimit_jax import study
from antiimit_jax.errors import UserError
from antiimit_jax.evaluation.second import with_second
from antiimit_jax.language_model import load_language_model
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft import save_adapter
from tests.launch.small_runs import flipped, held, run_evaluate, run_study, small_config
from tests.random_decoder import random_adapter

pytestmark = pytest.mark.usefixtures("shared")
WEIGHTS = "adapter_model.safetensors"


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
