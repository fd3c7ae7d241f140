"""From a `config.json` to `ModelConfig`: every key is read, checked or knowingly ignored.

Both dialects are understood: `rope_theta` and `rope_scaling` at the top level (transformers 4) and
`rope_parameters` (transformers 5). A key that nobody handles is an error that names it, so that a
feature this port does not have can never be dropped in silence. To add a family, add a `Family`.
Source of the rules: the configuration and modelling files of transformers 5.23.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from antiimit_jax.errors import UserError
from antiimit_jax.models.config import ModelConfig, Rope
from antiimit_jax.models.config_keys import Keys
from antiimit_jax.models.rope_config import read_rope

_REFUSED = {
    "quantization_config": "quantised checkpoints (GPTQ, AWQ, bitsandbytes) are not read",
    "auto_map": "code from a model repository is never run",
    "trust_remote_code": "code from a model repository is never run",
}
_SILU = {"silu": "silu", "swish": "silu"}
_GELU = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
# Gemma's first releases wrote "gelu" and meant the approximation.
_GEMMA_GELU = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu_tanh"}
_DEFAULTS = {"rms_norm_eps": 1e-6}
_SLIDING, _FULL = "sliding_attention", "full_attention"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """What one `model_type` says beyond the common sizes."""

    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of absent keys
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # ModelConfig fields
    flags: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # key -> fields
    numbers: Mapping[str, str] = dataclasses.field(default_factory=dict)  # key -> field
    slides: Callable[[Keys, int], list[bool]] | None = None  # which layers; None: never any
    rotates: Callable[[Keys, int], list[bool]] = lambda keys, layers: [True] * layers
    embed_scale: Callable[[int], float] = lambda hidden: 1.0  # of the hidden size
    act_key: str = "hidden_act"
    activations: Mapping[str, str] = dataclasses.field(default_factory=lambda: _SILU)
    rope_by_kind: bool = False  # sliding layers have a rotary embedding of their own
    rotates_in_part: bool = False  # `partial_rotary_factor` is honoured
    theta: float = 10_000.0
    local_theta: float = 10_000.0  # of the sliding layers


def _all_slide(keys: Keys, layers: int) -> list[bool]:
    return [keys.take("sliding_window") is not None] * layers


def _upper_slide(keys: Keys, layers: int) -> list[bool]:
    """Qwen: the window counts only where `use_sliding_window` says so, and in upper layers."""
    used, first = keys.flag("use_sliding_window"), keys.take("max_window_layers", 28)
    keys.take("sliding_window")
    return [used and i >= first for i in range(layers)]


def _all_but_every(interval: int, key: str = "") -> Callable[[Keys, int], list[bool]]:
    def slides(keys: Keys, layers: int) -> list[bool]:
        step = keys.count(key, keys.take(f"_{key}", interval)) if key else interval
        return [(i + 1) % step != 0 for i in range(layers)]

    return slides


def _root(hidden: int) -> float:
    return hidden**0.5


def _smollm3_rotates(keys: Keys, layers: int) -> list[bool]:
    step = keys.count("no_rope_layer_interval", 4)
    given = keys.take("no_rope_layers", [int((i + 1) % step != 0) for i in range(layers)])
    if not isinstance(given, list) or len(given) != layers:
        keys.problems.append(f"`no_rope_layers` must list {layers} layers")
        return [True] * layers
    return [bool(rotates) for rotates in given]


def _smollm3_slides(keys: Keys, layers: int) -> list[bool]:
    keys.take("max_window_layers")  # the release's file has it; nothing reads it
    used = keys.flag("use_sliding_window") and keys.take("sliding_window") is not None
    return [used and not rotates for rotates in _smollm3_rotates(keys, layers)]


_BIASES = {"attention_bias": ("qkv_bias", "o_bias")}
_GEMMA_NORM = {"norm_offset": True, "norm_wide": True}
_GEMMA = {"tie_word_embeddings": True, "head_dim": 256}  # what its configs leave out
_GEMMA2 = _GEMMA | {
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
_OLMO = Family(
    defaults={"rms_norm_eps": 1e-5},
    fixed={"norm_wide": True, "pre_norm": False, "post_norm": True, "qk_norm": "full"},
    flags=_BIASES,
)

FAMILIES: dict[str, Family] = {
    "llama": Family(flags=_BIASES | {"mlp_bias": ("mlp_bias",)}),
    "mistral": Family(slides=_all_slide),
    "qwen2": Family(fixed={"qkv_bias": True}, slides=_upper_slide),
    "qwen3": Family(
        defaults={"head_dim": 128}, fixed={"qk_norm": "head"}, flags=_BIASES, slides=_upper_slide
    ),
    "gemma": Family(
        defaults=_GEMMA | {"hidden_act": "gelu_pytorch_tanh"},
        fixed=_GEMMA_NORM,
        embed_scale=_root,
        flags=_BIASES,
        activations=_GEMMA_GELU,
    ),
    "gemma2": Family(
        defaults=_GEMMA2 | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        fixed=_GEMMA_NORM | {"post_norm": True},
        embed_scale=_root,
        flags=_BIASES,
        numbers={
            "attn_logit_softcapping": "attention_softcap",
            "final_logit_softcapping": "final_softcap",
        },
        slides=_all_but_every(2),
        act_key="hidden_activation",
        activations=_GELU,
    ),
    "gemma3_text": Family(
        defaults=_GEMMA2
        | {
            # The releases with a vision tower leave these out.
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "vocab_size": 262208,
            "max_position_embeddings": 131072,
        },
        fixed=_GEMMA_NORM | {"post_norm": True, "qk_norm": "head"},
        embed_scale=_root,
        flags=_BIASES,
        numbers={"final_logit_softcapping": "final_softcap"},
        slides=_all_but_every(6, "sliding_window_pattern"),
        act_key="hidden_activation",
        activations=_GELU,
        rope_by_kind=True,
        theta=1e6,
    ),
    "olmo2": _OLMO,
    "olmo3": dataclasses.replace(
        _OLMO,
        defaults=_OLMO.defaults | {"sliding_window": 4096},
        slides=_all_but_every(4),
        rope_by_kind=True,
        theta=5e5,
        local_theta=5e5,
    ),
    "smollm3": Family(
        defaults={"tie_word_embeddings": True},
        flags=_BIASES | {"mlp_bias": ("mlp_bias",)},
        slides=_smollm3_slides,
        rotates=_smollm3_rotates,
        theta=2e6,
    ),
    "phi3": Family(
        defaults={"rms_norm_eps": 1e-5},
        fixed={"fused_projections": True},
        slides=_all_slide,
        rotates_in_part=True,
    ),
}


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of a config that may hold a vision tower too (Gemma-3)."""
    inner = config.get("text_config")
    if config.get("model_type") != "gemma3" or not isinstance(inner, Mapping):
        return config
    return {"model_type": "gemma3_text", **inner}


def text_name(name: str, config: Mapping[str, Any]) -> str:
    """A stored tensor's name in the language model alone; empty for a vision tower's."""
    if text_config(config) is config:
        return name
    if name.removeprefix("model.").startswith(("vision_tower.", "multi_modal_projector.")):
        return ""
    return name.replace("model.language_model.", "model.").removeprefix("language_model.")


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
    config = text_config(config)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UserError(
            f"{source}: model_type {model_type!r} is not ported; this version reads: {known}"
        )
    family = FAMILIES[model_type]
    keys = Keys(config, _DEFAULTS | family.defaults)
    for key in ("model_type", *_REFUSED):
        keys.take(key)
    fields = _fields(keys, family)
    problems = [*keys.problems, *keys.unread()]
    if problems:
        raise UserError(f"{source}: " + "; ".join(dict.fromkeys(problems)))
    return ModelConfig(family=model_type, **fields)


def _fields(keys: Keys, family: Family) -> dict[str, Any]:
    """Every field of `ModelConfig` but the family's name."""
    hidden, heads = keys.count("hidden_size"), keys.count("num_attention_heads")
    layers, head_dim = keys.count("num_hidden_layers"), keys.take("head_dim")
    if layers > 1000:  # a false count must not run for long
        keys.problems.append(f"`num_hidden_layers` = {layers} is more than any release has")
        layers = 1
    kv_heads = keys.count("num_key_value_heads", heads)
    if heads % kv_heads:
        keys.problems.append(f"`num_key_value_heads` = {kv_heads} does not divide {heads} heads")
    if head_dim is None and hidden % (2 * heads):
        keys.problems.append(
            "`head_dim` is missing, and `hidden_size` by the heads is not an even integer"
        )
    elif head_dim is not None and keys.count("head_dim") % 2:
        keys.problems.append(f"`head_dim` = {head_dim!r} must be an even positive integer")
    head_dim = keys.count("head_dim", max(2, hidden // heads))
    if family.act_key != "hidden_act":
        keys.take("hidden_act")  # Gemma-2's files have both; transformers reads the other alone
    scalar = keys.positive("query_pre_attn_scalar") if _scaled(family) else 0.0
    fields = {
        "vocab_size": keys.count("vocab_size"),
        "hidden_size": hidden,
        "n_layers": layers,
        "n_heads": heads,
        "n_kv_heads": kv_heads,
        "head_dim": head_dim,
        "mlp_size": keys.count("intermediate_size"),
        "max_positions": keys.count("max_position_embeddings"),
        "norm_eps": keys.positive("rms_norm_eps"),
        "tied_head": keys.flag("tie_word_embeddings"),
        "activation": keys.choice(family.act_key, family.activations),
        "embed_scale": family.embed_scale(hidden),
        "query_scale": scalar**-0.5 if scalar else 0.0,
        **family.fixed,
        **{field: keys.positive(key, 0.0) for key, field in family.numbers.items()},
    }
    for key, names in family.flags.items():
        fields |= dict.fromkeys(names, keys.flag(key))
    return fields | _layer_kinds(keys, family, layers, head_dim)


def _scaled(family: Family) -> bool:
    return "query_pre_attn_scalar" in family.defaults


def _layer_kinds(keys: Keys, family: Family, layers: int, head_dim: int) -> dict[str, Any]:
    """Windows and rotary embeddings: the distinct ones, and which of them each layer has."""
    slides, rotates = [False] * layers, family.rotates(keys, layers)
    if family.slides is not None:
        slides = family.slides(keys, layers)
        keys.take("sliding_window")  # may be there where no layer slides
    kinds = keys.take("layer_types", [_SLIDING if s else _FULL for s in slides])
    if not isinstance(kinds, list) or len(kinds) != layers or not {*kinds} <= {_SLIDING, _FULL}:
        keys.problems.append(
            f"`layer_types` must list {layers} times {_SLIDING} or {_FULL}, not {kinds!r}"
        )
        kinds = [_FULL] * layers
    window = 0
    if _SLIDING in kinds:
        window = keys.count("sliding_window")
        if "use_sliding_window" in keys and not keys.flag("use_sliding_window"):
            keys.problems.append("`layer_types` slides where `use_sliding_window` is false")
    windows = [window if kind == _SLIDING else 0 for kind in kinds]

    rope = lambda kind, theta: read_rope(
        keys,
        layer_type=kind if family.rope_by_kind else "",
        head_dim=head_dim,
        theta=theta,
        partial=family.rotates_in_part,
    )
    ropes = [rope(_FULL, family.theta)] * layers
    if family.rope_by_kind:
        local = rope(_SLIDING, family.local_theta)
        ropes = [local if kind == _SLIDING else ropes[0] for kind in kinds]
    still = Rope(kind="none", dim=head_dim)
    ropes = [rope if turns else still for rope, turns in zip(ropes, rotates)]
    return _indexed("windows", "layer_window", windows) | _indexed("ropes", "layer_rope", ropes)


def _indexed(choices: str, index: str, per_layer: list) -> dict[str, tuple]:
    """The distinct values in order of appearance, and each layer's place among them."""
    distinct = tuple(dict.fromkeys(per_layer))
    places = tuple(distinct.index(value) for value in per_layer)
    return {choices: distinct, index: places if len(distinct) > 1 else ()}
