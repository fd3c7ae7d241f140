"""The shape of a decoder: a fact a field, filled by `families`, read by `decoder` and `leaves`."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the decoder must know. Sizes come from the checkpoint's own config, not from a preset."""

    family: str  # Hugging Face `model_type`
    vocab_size: int  # rows of the embedding, may exceed the tokenizer
    hidden_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int  # given or hidden // heads where the config leaves it out
    mlp_size: int
    max_positions: int  # the window: a longer prompt is refused
    rope_theta: float
    norm_eps: float
    tied_head: bool
    attention_bias: bool = False  # biases on q, k, v and o
    mlp_bias: bool = False
