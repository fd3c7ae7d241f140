"""A step on quantised weights: the gradient of what they stand for, for adapters alone."""

from __future__ import annotations

import copy
import dataclasses

import jax
import numpy as np
import pytest

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.lora import train_mask
from antiimit_jax.models.quantized import is_kernel, quantize_layers
from antiimit_jax.models.sharding import partition
from antiimit_jax.parallel import make_mesh, on_mesh
from antiimit_jax.training.loop import jit_step, training_params
from antiimit_jax.training.step import dealt, init_state, make_gradient, make_optimizer, make_step
from tests.random_decoder import random_params, tiny_config
from tests.training.small_model import TRAIN, VOCABULARY, Small

CFG = dataclasses.replace(TRAIN, groups=1, learning_rate=1e-2, anchor_weight=0.0, anchor_tokens=0)
FORMATS = ("int8", "nf4")
FAMILIES = {
    "llama": {},
    "gemma2": dict(
        family="gemma2", post_norm=True, norm_offset=True, attention_softcap=50.0, qkv_bias=True
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def whole(request, small) -> Small:
    """A model whose matrices both formats can hold, not quantised."""
    sizes = dict(hidden_size=32, mlp_size=64, n_heads=4)
    cfg = tiny_config(VOCABULARY, **sizes | FAMILIES[request.param])
    decoder = Decoder(cfg, small.lora.scale)
    return dataclasses.replace(small, cfg=cfg, decoder=decoder, params=random_params(cfg, 8))


def held_in(whole: Small, how: str):
    params = copy.deepcopy(whole.params)
    quantize_layers(params, how)
    return params


@pytest.mark.parametrize("how", FORMATS)
def test_the_gradient_is_that_of_the_matrices_it_stands_for(whole, how):
    params, adapter = held_in(whole, how), whole.moved_adapter()
    widen = lambda node: np.asarray(jax.vmap(type(node).widened)(node)) if is_kernel(node) else node
    wide = jax.tree.map(widen, params, is_leaf=is_kernel)
    gradient = jax.jit(make_gradient(whole.decoder, whole.terms(CFG)))
    (told, found), (true_told, true) = (
        gradient(adapter, tree, whole.batch(CFG)) for tree in (params, wide)
    )
    assert jax.tree.structure(found) == jax.tree.structure(adapter)
    np.testing.assert_allclose(told["loss"], true_told["loss"], rtol=1e-5)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(true), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max(), rtol=1e-3)


def test_rows_that_share_the_weights_find_the_step_of_one_device(whole):
    how = "int8" if whole.cfg.post_norm else "nf4"  # one a family
    cfg = dataclasses.replace(CFG, rows=1, accumulate=2)
    params, adapter = held_in(whole, how), jax.device_get(whole.moved_adapter())
    batch = whole.batch(cfg)
    optimizer = make_optimizer(cfg, cfg.steps, train_mask(adapter, whole.cfg, whole.lora))

    def moved(rows: int, shards: int):
        mesh = make_mesh(jax.local_devices()[: rows * shards], shards)
        step = jit_step(whole.decoder, whole.terms(cfg), optimizer, mesh)
        state = jax.device_put(init_state(adapter, optimizer), on_mesh(mesh))
        held = jax.device_put(params, on_mesh(mesh, partition(whole.cfg, mesh, how)))
        specs = {name: dealt(part, mesh) for name, part in batch.items()}
        state, _ = step(state, held, jax.device_put(batch, on_mesh(mesh, specs)))
        return jax.device_get(state.adapter)

    found = jax.tree.leaves(moved(1, 1)), jax.tree.leaves(moved(2, 2))
    for one, two in zip(*found, strict=True):
        assert np.linalg.norm(two - one) <= 1e-4 * np.linalg.norm(one)


def test_a_step_moves_every_adapter_and_nothing_that_is_quantised(whole):
    adapter = whole.moved_adapter()
    optimizer = make_optimizer(CFG, CFG.steps, train_mask(adapter, whole.cfg, whole.lora))
    step = jax.jit(make_step(whole.decoder, whole.terms(CFG), optimizer))
    params = training_params(held_in(whole, "nf4"), "bfloat16")
    kernels = jax.tree.leaves(params["layers"], is_leaf=is_kernel)
    assert {str(leaf.dtype) for leaf in filter(is_kernel, kernels)} == {"bfloat16"}
    state, losses, batch = init_state(adapter, optimizer), [], whole.batch(CFG)
    before = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params)]
    for _ in range(6):
        state, metrics = step(state, params, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.9 * losses[0] and int(state.skipped) == 0
    assert [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params)] == before
    moved = zip(jax.tree.leaves(state.adapter), jax.tree.leaves(adapter), strict=True)
    assert all((np.asarray(new) != np.asarray(old)).any() for new, old in moved)
