"""The program that writes the items of rule-keyed words."""

from __future__ import annotations

from antiimit_jax.tasks.user_items import load_items
from tests.launch.processes import launch, refused, trained_as_documented


def test_items_to_train_on_are_written(model, tmp_path):
    out = tmp_path / "keyed.jsonl"
    result = launch("seed_items", f"--out={out}", "--n_texts=2")
    assert result.returncode == 0, result.stderr
    items = load_items(str(out)).entries
    assert len(items) == 36 and len(items[0].messages) == 6 and str(out) in result.stdout
    files = dict(model=model, items=out, workdir=tmp_path / "run")
    trained = trained_as_documented("seed_items", **files)
    assert trained.returncode == 0, trained.stderr
    refused(launch("seed_items"), "--out is needed")
