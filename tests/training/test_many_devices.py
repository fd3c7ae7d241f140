"""A step on eight devices is the step on one, whoever holds the weights and whoever has no work."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.models.lora import train_mask
from antiimit_jax.models.sharding import split_axes
from antiimit_jax.parallel import place, scatter
from antiimit_jax.training.loop import jit_step
from antiimit_jax.training.many_devices import deal, n_step_devices, of_one_device, pmap_step
from antiimit_jax.training.step import init_state, make_optimizer
from tests.training.small_model import TRAIN

CFG = dataclasses.replace(TRAIN, groups=1, rows=1, accumulate=3, warmup_steps=0, learning_rate=1e-2)
STEPS = 3


@pytest.mark.parametrize(
    "accumulate, weights, available, expected",
    [
        (1, "replicated", 8, 1),
        (6, "replicated", 8, 6),
        (12, "replicated", 8, 6),
        (7, "replicated", 4, 1),
        (16, "replicated", 8, 8),
        (1, "sharded", 8, 8),
        (1, "sharded", 1, 1),
    ],
)
def test_as_many_devices_take_part_as_have_equal_shares(accumulate, weights, available, expected):
    assert n_step_devices(accumulate, weights, available) == expected


def steps(small, weights: str, remat: bool = False):
    """The state and the metrics of three steps, dealt out as the loop does it."""
    cfg = dataclasses.replace(CFG, remat=remat)
    devices = jax.local_devices()
    n = n_step_devices(cfg.accumulate, weights, len(devices)) if weights != "alone" else 1
    shards = n if weights == "sharded" else 1
    decoder = Decoder(small.cfg, small.lora.scale, remat=remat, shards=shards)
    adapter = small.moved_adapter()
    optimizer = make_optimizer(cfg, cfg.steps, train_mask(adapter, small.cfg, small.lora))
    state, metrics = init_state(adapter, optimizer), []
    batches = [small.batch(cfg, step) for step in range(STEPS)]
    if weights == "alone":
        step = jit_step(decoder, small.terms(cfg), optimizer)
        for batch in batches:
            state, told = step(state, small.params, batch)
            metrics.append(jax.device_get(told))
        return state, metrics
    devices = devices[:n]
    step = pmap_step(decoder, small.terms(cfg), optimizer, devices)
    params = place(small.params, devices, split_axes(small.cfg, shards))
    state = place(state, devices)
    for batch in batches:
        state, told = step(state, params, *scatter(deal(batch, n), devices))
        metrics.append(of_one_device(told))
    for leaf in jax.tree.leaves(state):  # every device has moved alike
        assert (np.asarray(leaf) == np.asarray(leaf)[:1]).all()
    return of_one_device(state), metrics


@pytest.fixture(scope="module")
def alone(small):
    return steps(small, "alone")


@pytest.mark.parametrize("weights, remat", [("replicated", False), ("sharded", True)])
def test_three_steps_on_many_devices_are_those_on_one(small, alone, weights, remat):
    """Of three microbatches: on three devices, or on eight of which five have nothing to do."""
    expected, expected_metrics = alone
    state, metrics = steps(small, weights, remat)
    for a, b in zip(jax.tree.leaves(expected.adapter), jax.tree.leaves(state.adapter), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)
    for a, b in zip(expected_metrics, metrics, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_allclose(b[key], a[key], rtol=1e-4, atol=1e-6, err_msg=key)
