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

# Seven matrices a layer, five of them of one size.
SIZES = dict(vocab_size=512, hidden_size=256, intermediate_size=256, num_hidden_layers=16)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return find_model(str(write_tiny_model(tmp_path_factory.mktemp("wide"), **SIZES)))


def test_beside_the_shards_the_host_holds_one_parameter_and_its_parts(source):
    """Numpy's arrays are counted: what is read, scratch of its threads, what devices are handed."""
    cfg, expected = load_params(source)
    mesh = make_mesh(jax.local_devices(), 8)
    place = placer(cfg, mesh)
    sizes = [leaf.nbytes for leaf in jax.tree.leaves(expected)]
    load_params(source, place=place)  # what is made once
    tracemalloc.start()
    try:
        _, found = load_params(source, place=place)
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most - held < 2.5 * max(sizes) < 0.5 * sum(sizes)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jax.tree.map(lambda leaf: leaf.sharding, found) == on_mesh(mesh, partition(cfg, mesh))
