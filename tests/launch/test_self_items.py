"""The program that writes the items of the introspection-training arm."""

from __future__ import annotations

from antiimit_jax.tasks.user_items import load_items
from tests.launch.processes import documented, launch, refused
from tests.tiny_model import write_tiny_model


def test_items_to_train_on_are_written(tmp_path):
    model, out = write_tiny_model(tmp_path / "tiny", scale=0.3), tmp_path / "self.jsonl"
    result = launch("self_items", f"--model={model}", f"--out={out}", "--n_texts=2")
    assert result.returncode == 0, result.stderr
    assert len(load_items(str(out)).entries) == 8 and str(out) in result.stdout
    flags = documented("self_items", model=model, items=out, workdir=tmp_path / "run")
    one = [f"--config.train.{name}=1" for name in ("steps", "groups", "rows", "accumulate")]
    trained = launch(
        "finetune", *flags, *one, "--config.train.anchor_tokens=0", "--config.train.eval_every=0"
    )
    assert trained.returncode == 0, trained.stderr


def test_it_needs_a_file_to_write():
    refused(launch("self_items"), "--out is needed")
