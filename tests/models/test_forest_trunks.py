"""A beginning that rows share, and trees in a row, give each path the logits it has alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antiimit_jax.models import layers
from antiimit_jax.models.decoder import Forest, ancestor_mask
from tests.models.llama_peer import (
    assert_same_logits,
    forest_logits,
    load,
    random_llama,
    torch_logits,
    write,
)

# Parent of each node in depth-first order; -1 hangs on the trunk, -2 is padding.
TREES = [
    [-1, 0, 1, 2, 1, 0, 5, 5, -1, 8],
    [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8],
    [-1, -1, -1, -1, -1, -2, -2, -2, -2, -2],
    [-2, -2, -2, -2, -2, -2, -2, -2, -2, -2],
]


def _ancestors(parents: list[int], node: int) -> list[int]:
    """The node and what is above it, from the top."""
    path = [node]
    while parents[path[-1]] >= 0:
        path.append(parents[path[-1]])
    return path[::-1]


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    model = random_llama(seed=8, num_attention_heads=6, num_key_value_heads=2)
    return model, *load(write(model, tmp_path_factory.mktemp("trunks")))


@pytest.mark.parametrize("trunk_of", [(0, 1, 2, 0), (1, 1, 1, 2)])
def test_rows_behind_trunks_equal_plain_sequences(peer, trunk_of):
    model, cfg, params = peer
    rng = np.random.default_rng(2)
    trunks, lengths = rng.integers(0, cfg.vocab_size, (3, 7)), [7, 3, 0]
    tokens = rng.integers(0, cfg.vocab_size, (4, 10))
    ends, positions = np.zeros((4, 10), int), rng.integers(0, 40, (4, 10))
    paths = {}
    for row, parents in enumerate(TREES):
        for node, parent in enumerate(parents):
            if parent == -2:
                continue
            path = paths[row, node] = _ancestors(parents, node)
            positions[row, node] = lengths[trunk_of[row]] + len(path) - 1
            for above in path:
                ends[row, above] = node + 1
    arrays = (tokens, positions, ends, np.array(trunk_of), trunks, np.array(lengths))
    ours = np.asarray(forest_logits(params, Forest(*map(jnp.asarray, arrays)), cfg))
    assert np.isfinite(ours).all()
    found, true = [], []
    for (row, node), path in paths.items():
        trunk = trunks[trunk_of[row]][: lengths[trunk_of[row]]]
        alone = np.concatenate([trunk, tokens[row, path]])
        true.append(torch_logits(model, alone[None])[0, -1])
        found.append(ours[row, node])
    assert_same_logits(np.array(found), np.array(true))


def test_the_mask_shows_a_token_its_ancestors_and_nothing_else():
    ends = np.array([[8, 4, 4, 4, 8, 6, 0, 8]])
    mask = np.asarray(ancestor_mask(jnp.asarray(ends)))[0]
    for i in range(8):
        for j in range(8):
            assert mask[i, j] == (j <= i < ends[0, j])
    assert not mask[:, 6].any() and not mask[6, 6]


@pytest.mark.parametrize("length, near", [(64, 64), (321, 321), (321, 50), (640, 640)])
def test_trunks_of_any_length_attend_in_blocks_as_at_once(length, near):
    keys = jax.random.split(jax.random.key(length), 3)
    heads = (4, 2, 2)
    q, k, v = (jax.random.normal(key, (2, length, n, 8)) for key, n in zip(keys, heads))
    away = np.arange(length)[:, None] - np.arange(length)
    mask = jnp.asarray(np.broadcast_to((away >= 0) & (away < near), (2, length, length)))

    def both(attend):
        total = lambda *inputs: (attend(*inputs, mask, 0.3, 2.0) ** 2).sum()
        return attend(q, k, v, mask, 0.3, 2.0), *jax.grad(total, argnums=(0, 1, 2))(q, k, v)

    for ours, whole in zip(both(layers.attend_before), both(layers.attend)):
        np.testing.assert_allclose(ours, whole, atol=1e-5 * np.abs(whole).max())
