"""Texts side by side in one sequence: each attends to itself alone. For drift and the anchor."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antiimit_jax.models.decoder import Decoder, Forest, sequences

Text = tuple[Sequence[int], int]  # token ids, and the first token whose prediction is scored


class PackedTexts(NamedTuple):
    """Texts in one sequence; `scored` marks tokens whose next-token distribution counts."""

    forest: Forest  # B = 1
    scored: np.ndarray  # float32 [1, T]


def pack_texts(texts: Sequence[Text], size: int) -> PackedTexts:
    """Texts one after the other in `size` tokens; what does not fit is cut."""
    tokens, positions, ends = (np.zeros((1, size), np.int32) for _ in range(3))
    scored = np.zeros((1, size), np.float32)
    at = 0
    for ids, first in texts:
        ids = ids[: size - at]
        end = at + len(ids)
        tokens[0, at:end], positions[0, at:end], ends[0, at:end] = ids, range(len(ids)), end
        scored[0, at + first : end] = 1.0
        at = end
    return PackedTexts(sequences(tokens, positions, ends), scored)


def expected(p: jax.Array, values: jax.Array) -> jax.Array:
    """Sums over the vocabulary of p times values, float32 [B, T, V] -> [B, T].

    Written as a matmul: XLA:CPU takes up to fifty times as long for a sum that it joins with what
    made p and the values.
    """
    return jnp.einsum("btv,btv->bt", p, values, precision=jax.lax.Precision.HIGHEST)


def text_logits(decoder: Decoder, variables: dict, texts: PackedTexts) -> jax.Array:
    """Next-token logits of every token, float32 [1, T, V]."""
    hidden = decoder.apply(variables, texts.forest)
    return decoder.apply(variables, hidden, method="logits")
