"""A plan says how many devices work together, why, and what sizes they do not divide."""

from __future__ import annotations

import dataclasses
import math

import jax
import pytest

from antiimit_jax.models.sharding import bytes_of_one, partition
from antiimit_jax.models.weights import abstract_params
from antiimit_jax.parallel import AUTO, make_mesh, shapes_on
from antiimit_jax.planning.advice import PROGRAMS, Verdict, Way
from antiimit_jax.planning.hardware import GIB, find_hardware
from antiimit_jax.planning.memory import Phase
from antiimit_jax.planning.model import find_planned
from antiimit_jax.planning.report import Plan, as_dict


def notes(part: str, way: Way, mesh: str = AUTO, **changes: int) -> str:
    """Of a plan whose only phase has such a part."""
    model = find_planned("qwen2-7b")
    model = dataclasses.replace(model, cfg=dataclasses.replace(model.cfg, **changes))
    phase = Phase(name="words", parts={part: GIB})
    verdicts = [
        Verdict(program=name, phases=[phase], fits=True, saved=(), rescued=True, least=phase)
        for name in PROGRAMS
    ]
    machine = find_hardware("v3-8")
    how = dict(machine=machine, verdicts=verdicts, way=way, seconds=None)
    plan = Plan(model=model, mesh=mesh, **how)
    return "; ".join(as_dict(plan)["notes"])


def test_copies_run_under_pmap_where_they_fit_and_a_mesh_takes_what_does_not():
    study = Way(programs=("study",))
    copied = notes("weights (bfloat16)", study)
    assert (
        "8 of 8 devices hold a copy each, since it fills at most a sixth of each (jax.pmap"
        in copied
    )
    shared = dataclasses.replace(study, changes=(("mesh", "data:1,model:8"),))
    rescued, chosen = notes("weights (bfloat16)", shared), "weights (bfloat16, shared by 4)"
    assert "8 of 8 devices split the weights" in rescued and "copies would fill" in rescued
    assert "4 of 8 devices split the weights" in notes(chosen, study)
    asked = notes(chosen, study, "data:2,model:4")
    assert "jax.jit on a mesh), as --mesh=data:2,model:4 says" in asked
    some = notes("weights (bfloat16)", study, "data:2,model:1")
    assert "2 of 8 devices hold a copy each, as --mesh=data:2,model:1 says" in some
    assert "8 devices" not in notes("weights (bfloat16)", Way(programs=()))


@pytest.mark.parametrize("changes", [{}, {"vocab_size": 152_065, "hidden_size": 3585}])
def test_what_the_devices_do_not_divide_is_counted_whole_and_named(changes):
    cfg = dataclasses.replace(find_planned("qwen2-7b").cfg, **changes)
    params, mesh = abstract_params(cfg, "bfloat16"), make_mesh(jax.local_devices(), 8)
    placed = jax.tree.leaves(shapes_on(mesh, params, partition(cfg, mesh)))
    size = lambda leaf: leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
    assert bytes_of_one(cfg, params, 8) == sum(map(size, placed))
    said = notes("weights (bfloat16)", Way(programs=("study",)), **changes)
    assert ("8 does not divide all sizes" in said) == bool(changes)
