"""Rotary position embedding with every scaling rule that the ported releases use.

Source: the rules as transformers computes them (`modeling_rope_utils.py`): Llama-3.1's piecewise
scaling, linear interpolation, dynamic NTK, YaRN (arXiv 2309.00071), LongRoPE (arXiv 2402.13753).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.models.config import Rope

Array = jax.Array


def rope_table(rope: Rope, positions: Array) -> tuple[Array, Array]:
    """cos and sin, float32 [M, dim / 2], of positions int32 [M].

    "dynamic" and "longrope" depend on the longest position of the batch, as in transformers.
    """
    if rope.kind == "none":
        ones = jnp.ones((len(positions), rope.dim // 2), jnp.float32)
        return ones, jnp.zeros_like(ones)
    length = jnp.max(positions, initial=0) + 1
    angles = positions[:, None].astype(jnp.float32) * inv_freq(rope, length)[None]
    return jnp.cos(angles) * rope.attention_factor, jnp.sin(angles) * rope.attention_factor


def inv_freq(rope: Rope, length: Array | int = 0) -> Array | np.ndarray:
    """Radians per position, float32 [dim / 2]; `length` is the longest position plus one."""
    exponents = np.arange(0, rope.dim, 2, dtype=np.float32) / np.float32(rope.dim)
    powers = np.float32(rope.theta) ** exponents
    plain = np.float32(1.0) / powers
    if rope.kind == "linear":
        return plain / np.float32(rope.factor)
    if rope.kind == "llama3":
        return _llama3(plain, rope)
    if rope.kind == "yarn":
        return _yarn(powers, rope)
    if rope.kind == "longrope":
        short, long = (
            np.float32(1.0) / (np.asarray(factors, np.float32) * powers)
            for factors in (rope.short_factors, rope.long_factors)
        )
        return jnp.where(length > rope.original, long, short)
    if rope.kind == "dynamic":
        reach = jnp.maximum(length, rope.original) / rope.original
        stretch = (rope.factor * reach - (rope.factor - 1)) ** (rope.dim / (rope.dim - 2))
        return 1.0 / (rope.theta * stretch) ** exponents
    return plain


def _llama3(plain: np.ndarray, rope: Rope) -> np.ndarray:
    """Long waves are slowed by the factor, short ones kept, those between mixed."""
    wavelength = 2 * math.pi / plain
    low, high = rope.low_freq_factor, rope.high_freq_factor
    mix = np.clip((rope.original / wavelength - low) / (high - low), 0.0, 1.0)
    return ((1 - mix) * plain / rope.factor + mix * plain).astype(np.float32)


def _yarn(powers: np.ndarray, rope: Rope) -> np.ndarray:
    """A linear ramp over the features leads from kept to slowed frequencies."""

    def feature(rotations: float) -> float:
        turns = rope.original / (rotations * 2 * math.pi)
        return rope.dim * math.log(turns) / (2 * math.log(rope.theta))

    low, high = feature(rope.beta_fast), feature(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    if low == high:
        high += 0.001
    slowed = np.clip((np.arange(rope.dim // 2, dtype=np.float32) - low) / (high - low), 0, 1)
    return ((1 - slowed) / powers + slowed / (rope.factor * powers)).astype(np.float32)


def apply_rope(x: Array, cos: Array, sin: Array) -> Array:
    """Rotates the first features of x [M, heads, H] by the table [M, dim / 2].

    The table takes x's dtype first, as in torch.
    """
    cos, sin = (table[:, None, :].astype(x.dtype) for table in (cos, sin))
    half = cos.shape[-1]
    x1, x2, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin, rest], axis=-1)
