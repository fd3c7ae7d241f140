"""Writes a torch llama as GGUF the way llama.cpp's own converter does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import gguf
import numpy as np
from transformers import LlamaForCausalLM

F32 = gguf.GGMLQuantizationType.F32


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Query or key rows as GGUF keeps them: row j and row j + H/2 of each head side by side."""
    size = len(weight) // heads
    order = [h * size + half * size // 2 + pair
             for h in range(heads) for pair in range(size // 2) for half in (0, 1)]  # fmt: skip
    return weight[order]


def write_gguf(
    model: LlamaForCausalLM,
    file: Path,
    *,
    kind: gguf.GGMLQuantizationType = F32,
    architecture: str = "llama",
    metadata: dict[str, Any] | None = None,
    change: Callable[[dict[str, np.ndarray]], None] = lambda tensors: None,
) -> Path:
    """The model in one file.

    Args:
      kind: storage of the matrices.
      architecture: what the file says it is.
      metadata: keys (without the architecture) that differ; None leaves one out.
      change: edits the tensors, by GGUF name, before they are written.
    """
    cfg = model.config
    keys: dict[str, Any] = {
        "block_count": cfg.num_hidden_layers,
        "context_length": cfg.max_position_embeddings,
        "embedding_length": cfg.hidden_size,
        "feed_forward_length": cfg.intermediate_size,
        "attention.head_count": cfg.num_attention_heads,
        "attention.head_count_kv": cfg.num_key_value_heads,
        "attention.key_length": cfg.head_dim,
        "attention.value_length": cfg.head_dim,
        "attention.layer_norm_rms_epsilon": float(cfg.rms_norm_eps),
        "rope.freq_base": float(cfg.rope_parameters["rope_theta"]),
        "rope.dimension_count": cfg.head_dim,
        "vocab_size": cfg.vocab_size,
    }
    writer = gguf.GGUFWriter(file, architecture)
    for key, value in (keys | (metadata or {})).items():
        if isinstance(value, str):
            writer.add_string(f"{architecture}.{key}", value)
        elif isinstance(value, list):
            writer.add_array(f"{architecture}.{key}", value)
        elif value is not None:
            add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
            add(f"{architecture}.{key}", value)
    # The package's own table of names, not ours.
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, cfg.num_hidden_layers)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and cfg.tie_word_embeddings:
            continue
        array = tensor.numpy()
        if "q_proj" in name:
            array = interleaved(array, cfg.num_attention_heads)
        if "k_proj" in name:
            array = interleaved(array, cfg.num_key_value_heads)
        tensors[names.get_name(name, try_suffixes=(".weight", ".bias"))] = array
    change(tensors)
    for name, array in tensors.items():
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
