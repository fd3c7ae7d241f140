"""The parts of a decoder block: product, norm, rotary embedding, attention, gated MLP.

Letters as in `decoder`. Activations are flat, [M, D] over all tokens of a batch: thin LoRA products
on three dimensions run badly on CPUs, and trunks and rows share every product.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from antiimit_jax.models.config import ModelConfig

Array = jax.Array


@jax.custom_vjp
def matmul(x: Array, w: Array) -> Array:
    """x [M, in] @ w [in, out] -> [M, out] in x's dtype, multiplied in w's dtype.

    With bfloat16 weights and float32 activations both passes multiply in bfloat16 and accumulate in
    float32; plain autodiff would widen the weights to float32 in the backward pass.
    """
    return _dot(x, w, (1, 0))


def _dot(x: Array, w: Array, contract: tuple[int, int]) -> Array:
    dims = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(x.astype(w.dtype), w, dims, preferred_element_type=x.dtype)


def _matmul_fwd(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return matmul(x, w), (x, w)


def _matmul_bwd(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = saved
    dw = jax.lax.dot_general(x, g, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    return _dot(g, w, (1, 1)), dw.astype(w.dtype)


matmul.defvjp(_matmul_fwd, _matmul_bwd)


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
        kernel = self.param(
            "kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features), jnp.float32
        )
        y = matmul(x, kernel)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(y.dtype)
        if self.has_variable("lora", "a"):
            a = self.get_variable("lora", "a")  # [r, in]
            b = self.get_variable("lora", "b")  # [features, r]
            y = y + (self.lora_scale * _thin(_thin(x, a), b)).astype(y.dtype)
        return y


def _thin(x: Array, w: Array) -> Array:
    """x [M, i] @ w.T, w [o, i], in the adapter's dtype."""
    return jax.lax.dot_general(x.astype(w.dtype), w, (((1,), (1,)), ((), ())))


class RMSNorm(nn.Module):
    """x / rms(x) in float32, cast to x's dtype, then times the weight (Llama's order)."""

    eps: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return wide.astype(x.dtype) * scale.astype(x.dtype)


def rope_table(positions: Array, head_dim: int, theta: float) -> tuple[Array, Array]:
    """cos and sin [M, H/2] in float32 for half-split (Hugging Face) rotary embedding."""
    inv_freq = 1.0 / theta ** (jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions[:, None].astype(jnp.float32) * inv_freq  # [M, H/2]
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(x: Array, cos: Array, sin: Array) -> Array:
    """Rotates x [M, heads, H] by the table; the table takes x's dtype first, as in torch."""
    cos, sin = (table[:, None, :].astype(x.dtype) for table in (cos, sin))
    x1, x2 = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)


def attend(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """Grouped-query attention, softmax in float32.

    The G query heads of a key head are laid out as rows of one product per (batch, key head): on a
    CPU twice as fast as the five-letter einsum.

    Args:
      q: [B, T, N, H]; k, v: [B, S, K, H]; mask: bool [B, T, S], true = may look.

    Returns:
      [B, T, N, H]. A row that may look nowhere (padding) averages everything: finite, never NaN.
    """
    (B, T, N, H), (S, K) = q.shape, k.shape[1:3]
    G = N // K
    q = q.reshape(B, T, K, G, H).transpose(0, 2, 3, 1, 4).reshape(B, K, G * T, H)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)  # [B, K, S, H]
    product = lambda x, y, axis: jax.lax.dot_general(
        x, y, (((3,), (axis,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32
    )
    scores = product(q, k, 3).reshape(B, K, G, T, S) * H**-0.5
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype).reshape(B, K, G * T, S)
    mixed = product(weights, v, 2).astype(v.dtype).reshape(B, K, G, T, H)
    return mixed.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


class View(NamedTuple):
    """How the flat tokens [M] of a batch are arranged: P trunks of U tokens, then B rows of T."""

    trunk_mask: Array  # bool [P, U, U]
    row_mask: Array  # bool [B, T, U + T]: a row sees its trunk, then its own ancestors
    trunk_of: Array  # int32 [B]
    rope: tuple[Array, Array]  # [M, H/2] each


class Attention(nn.Module):
    """Self-attention over trunks and rows; a row's keys are its trunk's and its own."""

    cfg: ModelConfig
    lora_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array, view: View) -> Array:
        cfg = self.cfg
        N, K, H = cfg.n_heads, cfg.n_kv_heads, cfg.head_dim
        (P, U, _), (B, T, _) = view.trunk_mask.shape, view.row_mask.shape

        def linear(name: str, features: int) -> Linear:
            return Linear(features, cfg.attention_bias, self.lora_scale, name=name)

        q = apply_rope(linear("q", N * H)(x).reshape(-1, N, H), *view.rope)
        k = apply_rope(linear("k", K * H)(x).reshape(-1, K, H), *view.rope)
        v = linear("v", K * H)(x).reshape(-1, K, H)

        split = lambda y: (
            y[: P * U].reshape(P, U, y.shape[1], H),
            y[P * U :].reshape(B, T, y.shape[1], H),
        )
        (q_trunk, q), (k_trunk, k), (v_trunk, v) = split(q), split(k), split(v)
        mixed = []
        if U:
            mixed.append(attend(q_trunk, k_trunk, v_trunk, view.trunk_mask))
            k = jnp.concatenate([k_trunk[view.trunk_of], k], axis=1)  # [B, U + T, K, H]
            v = jnp.concatenate([v_trunk[view.trunk_of], v], axis=1)
        mixed.append(attend(q, k, v, view.row_mask))
        flat = jnp.concatenate([y.reshape(-1, N * H) for y in mixed])
        return linear("o", cfg.hidden_size)(flat)


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    cfg: ModelConfig
    lora_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def linear(name: str, features: int) -> Linear:
            return Linear(features, self.cfg.mlp_bias, self.lora_scale, name=name)

        gate = jax.nn.silu(linear("gate", self.cfg.mlp_size)(x))
        up = linear("up", self.cfg.mlp_size)(x)
        return linear("down", self.cfg.hidden_size)(gate * up)


class Block(nn.Module):
    """One pre-norm decoder block."""

    cfg: ModelConfig
    lora_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array, view: View) -> tuple[Array, None]:
        norm = lambda name: RMSNorm(self.cfg.norm_eps, name=name)
        x = x + Attention(self.cfg, self.lora_scale, name="attn")(norm("attn_norm")(x), view)
        x = x + GatedMLP(self.cfg, self.lora_scale, name="mlp")(norm("mlp_norm")(x))
        return x, None
