"""From GGUF metadata to the `config.json` that `families` reads: keys, defaults, rope tensors.

A key that nobody here handles is an error that names it. Where a key is absent the value is the one
llama.cpp falls back to, which is not always Hugging Face's default for the family.
Source: llama.cpp's converter (`conversion/*.py`) and its loader (`src/models/*.cpp`).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from antiimit_jax.models.config_keys import SCALE, is_count
from antiimit_jax.models.families import FAMILIES
from antiimit_jax.models.tables import read_table

_WINDOW, _PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"
_LONG, _SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
_DIVISORS, _ORIGINAL = "rope_freqs.weight", "original_max_position_embeddings"
# Metadata (after the architecture prefix) -> config.json, for all architectures.
_KEYS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
    "vocab_size": "vocab_size",
}
_NEEDED = "attention.layer_norm_rms_epsilon"  # the others without default `families` misses
# Read by `_rope` and `_head_dim`, not copied.
_OTHERS = frozenset(
    """attention.value_length rope.dimension_count rope.freq_base rope.scale_linear
    rope.scaling.type rope.scaling.factor rope.scaling.original_context_length
    rope.scaling.attn_factor rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow""".split()
)
# Keys that change nothing while they say this; None stands for any value.
_NEUTRAL = {
    "attention.causal": True,
    "expert_count": 0,
    "expert_used_count": 0,
    "rope.scaling.finetuned": None,
    "rope.scaling.yarn_ext_factor": 1.0,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """What one GGUF architecture says beyond the common keys."""

    model_type: str
    interleaved: bool = False  # q and k rows lie in pairs, for llama.cpp's older rotary embedding
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)  # copied, as `_KEYS`
    others: Sequence[str] = ()  # keys that a rule below reads
    slides_but_every: int = 0  # default period of the layers that see everything; 0: not mixed
    local_theta: float = 0.0  # default base of the sliding layers; 0: that of the others
    scaled_by_width: int = 0  # layers of the one size whose query scale is hidden / heads
    rope_tensors: Sequence[str] = ()
    rotates_in_part: bool = False


ARCHITECTURES = {row.pop("name"): Architecture(**row) for row in read_table("architectures")}


def config_of(
    name: str,
    metadata: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    vector: Callable[[str], np.ndarray],
) -> dict[str, Any]:
    """The `config.json` of the model in a GGUF file.

    Args:
      name: of the architecture, one of ARCHITECTURES.
      metadata: values by key, without the architecture's prefix.
      shapes: of all tensors by GGUF name, outermost dimension first.
      vector: reads one of the rope tensors.

    Raises:
      ValueError: a key whose meaning is not known, or values that contradict each other.
    """
    arch = ARCHITECTURES[name]
    copied = _KEYS | arch.keys
    known = {*copied, *_OTHERS, *arch.others}
    neutral = lambda key: key in _NEUTRAL and _NEUTRAL[key] in (None, metadata[key])
    unknown = [key for key in metadata if key not in known and not neutral(key)]
    if unknown:
        shown = ", ".join(f"{f'{name}.{key}'!r} = {metadata[key]!r:.60}" for key in unknown[:8])
        raise ValueError(f"metadata {shown} is not understood")
    if _NEEDED not in metadata:
        raise ValueError(f"metadata {name}.{_NEEDED} is missing")
    config = {copied[key]: value for key, value in metadata.items() if key in copied}
    config["model_type"] = arch.model_type
    layers = config.get("num_hidden_layers")
    if is_count(layers) and layers > len(shapes):
        raise ValueError(f"{layers} layers are named, and only {len(shapes)} tensors are there")
    config["tie_word_embeddings"] = "output.weight" not in shapes
    for flag, tensor in (("attention_bias", "attn_q"), ("mlp_bias", "ffn_up")):
        if f"blk.0.{tensor}.bias" in shapes and flag in FAMILIES[arch.model_type].flags:
            config[flag] = True
    if "vocab_size" not in config and len(shapes.get("token_embd.weight", ())) == 2:
        config["vocab_size"] = shapes["token_embd.weight"][0]
    sizes = ("hidden_size", "num_attention_heads", "num_hidden_layers", "max_position_embeddings")
    if not all(is_count(config.get(size)) for size in sizes):
        return config  # `families` says what is wrong
    width = config["hidden_size"] // config["num_attention_heads"]
    head_dim = config.setdefault("head_dim", width)
    if head_dim != (values := metadata.get("attention.value_length", width)):
        raise ValueError(f"key heads of {head_dim!r} and value heads of {values!r} are not ported")
    if not is_count(head_dim):
        return config
    if "query_pre_attn_scalar" in FAMILIES[arch.model_type].defaults:
        config["query_pre_attn_scalar"] = width if layers == arch.scaled_by_width else head_dim
    config |= _windows(arch, metadata, layers)
    stored = {tensor: vector(tensor) for tensor in arch.rope_tensors if tensor in shapes}
    rope = _rope(arch, config, metadata, stored)
    if arch.local_theta:
        local = metadata.get("rope.freq_base_swa", arch.local_theta)
        local = {"rope_type": "default", "rope_theta": local}
        rope = {"full_attention": rope, "sliding_attention": local}
    return config | {"rope_parameters": rope}


def _windows(arch: Architecture, metadata: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """Sliding windows; a window of 0 is none."""
    window = metadata.get(_WINDOW)
    if not arch.slides_but_every:
        if _WINDOW not in arch.others:
            return {}
        if arch.model_type == "llama":  # the other families with this architecture have no window
            return {"model_type": "mistral", "sliding_window": window} if window else {}
        return {"sliding_window": window or None}
    if window == 0 or (window is None and arch.local_theta):  # Gemma-3 without: no layer slides
        pattern = [False] * layers
    else:
        pattern = metadata.get(_PATTERN, arch.slides_but_every)
    if isinstance(pattern, int) and not isinstance(pattern, bool):
        pattern = [not pattern or (i + 1) % pattern != 0 for i in range(layers)]
    if not isinstance(pattern, list) or len(pattern) != layers:
        raise ValueError(f"{_PATTERN} must be a period or say yes or no for {layers} layers")
    kinds = ["sliding_attention" if slides else "full_attention" for slides in pattern]
    if not any(pattern):
        return {"layer_types": kinds, "sliding_window": None}
    return {"layer_types": kinds} | ({} if window is None else {"sliding_window": window})


def _rope(
    arch: Architecture,
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """`rope_parameters`, of the full layers where there are two kinds."""
    head_dim, dim = config["head_dim"], metadata.get("rope.dimension_count", config["head_dim"])
    rope: dict[str, Any] = {"rope_theta": metadata.get("rope.freq_base", 10_000.0)}
    if dim != head_dim:
        if not arch.rotates_in_part or not is_count(dim):
            raise ValueError(f"partial rotary embedding ({dim}) is not ported")
        # Rounded up, since its product with head_dim is rounded down.
        rope["partial_rotary_factor"] = math.nextafter(dim / head_dim, 2.0)
    factor = metadata.get("rope.scaling.factor", metadata.get("rope.scale_linear"))
    original = metadata.get("rope.scaling.original_context_length")
    kind = metadata.get("rope.scaling.type")
    if kind is None:  # Phi-3's converter writes the tensors without the type
        kind = "longrope" if {_LONG, _SHORT} & {*tensors} else "linear" if factor else "none"
    if kind not in ("none", "linear", "yarn", "longrope"):
        known = "none, linear, yarn, longrope"
        raise ValueError(f"rope.scaling.type = {kind!r} is not ported (known: {known})")
    attention = metadata.get("rope.scaling.attn_factor", 1.0)
    if kind != "longrope" and attention != 1:
        raise ValueError(f"rope.scaling.attn_factor = {attention!r} is not ported for {kind!r}")
    allowed = {"none": {_DIVISORS}, "longrope": {_LONG, _SHORT}}.get(kind, set())
    if clash := sorted(tensors.keys() - allowed):
        raise ValueError(f"tensor {clash[0]} contradicts rope.scaling.type = {kind!r}")
    for name, values in tensors.items():
        if values.shape != (dim // 2,) or not all(value in SCALE for value in values.tolist()):
            raise ValueError(f"tensor {name} must hold {dim // 2} values, each {SCALE}")

    def longrope(short: str, long: str, original: int) -> dict[str, Any]:
        factors = {"short_factor": tensors[short].tolist(), "long_factor": tensors[long].tolist()}
        return rope | factors | {"rope_type": "longrope", _ORIGINAL: original}

    if kind == "none":
        if factor not in (None, 0, 1):
            raise ValueError(f"rope.scaling.factor = {factor!r} contradicts the type 'none'")
        if _DIVISORS not in tensors:
            return rope | {"rope_type": "default"}
        rope["attention_factor"] = 1.0  # Llama-3.1's scaling, worked out by the converter
        return longrope(_DIVISORS, _DIVISORS, config["max_position_embeddings"])
    if kind == "linear":
        return rope | {"rope_type": "linear", "factor": factor or 1.0}
    if kind == "yarn":
        rope |= {"rope_type": "yarn", "factor": factor, _ORIGINAL: original}
        for key in ("beta_fast", "beta_slow"):
            rope[key] = metadata.get(f"rope.scaling.yarn_{key}")
        return rope
    if lost := sorted({_LONG, _SHORT} - tensors.keys()):
        raise ValueError(f"rope.scaling.type = 'longrope' without tensor {lost[0]}")
    if not is_count(original):
        raise ValueError(
            f"rope factors need rope.scaling.original_context_length, which is {original!r}"
        )
    if attention not in SCALE:
        raise ValueError(f"rope.scaling.attn_factor must be {SCALE}, not {attention!r}")
    if "rope.scaling.attn_factor" in metadata:
        rope["attention_factor"] = attention
    return longrope(_SHORT, _LONG, original)
