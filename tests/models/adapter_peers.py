"""Random adapters, and what they mean: torch models with the products added to their weights."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import torch
import transformers

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.lora import LoraConfig, init_adapter
from tests.models.family_peers import random_model

_MODULE = {name: f"self_attn.{name}_proj" for name in "qkvo"} | {
    name: f"mlp.{name}_proj" for name in ("gate", "up", "down")
}


def random_tree(cfg: ModelConfig, lora: LoraConfig, size: float = 0.4, seed: int = 1) -> Any:
    """As training would leave it: b is not zero where the adapter trains."""
    rng, (first, last) = np.random.default_rng(seed), lora.layer_range(cfg)

    def fill(leaf: Any) -> np.ndarray:
        trains = (np.arange(len(leaf)) >= first) & (np.arange(len(leaf)) < last)
        return (rng.normal(0, size, leaf.shape) * trains[:, None, None]).astype(np.float32)

    return jax.tree.map(fill, init_adapter(jax.random.key(0), cfg, lora))


def merged_model(case: str, tree: Any, scale: float) -> transformers.PreTrainedModel:
    """The random model of a case with scale · b @ a added, by torch's own names of its weights."""
    model = random_model(case)
    config, state = model.config, model.state_dict()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    q, kv = config.num_attention_heads * size, config.num_key_value_heads * size
    fused = {
        "q": ("self_attn.qkv_proj", 0),
        "k": ("self_attn.qkv_proj", q),
        "v": ("self_attn.qkv_proj", q + kv),
        "gate": ("mlp.gate_up_proj", 0),
        "up": ("mlp.gate_up_proj", config.intermediate_size),
    }
    for group in tree["layers"].values():
        for name, pair in group.items():
            for i, (a, b) in enumerate(zip(pair["a"], pair["b"])):
                module, first = _MODULE[name], 0
                if f"model.layers.{i}.{module}.weight" not in state:
                    module, first = fused[name]
                weight = state[f"model.layers.{i}.{module}.weight"]
                with torch.no_grad():
                    weight[first : first + len(b)] += torch.from_numpy(scale * (b @ a))
    return model
