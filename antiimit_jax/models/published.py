"""The published configs of the named models, so that shapes are known before any download.

Each is what the hub's `config.json` says about the computation, in the dialect it is published in.
They serve `launch.plan` alone: a model that is loaded is described by its own `config.json`, never
by this table. Parameter totals are checked against transformers' (`tests/models/test_catalog.py`);
what nobody checked against a published file stands in `Entry.unverified`.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]


def _llama(
    layers: int, hidden: int, heads: int, kv: int, mlp: int, vocab: int, positions: int, **more: Any
) -> Config:
    """The sizes that all families share, with the Llama family's usual switches."""
    return {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": mlp,
        "vocab_size": vocab,
        "max_position_embeddings": positions,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    } | more


def _llama3(layers: int, hidden: int, heads: int, mlp: int, factor: float, **more: Any) -> Config:
    scaling = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    return _llama(
        layers,
        hidden,
        heads,
        8,
        mlp,
        128256,
        131072,
        rope_theta=500000.0,
        rope_scaling=scaling,
        attention_bias=False,
        mlp_bias=False,
        **more,
    )


def _deepseek_coder(layers: int, hidden: int, heads: int, mlp: int) -> Config:
    return _llama(
        layers,
        hidden,
        heads,
        heads,
        mlp,
        32256,
        16384,
        rms_norm_eps=1e-6,
        rope_theta=100000,
        rope_scaling={"type": "linear", "factor": 4.0},
    )


def _mistral(vocab: int, theta: float, window: int | None) -> Config:
    return _llama(
        32,
        4096,
        32,
        8,
        14336,
        vocab,
        32768,
        model_type="mistral",
        rope_theta=theta,
        sliding_window=window,
    )


def _qwen2(
    layers: int, hidden: int, heads: int, kv: int, mlp: int, *, tied: bool, window_layers: int
) -> Config:
    vocab = 151936 if tied else 152064
    return _llama(
        layers,
        hidden,
        heads,
        kv,
        mlp,
        vocab,
        131072,
        model_type="qwen2",
        rms_norm_eps=1e-6,
        rope_theta=1000000.0,
        tie_word_embeddings=tied,
        sliding_window=131072,
        use_sliding_window=False,
        max_window_layers=window_layers,
    )


def _qwen3(layers: int, hidden: int, heads: int, mlp: int, *, tied: bool) -> Config:
    return _llama(
        layers,
        hidden,
        heads,
        8,
        mlp,
        151936,
        40960,
        model_type="qwen3",
        head_dim=128,
        rms_norm_eps=1e-6,
        rope_theta=1000000,
        tie_word_embeddings=tied,
        attention_bias=False,
        sliding_window=None,
        use_sliding_window=False,
        max_window_layers=layers,
        rope_scaling=None,
    )


def _gemma(layers: int, hidden: int, heads: int, kv: int, mlp: int) -> Config:
    return _llama(
        layers,
        hidden,
        heads,
        kv,
        mlp,
        256000,
        8192,
        model_type="gemma",
        head_dim=256,
        hidden_act="gelu",
        hidden_activation=None,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        rope_scaling=None,
        attention_bias=False,
        tie_word_embeddings=True,
    )


def _gemma2(layers: int, hidden: int, heads: int, kv: int, mlp: int) -> Config:
    return _gemma(layers, hidden, heads, kv, mlp) | {
        "model_type": "gemma2",
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 256,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "sliding_window": 4096,
    }


def _olmo2(layers: int, hidden: int, heads: int, mlp: int) -> Config:
    return _llama(
        layers,
        hidden,
        heads,
        heads,
        mlp,
        100352,
        4096,
        model_type="olmo2",
        rms_norm_eps=1e-6,
        rope_theta=500000,
        rope_scaling=None,
        attention_bias=False,
    )


def _smollm2(layers: int, hidden: int, heads: int, kv: int, mlp: int, theta: int) -> Config:
    return _llama(
        layers,
        hidden,
        heads,
        kv,
        mlp,
        49152,
        8192,
        rope_theta=theta,
        rope_scaling=None,
        attention_bias=False,
        mlp_bias=False,
        tie_word_embeddings=True,
    )


def _phi3(positions: int, window: int, scaling: Config | None) -> Config:
    """`auto_map`, which the hub's file also holds, names code that nobody here runs."""
    return _llama(
        32,
        3072,
        32,
        32,
        8192,
        32064,
        positions,
        model_type="phi3",
        rope_theta=10000.0,
        rope_scaling=scaling,
        original_max_position_embeddings=4096,
        sliding_window=window,
        attention_bias=False,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
    )


CONFIGS: dict[str, Config] = {
    "qwen2-0.5b": _qwen2(24, 896, 14, 2, 4864, tied=True, window_layers=24),
    "qwen2-1.5b": _qwen2(28, 1536, 12, 2, 8960, tied=True, window_layers=28),
    "qwen2.5-3b": _qwen2(36, 2048, 16, 2, 11008, tied=True, window_layers=36),
    "qwen2-7b": _qwen2(28, 3584, 28, 4, 18944, tied=False, window_layers=28),
    "qwen3-0.6b": _qwen3(28, 1024, 16, 3072, tied=True),
    "qwen3-1.7b": _qwen3(28, 2048, 16, 6144, tied=True),
    "qwen3-4b": _qwen3(36, 2560, 32, 9728, tied=True),
    "qwen3-8b": _qwen3(36, 4096, 32, 12288, tied=False),
    "mistral-7b-v0.1": _mistral(32000, 10000.0, 4096),
    "mistral-7b-v0.2": _mistral(32000, 1000000.0, None),
    "mistral-7b-v0.3": _mistral(32768, 1000000.0, None),
    "llama-2-7b": _llama(32, 4096, 32, 32, 11008, 32000, 4096, rope_scaling=None),
    "llama-2-13b": _llama(40, 5120, 40, 40, 13824, 32000, 4096, rope_scaling=None),
    "llama-3-8b": _llama(
        32,
        4096,
        32,
        8,
        14336,
        128256,
        8192,
        rope_theta=500000.0,
        rope_scaling=None,
        attention_bias=False,
    ),
    "llama-3.1-8b": _llama3(32, 4096, 32, 14336, 8.0),
    "llama-3.2-1b": _llama3(16, 2048, 32, 8192, 32.0, head_dim=64, tie_word_embeddings=True),
    "llama-3.2-3b": _llama3(28, 3072, 24, 8192, 32.0, head_dim=128, tie_word_embeddings=True),
    "gemma-2b": _gemma(18, 2048, 8, 1, 16384),
    "gemma-7b": _gemma(28, 3072, 16, 16, 24576),
    "gemma-2-2b": _gemma2(26, 2304, 8, 4, 9216),
    "gemma-2-9b": _gemma2(42, 3584, 16, 8, 14336),
    "gemma-3-1b": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 26,
        "hidden_size": 1152,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "intermediate_size": 6912,
        "vocab_size": 262144,
        "max_position_embeddings": 32768,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "rope_local_base_freq": 10000,
        "rope_scaling": None,
        "query_pre_attn_scalar": 256,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "attention_bias": False,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "cache_implementation": "hybrid",
    },
    "gemma-3-4b": {  # as published: what the text part leaves out are transformers' defaults
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "sliding_window": 1024,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "num_hidden_layers": 27,
            "hidden_size": 1152,
            "num_attention_heads": 16,
            "intermediate_size": 4304,
            "image_size": 896,
            "patch_size": 14,
            "vision_use_head": False,
        },
        "boi_token_index": 255999,
        "eoi_token_index": 256000,
        "image_token_index": 262144,
        "mm_tokens_per_image": 256,
    },
    "deepseek-coder-1.3b": _deepseek_coder(24, 2048, 16, 5504),
    "deepseek-coder-6.7b": _deepseek_coder(32, 4096, 32, 11008),
    "deepseek-7b": _llama(  # deepseek-llm-7b, and deepseek-coder-7b v1.5, which continues it
        30,
        4096,
        32,
        32,
        11008,
        102400,
        4096,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        rope_scaling=None,
    ),
    "olmo-2-1b": _olmo2(16, 2048, 16, 8192),
    "olmo-2-7b": _olmo2(32, 4096, 32, 11008),
    "smollm2-135m": _smollm2(30, 576, 9, 3, 1536, 100000),
    "smollm2-360m": _smollm2(32, 960, 15, 5, 2560, 100000),
    "smollm2-1.7b": _smollm2(24, 2048, 32, 32, 8192, 130000),
    "smollm3-3b": _llama(
        36,
        2048,
        16,
        4,
        11008,
        128256,
        65536,
        model_type="smollm3",
        rms_norm_eps=1e-6,
        rope_theta=5000000.0,
        rope_scaling=None,
        tie_word_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
        no_rope_layer_interval=4,
        no_rope_layers=[1, 1, 1, 0] * 9,
        layer_types=["full_attention"] * 36,
        sliding_window=None,
        use_sliding_window=False,
        max_window_layers=28,
    ),
    "phi-3-mini": _phi3(4096, 2047, None),
    "phi-3.5-mini": _phi3(  # the file's 48 factors are other numbers; no shape depends on them
        131072, 262144, {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [1.0] * 48}
    ),
}
