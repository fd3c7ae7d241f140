"""A training step on several devices at once: microbatches dealt out, gradients summed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.parallel import Pmapped
from antiimit_jax.training.batches import TrainBatch
from antiimit_jax.training.config import TrainConfig
from antiimit_jax.training.step import make_step

Tree = Any


def n_step_devices(accumulate: int, weights: str, available: int) -> int:
    """How many devices a step of `accumulate` microbatches runs on.

    All, where they share the weights; else as many as can have equally many microbatches.
    """
    if weights == "sharded":
        return available
    return max(n for n in range(1, available + 1) if accumulate % n == 0)


def deal(batch: TrainBatch, n: int) -> TrainBatch:
    """A step's batch for n devices: microbatches [A, ...] become [n, ceil(A / n), ...].

    The rest is copied to each. Places that are left over repeat a microbatch none of whose words
    count, since all devices must run the same program.
    """
    A = len(batch.target)
    places = np.arange(n * -(-A // n))
    idle = places >= A
    packed, target = jax.tree.map(lambda leaf: leaf[places % A], (batch.packed, batch.target))
    target[idle] = 0.0
    packed.word_item[idle] = -1
    dealt = jax.tree.map(lambda leaf: leaf.reshape(n, -1, *leaf.shape[1:]), (packed, target))
    n_items, anchor = jax.tree.map(
        lambda leaf: np.broadcast_to(leaf, (n, *np.shape(leaf))), (batch.n_items, batch.anchor)
    )
    return TrainBatch(*dealt, n_items, anchor)


def pmap_step(
    decoder: Decoder,
    stops: np.ndarray,
    cfg: TrainConfig,
    optimizer: optax.GradientTransformation,
    devices: Sequence[jax.Device],
) -> Pmapped:
    """`make_step` on all `devices`, for a placed state, placed weights and a dealt batch.

    The state is donated. All devices end with the same state and metrics, those of a step on one.
    """
    step = make_step(decoder, jnp.asarray(stops), cfg, optimizer, len(devices))
    return Pmapped(step, devices, donate=(0,))


def of_one_device(tree: Tree) -> Tree:
    """Host arrays [...] of what all devices hold alike, [devices, ...]."""
    return jax.tree.map(lambda leaf: np.array(leaf.addressable_shards[0].data)[0, ...], tree)
