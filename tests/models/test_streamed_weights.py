"""Weights that devices share go into their shards one parameter at a time."""

from __future__ import annotations

import tracemalloc

import jax
import numpy as np
import pytest

from antiimit_jax.models.sharding import partition, placer
from antiimit_jax.models.weights import find_model, load_params
from antiimit_jax.parallel import make_mesh, on_mesh
from tests.tiny_model import write_tiny_model

SIZES = dict(vocab_size=2048, hidden_size=64, intermediate_size=512, num_hidden_layers=8)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return find_model(str(write_tiny_model(tmp_path_factory.mktemp("wide"), **SIZES)))


def test_the_host_holds_one_parameter_beside_the_shards(source):
    """The devices are the host's own here: all shards are its memory, and counted with it."""
    cfg, expected = load_params(source)
    mesh = make_mesh(jax.local_devices(), 8)
    place = placer(cfg, mesh)
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(expected))
    largest = max(leaf.nbytes for leaf in jax.tree.leaves(expected))
    assert 3 * largest < total
    shardings = on_mesh(mesh, partition(cfg, mesh))
    load_params(source, place=place)  # what is made once
    tracemalloc.start()
    try:
        _, found = load_params(source, place=place)
        _, most = tracemalloc.get_traced_memory()
        jax.device_put(jax.tree.map(np.array, expected), shardings)
        _, at_once = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(total, largest, most, at_once)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jax.tree.map(lambda leaf: leaf.sharding, found) == shardings
    assert most < total + 1.2 * largest
