"""The core: from parameters and a packed batch to every word's exact log-probability.

    q(w) = sum over the word's token paths z of  prod_i q(z_i | x, z_<i) * q(a terminator | x, z)

less the mass of other words whose paths continue z through a terminator. Training and every
evaluation call this one function. Logits, log-sum-exp and all sums are float32.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.scoring.packing import PackedBatch

Array = jax.Array
_LOG_ZERO = -1e30  # finite, so that gradients of unused entries are 0 and not NaN


class WordLogProbs(NamedTuple):
    """What the model says about the words of a batch."""

    log_q: Array  # [B, W] 0 probability on padding is written as log 0 = -1e30
    residual: Array  # [B, W] by item of the sequence: 1 - sum of its words' q; 1 on padding
    path_log_mass: Array  # [B, Z] each token path with its terminators


def word_log_probs(
    decoder: Decoder, variables: Any, stops: Array, batch: PackedBatch
) -> WordLogProbs:
    """Exact word log-probabilities of a packed batch; differentiable in `variables`.

    Args:
      variables: {"params": ..., "lora": ... or absent}.
      stops: bool [V], the terminators.
    """
    return from_logits(readout_logits(decoder, variables, batch), stops, batch)


@functools.cache
def words_at(temperature: float) -> Callable[..., WordLogProbs]:
    """`word_log_probs` of a model that draws each token at a temperature, without any cut-off.

    Logits are divided by it before anything else, so q is exact for words of any number of tokens;
    by a power of two without rounding.
    """
    if temperature == 1:
        return word_log_probs

    def rescaled(decoder: Decoder, variables: Any, stops: Array, batch: PackedBatch):
        return from_logits(readout_logits(decoder, variables, batch) / temperature, stops, batch)

    return rescaled


def readout_logits(decoder: Decoder, variables: Any, batch: PackedBatch) -> Array:
    """Next-token logits where the words' paths need them, float32 [R, V]."""
    hidden = decoder.apply(variables, batch.forest)  # [B, T, D]
    read = hidden.reshape(-1, hidden.shape[-1])[batch.read_at]
    return decoder.apply(variables, read, method="logits")


def next_token_probs(decoder: Decoder, variables: Any, stops: Array, batch: PackedBatch) -> Array:
    """The distribution of the token after every path of a packed batch, float32 [B, Z, V].

    Where a logit is not finite all probabilities are NaN.
    """
    logits = readout_logits(decoder, variables, batch)  # [R, V]
    probs = jax.nn.softmax(logits + 0.0 * logits.sum(-1, keepdims=True), axis=-1)  # 0 * inf: NaN
    return probs[batch.path_end]


def from_logits(logits: Array, stops: Array, batch: PackedBatch) -> WordLogProbs:
    """The same from the logits at the logit positions, float32 [R, V].

    A terminator's probability below 1e-38 of the most probable token's is read as that. What
    follows from a position with a logit that is not finite is NaN, never a number. That counts
    -infinity too: no family masks its vocabulary, and finite weights give it by overflow alone.
    """
    chex.assert_shape(logits, (*batch.read_at.shape, *stops.shape))
    chex.assert_equal_shape([batch.word_path, batch.word_sign])
    top = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    which = jnp.stack([jnp.ones_like(stops), stops]).astype(jnp.float32)  # [2, V]
    # Both in one pass over the vocabulary.
    shares = jnp.exp(logits - top) + 0.0 * jax.lax.stop_gradient(logits)  # 0 * inf is NaN
    sums = jnp.einsum("rv,kv->rk", shares, which, precision="highest")
    logs = jnp.log(jnp.maximum(sums, jnp.finfo(jnp.float32).tiny))
    total, stop = logs[:, 0] + top[:, 0], logs[:, 1] - logs[:, 0]  # [R]

    used = batch.path_token >= 0  # [B, Z, S]
    token = jnp.maximum(batch.path_token, 0)
    step = logits[batch.path_readout, token] - total[batch.path_readout]
    path = jnp.where(used, step, 0.0).sum(-1) + stop[batch.path_end]  # [B, Z]
    path = jnp.where(used.any(-1), path, _LOG_ZERO)

    rows = jnp.arange(len(path))[:, None]
    log_q = _signed_logsumexp(path[rows[..., None], batch.word_path], batch.word_sign)
    items = jnp.arange(log_q.shape[-1])  # each sequence numbers its own
    belongs = batch.word_item[:, None, :] == items[None, :, None]  # [B, item, W]
    residual = 1.0 - jnp.where(belongs, jnp.exp(log_q)[:, None, :], 0.0).sum(-1)
    return WordLogProbs(log_q, residual, path)


def _signed_logsumexp(terms: Array, sign: Array) -> Array:
    """log(sum of sign * exp(terms)) over the last axis; log 0 where nothing is left, NaN of NaN."""
    terms = jnp.where(sign == 0, _LOG_ZERO, terms)
    top = jax.lax.stop_gradient(terms.max(-1, keepdims=True))
    sums = (sign * jnp.exp(terms - top)).sum(-1)
    nothing = sums <= 0
    logs = jnp.log(jnp.where(nothing, 1.0, sums)) + top[..., 0]
    return jnp.where(nothing, _LOG_ZERO, logs)
