"""From a `config.json` to `ModelConfig`: every key is read, checked or knowingly ignored.

Both dialects are understood: `rope_theta` and `rope_scaling` at the top level (transformers 4) and
`rope_parameters` (transformers 5). A key that nobody handles is an error that names it, so that a
feature this port does not have can never be dropped in silence. A family is a row of
`data/families.jsonl`.
Source of the rules: the configuration and modelling files of transformers 5.23.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from antiimit_jax.errors import UserError, quoted
from antiimit_jax.models.config import ModelConfig, Rope
from antiimit_jax.models.config_keys import EPSILON, LARGEST, Keys, is_count
from antiimit_jax.models.rope_config import read_rope
from antiimit_jax.models.tables import read_table

_REFUSED = {
    "quantization_config": "quantised checkpoints (GPTQ, AWQ, bitsandbytes) are not read",
    "auto_map": "code from a model repository is never run",
    "trust_remote_code": "code from a model repository is never run",
}
_DEFAULTS = {"rms_norm_eps": 1e-6}
_FLAGS = {"attention_bias": ("qkv_bias", "o_bias"), "mlp_bias": ("mlp_bias",)}
_SLIDING, _FULL = "sliding_attention", "full_attention"
_facts = lambda **facts: dataclasses.field(default_factory=lambda: facts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """What one `model_type` says beyond the common sizes."""

    defaults: Mapping[str, Any] = _facts()  # of absent keys
    fixed: Mapping[str, Any] = _facts()  # ModelConfig fields
    flags: Sequence[str] = ()  # of `_FLAGS`
    numbers: Mapping[str, str] = _facts()  # key -> ModelConfig field
    slides: str = "never"  # a rule of `_sliding`
    interval: int = 0  # of layers that see everything, where all others slide
    interval_key: str = ""  # the key that says otherwise
    rests: bool = False  # some layers are not rotated
    embed_scaled: bool = False  # embeddings by the root of the hidden size
    act_key: str = "hidden_act"
    # Gemma's first releases wrote "gelu" and meant the approximation.
    activations: Mapping[str, str] = _facts(silu="silu", swish="silu")
    rope_by_kind: bool = False  # sliding layers have a rotary embedding of their own
    rotates_in_part: bool = False  # `partial_rotary_factor` is honoured
    theta: float = 10_000.0
    local_theta: float = 10_000.0  # of the sliding layers


FAMILIES = {row.pop("name"): Family(**row) for row in read_table("families")}


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
    return bare_name(name)


def bare_name(name: str) -> str:
    """A tensor's or module's name without the prefix of a model that also sees."""
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
        known = f"this version reads: {', '.join(sorted(FAMILIES))}"
        raise UserError(f"{source}: model_type {quoted(model_type)} is not ported; {known}")
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
        split = "`hidden_size` by the heads is not an even integer"
        keys.problems.append(f"`head_dim` is missing, and {split}")
    elif head_dim is not None and keys.count("head_dim") % 2:
        keys.problems.append(f"`head_dim` = {quoted(head_dim)} must be an even positive integer")
    head_dim = keys.count("head_dim", max(2, hidden // heads))
    if heads * head_dim > LARGEST:
        keys.problems.append(f"{heads} heads of {head_dim} are more than any release has")
    activation = keys.choice(family.act_key, family.activations)
    if family.act_key != "hidden_act":
        keys.take("hidden_act")  # Gemma-2's files have both; transformers reads the other alone
    elif (other := keys.take("hidden_activation")) is not None:  # Gemma-1's files may have both
        same = [name for name, means in family.activations.items() if means == activation]
        if other not in same:
            keys.problems.append(
                f"`hidden_activation` = {quoted(other)} is not what `hidden_act` says"
            )
    scaled = "query_pre_attn_scalar" in family.defaults
    query_scale = keys.number("query_pre_attn_scalar") ** -0.5 if scaled else 0.0
    fields = {
        "vocab_size": keys.count("vocab_size"),
        "hidden_size": hidden,
        "n_layers": layers,
        "n_heads": heads,
        "n_kv_heads": kv_heads,
        "head_dim": head_dim,
        "mlp_size": keys.count("intermediate_size"),
        "max_positions": keys.count("max_position_embeddings"),
        "norm_eps": keys.number("rms_norm_eps", within=EPSILON),
        "tied_head": keys.flag("tie_word_embeddings"),
        "activation": activation,
        "embed_scale": hidden**0.5 if family.embed_scaled else 1.0,
        "query_scale": query_scale,
        **family.fixed,
        **{field: keys.number(key, 0.0) for key, field in family.numbers.items()},
    }
    for key in family.flags:
        fields |= dict.fromkeys(_FLAGS[key], keys.flag(key))
    return fields | _layer_kinds(keys, family, layers, head_dim)


def _rotated(keys: Keys, family: Family, layers: int) -> list[bool]:
    """Which layers rotate."""
    if not family.rests:
        return [True] * layers
    step = keys.count("no_rope_layer_interval", 4)
    given = keys.take("no_rope_layers", [int((i + 1) % step != 0) for i in range(layers)])
    if not isinstance(given, list) or len(given) != layers:
        keys.problems.append(f"`no_rope_layers` must list {layers} layers")
        return [True] * layers
    return [bool(rotates) for rotates in given]


def _sliding(keys: Keys, family: Family, rotated: list[bool]) -> list[bool]:
    """Which layers slide where the config does not list them."""
    layers = len(rotated)
    if family.slides == "never":
        return [False] * layers
    window = keys.take("sliding_window")  # may be there where no layer slides
    if family.slides == "all":
        return [window is not None] * layers
    if family.slides == "all but every":
        step, key = family.interval, family.interval_key
        noted = keys.take(f"_{key}")  # transformers 4 wrote it so
        step = keys.count(key, noted if is_count(noted) else step) if key else step
        return [(i + 1) % step != 0 for i in range(layers)]
    used, first = keys.flag("use_sliding_window"), keys.count("max_window_layers", 28, least=0)
    if family.slides == "upper":  # the window counts only where `use_sliding_window` says so
        return [used and i >= first for i in range(layers)]
    return [used and window is not None and not rotates for rotates in rotated]


def _layer_kinds(keys: Keys, family: Family, layers: int, head_dim: int) -> dict[str, Any]:
    """Windows and rotary embeddings: the distinct ones, and which of them each layer has."""
    rotated = _rotated(keys, family, layers)
    slides = _sliding(keys, family, rotated)
    kinds = keys.take("layer_types", [_SLIDING if s else _FULL for s in slides])
    listed = isinstance(kinds, list) and len(kinds) == layers
    if not listed or not all(kind in (_SLIDING, _FULL) for kind in kinds):
        wanted = f"{layers} times {_SLIDING} or {_FULL}"
        keys.problems.append(f"`layer_types` must list {wanted}, not {quoted(kinds)}")
        kinds = [_FULL] * layers
    window = 0
    if _SLIDING in kinds:
        window = keys.count("sliding_window")
        if "use_sliding_window" in keys and not keys.flag("use_sliding_window"):
            keys.problems.append("`layer_types` slides where `use_sliding_window` is false")
    windows = [window if kind == _SLIDING else 0 for kind in kinds]

    same = {"head_dim": head_dim, "partial": family.rotates_in_part}
    layer_type = _FULL if family.rope_by_kind else ""
    ropes = [read_rope(keys, layer_type=layer_type, theta=family.theta, **same)] * layers
    if family.rope_by_kind:
        local = read_rope(keys, layer_type=_SLIDING, theta=family.local_theta, **same)
        ropes = [local if kind == _SLIDING else ropes[0] for kind in kinds]
    still = Rope(kind="none", dim=head_dim)
    ropes = [rope if turns else still for rope, turns in zip(ropes, rotated)]
    return _indexed("windows", "layer_window", windows) | _indexed("ropes", "layer_rope", ropes)


def _indexed(choices: str, index: str, per_layer: list) -> dict[str, tuple]:
    """The distinct values in order of appearance, and each layer's place among them."""
    distinct = tuple(dict.fromkeys(per_layer))
    places = tuple(distinct.index(value) for value in per_layer)
    return {choices: distinct, index: places if len(distinct) > 1 else ()}
