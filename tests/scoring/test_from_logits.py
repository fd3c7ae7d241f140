"""The sums over paths and terminators, against numpy in double precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from antiimit_jax.scoring.packing import BatchShape, SequenceLimits, empty_batch
from antiimit_jax.scoring.word_probs import from_logits
from tests.battery import tenth

V = 11
LIMITS = SequenceLimits(tokens=4, readouts=5, paths=6, steps=3, words=4, terms=3)
STOPS = np.arange(V) % 3 == 0
PATHS = {0: [([0, 1], [4, 5], 2)], 1: [([0], [7], 3), ([0, 3, 4], [7, 6, 2], 1)]}  # row: paths


def batch_by_hand():
    """Row 0: one word of one path, another item. Row 1: path 0 less path 1, and path 1 itself."""
    batch = empty_batch(BatchShape(LIMITS, sequences=3, trunks=1, trunk_tokens=0))
    for b, paths in PATHS.items():
        for z, (reads, tokens, end) in enumerate(paths):
            first = b * LIMITS.readouts
            batch.path_readout[b, z, : len(reads)] = np.add(first, reads)
            batch.path_token[b, z, : len(tokens)] = tokens
            batch.path_end[b, z] = first + end
    batch.word_sign[0, 0, 0] = 1
    batch.word_item[0, 0] = 0
    batch.word_path[1, 0, :2], batch.word_sign[1, 0, :2] = [0, 1], [1, -1]
    batch.word_path[1, 1, 1], batch.word_sign[1, 1, 1] = 1, 1
    batch.word_item[1, :2] = [0, 1]
    return batch


def answered(logits, batch):
    """Logits by row and readout of the row."""
    return from_logits(logits.reshape(-1, V), STOPS, batch)


def by_hand(logits: np.ndarray) -> dict[tuple[int, int], float]:
    log_p = log_softmax(logits.astype(np.float64), axis=-1)
    path = {
        (b, z): np.exp(sum(log_p[b, r, t] for r, t in zip(reads, tokens)))
        * np.exp(log_p[b, end])[STOPS].sum()
        for b, paths in PATHS.items()
        for z, (reads, tokens, end) in enumerate(paths)
    }
    return {(0, 0): path[0, 0], (1, 0): path[1, 0] - path[1, 1], (1, 1): path[1, 1]}


@pytest.mark.parametrize("size", [1.0, 20.0])
def test_words_residual_and_paths_equal_numpy(size):
    logits = size * np.random.default_rng(1).normal(size=(3, 5, V)).astype(np.float32)
    logits[1, 0, 7] += size  # path 0 of row 1 is likely, its continuation less so
    out = answered(jnp.asarray(logits), batch_by_hand())
    q = by_hand(logits)
    for (b, w), expected in q.items():
        assert expected > 0
        np.testing.assert_allclose(out.log_q[b, w], np.log(expected), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out.residual[0, 0], 1 - q[0, 0], atol=1e-6)
    np.testing.assert_allclose(out.residual[1, :2], [1 - q[1, 0], 1 - q[1, 1]], atol=1e-6)
    np.testing.assert_allclose(out.path_log_mass[1, 1], np.log(q[1, 1]), rtol=1e-5, atol=1e-5)


WORDS = {(0, 0): [(0, 0)], (1, 0): [(1, 0), (1, 1)], (1, 1): [(1, 1)]}  # the paths of each
_rng = np.random.default_rng(9)
POISONED = [
    (int(_rng.integers(2)), int(_rng.integers(5)), int(_rng.integers(V))) for _ in range(50)
]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", tenth(POISONED), ids=str)
def test_no_number_follows_from_a_logit_that_is_not_finite(place, value):
    row, readout, token = place
    logits = np.random.default_rng(6).normal(size=(3, 5, V)).astype(np.float32)
    sound = answered(jnp.asarray(logits), batch_by_hand())
    logits[row, readout, token] = value
    out = answered(jnp.asarray(logits), batch_by_hand())
    bad_words = bad_paths = 0
    for (b, w), paths in WORDS.items():
        reads = [[*PATHS[b][z][0], PATHS[b][z][2]] for _, z in paths]
        bad = b == row and any(readout in read for read in reads)
        bad_words += bad
        same = np.testing.assert_array_equal
        same(out.log_q[b, w], np.nan if bad else sound.log_q[b, w])
        same(out.residual[b, w], np.nan if bad else sound.residual[b, w])
    for b, paths in PATHS.items():
        for z, (reads, _, end) in enumerate(paths):
            bad = b == row and readout in (*reads, end)
            bad_paths += bad
            assert np.isnan(out.path_log_mass[b, z]) == bad
    assert np.isnan(out.log_q).sum() == bad_words
    assert np.isnan(out.path_log_mass).sum() == bad_paths


def test_padding_has_no_probability_and_no_gradient():
    batch = batch_by_hand()
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(3, 5, V)), jnp.float32)
    out = answered(logits, batch)
    unused = batch.word_item < 0
    assert unused.sum() == 9
    assert (np.exp(np.asarray(out.log_q)[unused]) == 0).all()
    assert (np.asarray(out.residual)[2] == 1).all()

    def used_only(logits):
        return jnp.where(batch.word_item >= 0, answered(logits, batch).log_q, 0).sum()

    gradient = jax.grad(used_only)(logits)
    assert np.isfinite(gradient).all() and (gradient[2] == 0).all()
    assert np.abs(gradient[:2]).max() > 0.1


def test_gradient_of_a_difference_equals_numpy_differences():
    batch = batch_by_hand()
    logits = np.random.default_rng(3).normal(size=(3, 5, V)).astype(np.float32)
    logits[1, 0, 7] += 2
    gradient = jax.grad(lambda x: answered(x, batch).log_q[1, 0])(jnp.asarray(logits))
    direction = np.random.default_rng(4).normal(size=logits.shape)
    step = 1e-5
    up, down = (np.log(by_hand_64(logits + s * direction)) for s in (step, -step))
    expected = (up - down) / (2 * step)
    np.testing.assert_allclose((gradient * direction).sum(), expected, rtol=1e-4)


def by_hand_64(logits: np.ndarray) -> float:
    return by_hand(logits.astype(np.float64))[1, 0]


def test_a_word_that_is_all_inside_another_has_probability_zero_and_finite_gradients():
    batch = batch_by_hand()
    batch.word_path[1, 0, :2] = [1, 1]  # path 1 less path 1
    logits = jnp.asarray(np.random.default_rng(5).normal(size=(3, 5, V)), jnp.float32)
    assert np.exp(answered(logits, batch).log_q[1, 0]) == 0
    gradient = jax.grad(lambda x: answered(x, batch).log_q[1, 0])(logits)
    assert np.isfinite(gradient).all()
