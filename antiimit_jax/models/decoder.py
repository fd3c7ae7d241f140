"""The decoder: one Linen module for every family, its layers stacked and run under `nn.scan`.

Letters used wherever arrays are born in this project:
  B packed sequences     T tokens of a sequence P shared prefixes      U tokens of a prefix
  M = P U + B T          D hidden size          V vocabulary           L layers
  N query heads          K key/value heads      G = N / K              H head size
  R logit positions      Z token paths          S steps of a path      W words of a sequence
  Q terms of a word      A microbatches         r LoRA rank
  C keys computed before

The input is a forest. A shared prefix, `trunk` in the code, is a beginning that several sequences
have (few-shot turns, a template's opening); it is computed once. A packed sequence follows one
prefix and is a tree in depth-first order (see `scoring.packing`). One integer per token,
`subtree_end`, says where the tree below it stops: token j of a sequence is an ancestor of token i,
and visible to it, exactly when j <= i < subtree_end[j]. A plain causal sequence has subtree_end =
its length; padding has 0 and is visible to nobody.

Attention needs sequences and prefixes of equal length, the rest does not: with `Dense`, everything
that is done token by token runs over the tokens that exist, and padding costs next to nothing.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from antiimit_jax.models.config import ModelConfig
from antiimit_jax.models.layers import SAVED, Block, Kind, RMSNorm, View, rearrange
from antiimit_jax.models.rope import rope_table

Array = jax.Array
_WIDENED_BYTES = 2**27  # of the head's table that are held as float32 at once


class Dense(NamedTuple):
    """The tokens that exist, [M], among the P U + B T places of a forest; int32."""

    place: Array  # [M] of each token, -1 on padding
    source: Array  # [P U + B T] the token at each place, -1 on padding


class Past(NamedTuple):
    """The keys that every sequence has in the collection `cache`, C of them."""

    visible: Array  # bool [B, T, C] which token may look at which
    positions: Array  # int32 [B, C]


class Forest(NamedTuple):
    """B packed sequences after P shared prefixes, all int32. Without prefixes U is 0."""

    tokens: Array  # [B, T]
    positions: Array  # [B, T] counted from the prefix's first token
    subtree_end: Array  # [B, T]
    trunk_of: Array  # [B]
    trunk_tokens: Array  # [P, U]
    trunk_length: Array  # [P]
    dense: Dense | None = None
    past: Past | None = None


def sequences(tokens: Array, positions: Array, subtree_end: Array) -> Forest:
    """Sequences [B, T] that stand alone, without shared prefixes."""
    none, zeros = np.zeros((1, 0), np.int32), np.zeros(len(tokens), np.int32)
    return Forest(tokens, positions, subtree_end, zeros, none, np.zeros(1, np.int32))


def n_tokens(tree: Any) -> int:
    """Tokens that exist, padding apart, in all forests of a tree."""
    forests = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Forest))
    found = [forest for forest in forests if isinstance(forest, Forest)]
    return sum(int((f.subtree_end > 0).sum() + f.trunk_length.sum()) for f in found)


def ancestor_mask(subtree_end: Array) -> Array:
    """[B, T] -> [B, T, T], true where the second token is the first or one of its ancestors."""
    i = jnp.arange(subtree_end.shape[-1])
    before = i[None, None, :] <= i[None, :, None]
    return before & (i[None, :, None] < subtree_end[:, None, :])


def arrange(forest: Forest, cfg: ModelConfig) -> View:
    """Masks and rotary tables of a forest."""
    (B, T), (P, U) = forest.tokens.shape, forest.trunk_tokens.shape
    place = jnp.broadcast_to(jnp.arange(U), (P, U))
    ends = jnp.broadcast_to(forest.trunk_length[:, None], (P, U))
    trunk_mask = ancestor_mask(jnp.where(place < ends, ends, 0))
    sees_trunk = (place < ends)[forest.trunk_of][:, None, :]  # [B, 1, U]
    sees_trunk = jnp.broadcast_to(sees_trunk, (B, T, U))
    own_mask = jnp.concatenate([sees_trunk, ancestor_mask(forest.subtree_end)], axis=-1)
    keys = jnp.concatenate([place[:1].repeat(B, axis=0), forest.positions], axis=-1)  # [B, U + T]
    if forest.past is not None:
        own_mask = jnp.concatenate([forest.past.visible, own_mask], axis=-1)
        keys = jnp.concatenate([forest.past.positions, keys], axis=-1)  # [B, C + U + T]

    def near(queries: Array, keys: Array, window: int) -> Array:
        return queries[:, :, None] - keys[:, None, :] < window if window else jnp.bool_(True)

    existing = jnp.where(place < ends, place, 0)  # some ropes look at the longest position
    positions = _dense(jnp.concatenate([existing.ravel(), forest.positions.ravel()]), forest)
    return View(
        trunk_masks=tuple(trunk_mask & near(place, place, w) for w in cfg.windows),
        sequence_masks=tuple(own_mask & near(forest.positions, keys, w) for w in cfg.windows),
        trunk_of=forest.trunk_of,
        ropes=tuple(rope_table(rope, positions) for rope in cfg.ropes),
        dense=forest.dense,
    )


def _dense(flat: Array, forest: Forest) -> Array:
    """What lies at all places [P U + B T] -> what belongs to the tokens that exist [M]."""
    return flat if forest.dense is None else flat[jnp.maximum(forest.dense.place, 0)]


def kinds(cfg: ModelConfig) -> Kind:
    """Window and rope of every layer, int32 [L] each."""
    every = lambda which: np.asarray(which or (0,) * cfg.n_layers, np.int32)
    return Kind(window=every(cfg.layer_window), rope=every(cfg.layer_rope))


class Decoder(nn.Module):
    """Tokens to hidden states to logits; adapters join through the `lora` collection."""

    cfg: ModelConfig
    lora_scale: float = 1.0
    dtype: jnp.dtype = jnp.float32  # of activations; matmuls run in the weights' dtype
    remat: bool = False  # recompute each block in the backward pass

    def setup(self) -> None:
        saved = jax.checkpoint_policies.save_only_these_names(*() if self.remat else (SAVED,))
        block = nn.remat(Block, prevent_cse=False, policy=saved)
        self.embed = nn.Embed(self.cfg.vocab_size, self.cfg.hidden_size)
        self.layers = nn.scan(
            block,
            variable_axes={"params": 0, "lora": 0, "cache": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),
            length=self.cfg.n_layers,
        )(self.cfg, self.lora_scale)
        self.final_norm = RMSNorm(self.cfg)
        if not self.cfg.tied_head:
            shape = (self.cfg.vocab_size, self.cfg.hidden_size)
            self.head = self.param("head", nn.initializers.normal(0.02), shape)

    def __call__(self, forest: Forest) -> Array:
        """Hidden states of the sequences after the final norm, [B, T, D] in `dtype`."""
        tokens = jnp.concatenate([forest.trunk_tokens.ravel(), forest.tokens.ravel()])
        x = self.embed.embedding[_dense(tokens, forest)]  # [M, D]
        if self.cfg.embed_scale != 1.0:
            x = x * jnp.asarray(self.cfg.embed_scale, x.dtype)
        x, _ = self.layers(x.astype(self.dtype), kinds(self.cfg), arrange(forest, self.cfg))
        if forest.dense is not None:
            x = rearrange(x, forest.dense.source, forest.dense.place)
        x = x[forest.trunk_tokens.size :].reshape(*forest.tokens.shape, -1)
        return self.final_norm(x)

    def logits(self, hidden: Array) -> Array:
        """[..., D] -> float32 [..., V]; a tied head reads the embedding.

        XLA:CPU would else take the final norm into the matmul, which then runs ten times as long.
        """
        table = self.embed.embedding if self.cfg.tied_head else self.head
        logits = head_matmul(jax.lax.optimization_barrier(hidden), table)
        cap = self.cfg.final_softcap
        return cap * jnp.tanh(logits / cap) if cap else logits


def head_matmul(hidden: Array, table: Array) -> Array:
    """hidden [..., D] @ table [V, D].T -> float32 [..., V], with the table's exact values.

    A table of fewer bits is widened to float32 a block of rows at a time, since the whole of it
    may be gigabytes: V is 256,000 in Gemma.
    """
    V, D = table.shape
    dot = functools.partial(
        jnp.einsum,
        "...d,vd->...v",
        precision=jax.lax.Precision.HIGHEST,  # accelerators would else round float32
        preferred_element_type=jnp.float32,
    )
    rows = max(1, _WIDENED_BYTES // (4 * D))
    if V <= rows or table.dtype == jnp.float32:
        return dot(hidden, table)

    @functools.partial(jax.checkpoint, prevent_cse=False)  # else autodiff keeps every block
    def fill(logits: Array, first: Array) -> tuple[Array, None]:
        block = dot(hidden, jax.lax.dynamic_slice_in_dim(table, first, rows))
        return jax.lax.dynamic_update_slice_in_dim(logits, block, first, axis=-1), None

    starts = jnp.minimum(jnp.arange(0, V, rows), V - rows)  # the last may overlap
    return jax.lax.scan(fill, jnp.zeros((*hidden.shape[:-1], V), jnp.float32), starts)[0]
