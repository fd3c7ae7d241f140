"""What training minimises, per item: control of the words, and staying the base elsewhere.

An objective takes log q and the target shares, [..., W], and returns a loss in nats, [...]. The
residual r = 1 - sum of q is an outcome of its own with target 0. Slots that hold none of an item's
words have q = 0 and target 0, and add nothing.
Source of the identity KL(t || q) = KL(t || c) - log m: q(w) = m c(w) with c the share among the
words and m their mass.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.scipy.special as jsp
import numpy as np

from antiimit_jax.metrics.control import FLOOR, RESIDUAL_TARGET
from antiimit_jax.scoring.texts import expected

Array = jax.Array
_LEAST_RESIDUAL = float(np.finfo(np.float32).epsneg)  # float32 says nothing of smaller ones


def forward_kl(log_q: Array, target: Array) -> Array:
    """KL(t || q), the sum over words of t (log t - log q); words with target 0 add nothing.

    With one-hot targets (`sampled`) this is the next-token loss -log q(y), whose expectation over
    y ~ t has the same gradient.
    """
    used = target > 0
    return (jsp.xlogy(target, target) - target * jnp.where(used, log_q, 0.0)).sum(-1)


def reverse_kl(log_q: Array, target: Array) -> Array:
    """KL(q || t) over words and residual, with RESIDUAL_TARGET of t moved to the residual."""
    residual = _residual(log_q)
    log_t = jnp.log(jnp.maximum((1 - RESIDUAL_TARGET) * target, FLOOR))
    words = _times(jnp.exp(log_q), log_q - log_t).sum(-1)
    return words + residual * jnp.log(residual / RESIDUAL_TARGET)


def jensen_shannon(log_q: Array, target: Array) -> Array:
    """The mean of KL(t || h) and KL(q || h) over words and residual, h = (t + q) / 2."""
    q = jnp.exp(log_q)
    log_half = jnp.log(jnp.maximum((target + q) / 2, FLOOR))
    asked = jsp.xlogy(target, target) - target * log_half
    given = _times(q, log_q - log_half)
    return ((asked + given).sum(-1) + _residual(log_q) * np.log(2)) / 2


def total_variation(log_q: Array, target: Array) -> Array:
    """Half the sum over words and residual of |q - t|; next to no gradient where q is near 0."""
    return (jnp.abs(jnp.exp(log_q) - target).sum(-1) + _residual(log_q)) / 2


# `sampled` draws one word of each target and `kl_canonical` counts one form of each word, the one
# that an answer in the conversation has: an upper bound of `kl`. Both change the data alone
# (`batches.py`).
OBJECTIVES: dict[str, Callable[[Array, Array], Array]] = {
    "kl": forward_kl,
    "sampled": forward_kl,
    "kl_canonical": forward_kl,
    "reverse_kl": reverse_kl,
    "js": jensen_shannon,
    "tvd": total_variation,
}


def anchor_kl(base_logits: Array, tuned_logits: Array, scored: Array) -> Array:
    """Mean over scored positions of KL(base || tuned) in nats, full vocabulary, float32.

    Args:
      base_logits, tuned_logits: [B, T, V].
      scored: [B, T] weights.
    """
    base, tuned = jax.nn.logsumexp(base_logits, axis=-1), jax.nn.logsumexp(tuned_logits, axis=-1)
    p = jnp.exp(base_logits - base[..., None])
    kl = expected(p, base_logits - tuned_logits) - base + tuned  # [B, T]
    return (kl * scored).sum() / jnp.maximum(scored.sum(), 1.0)


def _residual(log_q: Array) -> Array:
    return jnp.maximum(1.0 - jnp.exp(log_q).sum(-1), _LEAST_RESIDUAL)


def _times(q: Array, log: Array) -> Array:
    """q times a logarithm, 0 with slope 0 where q is 0."""
    return q * jnp.where(q > 0, log, 0.0)
