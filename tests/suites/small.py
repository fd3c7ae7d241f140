"""Small settings of every suite, a run of all of them, and tables as a run's files hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from antiimit_jax.evaluation.progress import silent
from antiimit_jax.evaluation.runner import Runner
from antiimit_jax.language_model import LanguageModel
from antiimit_jax.models.lora import LoraConfig
from antiimit_jax.models.peft import load_adapter, save_adapter
from antiimit_jax.reporting.report import schemas
from antiimit_jax.reporting.run_files import columns_of, to_table, write_config
from antiimit_jax.results import BASE, Stage, Tables
from antiimit_jax.run_config import RunConfig, from_dict, to_dict
from antiimit_jax.study import Study
from antiimit_jax.suites import SUITES
from tests.random_decoder import random_adapter

MIXTURE = {
    "templates": tuple(range(10)),
    "ks": (2, 3),
    "k_weights": (0.8, 0.2),
    "shots": (0, 2),
    "shot_weights": (0.8, 0.2),
    "heldout_weight": 0.2,
}
CONTROL = {
    "mixture": MIXTURE,
    "splits": ("heldout_words", "heldout_both"),
    "n_items": 96,
    "n_other": 40,
}
FEW = {
    "control": CONTROL,
    "scoring": {"n_items": 8},
    "precision": {"n_items": 8},
    "residual": {"n_items": 6},
    "ladder": {
        "rungs": ("L3", "L7", "L8", "L9", "L12", "L13"),
        "n_sets": 2,
        "n_thoughts": 2,
        "thought_tokens": 4,
    },
    "sad_like": {"n_pairs": 1, "n_seeds": 2, "n_shots": 1},
    "deviate": {"n_starts": 1, "n_drawn": 1, "drawn_tokens": 3},
    "introspection": {"n_texts": 5, "n_other": 1},
    "drift": {
        "n_prompts": 7,
        "rulers": ("int8_channel", "bf16"),
        "n_continued": 2,
        "continued_tokens": 6,
        "n_task": 8,
    },
    "leak": {"n_sets": 2},
    "seed_words": {"n_seeds": 1, "n_train_seeds": 0, "n_shots": 0, "most_paths": 20},
    "rare_rates": {"n_sets": 2},
    "n_boot": 50,
}


def small_config(model: Path | str = "tiny", **changes: Any) -> RunConfig:
    """A run of few items."""
    return from_dict(FEW | {"model": str(model)} | changes)


def run_of_all(config: RunConfig, lm: LanguageModel, runner: Runner, folder: Path) -> Path:
    """The folder of a run of all suites on the base and on a random adapter."""
    lora, stage = LoraConfig(rank=2), Stage(name="mine", kind="other", folder=str(folder / "mine"))
    save_adapter(Path(stage.folder), random_adapter(lm.cfg, lora, 1), lm.cfg, lora, "tiny")
    study = Study(config, folder / "run", tell=lambda text: None, progress=silent)
    study.lm, study.runner = lm, runner  # known already, with what they compiled
    study.evaluate(BASE)
    study.evaluate(stage, load_adapter(Path(stage.folder), lm.cfg))
    write_config(folder / "run", to_dict(config))
    study.write()
    return folder / "run"


def as_read(tables: Tables) -> dict[str, dict[str, np.ndarray]]:
    """A suite's tables with the types of its schemas."""
    kinds = schemas(SUITES)
    return {name: columns_of(to_table(name, tables[name], kinds[name])) for name in tables}


def values_of(rows, **where) -> dict[str, float]:
    """Metric -> value of the rows at one place."""
    return {
        row["metric"]: row["value"]
        for row in rows
        if all(row[key] == value for key, value in where.items())
    }
