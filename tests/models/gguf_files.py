"""Writes torch models as GGUF the way llama.cpp's own converter does.

Source of the layout: llama.cpp's `conversion/*.py`; names come from the package's own table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers

Kind = gguf.GGMLQuantizationType
F32 = Kind.F32
# Hugging Face `model_type` -> GGUF architecture
ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "olmo2": gguf.MODEL_ARCH.OLMO2,
    "smollm3": gguf.MODEL_ARCH.SMOLLM3,
    "phi3": gguf.MODEL_ARCH.PHI3,
}
_PERMUTED = ("llama", "mistral", "smollm3")
_WITHOUT_ROPE_KEYS = ("gemma", "gemma2")


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Query or key rows as GGUF keeps them: row j and row j + H/2 of each head side by side."""
    size = len(weight) // heads
    order = [
        h * size + half * size // 2 + pair
        for h in range(heads)
        for pair in range(size // 2)
        for half in (0, 1)
    ]
    return weight[order]


def _metadata(cfg: transformers.PreTrainedConfig) -> dict[str, Any]:
    """The keys that the converter writes for this family, without the architecture."""
    family = cfg.model_type
    keys: dict[str, Any] = {
        "block_count": cfg.num_hidden_layers,
        "context_length": cfg.max_position_embeddings,
        "embedding_length": cfg.hidden_size,
        "feed_forward_length": cfg.intermediate_size,
        "attention.head_count": cfg.num_attention_heads,
        "attention.head_count_kv": cfg.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(cfg.rms_norm_eps),
    }
    head_dim = getattr(cfg, "head_dim", None)
    if head_dim and family != "phi3":
        keys |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
    if family in _PERMUTED:
        width = head_dim or cfg.hidden_size // cfg.num_attention_heads
        keys |= {"vocab_size": cfg.vocab_size, "rope.dimension_count": width}
    if family not in _WITHOUT_ROPE_KEYS:
        keys |= _rope_metadata(cfg, cfg.rope_parameters)
    if family in ("gemma2", "gemma3_text"):
        keys["attention.sliding_window"] = cfg.sliding_window
        for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
            if getattr(cfg, cap, None):
                keys[cap] = float(getattr(cfg, cap))
    if family == "phi3":
        share = cfg.rope_parameters.get("partial_rotary_factor", 1.0)
        keys["rope.dimension_count"] = int(share * cfg.hidden_size) // cfg.num_attention_heads
        keys["attention.sliding_window"] = cfg.sliding_window or 0
    return keys


def _rope_metadata(cfg: transformers.PreTrainedConfig, rope: dict[str, Any]) -> dict[str, Any]:
    full = rope.get("full_attention", rope)
    keys: dict[str, Any] = {"rope.freq_base": float(full["rope_theta"])}
    if "sliding_attention" in rope:
        keys["rope.freq_base_swa"] = float(rope["sliding_attention"]["rope_theta"])
    kind, longest = full["rope_type"], cfg.max_position_embeddings
    original = full.get("original_max_position_embeddings", longest)
    if cfg.model_type == "phi3":  # whose converter leaves the type out
        keys["rope.scaling.original_context_length"] = original
        if kind == "longrope":
            stretch = 1 + math.log(longest / original) / math.log(original)
            keys["rope.scaling.attn_factor"] = math.sqrt(stretch)
    elif kind in ("linear", "yarn"):
        keys |= {"rope.scaling.type": kind, "rope.scaling.factor": float(full["factor"])}
        if kind == "yarn":
            keys["rope.scaling.original_context_length"] = original
            for beta in {"beta_fast", "beta_slow"} & {*full}:
                keys[f"rope.scaling.yarn_{beta}"] = float(full[beta])
    return keys


def _rope_tensors(model: transformers.PreTrainedModel) -> dict[str, np.ndarray]:
    """Divisors of the frequencies, for the rope types that GGUF stores as tensors."""
    rope = model.config.rope_parameters
    if rope.get("rope_type") == "llama3":
        slowed = model.model.rotary_emb.inv_freq
        plain = rope["rope_theta"] ** (-torch.arange(len(slowed)) / len(slowed))
        return {"rope_freqs.weight": (plain / slowed).float().numpy()}
    if rope.get("rope_type") == "longrope":
        return {
            f"rope_factors_{length}.weight": np.float32(rope[f"{length}_factor"])
            for length in ("short", "long")
        }
    return {}


def _weights(model: transformers.PreTrainedModel) -> dict[str, np.ndarray]:
    """Every tensor under its GGUF name, in GGUF's layout."""
    cfg = model.config
    family, heads, kv = cfg.model_type, cfg.num_attention_heads, cfg.num_key_value_heads
    names = gguf.get_tensor_name_map(ARCHITECTURES[family], cfg.num_hidden_layers)
    tensors = _rope_tensors(model)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and cfg.tie_word_embeddings:
            continue
        array = tensor.numpy()
        if family in _PERMUTED and ("q_proj" in name or "k_proj" in name):
            array = interleaved(array, heads if "q_proj" in name else kv)
        if family.startswith("gemma") and name.endswith("norm.weight"):
            array = array + 1
        tensors[names.get_name(name, try_suffixes=(".weight", ".bias"))] = array
    return tensors


def write_gguf(
    model: transformers.PreTrainedModel,
    file: Path,
    *,
    kind: gguf.GGMLQuantizationType = F32,
    architecture: str = "",
    metadata: dict[str, Any] | None = None,
    change: Callable[[dict[str, Any]], None] = lambda tensors: None,
    tokens: bool = False,
    endianess: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE,
) -> Path:
    """The model in one file.

    Args:
      kind: storage of the matrices.
      architecture: what the file says it is; empty: the truth.
      metadata: keys (without the architecture) that differ; None leaves one out. A key that begins
        with a dot is not the architecture's.
      change: edits the tensors, by GGUF name, before they are written. A value may be a pair of
        stored bytes and their kind.
      tokens: writes a vocabulary of made-up words, which transformers counts.
    """
    architecture = architecture or gguf.MODEL_ARCH_NAMES[ARCHITECTURES[model.config.model_type]]
    writer = gguf.GGUFWriter(file, architecture, endianess=endianess)
    for key, value in (_metadata(model.config) | (metadata or {})).items():
        key = key[1:] if key.startswith(".") else f"{architecture}.{key}"
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    if tokens:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list([f"word{i}" for i in range(model.config.vocab_size)])
        writer.add_pad_token_id(0)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
    tensors: dict[str, Any] = _weights(model)
    change(tensors)
    for name, array in tensors.items():
        if isinstance(array, tuple):
            writer.add_tensor(name, array[0], raw_dtype=array[1])
            continue
        matrix = array.ndim == 2 and array.dtype == np.float32
        stored = gguf.quants.quantize(array, kind) if matrix and kind != F32 else array
        writer.add_tensor(name, stored, raw_dtype=kind if stored is not array else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def rounded_q8_0(array: np.ndarray) -> np.ndarray:
    """What Q8_0 keeps: blocks of 32 values as int8 times one float16 scale, max|x| / 127."""
    blocks = array.reshape(-1, 32)
    scale = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
    ratio = blocks / np.where(scale == 0, 1, scale)
    whole = np.sign(ratio) * np.floor(np.abs(ratio) + 0.5)
    return (whole * scale.astype(np.float16).astype(np.float32)).reshape(array.shape)


def rounded_q4_1(array: np.ndarray) -> np.ndarray:
    """What Q4_1 keeps: blocks of 32 values as 0..15 times a float16 step above a float16 least."""
    blocks = array.reshape(-1, 32)
    least = blocks.min(-1, keepdims=True)
    step = (blocks.max(-1, keepdims=True) - least) / np.float32(15)
    ratio = (blocks - least) / np.where(step == 0, 1, step)
    whole = np.clip(np.floor(ratio + 0.5), 0, 15)
    half = lambda x: x.astype(np.float16).astype(np.float32)
    return (whole * half(step) + half(least)).reshape(array.shape)
