"""What training minimises, per batch: control of the words, and staying the base elsewhere.

Source of the identity KL(t || q) = KL(t || c) - log m: q(w) = m c(w) with c the share among the
words and m their mass.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.scipy.special as jsp

from antiimit_jax.scoring.texts import expected

Array = jax.Array


def forward_kl(log_q: Array, target: Array) -> Array:
    """Sum over all words of t (log t - log q), in nats; divide by the number of items.

    With one-hot targets (objective `sampled`) this is the next-token loss -log q(y), whose
    expectation over y ~ t has the same gradient.

    Args:
      log_q, target: [..., W]; words with target 0 add nothing.
    """
    used = target > 0
    return (jsp.xlogy(target, target) - target * jnp.where(used, log_q, 0.0)).sum()


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
