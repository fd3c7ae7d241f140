"""From a `config.json` to `ModelConfig`: every key is read, checked or knowingly ignored.

Both dialects are understood: `rope_theta` and `rope_scaling` at the top level (transformers 4) and
`rope_parameters` (transformers 5). A key that nobody handles is an error that names it, so that a
feature this port does not have can never be dropped in silence. To add a family, add a `Family`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping

from antiimit_jax.errors import UserError
from antiimit_jax.models.config import ModelConfig

# Keys that change nothing about the logits of one forward pass.
_HARMLESS = frozenset(
    """_name_or_path architectures bos_token_id eos_token_id pad_token_id unk_token_id torch_dtype
    dtype transformers_version use_cache initializer_range pretraining_tp attention_dropout
    is_llama_config rope_interleaved transformers.js_config tokenizer_class return_dict
    output_hidden_states output_attentions chunk_size_feed_forward is_encoder_decoder id2label
    label2id problem_type name_or_path""".split()
)
_SIZES = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size "
    "max_position_embeddings".split()
)
_ROPE_KEYS = ("rope_parameters", "rope_scaling")
_REFUSED = {
    "quantization_config": "quantised checkpoints (GPTQ, AWQ, bitsandbytes) are not read",
    "auto_map": "code from a model repository is never run",
    "trust_remote_code": "code from a model repository is never run",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """What one `model_type` says beyond the common sizes."""

    tied_by_default: bool
    norm_eps_by_default: float
    # optional switches of the config file -> the ModelConfig field they fill
    switches: Mapping[str, str] = dataclasses.field(default_factory=dict)


FAMILIES: dict[str, Family] = {
    "llama": Family(
        tied_by_default=False,
        norm_eps_by_default=1e-6,
        switches={"attention_bias": "attention_bias", "mlp_bias": "mlp_bias"},
    ),
}


def parse_config(config: Mapping[str, Any], source: str) -> ModelConfig:
    """Turns a Hugging Face config into a `ModelConfig`.

    Args:
      config: the parsed `config.json` (either dialect).
      source: file name for error messages.

    Raises:
      UserError: unknown family, missing size, or any key whose meaning the port does not have.
    """
    for key, reason in _REFUSED.items():
        if config.get(key):
            raise UserError(f"{source}: `{key}` is set, and {reason}; use an unmodified checkpoint")
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UserError(
            f"{source}: model_type {model_type!r} is not ported; this version reads: {known}"
        )
    family = FAMILIES[model_type]
    problems = [f"`{key}` is missing" for key in _SIZES if key not in config]
    problems += [
        f"`{key}` must be a positive integer, not {config[key]!r}"
        for key in _SIZES
        if key in config and not _is_count(config[key])
    ]
    if not problems:
        problems += _check_values(config)
    problems += _check_rope(config)
    problems += [
        f"`{key}` must be true or false, not {config[key]!r}"
        for key in (*family.switches, "tie_word_embeddings")
        if config.get(key) not in (None, True, False)
    ]
    handled = {
        *_SIZES, *family.switches, *_REFUSED, "model_type", "num_key_value_heads", "head_dim",
        "hidden_act", "rms_norm_eps", "tie_word_embeddings", "rope_theta", "rope_scaling",
        "rope_parameters",
    }  # fmt: skip
    problems += [
        f"`{key}` = {value!r} is not understood"
        for key, value in config.items()
        if key not in handled and key not in _HARMLESS and value not in (None, False)
    ]
    if problems:
        raise UserError(f"{source}: " + "; ".join(problems))

    heads = config["num_attention_heads"]
    return ModelConfig(
        family=model_type,
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        n_layers=config["num_hidden_layers"],
        n_heads=heads,
        n_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        mlp_size=config["intermediate_size"],
        max_positions=config["max_position_embeddings"],
        rope_theta=float(next(iter(_rope_thetas(config)), 10_000.0)),
        norm_eps=float(config.get("rms_norm_eps", family.norm_eps_by_default)),
        tied_head=bool(config.get("tie_word_embeddings", family.tied_by_default)),
        **{field: bool(config.get(key)) for key, field in family.switches.items()},
    )


def _check_values(config: Mapping[str, Any]) -> list[str]:
    problems = []
    heads, kv_heads = config["num_attention_heads"], config.get("num_key_value_heads")
    if kv_heads is not None and (not _is_count(kv_heads) or heads % kv_heads):
        problems.append(f"`num_key_value_heads` = {kv_heads!r} does not divide {heads} heads")
    head_dim = config.get("head_dim")
    if head_dim is not None and (not _is_count(head_dim) or head_dim % 2):
        problems.append(f"`head_dim` = {head_dim!r} must be an even positive integer")
    if head_dim is None and config["hidden_size"] % (2 * heads):
        problems.append(
            "`head_dim` is missing, and `hidden_size` by the heads is not an even integer"
        )
    if "rms_norm_eps" in config and not _is_positive(config["rms_norm_eps"]):
        problems.append(f"`rms_norm_eps` = {config['rms_norm_eps']!r} must be a positive number")
    act = config.get("hidden_act", "silu")
    if act not in ("silu", "swish"):
        problems.append(f"`hidden_act` = {act!r} is not ported (silu is)")
    return problems


def _check_rope(config: Mapping[str, Any]) -> list[str]:
    problems = []
    for key in _ROPE_KEYS:
        rope = config.get(key) or {}
        if not isinstance(rope, Mapping):
            return [f"`{key}` must be an object, not {rope!r}"]
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            problems.append(f"rope type {kind!r} is not ported (default is)")
        elif extra := sorted(set(rope) - {"rope_type", "type", "rope_theta"}):
            problems.append(f"`{key}` holds {', '.join(extra)}, which is not understood")
    thetas = _rope_thetas(config)
    if not all(_is_positive(theta) for theta in thetas):
        problems.append(f"`rope_theta` must be a positive number, not {thetas!r}")
    elif len(set(thetas)) > 1:
        problems.append(f"`rope_theta` is given twice and differs: {thetas!r}")
    return problems


def _rope_thetas(config: Mapping[str, Any]) -> list[Any]:
    """Every place that names the base of the rotary embedding, in either dialect."""
    places = (config, *(config.get(key) or {} for key in _ROPE_KEYS))
    return [place["rope_theta"] for place in places if "rope_theta" in place]


def _is_positive(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 < value < float("inf")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
