"""A plan says how many devices work together, why, and what sizes they do not divide."""

from __future__ import annotations

import dataclasses
import math

import jax
import pytest

from antiimit_jax.models.known import find_known
from antiimit_jax.models.sharding import bytes_of_one, partition
from antiimit_jax.models.weights import abstract_params
from antiimit_jax.parallel import AUTO, make_mesh, shapes_on
from antiimit_jax.planning import advice
from antiimit_jax.planning.hardware import find_hardware
from antiimit_jax.run_config import RunConfig


def notes(planned: str, asked: str = AUTO, fits: bool = True, **changes: int) -> str:
    """Of a plan for eight devices with such a mesh; `changes` are of the model's shape."""
    model = find_known("qwen2-7b")
    model = dataclasses.replace(model, cfg=dataclasses.replace(model.cfg, **changes))
    run = dataclasses.replace(RunConfig(), mesh=planned)
    return "; ".join(advice.notes(model, find_hardware("v3-8"), run, asked, fits))


def test_copies_run_under_pmap_where_they_fit_and_a_mesh_takes_what_does_not():
    copied, shared = notes("data:8,model:1"), notes("data:2,model:4")
    assert "8 of 8 devices hold a copy each, since it fills at most a sixth of each" in copied
    assert "jax.pmap in evaluation" in copied and "as --mesh" not in copied
    assert "4 of 8 devices split the weights" in shared and "copies would fill" in shared
    asked = notes("data:2,model:4", "data:2,model:4")
    assert "(jax.jit on a mesh), as --mesh=data:2,model:4 says" in asked
    some = notes("data:2,model:1", "data:2,model:1")
    assert "2 of 8 devices hold a copy each, as --mesh=data:2,model:1 says" in some
    nothing = notes("data:8,model:1", fits=False)
    assert "quantize=int8" in nothing and "int8" not in copied and "8 devices" not in nothing


@pytest.mark.parametrize("changes", [{}, {"vocab_size": 152_065, "hidden_size": 3585}])
def test_what_the_devices_do_not_divide_is_counted_whole_and_named(changes):
    cfg = dataclasses.replace(find_known("qwen2-7b").cfg, **changes)
    params, mesh = abstract_params(cfg, "bfloat16"), make_mesh(jax.local_devices(), 8)
    placed = jax.tree.leaves(shapes_on(mesh, params, partition(cfg, mesh)))
    size = lambda leaf: leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
    assert bytes_of_one(cfg, params, 8) == sum(map(size, placed))
    said = notes("data:8,model:1", **changes)
    assert ("8 does not divide all sizes" in said) == bool(changes)
