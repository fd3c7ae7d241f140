"""The leaf table: one row per parameter, read by loading, saving, GGUF, LoRA and PEFT names.

A row says where the parameter lives in our tree, what Hugging Face and GGUF call it, its shape, and
whether LoRA may attach. Linear weights are stored (in, out) here and (out, in) on disk; every
layout change is a transpose and so its own inverse.
"""

from __future__ import annotations

import dataclasses
from typing import Callable

from antiimit_jax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
    """One parameter. `{i}` in the names is the layer; our arrays stack layers on axis 0."""

    path: tuple[str, ...]
    hf: str
    gguf: str
    shape: Callable[[ModelConfig], tuple[int, ...]]  # on disk, per layer
    transposed: bool = False  # on disk (out, in), here (in, out)
    rotary_heads: Callable[[ModelConfig], int] | None = None  # rows GGUF interleaves per head
    needed: Callable[[ModelConfig], bool] = lambda cfg: True

    @property
    def stacked(self) -> bool:
        return "{i}" in self.hf


def _linear(
    name: str, hf: str, gguf: str, out: Callable, inp: Callable, rotary=None
) -> Leaf:
    group = "attn" if name in "qkvo" else "mlp"
    block = {"attn": "self_attn", "mlp": "mlp"}[group]
    return Leaf(
        path=("layers", group, name, "kernel"),
        hf=f"model.layers.{{i}}.{block}.{hf}.weight",
        gguf=f"blk.{{i}}.{gguf}.weight",
        shape=lambda cfg: (out(cfg), inp(cfg)),
        transposed=True,
        rotary_heads=rotary,
    )


def _bias(kernel: Leaf, flag: str) -> Leaf:
    return Leaf(
        path=(*kernel.path[:-1], "bias"),
        hf=kernel.hf.replace(".weight", ".bias"),
        gguf=kernel.gguf.replace(".weight", ".bias"),
        shape=lambda cfg: kernel.shape(cfg)[:1],
        rotary_heads=kernel.rotary_heads,
        needed=lambda cfg: getattr(cfg, flag),
    )


def _vector(path: tuple[str, ...], hf: str, gguf: str) -> Leaf:
    return Leaf(path=path, hf=hf, gguf=gguf, shape=lambda cfg: (cfg.hidden_size,))


_hidden = lambda cfg: cfg.hidden_size
_query = lambda cfg: cfg.n_heads * cfg.head_dim
_key = lambda cfg: cfg.n_kv_heads * cfg.head_dim
_mlp = lambda cfg: cfg.mlp_size

_ATTENTION = (
    _linear("q", "q_proj", "attn_q", _query, _hidden, lambda cfg: cfg.n_heads),
    _linear("k", "k_proj", "attn_k", _key, _hidden, lambda cfg: cfg.n_kv_heads),
    _linear("v", "v_proj", "attn_v", _key, _hidden),
    _linear("o", "o_proj", "attn_output", _hidden, _query),
)
_MLP = (
    _linear("gate", "gate_proj", "ffn_gate", _mlp, _hidden),
    _linear("up", "up_proj", "ffn_up", _mlp, _hidden),
    _linear("down", "down_proj", "ffn_down", _hidden, _mlp),
)
_TABLE = lambda cfg: (cfg.vocab_size, cfg.hidden_size)

LEAVES: tuple[Leaf, ...] = (
    Leaf(
        path=("embed", "embedding"),
        hf="model.embed_tokens.weight",
        gguf="token_embd.weight",
        shape=_TABLE,
    ),
    _vector(
        ("layers", "attn_norm", "scale"),
        "model.layers.{i}.input_layernorm.weight",
        "blk.{i}.attn_norm.weight",
    ),
    *_ATTENTION,
    *(_bias(leaf, "attention_bias") for leaf in _ATTENTION),
    _vector(
        ("layers", "mlp_norm", "scale"),
        "model.layers.{i}.post_attention_layernorm.weight",
        "blk.{i}.ffn_norm.weight",
    ),
    *_MLP,
    *(_bias(leaf, "mlp_bias") for leaf in _MLP),
    _vector(("final_norm", "scale"), "model.norm.weight", "output_norm.weight"),
    Leaf(
        path=("head",),
        hf="lm_head.weight",
        gguf="output.weight",
        shape=_TABLE,
        needed=lambda cfg: not cfg.tied_head,
    ),
)

# Where LoRA may attach: our short module name -> its row.
LORA_TARGETS: dict[str, Leaf] = {leaf.path[2]: leaf for leaf in (*_ATTENTION, *_MLP)}


def leaves_of(cfg: ModelConfig) -> tuple[Leaf, ...]:
    """The rows this model has."""
    return tuple(leaf for leaf in LEAVES if leaf.needed(cfg))
