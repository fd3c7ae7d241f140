"""Reads the rotary embedding out of a `config.json`, in either dialect."""

import math
from collections.abc import Mapping
from typing import Any

from antiimit_jax.models.config import Rope
from antiimit_jax.models.config_keys import ROPE_BASE, SCALE, Keys, Range, is_count

_LAYER_TYPES = ("full_attention", "sliding_attention")
_PLACES = ("rope_parameters", "rope_scaling")
_ORIGINAL = "original_max_position_embeddings"
_COMMON = {"rope_type", "type", "rope_theta", "partial_rotary_factor", _ORIGINAL}
_NEEDED = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
}
_ALLOWED = {
    "yarn": "attention_factor beta_fast beta_slow mscale mscale_all_dim truncate".split(),
    "longrope": ("factor", "attention_factor"),
}
_POSITIONS = Range(1, 1e9)
_NO_NUMBERS = {"rope_type", "type", "truncate", "short_factor", "long_factor", "rope_theta"}


def read_rope(keys: Keys, *, layer_type: str, head_dim: int, theta: float, partial: bool) -> Rope:
    """The rotary embedding of the layers of one type; problems go to `keys`.

    Args:
      layer_type: full_attention or sliding_attention, where the family tells them apart, else "".
      theta: the family's base where the config gives none.
      partial: whether the family may rotate a part of each head only.
    """
    nested = layer_type != "" and any(_is_nested(keys.take(place)) for place in _PLACES)
    local = layer_type == "sliding_attention" and not nested
    top = "rope_local_base_freq" if local else "rope_theta"
    given: dict[str, Any] = {}
    thetas, types = [keys.take(top)], set()
    if keys.is_null(top):
        keys.problems.append(f"`{top}` is null")
    for place in () if local else _PLACES:
        rope = keys.take(place, {})
        rope = rope.get(layer_type) or {} if nested and _is_nested(rope) else rope
        if not isinstance(rope, Mapping):
            keys.problems.append(f"`{place}` must be an object, not {rope!r}")
            continue
        thetas.append(rope.get("rope_theta"))
        types.add(rope.get("rope_type", rope.get("type", "default")) if rope else None)
        given |= rope
    if len(types - {None}) > 1:
        said = sorted(map(str, types))
        keys.problems.append(f"`rope_parameters` and `rope_scaling` differ: {said}")
    base = _base(keys, thetas, theta)
    share = given.get("partial_rotary_factor", keys.take("partial_rotary_factor", 1.0))
    if share != 1 and not partial:
        keys.problems.append(f"`partial_rotary_factor` = {share!r} is not ported for this family")
        share = 1.0
    if share not in SCALE or share > 1 or int(head_dim * share) < 2 or int(head_dim * share) % 2:
        unfit = f"does not fit head_dim {head_dim}"
        keys.problems.append(f"`partial_rotary_factor` = {share!r} {unfit}")
        share = 1.0
    longest, original = keys.count("max_position_embeddings"), keys.take(_ORIGINAL)
    if original is not None:  # Phi-3 puts it beside the window
        given[_ORIGINAL] = original
    return _rope(keys, given, base, int(head_dim * share), longest)


def _is_nested(rope: Any) -> bool:
    return isinstance(rope, Mapping) and any(kind in rope for kind in _LAYER_TYPES)


def _base(keys: Keys, given: list[Any], default: float) -> float:
    """The one base that every place agrees on."""
    thetas = [value for value in given if value is not None]
    if not all(value in ROPE_BASE for value in thetas):
        keys.problems.append(f"`rope_theta` must be {ROPE_BASE}, not {thetas!r}")
        return default
    if len(set(thetas)) > 1:
        keys.problems.append(f"`rope_theta` is given twice and differs: {thetas!r}")
    return float(next(iter(thetas), default))


def _rope(keys: Keys, given: Mapping[str, Any], theta: float, dim: int, longest: int) -> Rope:
    kind = given.get("rope_type", given.get("type", "default"))
    if keys.take("model_type") == "phi3" and kind in ("su", "yarn"):  # older names
        kind = "longrope"
    if kind not in _NEEDED:
        keys.problems.append(f"rope type {kind!r} is not ported (known: {', '.join(_NEEDED)})")
        return Rope(dim=dim)
    before = len(keys.problems)
    if unknown := sorted({*given} - _COMMON - {*_NEEDED[kind], *_ALLOWED.get(kind, ())}):
        keys.problems.append(f"rope type {kind!r} holds {', '.join(unknown)}, not understood")
    if lost := [key for key in _NEEDED[kind] if given.get(key) is None]:
        keys.problems.append(f"rope type {kind!r} lacks {', '.join(lost)}")
    original = given.get(_ORIGINAL) or longest
    numbers = {key: value for key, value in given.items() if key not in _NO_NUMBERS}
    numbers = {key: value for key, value in numbers.items() if value is not None}
    for key, value in numbers.items():
        if value not in (within := _POSITIONS if key == _ORIGINAL else SCALE):
            keys.problems.append(f"rope number `{key}` must be {within}, not {value!r}")
    if not is_count(original):
        keys.problems.append(f"`{_ORIGINAL}` must be a positive integer, not {original!r}")
    if kind == "dynamic" and dim == 2:
        keys.problems.append("rope type 'dynamic' needs more than two rotated features a head")
    if len(keys.problems) > before:
        return Rope(dim=dim)
    if kind == "llama3" and given["low_freq_factor"] >= given["high_freq_factor"]:
        keys.problems.append("`high_freq_factor` must be above `low_freq_factor`")
        return Rope(dim=dim)

    rope = {"kind": kind, "theta": theta, "dim": dim}
    if kind == "default":
        return Rope(**rope)
    if kind in ("linear", "dynamic"):
        return Rope(**rope, factor=float(given["factor"]), original=longest)
    rope["original"] = original
    if kind == "llama3":
        return Rope(**rope, **{key: float(given[key]) for key in _NEEDED[kind]})
    factor = float(given.get("factor") or longest / original)
    if kind == "yarn":
        rope |= {"factor": factor, "attention_factor": _yarn_attention(given, factor)}
        betas = {"beta_fast": 32, "beta_slow": 1}
        rope |= {key: float(given.get(key) or default) for key, default in betas.items()}
        return Rope(**rope, truncate=bool(given.get("truncate", True)))
    for key in _NEEDED[kind]:
        value = given[key]
        full = isinstance(value, list) and len(value) == dim // 2
        if not full or not all(number in SCALE for number in value):
            keys.problems.append(f"`{key}` must list {dim // 2} values, each {SCALE}")
            return Rope(dim=dim)
        rope[f"{key}s"] = tuple(float(number) for number in value)
    mild = factor <= 1 or original == 1
    wide = 1.0 if mild else math.sqrt(1 + math.log(factor) / math.log(original))
    return Rope(**rope, attention_factor=float(given.get("attention_factor") or wide))


def _yarn_attention(given: Mapping[str, Any], factor: float) -> float:
    """YaRN's temperature, folded into cos and sin."""
    if given.get("attention_factor") is not None:
        return float(given["attention_factor"])
    scale = lambda weight: 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0
    if given.get("mscale") and given.get("mscale_all_dim"):
        return scale(given["mscale"]) / scale(given["mscale_all_dim"])
    return scale(1.0)
