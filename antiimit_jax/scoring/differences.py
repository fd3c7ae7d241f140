"""How two models' next-token distributions differ on the tokens of given texts."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.scoring.texts import PackedTexts, Text, expected, text_logits

Array = jax.Array
_SEQUENCE_TOKENS = 512


class Differences(NamedTuple):
    """Per token of a sequence, [1, T] each; natural logarithms."""

    kl_base_tuned: Array
    kl_tuned_base: Array
    top1_base: Array  # int32
    top1_tuned: Array
    top5_overlap: Array
    entropy_base: Array
    entropy_tuned: Array
    logp_base: Array  # of the token that follows in the text
    logp_tuned: Array


def differences(decoder: Decoder, base: dict, variables: dict, row: PackedTexts) -> Differences:
    """Compares two models' next-token distributions over the full vocabulary, in float32.

    The first of `five` would be the argmax, but using top_k's result twice makes XLA's CPU backend
    sort the vocabulary: two hundred times slower.
    """
    x, y = text_logits(decoder, base, row), text_logits(decoder, variables, row)  # [1, T, V]
    all_x, all_y = jax.nn.logsumexp(x, axis=-1), jax.nn.logsumexp(y, axis=-1)  # [1, T]
    p, t, apart = jnp.exp(x - all_x[..., None]), jnp.exp(y - all_y[..., None]), x - y
    five = lambda logits: jax.lax.top_k(logits, 5)[1]
    following = jnp.roll(row.forest.tokens, -1, axis=-1)[..., None]
    of_next = lambda logits: jnp.take_along_axis(logits, following, axis=-1)[..., 0]
    return Differences(
        kl_base_tuned=expected(p, apart) - all_x + all_y,
        kl_tuned_base=all_x - all_y - expected(t, apart),
        top1_base=x.argmax(-1),
        top1_tuned=y.argmax(-1),
        top5_overlap=(five(x)[..., :, None] == five(y)[..., None, :]).any(-1).mean(-1),
        entropy_base=all_x - expected(p, x),
        entropy_tuned=all_y - expected(t, y),
        logp_base=of_next(x) - all_x,
        logp_tuned=of_next(y) - all_y,
    )


def sequence_tokens(texts: Sequence[Text]) -> int:
    """Tokens of a sequence of texts: the usual length, or the longest text."""
    return max(_SEQUENCE_TOKENS, *(len(ids) for ids, _ in texts))


def first_fit(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices of texts into sequences of `size` tokens, longest first."""
    packed: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        roomy = (part for part in packed if sum(lengths[j] for j in (*part, i)) <= size)
        if (part := next(roomy, None)) is None:
            packed.append(part := [])
        part.append(i)
    return packed
