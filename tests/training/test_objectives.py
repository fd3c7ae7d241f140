"""The losses against scipy, and the gradient that makes the sampled loss unbiased."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr
from scipy.stats import entropy

from antiimit_jax.metrics.control import RESIDUAL_TARGET, ControlResults, item_metrics
from antiimit_jax.training.objectives import OBJECTIVES, anchor_kl, forward_kl

RNG = np.random.default_rng(0)
TARGET = np.stack([RNG.dirichlet(np.ones(4)) for _ in range(5)])
Q = np.stack([0.7 * RNG.dirichlet(np.ones(4)) for _ in range(5)])


def test_forward_kl_is_the_sum_of_relative_entropies():
    found = forward_kl(jnp.log(Q), jnp.asarray(TARGET))
    assert float(found.sum()) == pytest.approx(rel_entr(TARGET, Q).sum(), rel=1e-6)


def test_kl_splits_into_share_and_mass():
    mass = Q.sum(-1)
    shares = Q / mass[:, None]
    expected = sum(entropy(t, c) for t, c in zip(TARGET, shares)) - np.log(mass).sum()
    assert float(forward_kl(jnp.log(Q), jnp.asarray(TARGET)).sum()) == pytest.approx(
        expected, rel=1e-6
    )


def test_words_without_target_add_nothing_even_where_impossible():
    target = np.array([[0.3, 0.7, 0.0, 0.0]])
    log_q = np.array([[-1.0, -2.0, -1e30, -np.inf]])
    total = lambda log_q, target: forward_kl(log_q, target).sum()
    value, slope = jax.value_and_grad(total)(jnp.asarray(log_q), jnp.asarray(target))
    expected = 0.3 * (np.log(0.3) + 1) + 0.7 * (np.log(0.7) + 2)
    assert float(value) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(slope, -target, atol=1e-7)


def test_a_one_hot_target_gives_the_next_token_loss():
    label = np.eye(4)[[2, 0, 1, 3, 3]]
    found = forward_kl(jnp.log(Q), jnp.asarray(label))
    assert float(found.sum()) == pytest.approx(-np.log(Q[label > 0]).sum(), rel=1e-6)


def results(target: np.ndarray, q: np.ndarray) -> ControlResults:
    n = len(q)
    zeros = np.zeros(n, int)
    return ControlResults(
        target=target,
        q=q,
        word=np.tile(np.arange(target.shape[1]), (n, 1)),
        k=np.full(n, target.shape[1]),
        cluster=np.arange(n),
        shot_set=zeros - 1,
        n_shots=zeros,
        template=zeros,
        token_count=zeros + 1,
        last_shot=np.full_like(q, np.nan),
        prior=np.full_like(q, np.nan),
    )


@pytest.mark.parametrize(
    "objective, metric, unit",
    [
        ("kl", "kl_fwd", 1.0),
        ("reverse_kl", "kl_rev", 1.0),
        ("js", "js_bits", np.log(2)),
        ("tvd", "tvd_res", 1.0),
    ],
)
def test_an_objective_is_the_figure_of_its_name_item_by_item(objective, metric, unit):
    expected = item_metrics(results(TARGET, Q))[metric] * unit
    assert expected.min() > 0.01
    found = OBJECTIVES[objective](jnp.log(Q), jnp.asarray(TARGET))
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    assert np.ptp(found) > 0.01


def plain(objective: str, log_q: np.ndarray, target: np.ndarray) -> float:
    """The losses by their definitions, in float64, with the residual as one more outcome."""
    q, t = np.append(np.exp(log_q), 1 - np.exp(log_q).sum()), np.append(target, 0.0)
    if objective == "reverse_kl":
        return rel_entr(q, np.append((1 - RESIDUAL_TARGET) * target, RESIDUAL_TARGET)).sum()
    if objective == "js":
        return (entropy(t, (t + q) / 2) + entropy(q, (t + q) / 2)) / 2
    if objective == "tvd":
        return abs(q - t).sum() / 2
    return rel_entr(t[:-1], q[:-1]).sum()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_slope_of_an_objective_equals_differences_of_its_definition(objective):
    step = 1e-5
    for target, log_q in zip(TARGET, np.log(Q)):
        loss = lambda x: OBJECTIVES[objective](x, jnp.asarray(target, jnp.float32))
        value, slope = jax.value_and_grad(loss)(jnp.asarray(log_q, jnp.float32))
        assert float(value) == pytest.approx(plain(objective, log_q, target), rel=1e-5)
        for j in range(4):
            move = step * np.eye(4)[j]
            ahead, back = (plain(objective, log_q + s * move, target) for s in (1, -1))
            assert float(slope[j]) == pytest.approx((ahead - back) / (2 * step), abs=2e-4)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_slots_without_a_word_add_nothing_and_a_perfect_answer_costs_nothing(objective):
    loss = lambda log_q, target: OBJECTIVES[objective](log_q, target).sum()
    values = [
        jax.value_and_grad(loss)(
            jnp.concatenate([jnp.log(Q), jnp.full((5, extra), absent)], axis=1),
            jnp.concatenate([TARGET, jnp.zeros((5, extra))], axis=1),
        )
        for extra, absent in ((0, 0.0), (2, -1e30), (2, -jnp.inf))
    ]
    (value, slope), *others = values
    for other, padded in others:
        assert float(other) == pytest.approx(float(value), rel=1e-6)
        np.testing.assert_allclose(padded, np.pad(slope, ((0, 0), (0, 2))), atol=1e-6)
    perfect = OBJECTIVES[objective](jnp.log(TARGET), jnp.asarray(TARGET))
    np.testing.assert_allclose(perfect, 0, atol=2e-4)  # RESIDUAL_TARGET is 1e-4
    all_elsewhere = jax.value_and_grad(loss)(jnp.full((1, 2), -60.0), jnp.full((1, 2), 0.5))
    assert np.isfinite(all_elsewhere[0]) and np.isfinite(all_elsewhere[1]).all()


def test_anchor_kl_is_the_mean_over_scored_positions():
    base, tuned = RNG.normal(size=(2, 1, 6, 50)) * 2
    scored = np.array([[0, 1, 1, 0, 0.5, 1]])
    p, q = np.exp(log_softmax(base[0], -1)), np.exp(log_softmax(tuned[0], -1))
    expected = (entropy(p, q, axis=-1) * scored[0]).sum() / scored.sum()
    found = anchor_kl(jnp.asarray(base), jnp.asarray(tuned), jnp.asarray(scored))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(anchor_kl(jnp.asarray(base), jnp.asarray(base), jnp.asarray(scored))) == 0
    assert float(anchor_kl(jnp.asarray(base), jnp.asarray(tuned), jnp.zeros((1, 6)))) == 0
