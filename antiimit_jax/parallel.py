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
        self._compiled: dict[Any, Callable] = {}

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
            stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
            result = self.compiled(placed, stacked)(placed, stacked)
            if pending is not None:
                yield from _unstack(*pending)  # while the devices work on the next round
            pending = result, len(group)
        if pending is not None:
            yield from _unstack(*pending)

    def compiled(self, placed: Tree, stacked: Tree) -> Callable:
        """The program for these shapes; leaves of `stacked` are [devices, ...]."""
        leaves, structure = jax.tree.flatten((placed, stacked))
        key = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if key not in self._compiled:
            lowered = self._fn.lower(placed, stacked)
            self._compiled[key] = lowered.compile(compiler_options=compiler_options())
        return self._compiled[key]


def compiler_options() -> dict[str, str] | None:
    """How programs that hold a model are compiled.

    XLA's CPU backend would move the widening of narrow weights out of the scan over layers, and so
    hold all of them in float32 at once: twice the weights again.
    """
    if jax.default_backend() == "cpu":
        return {"xla_disable_hlo_passes": "while-loop-invariant-code-motion"}
    return None


def _rounds(batches: Iterable[Tree], size: int) -> Iterator[list[Tree]]:
    batches = list(batches)
    for start in range(0, len(batches), size):
        yield batches[start : start + size]


def _unstack(result: Tree, count: int) -> Iterator[Tree]:
    host = jax.device_get(result)
    for number in range(count):
        yield jax.tree.map(lambda leaf, n=number: leaf[n], host)
