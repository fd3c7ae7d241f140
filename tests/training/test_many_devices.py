"""A step on eight devices is the step on one, on every mesh of them."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from antiimit_jax.models.lora import train_mask
from antiimit_jax.models.sharding import partition
from antiimit_jax.parallel import DATA, DEALT, MODEL, WHOLE, make_mesh, on_mesh
from antiimit_jax.training.loop import jit_step
from antiimit_jax.training.step import dealt, init_state, make_optimizer, step_mesh
from tests.training.small_model import TRAIN

CFG = dataclasses.replace(TRAIN, groups=1, rows=1, accumulate=4, learning_rate=1e-3)
STEPS = 20


@pytest.mark.parametrize(
    "accumulate, shards, devices, rows",
    [(1, 1, 8, 1), (6, 1, 8, 6), (12, 1, 8, 6), (7, 1, 4, 1), (16, 1, 8, 8)]
    + [(1, 8, 8, 1), (1, 1, 1, 1), (4, 2, 8, 4), (3, 2, 8, 3), (2, 4, 8, 2)],
)
def test_as_many_rows_take_part_as_have_equal_shares(accumulate, shards, devices, rows):
    mesh = step_mesh(accumulate, make_mesh(jax.local_devices()[:devices], shards))
    assert dict(mesh.shape) == {DATA: rows, MODEL: shards}


def steps(small, shards: int, devices: int):
    """The adapter and the metrics of all steps, on a mesh of so many devices."""
    mesh = step_mesh(CFG.accumulate, make_mesh(jax.local_devices()[:devices], shards))
    adapter = small.moved_adapter()
    optimizer = make_optimizer(CFG, STEPS, train_mask(adapter, small.cfg, small.lora))
    state = jax.device_put(init_state(adapter, optimizer), on_mesh(mesh))
    step = jit_step(small.decoder, small.terms(CFG), optimizer, mesh)
    params = jax.device_put(small.params, on_mesh(mesh, partition(small.cfg, mesh)))
    metrics = []
    for number in range(STEPS):
        batch = small.batch(CFG, number)
        specs = {name: dealt(part, mesh) for name, part in batch.items()}
        assert specs == {"control": DEALT, "anchor": DEALT if mesh.shape[DATA] == 1 else WHOLE}
        state, told = step(state, params, jax.device_put(batch, on_mesh(mesh, specs)))
        metrics.append(told)
    for leaf in jax.tree.leaves(state):  # all of it lies on every device, and is alike
        held = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(held) == mesh.size
        for one in held:
            np.testing.assert_array_equal(one, held[0])
    return jax.device_get(state.adapter), jax.device_get(metrics)


@pytest.fixture(scope="module")
def alone(small):
    return steps(small, 1, 1)


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_twenty_steps_on_every_mesh_are_those_on_one_device(small, alone, shards):
    expected, expected_metrics = alone
    adapter, metrics = steps(small, shards, 8)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(adapter), strict=True):
        assert np.linalg.norm(b - a) <= 1e-4 * np.linalg.norm(a)
    for a, b in zip(expected_metrics, metrics, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_allclose(b[key], a[key], rtol=1e-4, atol=1e-6, err_msg=key)
