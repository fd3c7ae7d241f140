"""Folders with models for the peers, and smaller or larger models for what is asked of size."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from antiimit_jax.export.folder import Form, export
from antiimit_jax.export.merged import stored_tensors
from antiimit_jax.files import write_json
from antiimit_jax.language_model import LanguageModel
from antiimit_jax.models.catalog import CATALOG
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.safetensors_files import SafetensorsCheckpoint, save_tensors
from antiimit_jax.scoring.terminators import build_terminators
from antiimit_jax.text.tokenizer import Tokenizer
from launch.benchmark.job import SEED

Config, Tensors = Mapping[str, Any], Mapping[str, np.ndarray]

# The shape of Llama 3.2 1B, rotated plainly.
_CONFIG_1B = CATALOG["llama-3.2-1b"].config | {
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 8192,
    "rope_scaling": None,
}


def peer_folder(lm: LanguageModel, into: Path) -> Path:
    """A folder that transformers can read the model from, written where there is none."""
    if lm.source.path.is_dir():
        return lm.source.path
    if not into.exists():
        export(lm.source, None, into, Form(dtype="float32"), suites={})
    return into


def first_layers(lm: LanguageModel, folder: Path, into: Path, count: int) -> None:
    """Writes the model of a folder with so many layers."""
    checkpoint = SafetensorsCheckpoint(folder)
    config = checkpoint.config() | {"num_hidden_layers": count}
    names = stored_tensors(parse_config(config, str(into)))
    _write(into, config, {name: checkpoint.read(name) for name in names}, lm.tokenizer)


def random_1b(lm: LanguageModel, into: Path) -> LanguageModel:
    """Writes a model of Llama 3.2 1B's shape, random weights in bfloat16, with `lm`'s tokenizer.

    Its own `params` are left out: who needs them reads the folder.
    """
    cfg = parse_config(_CONFIG_1B, str(into))
    if not into.exists():
        rng, tensors = np.random.default_rng(SEED), {}
        for name, ((leaf, _),) in stored_tensors(cfg).items():
            array = rng.standard_normal(leaf.shape(cfg), np.float32) * 0.02
            tensors[name] = (array + 1.0 if "norm" in name else array).astype(ml_dtypes.bfloat16)
        _write(into, _CONFIG_1B, tensors, lm.tokenizer)
    stops = build_terminators(lm.tokenizer, cfg.vocab_size)
    return dataclasses.replace(lm, cfg=cfg, params=None, terminators=stops)


def _write(into: Path, config: Config, tensors: Tensors, tokenizer: Tokenizer) -> None:
    into.mkdir(parents=True)
    write_json(into / "config.json", config)
    save_tensors(tensors, into / "model.safetensors")
    tokenizer.hf.save_pretrained(into)
