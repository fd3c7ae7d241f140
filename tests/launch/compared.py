"""Runs of made-up models whose control is known, as folders that `launch.compare` reads."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from antiimit_jax.files import sha256
from antiimit_jax.reporting import run_files
from antiimit_jax.results import BASE
from antiimit_jax.run_config import from_dict, to_dict
from antiimit_jax.suites import control
from antiimit_jax.trees import nested
from tests.suites.known import Known

_FIELDS = {
    "suites": ("control",),
    "control.splits": ("heldout_words",),
    "control.n_items": 192,
    "control.mixture.ks": (2,),
    "control.mixture.k_weights": (1.0,),
    "control.mixture.shots": (0,),
    "control.mixture.shot_weights": (1.0,),
    "control.mixture.heldout_weight": 0.0,
}


def write_run(
    folder: Path, model: str, gamma: float, mass: float, *, style: str = "auto", **changes
) -> Path:
    """A finished run: 24 word sets answered with this slope and mass, more or less.

    What a word set adds to the slope and the mass is the same for all models.

    Args:
      style: the format that is configured.
      changes: further fields of the configuration, dots written as `__`.
    """
    fields = _FIELDS | {"model": model, "prompt_format": style}
    fields |= {name.replace("__", "."): value for name, value in changes.items()}
    config = from_dict(nested(fields))
    items = control.items_of(config.control, config.eval_seed)
    asked = {(item.messages, item.words): item for item in items}

    def told(ask) -> np.ndarray:
        item = asked.get((ask.messages, ask.words))
        if item is None:  # without percentages
            return np.array([0.1, 0.1])
        rng = np.random.default_rng(zlib.crc32(item.cluster.encode()))
        own = np.random.default_rng(zlib.crc32(f"{model} {item.item}".encode()))
        log_q = (gamma + 0.2 * rng.normal()) * np.log(item.targets) + 0.1 * own.normal(size=2)
        share = np.exp(log_q) / np.exp(log_q).sum()
        return np.clip(mass + 0.02 * rng.normal() + 0.01 * own.normal(), 0.001, 0.999) * share

    asker = Known(told, BASE, config.rule, config.eval_seed)
    table = control.measure(asker, config.control)["items"]
    run_files.write_table(folder, "items", run_files.to_table("items", table, control.ITEMS))
    info = {
        "model": model,
        "stages": [vars(BASE)],
        "tables": {"items.parquet": sha256(folder / "items.parquet")},
        "config_sha256": run_files.write_config(folder, to_dict(config)),
    }
    run_files.write_metrics(folder, info, [])
    return folder
