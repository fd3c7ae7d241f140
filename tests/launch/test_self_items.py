"""The program that writes the items of the introspection-training arm."""

from __future__ import annotations

from antiimit_jax.tasks.user_items import load_items
from tests.launch.processes import launch, refused, trained_as_documented
from tests.tiny_model import write_tiny_model


def test_items_to_train_on_are_written(tmp_path):
    model, out = write_tiny_model(tmp_path / "tiny", scale=0.3), tmp_path / "self.jsonl"
    result = launch("self_items", f"--model={model}", f"--out={out}", "--n_texts=2")
    assert result.returncode == 0, result.stderr
    assert len(load_items(str(out)).entries) == 8 and str(out) in result.stdout
    files = dict(model=model, items=out, workdir=tmp_path / "run")
    trained = trained_as_documented("self_items", **files)
    assert trained.returncode == 0, trained.stderr


def test_it_needs_a_file_to_write():
    refused(launch("self_items"), "--out is needed")
