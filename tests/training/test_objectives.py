"""The losses against scipy, and the gradient that makes the sampled loss unbiased."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr
from scipy.stats import entropy

from antiimit_jax.training.objectives import anchor_kl, forward_kl

RNG = np.random.default_rng(0)
TARGET = np.stack([RNG.dirichlet(np.ones(4)) for _ in range(5)])
Q = np.stack([0.7 * RNG.dirichlet(np.ones(4)) for _ in range(5)])


def test_forward_kl_is_the_sum_of_relative_entropies():
    found = forward_kl(jnp.log(Q), jnp.asarray(TARGET))
    assert float(found) == pytest.approx(rel_entr(TARGET, Q).sum(), rel=1e-6)


def test_kl_splits_into_share_and_mass():
    mass = Q.sum(-1)
    shares = Q / mass[:, None]
    expected = sum(entropy(t, c) for t, c in zip(TARGET, shares)) - np.log(mass).sum()
    assert float(forward_kl(jnp.log(Q), jnp.asarray(TARGET))) == pytest.approx(expected, rel=1e-6)


def test_words_without_target_add_nothing_even_where_impossible():
    target = np.array([[0.3, 0.7, 0.0, 0.0]])
    log_q = np.array([[-1.0, -2.0, -1e30, -np.inf]])
    value, slope = jax.value_and_grad(forward_kl)(jnp.asarray(log_q), jnp.asarray(target))
    expected = 0.3 * (np.log(0.3) + 1) + 0.7 * (np.log(0.7) + 2)
    assert float(value) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(slope, -target, atol=1e-7)


def test_a_one_hot_target_gives_the_next_token_loss():
    label = np.eye(4)[[2, 0, 1, 3, 3]]
    found = forward_kl(jnp.log(Q), jnp.asarray(label))
    assert float(found) == pytest.approx(-np.log(Q[label > 0]).sum(), rel=1e-6)


def test_anchor_kl_is_the_mean_over_scored_positions():
    base, tuned = RNG.normal(size=(2, 1, 6, 50)) * 2
    scored = np.array([[0, 1, 1, 0, 0.5, 1]])
    p, q = np.exp(log_softmax(base[0], -1)), np.exp(log_softmax(tuned[0], -1))
    expected = (entropy(p, q, axis=-1) * scored[0]).sum() / scored.sum()
    found = anchor_kl(jnp.asarray(base), jnp.asarray(tuned), jnp.asarray(scored))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(anchor_kl(jnp.asarray(base), jnp.asarray(base), jnp.asarray(scored))) == 0
    assert float(anchor_kl(jnp.asarray(base), jnp.asarray(tuned), jnp.zeros((1, 6)))) == 0
