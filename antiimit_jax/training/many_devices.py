"""A training step on several devices at once: microbatches dealt out, gradients summed."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from antiimit_jax.models.decoder import Decoder
from antiimit_jax.parallel import AXIS, Devices, Pmapped
from antiimit_jax.training.step import Optimizer, make_step
from antiimit_jax.training.terms import Term

Tree = Any


def n_step_devices(accumulate: int, weights: str, available: int) -> int:
    """How many devices a step of `accumulate` microbatches runs on.

    All, where they share the weights; else as many as can have equally many microbatches.
    """
    if weights == "sharded":
        return available
    return max(n for n in range(1, available + 1) if accumulate % n == 0)


def deal(batch: dict[str, Tree], n: int) -> tuple[dict[str, Tree], dict[str, np.ndarray]]:
    """A step's batch for n devices: microbatches [A, ...] become [n, ceil(A / n), ...].

    All devices must run the same program, so places that are left over repeat a microbatch.

    Returns:
      The batch, and float32 [n, ceil(A / n)] for each term's name: 0 where one is repeated.
    """
    dealt, counts = {}, {}
    for name, microbatches in batch.items():
        A = len(jax.tree.leaves(microbatches)[0])
        places = np.arange(n * -(-A // n)).reshape(n, -1)
        dealt[name] = jax.tree.map(lambda leaf: leaf[places % A], microbatches)
        counts[name] = (places < A).astype(np.float32)
    return dealt, counts


def pmap_step(
    decoder: Decoder, terms: Sequence[Term], optimizer: Optimizer, devices: Devices
) -> Pmapped:
    """`make_step` on all `devices`: placed state, placed weights, dealt batch and counts.

    The state is donated. All devices end with the same state and metrics, those of a step on one.
    """
    return Pmapped(make_step(decoder, terms, optimizer, AXIS), devices, donate=(0,))


def of_one_device(tree: Tree) -> Tree:
    """Host arrays [...] of what all devices hold alike, [devices, ...]."""
    first = lambda leaf: np.array(jax.device_get(leaf.addressable_data(0)))[0, ...]
    return jax.tree.map(first, tree)
