"""Each of the three seeds moves what it seeds, and nothing else."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from tests.launch.small_runs import results, run_study, small_config

ADAPTER = "adapter/adapter_model.safetensors"


def prompts(workdir) -> list[str]:
    return pq.read_table(workdir / "stages/base/items.parquet")["prompt"].to_pylist()


@pytest.mark.parametrize(
    "changed, moves", [("seed", ()), ("eval_seed", ("items",)), ("train.seeds", ("adapter",))]
)
def test_a_seed_moves_items_or_adapters_or_neither(model, done, tmp_path, changed, moves):
    config = small_config(model, **{changed: (1,) if changed == "train.seeds" else 1})
    run_study(config, tmp_path / "w", stop="train")
    assert (prompts(tmp_path / "w") != prompts(done)) == ("items" in moves)
    same = results(tmp_path / "w")[ADAPTER] == results(done)[ADAPTER]
    assert same == ("adapter" not in moves)
