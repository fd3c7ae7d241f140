"""A tiny random llama as a Hugging Face folder, with the embedded model's tokenizer or another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from antiimit_jax.models.catalog import CATALOG, embedded_file
from antiimit_jax.models.families import parse_config
from antiimit_jax.models.leaves import leaves_of
from antiimit_jax.text.tokenizer import load_tokenizer


def write_tiny_model(
    folder: Path, *, seed: int = 0, scale: float = 0.08, tokenizer: Path | None = None, **changes
) -> Path:
    """Writes config, weights and tokenizer; `changes` replace fields of the config.

    Args:
      tokenizer: a folder with the files of a tokenizer, in place of the embedded model's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 49152,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
    } | changes
    (folder / "config.json").write_text(json.dumps(config))
    cfg = parse_config(config, "tiny")
    rng = np.random.default_rng(seed)
    tensors = {}
    for leaf in leaves_of(cfg):
        for i in range(cfg.n_layers) if leaf.stacked else (0,):
            shape = leaf.shape(cfg)
            array = rng.standard_normal(shape, np.float32) * scale
            tensors[leaf.hf.format(i=i)] = array + 1.0 if "norm" in leaf.hf else array
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if tokenizer:
        shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    else:
        load_tokenizer(embedded_file(CATALOG["smollm2-135m-instruct"])).hf.save_pretrained(folder)
    return folder
