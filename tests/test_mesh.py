"""What `--mesh` may name, what it becomes on so many devices, and what "auto" chooses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from antiimit_jax.errors import UserError
from antiimit_jax.models.sharding import bytes_of_one, fitting_shards, mesh_of
from antiimit_jax.models.weights import abstract_params
from antiimit_jax.parallel import AUTO, DATA, MODEL, is_mesh, mesh_name, mesh_sizes
from antiimit_jax.run_config import from_dict
from tests.random_decoder import tiny_config

CFG = tiny_config(64, hidden_size=64, n_heads=4, n_kv_heads=2, mlp_size=96)


def test_a_name_is_the_mesh_that_it_names():
    assert mesh_sizes("data:2,model:4", 8) == (2, 4)
    assert mesh_sizes("data:1,model:2", 8) == (1, 2)  # some of the devices
    assert mesh_sizes(AUTO, 8) == (8, 1)
    assert mesh_sizes(mesh_name(4, 2), 8) == (4, 2)
    params = abstract_params(CFG, jnp.float32)
    mesh = mesh_of("data:2,model:2", CFG, params, jax.local_devices())
    assert mesh.shape == {DATA: 2, MODEL: 2}
    assert list(mesh.devices.flat) == jax.local_devices()[:4]


@pytest.mark.parametrize(
    "name, nearest",
    [
        ("data:3,model:2", "data:4,model:2"),
        ("data:2,model:3", "data:2,model:4"),
        ("data:8,model:2", "data:8,model:1"),
        ("data:1,model:900", "data:1,model:8"),
    ],
)
def test_a_mesh_that_does_not_divide_the_devices_is_refused_with_the_nearest(name, nearest):
    with pytest.raises(UserError, match=f"--mesh={name}: .*the 8 .*the nearest that do: {nearest}"):
        mesh_sizes(name, 8)


@pytest.mark.parametrize(
    "name", ["", "rows:2", "data:2,tensor:4", "data:0,model:8", "data:2", "model:4,data:2"]
)
def test_what_is_no_mesh_is_refused_before_a_model_is_read(name):
    assert not is_mesh(name)
    with pytest.raises(UserError, match="mesh = .*auto, or rows .*as data:2,model:4"):
        from_dict({"mesh": name})
    with pytest.raises(UserError, match="--mesh=.*: auto, or rows .*as data:2,model:4"):
        mesh_sizes(name, 8)


def test_auto_splits_the_weights_over_as_few_devices_as_hold_them_in_a_sixth_of_their_memory():
    params = abstract_params(CFG, jnp.float32)
    held = {n: bytes_of_one(CFG, params, n) for n in (1, 2, 4, 8)}
    assert held[1] > held[2] > held[4] > held[8] > held[1] // 8
    for n, own in held.items():
        assert fitting_shards(CFG, params, 8, 6 * own) == n
        assert fitting_shards(CFG, params, 8, 6 * own - 1) == min(2 * n, 8)
