"""Small llama models of transformers, random and written to disk by it: the truth of this room."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.decoder import Decoder, Forest, sequences
from antiimit_jax.models.weights import find_model, load_params

torch.set_num_threads(1)  # models this small lose by sharing, and tests run side by side


def random_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A llama in which every parameter matters: no norm is one, no bias zero, no logit flat."""
    sizes = dict(
        vocab_size=47,
        hidden_size=24,
        intermediate_size=36,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        max_position_embeddings=64,
        rms_norm_eps=3e-3,
        rope_parameters={"rope_type": "default", "rope_theta": 37.0},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(LlamaConfig(**(sizes | changes))).eval()
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            random = torch.randn(parameter.shape, generator=noise)
            matrix = parameter.dim() == 2
            parameter.copy_(1.5 * random / random.shape[1] ** 0.5 if matrix else 1 + 0.5 * random)
    return model


def write(model: LlamaForCausalLM, folder: Path, **how: Any) -> Path:
    """Saved by transformers itself, as safetensors."""
    model.save_pretrained(folder, **how)
    return folder


def load(path: Path, dtype: Any = jnp.float32) -> tuple[ModelConfig, Any]:
    """Read by us."""
    return load_params(find_model(str(path)), dtype)


@functools.partial(jax.jit, static_argnames=("cfg", "lora_scale"))
def forest_logits(
    params: Any, forest: Forest, cfg: ModelConfig, lora: Any = None, lora_scale: float = 1.0
) -> jax.Array:
    """Our logits of the rows, [B, T, V]."""
    decoder = Decoder(cfg, lora_scale=lora_scale)
    variables = {"params": params} | ({} if lora is None else {"lora": lora})
    hidden = decoder.apply(variables, forest)
    return decoder.apply(variables, hidden, method="logits")


def our_logits(params: Any, cfg: ModelConfig, tokens: np.ndarray, **adapter: Any) -> np.ndarray:
    """Our logits of sequences [B, T] without padding."""
    B, T = tokens.shape
    rows = lambda row: jnp.broadcast_to(jnp.asarray(row, jnp.int32), (B, T))
    forest = sequences(jnp.asarray(tokens, jnp.int32), rows(jnp.arange(T)), rows(T))
    return np.asarray(forest_logits(params, forest, cfg, **adapter))


def torch_logits(model: LlamaForCausalLM, tokens: np.ndarray, **inputs: np.ndarray) -> np.ndarray:
    """Transformers' logits of sequences [B, T]."""
    inputs = {name: torch.from_numpy(np.asarray(array)) for name, array in inputs.items()}
    with torch.no_grad():
        return model(torch.from_numpy(np.asarray(tokens)), **inputs).logits.float().numpy()


def assert_same_logits(ours: np.ndarray, theirs: np.ndarray, tolerance: float = 1e-4) -> None:
    """Largest difference within `tolerance` of the range of the true logits."""
    assert ours.shape == theirs.shape and theirs.size
    extent = float(theirs.max() - theirs.min())
    assert extent > 1, "logits this flat would prove nothing"
    assert np.isfinite(ours).all()
    assert np.abs(ours - theirs).max() <= tolerance * extent
