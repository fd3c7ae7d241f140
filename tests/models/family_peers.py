"""Small random models of every family, made by transformers: the truth for the ports.

A case is a family with some switches turned; the last one of a family has as many on as it has.
To try a new family, add its cases to `CASES`: all tests of families run on them.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers

torch.set_num_threads(1)  # models this small lose by sharing, and tests run side by side

_SIZES = dict(
    vocab_size=47,
    hidden_size=24,
    intermediate_size=36,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=10,
    max_position_embeddings=64,
    rms_norm_eps=3e-3,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
    tie_word_embeddings=False,
)
_THETA = {"rope_theta": 37.0}
_SHORT = [1.0, 1.1, 1.3, 1.9, 2.5]
_LONG = [2.0, 3.0, 4.0, 6.0, 9.0]
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
_LONGROPE = {
    "rope_type": "longrope",
    "short_factor": _SHORT,
    "long_factor": _LONG,
    "original_max_position_embeddings": 16,
}
_MIXED = ["sliding_attention", "full_attention", "sliding_attention"]


def _rope(**rope: Any) -> dict[str, Any]:
    return {"rope_parameters": _THETA | rope}


def _rope_by_kind(**full: Any) -> dict[str, Any]:
    local = {"rope_type": "default", "rope_theta": 11.0}
    return {
        "rope_parameters": {
            "full_attention": _THETA | {"rope_type": "default"} | full,
            "sliding_attention": local,
        }
    }


_GEMMA2 = dict(query_pre_attn_scalar=7, sliding_window=5, tie_word_embeddings=True)
_GEMMA3 = dict(query_pre_attn_scalar=7, sliding_window=5, sliding_window_pattern=3)

# name -> (configuration class, model class, changed fields)
CASES: dict[str, tuple[type, type, dict[str, Any]]] = {
    f"{family}: {name}": (
        getattr(transformers, f"{prefix}Config"),
        getattr(transformers, f"{prefix.removesuffix('Text')}ForCausalLM"),
        changes,
    )
    for family, prefix, cases in [
        (
            "llama",
            "Llama",
            {
                "grouped heads": _rope(rope_type="default"),
                "a key head each, biases": dict(
                    num_key_value_heads=4, attention_bias=True, mlp_bias=True
                ),
                "llama3 rope": _rope(**_LLAMA3),
                "linear rope": _rope(rope_type="linear", factor=4.0),
                "dynamic rope": _rope(rope_type="dynamic", factor=2.0)
                | dict(max_position_embeddings=8),
                "yarn rope": _rope(**_YARN),
                "yarn rope, own numbers": _rope(
                    **_YARN,
                    beta_fast=4.0,
                    beta_slow=2.0,
                    mscale=0.7,
                    mscale_all_dim=0.3,
                    truncate=False,
                ),
                "yarn rope, attention factor": _rope(**_YARN, attention_factor=1.7),
                "longrope, up to its length": _rope(
                    **_LONGROPE | {"original_max_position_embeddings": 40}
                ),
                "longrope, beyond it": _rope(**_LONGROPE, factor=3.0),
            },
        ),
        (
            "mistral",
            "Mistral",
            {
                "no window": dict(sliding_window=None),
                "window": dict(sliding_window=4, num_key_value_heads=1, tie_word_embeddings=True),
            },
        ),
        (
            "qwen2",
            "Qwen2",
            {
                "no window": dict(use_sliding_window=False, head_dim=6),
                "upper layers slide": dict(
                    use_sliding_window=True, sliding_window=4, max_window_layers=1, head_dim=6
                ),
                "layer types": dict(
                    use_sliding_window=True,
                    sliding_window=4,
                    layer_types=_MIXED,
                    head_dim=6,
                    tie_word_embeddings=True,
                ),
            },
        ),
        (
            "qwen3",
            "Qwen3",
            {
                "norms of queries and keys": dict(use_sliding_window=False),
                "window, biases": dict(
                    use_sliding_window=True,
                    sliding_window=4,
                    max_window_layers=2,
                    attention_bias=True,
                    num_key_value_heads=1,
                ),
            },
        ),
        (
            "gemma",
            "Gemma",
            {
                "tied": dict(tie_word_embeddings=True),
                "untied, biases": dict(attention_bias=True, num_key_value_heads=4),
            },
        ),
        (
            "gemma2",
            "Gemma2",
            {
                "no caps, layer types": _GEMMA2
                | dict(
                    attn_logit_softcapping=None,
                    final_logit_softcapping=None,
                    layer_types=_MIXED[::-1],
                    hidden_activation="gelu",
                ),
                "soft caps": _GEMMA2
                | dict(attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
            },
        ),
        (
            "gemma3_text",
            "Gemma3Text",
            {
                "two ropes": _GEMMA3 | _rope_by_kind() | dict(tie_word_embeddings=True),
                "linear rope on full layers": _GEMMA3
                | _rope_by_kind(rope_type="linear", factor=8.0),
                "final cap": _GEMMA3 | _rope_by_kind() | dict(final_logit_softcapping=3.0),
            },
        ),
        (
            "olmo2",
            "Olmo2",
            {
                "norms after": dict(head_dim=6),
                "one key head, biases": dict(
                    num_key_value_heads=1, attention_bias=True, head_dim=6
                ),
            },
        ),
        (
            "olmo3",
            "Olmo3",
            {
                "sliding layers": _rope_by_kind()
                | dict(sliding_window=5, num_hidden_layers=5, head_dim=6),
                "yarn on full layers": _rope_by_kind(**_YARN)
                | dict(sliding_window=5, layer_types=_MIXED, head_dim=6, attention_bias=True),
            },
        ),
        (
            "smollm3",
            "SmolLM3",
            {
                "layers that are not rotated": dict(no_rope_layers=[1, 0, 1], head_dim=6),
                "by interval, window": dict(
                    no_rope_layer_interval=2,
                    use_sliding_window=True,
                    sliding_window=4,
                    head_dim=6,
                    mlp_bias=True,
                    tie_word_embeddings=True,
                ),
            },
        ),
        (
            "phi3",
            "Phi3",
            {
                "fused projections": dict(sliding_window=None, head_dim=6),
                "window": dict(sliding_window=5, num_key_value_heads=1, head_dim=6),
                "partial rotation": _rope(rope_type="default", partial_rotary_factor=0.5)
                | dict(head_dim=8, hidden_size=32),
                "longrope": dict(
                    rope_scaling={
                        "type": "longrope",
                        "short_factor": _SHORT[:3],
                        "long_factor": _LONG[:3],
                    },
                    original_max_position_embeddings=16,
                    head_dim=6,
                ),
            },
        ),
    ]
    for name, changes in cases.items()
}


def config_of(case: str) -> dict[str, Any]:
    """The `config.json` of a case."""
    return _config(case).to_dict()


def _config(case: str, **more: Any) -> transformers.PretrainedConfig:
    config, _, changes = CASES[case]
    sizes = _SIZES | ({} if "rope_parameters" in changes or "rope_scaling" in changes else _rope())
    return config(**(sizes | changes | more), attn_implementation="eager")


def random_model(case: str, seed: int = 0, **more: Any) -> transformers.PreTrainedModel:
    """A model in which every parameter matters: no norm is neutral, no bias zero."""
    made = CASES[case][1](_config(case, **more)).eval()
    return randomise(made, seed)


def randomise(model: transformers.PreTrainedModel, seed: int = 0) -> transformers.PreTrainedModel:
    """Fills every parameter with noise."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            random = torch.randn(parameter.shape, generator=noise)
            if parameter.dim() == 2:
                parameter.copy_(1.5 * random / random.shape[1] ** 0.5)
            else:  # Gemma's norms are stored less one
                middle = 0.0 if "Gemma" in type(model).__name__ and "norm" in name else 1.0
                parameter.copy_(middle + 0.5 * random)
    return model
