"""Data-parallel evaluation over the local devices with `jax.pmap`.

Parameters are placed once on every device; batches are dealt out a device each, and the last round
is filled with empty batches whose results are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = Any
_AXIS = "data"


def place(tree: Tree, devices: Sequence[jax.Device] | None = None) -> Tree:
    """Copies a tree of arrays to every device: leaves [...] become [devices, ...] for `pmap`."""
    devices = list(devices or jax.local_devices())
    sharding = NamedSharding(Mesh(np.array(devices), (_AXIS,)), PartitionSpec(_AXIS))

    def put(leaf: Any) -> jax.Array:
        shards = [jax.device_put(leaf[None], device) for device in devices]
        shape = (len(devices), *leaf.shape)
        return jax.make_array_from_single_device_arrays(shape, sharding, shards)

    return jax.tree.map(put, tree)


class DataParallel:
    """`fn(placed, batch)` on every local device at once; compiled once for each batch shape."""

    def __init__(self, fn: Callable, devices: Sequence[jax.Device] | None = None) -> None:
        self.devices = list(devices or jax.local_devices())
        self._fn = jax.pmap(fn, axis_name=_AXIS, devices=self.devices)

    def __call__(self, placed: Tree, batches: Sequence[Tree], empty: Tree) -> Iterator[Tree]:
        """Yields one result of host arrays for each batch, in order.

        Args:
          placed: a tree that `place` put on the same devices.
          batches: host arrays of equal shapes.
          empty: a batch of padding only, which fills the last round.
        """
        pending = None
        for group in _rounds(batches, len(self.devices)):
            filled = [*group, *[empty] * (len(self.devices) - len(group))]
            result = self._fn(placed, jax.tree.map(lambda *leaves: np.stack(leaves), *filled))
            if pending is not None:
                yield from _unstack(*pending)  # while the devices work on the next round
            pending = result, len(group)
        if pending is not None:
            yield from _unstack(*pending)


def _rounds(batches: Iterable[Tree], size: int) -> Iterator[list[Tree]]:
    batches = list(batches)
    for start in range(0, len(batches), size):
        yield batches[start : start + size]


def _unstack(result: Tree, count: int) -> Iterator[Tree]:
    host = jax.device_get(result)
    for number in range(count):
        yield jax.tree.map(lambda leaf, n=number: leaf[n], host)
