"""The parts of a decoder block: linear layer, norm, attention, gated MLP.

Letters as in `decoder`. Activations are flat, [M, D] over all tokens of a batch: thin LoRA matmuls
on three dimensions run badly on CPUs, and shared prefixes and sequences share every matmul.
"""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.matmul import matmul
from antiimit_jax.models.quantized import Kernel
from antiimit_jax.models.rope import apply_rope

Array = jax.Array
SAVED = "matmul"  # what a backward pass finds; norms, softmax and activations are computed again
_BLOCK = 128  # queries of a shared prefix that look at the same keys


class Linear(nn.Module):
    """x [M, in] -> [M, features], plus its LoRA adapter where the `lora` collection holds one.

    The adapter is stored as PEFT stores it: a [r, in], b [features, r]; it adds
    scale * (x @ a.T) @ b.T.
    """

    features: int
    use_bias: bool = False
    lora_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1], self.features)
        kernel = self.get_variable("params", "kernel")
        if not isinstance(kernel, Kernel):
            kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        y = matmul(x, kernel)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(y.dtype)[None]
        if self.has_variable("lora", "a"):
            a = self.get_variable("lora", "a")  # [r, in]
            b = self.get_variable("lora", "b")  # [features, r]
            thin = checkpoint_name(_thin(x, a), SAVED)
            y = y + (self.lora_scale * _thin(thin, b)).astype(y.dtype)
        return checkpoint_name(y, SAVED)


def _thin(x: Array, w: Array) -> Array:
    """x [M, i] @ w.T, w [o, i], in the adapter's dtype."""
    return jax.lax.dot_general(x.astype(w.dtype), w, (((1,), (1,)), ((), ())))


class RMSNorm(nn.Module):
    """x / rms(x) in float32, then times the weight, before or after the cast to x's dtype.

    Where the mean square overflows the result is NaN: by the formula alone it would be 0.
    """

    cfg: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        cfg = self.cfg
        start = nn.initializers.zeros if cfg.norm_offset else nn.initializers.ones
        scale = self.param("scale", start, (x.shape[-1],), jnp.float32)
        scale = scale + 1.0 if cfg.norm_offset else scale
        scale = scale.reshape(*(1,) * (x.ndim - 1), -1)
        wide = x.astype(jnp.float32)
        square = jnp.mean(wide * wide, axis=-1, keepdims=True)
        wide = wide * jnp.where(jnp.isinf(square), jnp.nan, jax.lax.rsqrt(square + cfg.norm_eps))
        if cfg.norm_wide:
            return (wide * scale).astype(x.dtype)
        return wide.astype(x.dtype) * scale.astype(x.dtype)


def attend(q: Array, k: Array, v: Array, mask: Array, scale: float, softcap: float = 0.0) -> Array:
    """Grouped-query attention, softmax in float32.

    The G query heads of a key head are laid out as rows of one matmul per (batch, key head): on a
    CPU twice as fast as the five-letter einsum.

    Args:
      q: [B, T, N, H]; k, v: [B, S, K, H]; mask: bool [B, T, S], true = may look.
      scale: of the scores.
      softcap: scores become softcap * tanh(scores / softcap); 0 leaves them.

    Returns:
      [B, T, N, H]. A row that may look nowhere (padding) averages everything: finite, never NaN.
    """
    (B, T, N, H), (S, K) = q.shape, k.shape[1:3]
    chex.assert_shape([k, v], (B, S, K, H))
    chex.assert_shape(mask, (B, T, S))
    G = N // K
    q = q.reshape(B, T, K, G, H).transpose(0, 2, 3, 1, 4).reshape(B, K, G * T, H)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)  # [B, K, S, H]
    dot = lambda x, y, axis: jax.lax.dot_general(
        x, y, (((3,), (axis,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32
    )
    scores = dot(q, k, 3).reshape(B, K, G, T, S) * scale
    if softcap:
        scores = softcap * jnp.tanh(scores / softcap)
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype).reshape(B, K, G * T, S)
    mixed = dot(weights, v, 2).astype(v.dtype).reshape(B, K, G, T, H)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


def attend_before(
    q: Array, k: Array, v: Array, mask: Array, scale: float, softcap: float = 0.0
) -> Array:
    """`attend` where no place looks at a later one (T = S): most masked scores are not computed."""
    T = q.shape[1]
    block = -(-T // max(1, round(T / _BLOCK)))
    parts = []
    for i in range(0, T, block):
        some, before = slice(i, i + block), slice(i + block)
        seen = mask[:, some, before]
        parts.append(attend(q[:, some], k[:, before], v[:, before], seen, scale, softcap))
    return jnp.concatenate(parts, axis=1)


@jax.custom_vjp
def rearrange(x: Array, there: Array, back: Array) -> Array:
    """x[there], where `back` leads back; -1 stands for nothing and brings no gradient.

    Both directions are gathers: autodiff alone would scatter, one row at a time on a CPU.
    """
    return x[jnp.maximum(there, 0)]


def _rearrange_bwd(back: Array, g: Array) -> tuple[Array, None, None]:
    kept = (back >= 0).reshape(-1, *(1,) * (g.ndim - 1))
    return jnp.where(kept, g[jnp.maximum(back, 0)], 0), None, None


rearrange.defvjp(lambda x, there, back: (rearrange(x, there, back), back), _rearrange_bwd)


class View(NamedTuple):
    """How the flat tokens [M] of a batch are arranged: prefixes [P, U], then sequences [B, T].

    One mask for each of the model's windows, one table for each of its ropes.
    """

    trunk_masks: tuple[Array, ...]  # bool [P, U, U]
    sequence_masks: tuple[Array, ...]  # bool [B, T, C + U + T]: cache, prefix, own ancestors
    trunk_of: Array  # int32 [B]
    ropes: tuple[tuple[Array, Array], ...]  # cos and sin, [M, dim / 2] each
    dense: tuple[Array, Array] | None  # place and source, see `decoder.Dense`


class Kind(NamedTuple):
    """Which of the windows and ropes a layer uses; under the scan [L], in a layer int32 []."""

    window: Array
    rope: Array


def _pick(which: Array, choices: tuple) -> Any:
    """choices[which]; no choice at all where there is one only."""
    if len(choices) == 1:
        return choices[0]
    return jax.tree.map(lambda *leaves: jax.lax.select_n(which, *leaves), *choices)


class Attention(nn.Module):
    """Self-attention; a sequence's keys are the cache's, its shared prefix's and its own.

    The collection `cache` holds keys and values that were computed before, and where it is mutable
    it gets those of this call, prefix first.
    """

    cfg: ModelConfig
    lora_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array, kind: Kind, view: View) -> Array:
        cfg = self.cfg
        N, K, H = cfg.n_heads, cfg.n_kv_heads, cfg.head_dim
        rope = _pick(kind.rope, view.ropes)
        masks = tuple(zip(view.trunk_masks, view.sequence_masks))
        trunk_mask, mask = _pick(kind.window, masks)
        (P, U, _), (B, T, _) = trunk_mask.shape, mask.shape

        def linear(name: str, features: int, bias: bool) -> Linear:
            return Linear(features, bias, self.lora_scale, name=name)

        def rotated(name: str, heads: int) -> Array:
            y = linear(name, heads * H, cfg.qkv_bias)(x)
            y = RMSNorm(cfg, name=f"{name}_norm")(y) if cfg.qk_norm == "full" else y
            y = y.reshape(-1, heads, H)
            y = RMSNorm(cfg, name=f"{name}_norm")(y) if cfg.qk_norm == "head" else y
            return apply_rope(y, *rope)

        q, k = rotated("q", N), rotated("k", K)
        v = linear("v", K * H, cfg.qkv_bias)(x).reshape(-1, K, H)

        def split(y: Array) -> tuple[Array, Array]:
            if view.dense is not None:
                place, source = view.dense
                y = rearrange(y, source, place)
            heads = y.shape[1]
            return y[: P * U].reshape(P, U, heads, H), y[P * U :].reshape(B, T, heads, H)

        (q_trunk, q), (k_trunk, k), (v_trunk, v) = split(q), split(k), split(v)
        scale, cap = cfg.query_scale or H**-0.5, cfg.attention_softcap
        mixed = []
        if U:
            mixed.append(attend_before(q_trunk, k_trunk, v_trunk, trunk_mask, scale, cap))
            k = jnp.concatenate([k_trunk[view.trunk_of], k], axis=1)  # [B, U + T, K, H]
            v = jnp.concatenate([v_trunk[view.trunk_of], v], axis=1)
        own = {"k": k, "v": v}
        if self.has_variable("cache", "k"):  # [B, C, K, H], computed before
            k, v = (
                jnp.concatenate([self.get_variable("cache", name), y], axis=1)
                for name, y in own.items()
            )
        if self.is_mutable_collection("cache"):
            for name, y in own.items():
                self.put_variable("cache", name, y)
        mixed.append(attend(q, k, v, mask, scale, cap))
        flat = jnp.concatenate([y.reshape(-1, N * H) for y in mixed])
        if view.dense is not None:
            place, source = view.dense
            flat = rearrange(flat, place, source)
        flat = checkpoint_name(flat, SAVED)
        return linear("o", cfg.hidden_size, cfg.o_bias)(flat)


_ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


class GatedMLP(nn.Module):
    """down(activation(gate(x)) * up(x))."""

    cfg: ModelConfig
    lora_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def linear(name: str, features: int) -> Linear:
            return Linear(features, self.cfg.mlp_bias, self.lora_scale, name=name)

        gate = _ACTIVATIONS[self.cfg.activation](linear("gate", self.cfg.mlp_size)(x))
        up = linear("up", self.cfg.mlp_size)(x)
        return linear("down", self.cfg.hidden_size)(gate * up)


class Block(nn.Module):
    """One decoder block: each half normed before, after, or both, then added to the stream."""

    cfg: ModelConfig
    lora_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array, kind: Kind, view: View) -> tuple[Array, None]:
        cfg = self.cfg

        def norm(name: str, wanted: bool, y: Array) -> Array:
            return RMSNorm(cfg, name=name)(y) if wanted else y

        y = norm("attn_norm", cfg.pre_norm, x)
        y = Attention(cfg, self.lora_scale, name="attn")(y, kind, view)
        x = x + norm("attn_post_norm", cfg.post_norm, y)
        y = norm("mlp_norm", cfg.pre_norm, x)
        y = GatedMLP(cfg, self.lora_scale, name="mlp")(y)
        return x + norm("mlp_post_norm", cfg.post_norm, y), None
